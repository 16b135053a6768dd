"""What every score keeps to for any trajectories, as its definition says; losses are small dyadic numbers, so sums are exact."""

import math

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carto_core.config import ScoreConfig
from carto_core.scores import SCORES, ScoreInputs, compute_scores

NAN = math.nan
bounded = settings(derandomize=True, deadline=None, max_examples=60)

# What becomes of a score when c is added to every loss, or every loss is doubled; a pooled threshold moves along.
SHIFTED = {
    "difficulty": lambda score, c: score + c,
    "memorization": lambda score, c: score,
    "lt_iqr": lambda score, c: score,
    "confidence": lambda score, c: score * math.exp(-c),
    "variability": lambda score, c: score * math.exp(-c),
    "final_loss": lambda score, c: score + c,
    "cumulative_loss": lambda score, c: score + c,
    "learning_time": lambda score, c: score,
}
DOUBLED = {
    "difficulty": 2,
    "memorization": 1,
    "consolidation": 1,
    "lt_iqr": 2,
    "final_loss": 2,
    "rises": 1,
    "cumulative_loss": 2,
    "learning_time": 1,
    "skip_count": 1,
    "zlib_ratio": 2,
}
# Observed points without which a score cannot be said; difficulty and consolidation ask for one within the burn-in.
NEEDED = {"memorization": 2, "rises": 2, "learning_time": 3}
WHEREVER = ("lt_iqr", "confidence", "variability", "final_loss", "cumulative_loss", "skip_count", "zlib_ratio")


def trajectories(*, least=0, missing=True):
    """float32[S, n] of multiples of 1/64 nat from `least` / 64 to 8, some of them not observed."""
    known = st.integers(least, 512).map(lambda number: number / 64)
    shape = arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8)
    return arrays.arrays(np.float32, shape, elements=st.one_of(known, st.just(NAN)) if missing else known)


def inputs(losses, order=None):
    """Inputs of every score, each sample's own, in any order of the samples."""
    num_samples = losses.shape[1]
    ids = np.arange(num_samples, dtype=np.int32) if order is None else np.asarray(order, np.int32)
    probes = {name: (ids**2).astype(np.float32) for name, score in SCORES.items() if score.probe}
    return ScoreInputs(losses[:, ids], ids // 2, ids + 3, ids + 20, probes)


def scored(losses, order=None, **settings):
    return compute_scores(inputs(losses, order), ScoreConfig(**settings)).scores


@pytest.mark.parametrize("mode", ["pooled", "snapshot"])
@bounded
@given(losses=trajectories(), data=st.data())
def test_permuting_the_samples_permutes_every_score(mode, losses, data):
    order = data.draw(st.permutations(range(losses.shape[1])))

    straight, permuted = scored(losses, eps_mode=mode), scored(losses, order, eps_mode=mode)

    for name in SCORES:
        np.testing.assert_array_equal(permuted[name], straight[name][list(order)], err_msg=name)


@bounded
@given(trajectories())
def test_computing_scores_twice_gives_the_same_bits(losses):
    first, second = scored(losses), scored(losses.copy())

    assert {name: values.tobytes() for name, values in first.items()} == {
        name: values.tobytes() for name, values in second.items()
    }


@bounded
@given(trajectories())
def test_a_score_is_unknown_exactly_where_too_little_was_observed(losses):
    table = compute_scores(inputs(losses), ScoreConfig())
    seen, early = (~np.isnan(losses)).sum(axis=0), (~np.isnan(losses[: table.burn_in])).sum(axis=0)

    for name, score in SCORES.items():
        if "losses" in score.needs:
            enough = early >= 1 if "burn_in" in score.needs else seen >= NEEDED.get(name, 1)
            np.testing.assert_array_equal(np.isnan(table.scores[name]), ~enough, err_msg=name)


@bounded
@given(trajectories())
def test_shares_and_probabilities_stay_within_their_range(losses):
    found = scored(losses)

    for name, most in {"memorization": 1, "rises": 1, "skip_count": 1, "confidence": 1, "variability": 0.5}.items():
        known = found[name][~np.isnan(found[name])]
        assert ((known >= 0) & (known <= most)).all(), name


@bounded
@given(pattern=trajectories(), losses=st.lists(st.integers(0, 512), min_size=8, max_size=8))
def test_a_constant_trajectory_has_no_spread_no_events_and_its_own_loss(pattern, losses):
    constant = np.float32(losses[: pattern.shape[1]]) / 64
    found = scored(np.where(np.isnan(pattern), np.float32(NAN), constant))

    expected = dict.fromkeys(
        ("memorization", "consolidation", "lt_iqr", "variability", "rises"), np.zeros_like(constant)
    )
    expected |= dict.fromkeys(("difficulty", "final_loss", "cumulative_loss"), constant)
    expected["confidence"] = np.exp(-constant)
    for name, values in expected.items():
        known = ~np.isnan(found[name])
        np.testing.assert_allclose(found[name][known], values[known], rtol=1e-6, atol=1e-7, err_msg=name)


@bounded
@given(losses=trajectories(), shift=st.integers(1, 256))
def test_adding_a_constant_to_all_losses_moves_a_score_as_its_definition_says(losses, shift):
    c = shift / 64
    plain, moved = scored(losses), scored(losses + np.float32(c))

    for name, expected in SHIFTED.items():
        np.testing.assert_allclose(moved[name], expected(plain[name], c), rtol=1e-5, atol=1e-7, err_msg=name)


@bounded
@given(trajectories(least=1))
def test_doubling_all_losses_doubles_a_score_or_leaves_it_to_the_bit(losses):
    plain, doubled = scored(losses), scored(2 * losses)

    for name, factor in DOUBLED.items():
        np.testing.assert_array_equal(doubled[name], factor * plain[name], err_msg=name)


@bounded
@given(losses=trajectories(), data=st.data())
def test_a_snapshot_that_observed_nobody_changes_no_score_that_counts_no_snapshots(losses, data):
    place = data.draw(st.integers(0, len(losses)))
    longer = np.insert(losses, place, np.float32(NAN), axis=0)

    plain, with_gap = scored(losses), scored(longer)

    for name in (*WHEREVER, "memorization", "rises"):
        np.testing.assert_array_equal(with_gap[name], plain[name], err_msg=name)


@bounded
@given(losses=trajectories(missing=False), data=st.data())
def test_the_order_of_snapshots_counts_only_where_the_definition_looks_at_it(losses, data):
    order = list(data.draw(st.permutations(range(len(losses)))))

    plain, mixed = scored(losses), scored(losses[order])

    for name in ("lt_iqr", "confidence", "variability", "cumulative_loss"):
        np.testing.assert_allclose(mixed[name], plain[name], rtol=1e-6, atol=1e-7, err_msg=name)
