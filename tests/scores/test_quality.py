import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from carto_core.scores.labels import Sides
from carto_core.scores.quality import UNKNOWN, Estimate, Quality, detector_quality, qualities
from tests.test_selection import make_table

NAN = math.nan


def judged(values, positive, negative, unit=None, memorized_when="high", seed=0):
    """Quality of some values, each with a vote of its own unless `unit` says otherwise."""
    unit = np.arange(len(values)) if unit is None else unit
    apart = Sides(np.array(positive, bool), np.array(negative, bool), np.int32(unit))
    return detector_quality(np.float32(values), memorized_when, apart, seed=seed)


def quality(positives, negatives, memorized_when="high", seed=0):
    """Quality with each positive and each negative in a group of its own."""
    is_positive = [True] * len(positives) + [False] * len(negatives)
    negative = [not p for p in is_positive]
    return judged([*positives, *negatives], is_positive, negative, memorized_when=memorized_when, seed=seed)


def slow_auc(positives, negatives):
    wins = sum((p > n) + 0.5 * (p == n) for p in positives for n in negatives)
    return wins / (len(positives) * len(negatives))


@pytest.mark.parametrize("seed", range(5))
def test_auc_is_the_share_of_pairs_won_with_ties_half(seed):
    rng = np.random.default_rng(seed)
    positives, negatives = rng.integers(0, 6, 9).tolist(), rng.integers(0, 5, 30).tolist()

    assert quality(positives, negatives).auc.value == pytest.approx(slow_auc(positives, negatives))


def test_a_low_score_is_turned_so_that_finding_them_is_one():
    assert quality([0.1, 0.2], [1, 2, 3], "low").auc.value == 1.0
    assert quality([0.1, 0.2], [1, 2, 3], "high").auc.value == 0.0


def test_the_interval_is_that_of_a_plain_bootstrap():
    rng = np.random.default_rng(4)
    positives, negatives = rng.normal(0.7, 1, 25).tolist(), rng.normal(0, 1, 60).tolist()
    resamples = [slow_auc(rng.choice(positives, 25), rng.choice(negatives, 60)) for _ in range(1500)]

    got = quality(positives, negatives).auc

    assert (got.low, got.high) == pytest.approx(tuple(np.quantile(resamples, [0.025, 0.975])), abs=0.02)


def test_the_interval_is_the_same_for_the_same_seed():
    rng = np.random.default_rng(4)
    sides = rng.normal(0.7, 1, 25).tolist(), rng.normal(0, 1, 60).tolist()

    assert quality(*sides, seed=1) == quality(*sides, seed=1)
    assert quality(*sides, seed=1) != quality(*sides, seed=2)


def test_the_average_precision_is_scikit_learns():
    rng = np.random.default_rng(5)
    positives, negatives = rng.integers(2, 9, 12).tolist(), rng.integers(0, 7, 40).tolist()
    truth = [1] * 12 + [0] * 40

    got = quality(positives, negatives).average_precision

    assert got.value == pytest.approx(average_precision_score(truth, [*positives, *negatives]))
    assert got.low < got.value < got.high


def test_recall_counts_the_positives_among_the_top_votes_and_leaves_out_a_tie_at_the_edge():
    positives, negatives = [10, 9, 5, 1], [9.5, 5, *range(-93, 1)]  # 100 votes: the top is 10, 9.5, 9, then 5 and 5

    got = quality(positives, negatives).recall

    assert got[0.01].value == 0.25
    assert got[0.05].value == 0.75
    assert quality(positives, [9.5, 5, 5, *range(-92, 1)]).recall[0.05].value == 0.5, "three tied at 5 pass the budget"


def test_a_canary_has_one_vote_however_often_it_was_inserted():
    got = judged([5, 5, 5, 5, 0, 1, 2], [1, 1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1, 1], unit=[0, 0, 0, 0, 1, 2, 3])

    assert (got.num_positives, got.num_negatives, got.auc.value) == (2, 2, 0.5)


def test_what_is_on_neither_side_and_unknown_values_are_left_out():
    got = judged([9, 9, 9, 1, NAN, 3], [1, 0, 0, 0, 1, 0], [0, 0, 0, 0, 1, 1])

    assert (got.num_positives, got.num_negatives) == (1, 1)


def test_few_canaries_are_said_to_be_few():
    assert "too few" in quality([1] * 19, [0] * 30).note
    assert "too few" not in quality([1] * 20, [0] * 30).note


@pytest.mark.parametrize(("shift", "word"), [(2.0, "above chance"), (0.0, "at chance"), (-2.0, "below chance")])
def test_the_note_reads_the_interval(shift, word):
    rng = np.random.default_rng(0)

    got = quality((rng.normal(0, 1, 30) + shift).tolist(), rng.normal(0, 1, 80).tolist())

    assert got.note == word


def test_without_positives_there_is_no_number():
    got = quality([], [1, 2])

    assert not got.is_known
    assert got.to_dict()["auc"] is None
    assert (got.num_positives, got.num_negatives) == (0, 2)


def test_tied_positives_share_a_threshold_in_the_average_precision():
    # at 3 or more 2 of 2 are positive, at 1 or more 3 of 4: 1 x 2/3 + 3/4 x 1/3
    assert quality([3, 3, 1], [2]).average_precision.value == pytest.approx(11 / 12)


def test_a_vote_is_the_mean_of_its_rows():
    assert judged([1, 5, 4], [1, 1, 0], [0, 0, 1], unit=[0, 0, 1]).auc.value == 0


def test_what_is_known_of_a_score_is_written_as_it_is():
    known = Quality(Estimate(0.9, 0.8, 1.0), UNKNOWN, {0.05: Estimate(0.5, 0.25, 0.75)}, 3, 4, "a note")

    assert known.to_dict() == {
        "auc": {"value": 0.9, "low": 0.8, "high": 1.0},
        "average_precision": None,
        "recall": {"0.05": {"value": 0.5, "low": 0.25, "high": 0.75}},
        "num_positives": 3,
        "num_negatives": 4,
        "note": "a note",
    }
    assert quality([], [1, 2]).to_dict() == {
        "auc": None,
        "average_precision": None,
        "recall": {"0.01": None, "0.05": None, "0.1": None},
        "num_positives": 0,
        "num_negatives": 2,
        "note": "cannot be said: nothing to compare",
    }


def test_every_score_of_a_table_is_judged_by_its_own_direction():
    canaries = pd.DataFrame(
        {"canary_id": [0], "kind": ["words"], "role": ["report"], "inserted": [True], "repeats": [2]}
    )
    table = make_table(10, unheard_of=range(10))
    table.canary_id[:2] = 0  # ramps: the canary is lowest in every score

    found = qualities(table, canaries, label="inserted", role="report")

    assert {name: quality.auc.value for name, quality in found.items()} == {
        "difficulty": 0.0,
        "memorization": 0.0,
        "final_loss": 1.0,
    }
    assert qualities(table, canaries, label="inserted", role="report", part="once")["difficulty"].num_positives == 0
