import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carto_core import quadrants
from tests.test_selection import make_table

NAN = np.nan


def assign(x, y, **kwargs):
    return quadrants.assign(np.float32(x), np.float32(y), **kwargs).tolist()


def test_the_names_are_the_papers():
    assert list(quadrants.QUADRANTS) == ["stable-easy", "ambiguous-hard", "hotspot-memorized", "noisy-outlier"]


def test_a_sample_falls_where_the_paper_puts_it():
    got = assign([0, 2, 0, 2], [0, 0, 2, 2], tau_x=1, tau_y=1)

    assert got == ["stable-easy", "ambiguous-hard", "hotspot-memorized", "noisy-outlier"]


def test_a_sample_exactly_at_both_cuts_is_stable_easy():
    assert assign([1], [1], tau_x=1, tau_y=1) == ["stable-easy"]


def test_where_low_means_memorized_the_side_turns_and_the_tie_does_not():
    got = assign([0, 0, 0], [0.5, 1, 2], tau_x=1, tau_y=1, memorized_when="low")

    assert got == ["hotspot-memorized", "stable-easy", "stable-easy"]


def test_an_unknown_score_has_no_quadrant():
    assert assign([NAN, 0], [0, NAN], tau_x=1, tau_y=1) == [None, None]


def test_a_cut_is_compared_in_float64():
    assert assign([0.1], [0], tau_x=0.1, tau_y=0) == ["ambiguous-hard"]  # float32 0.1 is above the double


def test_quadrants_are_complete_and_disjoint():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 4, 500).astype(np.float32), rng.integers(0, 4, 500).astype(np.float32)

    got = quadrants.assign(x, y, tau_x=2, tau_y=1)

    assert sum(quadrants.counts(got).values()) == 500
    assert sum(quadrants.shares(got).values()) == pytest.approx(1)


def test_cuts_are_linear_percentiles_of_the_known_values():
    tau = quadrants.cut_values(np.float32([0, 1, NAN]), np.float32([0, NAN, 10]), cut_x=25, cut_y=75)

    assert tau == (0.25, 7.5)


def test_a_low_score_is_cut_from_the_memorized_end():
    values = np.arange(101, dtype=np.float32)

    _, tau = quadrants.cut_values(values, values, cut_x=50, cut_y=90, y_memorized_when="low")

    assert tau == 10
    assert quadrants.beyond(values, tau, when="low").sum() == 10


def test_a_score_that_nobody_has_gives_no_cut_and_no_quadrant():
    nothing = np.float32([NAN, NAN])

    tau_x, tau_y = quadrants.cut_values(nothing, nothing, cut_x=50, cut_y=50)

    assert np.isnan([tau_x, tau_y]).all()
    assert quadrants.assign(nothing, nothing, tau_x=tau_x, tau_y=tau_y).tolist() == [None, None]
    assert "unknown for every sample" in quadrants.describe_cut(nothing, tau_x, title="M")


def test_unlabelled_samples_lower_the_shares_and_are_counted_nowhere():
    labels = np.array(["stable-easy", None, None, "noisy-outlier"], object)

    assert quadrants.counts(labels) == {
        "stable-easy": 1,
        "ambiguous-hard": 0,
        "hotspot-memorized": 0,
        "noisy-outlier": 1,
    }
    assert quadrants.shares(labels)["stable-easy"] == 0.25


def test_ties_at_a_cut_are_said_in_words():
    values = np.float32([0, 0, 0, 0.5, NAN])

    assert quadrants.ties(values, 0) == 3
    assert quadrants.describe_cut(values, 0, title="M") == (
        "M > 0: 1 of 4 samples (25 %) (the cut is the scale's end, so any other value counts); "
        "3 of 4 samples (75 %) sit exactly at the cut and stay on the near side."
    )


def test_a_cut_without_ties_says_nothing_of_them():
    text = quadrants.describe_cut(np.float32([1, 2, 3, 4]), 2.5, title="Loss", memorized_when="low")

    assert text == "Loss < 2.5: 2 of 4 samples (50 %)."


@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    points=st.lists(st.tuples(*[st.one_of(st.sampled_from([0.0, 0.5, 1.0, NAN]), st.floats(width=32))] * 2)),
    tau_x=st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats()),
    tau_y=st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats()),
    when=st.sampled_from(["high", "low"]),
)
def test_quadrants_partition_all_samples_whose_scores_are_known(points, tau_x, tau_y, when):
    x, y = np.array(points, np.float32).reshape(-1, 2).T

    got = quadrants.assign(x, y, tau_x=tau_x, tau_y=tau_y, memorized_when=when)

    hard = [px > tau_x for px in x.tolist()]
    memorized = [py > tau_y if when == "high" else py < tau_y for py in y.tolist()]
    names = list(quadrants.QUADRANTS)
    expected = [
        None if np.isnan(px) or np.isnan(py) else names[h + 2 * m]
        for px, py, h, m in zip(x, y, hard, memorized, strict=True)
    ]
    assert got.tolist() == expected
    assert sum(quadrants.counts(got).values()) == len(points) - expected.count(None)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    scores=st.lists(st.one_of(st.sampled_from([0.0, 0.5, NAN]), st.floats(-8, 8, width=32)), min_size=1),
    cut=st.floats(0, 100),
    when=st.sampled_from(["high", "low"]),
)
def test_no_more_lie_beyond_a_percentile_than_its_share(scores, cut, when):
    values = np.float32(scores)
    known = np.count_nonzero(~np.isnan(values))

    _, tau = quadrants.cut_values(values, values, cut_x=50, cut_y=cut, y_memorized_when=when)

    beyond = quadrants.beyond(values, tau, when=when).sum()
    assert beyond <= np.ceil((1 - cut / 100) * known) + (known > 0) * 1e-9


def test_cuts_come_from_a_table_or_from_percentiles_of_its_scores_and_place_them():
    ramp = np.arange(101, dtype=np.float32)
    table = make_table(101, difficulty=ramp, final_loss=ramp)

    saved = quadrants.Cuts.of(table)
    found = quadrants.Cuts.at_percentiles(table.scores, x="difficulty", y="final_loss", cut_x=20, cut_y=90)

    assert saved == quadrants.Cuts("difficulty", "memorization", 4.0, 4.0)
    assert list(quadrants.counts(saved.assign(table.scores)).values()) == [5, 0, 0, 96]
    other = quadrants.Cuts.at_percentiles(table.scores, x="difficulty", y="memorization", cut_x=20, cut_y=90)
    assert other.tau_y == 90.0
    assert found == quadrants.Cuts("difficulty", "final_loss", 20.0, 10.0)
    assert quadrants.counts(found.assign(table.scores)) == {
        "stable-easy": 11,
        "ambiguous-hard": 80,
        "hotspot-memorized": 10,
        "noisy-outlier": 0,
    }
