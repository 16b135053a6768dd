import math

import numpy as np
import pandas as pd
import pytest

from carto_core.scores.quality import canary_quality, detector_quality
from carto_core.types import SampleTable

NAN = math.nan


def quality(positives, negatives, memorized_when="high", seed=0):
    """Quality with each positive and each negative in a group of its own."""
    total = len(positives) + len(negatives)
    return detector_quality(
        np.float32([*positives, *negatives]),
        memorized_when,
        canary_id=np.array([*range(len(positives)), *[NAN] * len(negatives)]),
        positive_canary_ids=range(len(positives)),
        group_id=np.arange(total, dtype=np.int32),
        seed=seed,
    )


def slow_auc(positives, negatives):
    wins = sum((p > n) + 0.5 * (p == n) for p in positives for n in negatives)
    return wins / (len(positives) * len(negatives))


@pytest.mark.parametrize("seed", range(5))
def test_auc_is_the_share_of_pairs_won_with_ties_half(seed):
    rng = np.random.default_rng(seed)
    positives, negatives = rng.integers(0, 6, 9).tolist(), rng.integers(0, 5, 30).tolist()

    assert quality(positives, negatives).auc == pytest.approx(slow_auc(positives, negatives))


def test_a_low_score_is_turned_so_that_finding_them_is_one():
    assert quality([0.1, 0.2], [1, 2, 3], "low").auc == 1.0
    assert quality([0.1, 0.2], [1, 2, 3], "high").auc == 0.0


def test_the_interval_is_that_of_a_plain_bootstrap():
    rng = np.random.default_rng(4)
    positives, negatives = rng.normal(0.7, 1, 25).tolist(), rng.normal(0, 1, 60).tolist()
    resamples = [slow_auc(rng.choice(positives, 25), rng.choice(negatives, 60)) for _ in range(1500)]

    got = quality(positives, negatives)

    assert (got.low, got.high) == pytest.approx(tuple(np.quantile(resamples, [0.025, 0.975])), abs=0.02)


def test_the_interval_is_the_same_for_the_same_seed():
    rng = np.random.default_rng(4)
    sides = rng.normal(0.7, 1, 25).tolist(), rng.normal(0, 1, 60).tolist()

    assert quality(*sides, seed=1) == quality(*sides, seed=1)
    assert quality(*sides, seed=1) != quality(*sides, seed=2)


def test_a_canary_has_one_vote_however_often_it_was_inserted():
    values = np.float32([5, 5, 5, 5, 0, 1, 2])
    got = detector_quality(
        values,
        "high",
        canary_id=np.array([0, 0, 0, 0, 1, NAN, NAN]),
        positive_canary_ids=[0, 1],
        group_id=np.int32([0, 0, 0, 0, 1, 2, 3]),
        seed=0,
    )

    assert (got.num_positives, got.num_negatives, got.auc) == (2, 2, 0.5)


def test_other_canaries_duplicates_and_unknown_values_are_left_out():
    values = np.float32([9, 9, 9, 1, 1, NAN, 3])
    got = detector_quality(
        values,
        "high",
        canary_id=np.array([0, 1, 2, NAN, NAN, NAN, NAN]),
        positive_canary_ids=[0],
        group_id=np.int32([0, 1, 2, 3, 3, 4, 5]),
        seed=0,
    )

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

    assert math.isnan(got.auc)
    assert (got.num_positives, got.num_negatives) == (0, 2)


def test_only_canaries_of_the_role_that_were_inserted_twice_or_more_count():
    canaries = pd.DataFrame(
        {
            "canary_id": [0, 1, 2, 3],
            "role": ["calibration", "calibration", "report", "calibration"],
            "inserted": [True, True, True, False],
            "repeats": [2, 1, 2, 0],
        }
    )
    canary_id = np.array([0, 0, 1, 2, 2, NAN, NAN])
    group_id = np.int32([0, 0, 1, 2, 2, 3, 4])
    values = np.float32([9, 9, 0, 0, 0, 1, 2])
    fields = {
        "run_id": "r",
        "corpus_sha256": "c",
        "seed": 0,
        "x": "difficulty",
        "y": "final_loss",
        "tau_x": 0,
        "tau_y": 0,
    }
    texts = np.array(["k"] * 7, object)
    table = SampleTable(
        **fields,
        key=texts,
        source=texts,
        num_tokens=group_id,
        group_id=group_id,
        canary_id=canary_id,
        scores={"difficulty": values, "final_loss": values},
    )

    calibration, report = (canary_quality(table, canaries, role) for role in ("calibration", "report"))

    assert {name: q.auc for name, q in calibration.items()} == {"difficulty": 1.0, "final_loss": 0.0}
    assert {name: q.auc for name, q in report.items()} == {"difficulty": 0.0, "final_loss": 1.0}
    assert calibration["difficulty"].num_positives == 1
