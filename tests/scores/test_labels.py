import math

import numpy as np
import pandas as pd
import pytest

from carto_core.scores.labels import LABELS, known_labels, sides, slice_names
from carto_core.types import ROLES, SampleTable

NAN = math.nan
# canary: 0 twice (calibration), 1 once (calibration), 2 twice in varied context (report), 3 a control
CANARIES = pd.DataFrame(
    {
        "canary_id": [0, 1, 2, 3],
        "kind": ["words", "words", "varied", "words"],
        "role": ["calibration", "calibration", "report", "calibration"],
        "inserted": [True, True, True, False],
        "repeats": [2, 1, 2, 0],
    }
)
CANARY_ID = np.array([0, 0, 1, 2, 2, NAN, NAN, NAN, NAN])
GROUP_ID = np.int32([0, 0, 1, 2, 3, 4, 4, 5, 6])  # rows 5 and 6 are copies of each other


def table(**truth):
    texts = np.array(["k"] * 9, object)
    return SampleTable(
        run_id="r",
        corpus_sha256="c",
        seed=0,
        key=texts,
        source=texts,
        group_id=GROUP_ID,
        num_tokens=GROUP_ID,
        canary_id=CANARY_ID,
        scores={},
        x="difficulty",
        y="final_loss",
        tau_x=0,
        tau_y=0,
        truth={name: np.float32(values) for name, values in truth.items()},
    )


def rows(mask):
    return np.flatnonzero(mask).tolist()


def test_inserted_means_twice_or_more_against_samples_without_a_copy():
    apart = sides(table(), CANARIES, label="inserted", role="calibration")

    assert rows(apart.positive) == [0, 1]
    assert rows(apart.negative) == [7, 8]


def test_once_only_canaries_are_a_part_of_their_own():
    assert rows(sides(table(), CANARIES, label="inserted", role="calibration", part="once").positive) == [2]
    assert rows(sides(table(), CANARIES, label="inserted", role="report", part="once").positive) == []


@pytest.mark.parametrize(("part", "expected"), [("kind varied", [3, 4]), ("kind words", []), ("repeats 2", [3, 4])])
def test_a_part_restricts_the_positives_alone(part, expected):
    apart = sides(table(), CANARIES, label="inserted", role="report", part=part)

    assert rows(apart.positive) == expected
    assert rows(apart.negative) == [7, 8]


def test_copies_of_a_canary_share_a_vote_also_where_their_texts_differ():
    unit = sides(table(), CANARIES, label="inserted", role="report").unit

    assert unit[3] == unit[4]
    assert unit[5] == unit[6]
    assert len(set(unit.tolist())) == 6


def test_extracted_samples_stand_against_those_that_are_not_each_in_one_role():
    truth = table(extracted=[1, 1, 0, 1, 1, 1, 1, 0, NAN])
    halves = {role: sides(truth, CANARIES, label="extracted", role=role) for role in ROLES}

    assert {0, 1} <= set(rows(halves["calibration"].positive))
    assert {3, 4} <= set(rows(halves["report"].positive))
    assert sum(int(half.positive[5]) for half in halves.values()) == 1, "a group has one role"
    assert all(half.positive[5] == half.positive[6] for half in halves.values())
    assert all(not half.positive[8] and not half.negative[8] for half in halves.values()), (
        "not asked is on neither side"
    )
    assert rows(halves["calibration"].negative[:5]) == [2]
    assert rows(halves["report"].negative[:5]) == []
    both = sides(truth, CANARIES, label="extracted", role="calibration", part="natural").positive
    assert not both[:5].any()


def test_exposed_canaries_stand_against_the_others_and_the_ordinary():
    apart = sides(table(exposed=[1, 1, 0, 1, 1, *[NAN] * 4]), CANARIES, label="exposed", role="calibration")

    assert rows(apart.positive) == [0, 1]
    assert rows(apart.negative) == [2, 7, 8]


def test_a_truth_that_was_not_asked_for_is_not_known():
    assert known_labels(table()) == ["inserted"]
    assert known_labels(table(extracted=[0] * 9, exposed=[0] * 9)) == list(LABELS)


def test_parts_are_named_after_what_was_inserted():
    assert slice_names(CANARIES, "extracted") == [
        "all",
        "once",
        "natural",
        "kind words",
        "kind varied",
        "repeats 1",
        "repeats 2",
    ]
    assert "natural" not in slice_names(CANARIES, "inserted")


def test_a_part_may_be_those_inserted_once_whatever_the_label_calls_enough():
    assert rows(sides(table(), CANARIES, label="inserted", role="calibration", part="repeats 1").positive) == [2]


def test_the_role_of_a_duplicate_group_is_drawn_from_the_runs_seed():
    truth = table(extracted=[0] * 5 + [1] * 4)
    drawn = np.random.default_rng([0, 8]).integers(2, size=7)

    for number, role in enumerate(ROLES):
        expected = [i for i in range(5, 9) if drawn[GROUP_ID[i]] == number]
        assert rows(sides(truth, CANARIES, label="extracted", role=role).positive) == expected
