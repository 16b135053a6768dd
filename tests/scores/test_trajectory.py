import itertools
import math

import numpy as np
import pytest

from carto_core.scores import trajectory

NAN = np.nan
TOLERANCE = 1e-6


def columns(*trajectories):
    """float32[S, n] from one list per sample."""
    return np.array(trajectories, np.float32).T


def random_losses(num_snapshots=15, num_samples=40, missing=0.25, seed=0):
    rng = np.random.default_rng(seed)
    losses = rng.gamma(2.0, 1.0, (num_snapshots, num_samples)).astype(np.float32)
    losses[rng.random(losses.shape) < missing] = NAN
    losses[:, 0] = NAN
    losses[1:, 1] = NAN
    return losses


def observed(losses, sample):
    return [(t, float(loss)) for t, loss in enumerate(losses[:, sample]) if not math.isnan(loss)]


def slow_difficulty(losses, sample, burn_in, eps):
    early = [loss for t, loss in observed(losses, sample) if t < burn_in]
    return sum(early) / len(early) if early else NAN


def slow_memorization(losses, sample, burn_in, eps):
    points = observed(losses, sample)
    events = 0
    for (t, before), (u, after) in itertools.pairwise(points):
        if before < eps[t] and after > eps[u]:
            events += 1
    return events / (len(points) - 1) if len(points) > 1 else NAN


def slow_consolidation(losses, sample, burn_in, eps):
    points = observed(losses, sample)
    return math.log(slow_difficulty(losses, sample, burn_in, eps) / points[-1][1]) if points else NAN


def slow_lt_iqr(losses, sample, burn_in, eps):
    values = [loss for _, loss in observed(losses, sample)]
    return float(np.quantile(values, 0.75) - np.quantile(values, 0.25)) if values else NAN


def slow_confidence(losses, sample, burn_in, eps):
    values = [math.exp(-loss) for _, loss in observed(losses, sample)]
    return sum(values) / len(values) if values else NAN


def slow_variability(losses, sample, burn_in, eps):
    values = [math.exp(-loss) for _, loss in observed(losses, sample)]
    mean = slow_confidence(losses, sample, burn_in, eps)
    return math.sqrt(sum((v - mean) ** 2 for v in values) / len(values)) if values else NAN


def slow_final_loss(losses, sample, burn_in, eps):
    points = observed(losses, sample)
    return points[-1][1] if points else NAN


def slow_rises(losses, sample, burn_in, eps):
    values = [loss for _, loss in observed(losses, sample)]
    events = sum(values[i] > 1.05 * min(values[:i]) for i in range(1, len(values)))
    return events / (len(values) - 1) if len(values) > 1 else NAN


def slow_cumulative_loss(losses, sample, burn_in, eps):
    values = [loss for _, loss in observed(losses, sample)]
    return sum(values) / len(values) if values else NAN


def slow_learning_time(losses, sample, burn_in, eps):
    points = observed(losses, sample)
    for i in range(2, len(points)):
        if all(loss < eps[t] for t, loss in points[i - 2 : i + 1]):
            return points[i][0] + 1
    return len(losses) if len(points) >= 3 else NAN


def slow_skip_count(losses, sample, burn_in, eps):
    running, skipped, seen = None, 0, 0
    for row in losses.tolist():
        known = [loss for loss in row if not math.isnan(loss)]
        if known:
            mean = sum(known) / len(known)
            running = mean if running is None else 0.8 * running + 0.2 * mean
        if not math.isnan(row[sample]):
            seen += 1
            skipped += 2 * row[sample] < running
    return skipped / seen if seen else NAN


TWINS = {
    "cumulative_loss": (slow_cumulative_loss, lambda losses, b, e: trajectory.cumulative_loss(losses)),
    "learning_time": (slow_learning_time, lambda losses, b, e: trajectory.learning_time(losses, eps=e)),
    "skip_count": (
        slow_skip_count,
        lambda losses, b, e: trajectory.skip_count(losses, mean_losses=trajectory.mean_losses(losses)),
    ),
    "difficulty": (slow_difficulty, lambda losses, b, e: trajectory.difficulty(losses, burn_in=b)),
    "memorization": (slow_memorization, lambda losses, b, e: trajectory.memorization(losses, eps=e)),
    "consolidation": (slow_consolidation, lambda losses, b, e: trajectory.consolidation(losses, burn_in=b)),
    "lt_iqr": (slow_lt_iqr, lambda losses, b, e: trajectory.lt_iqr(losses)),
    "confidence": (slow_confidence, lambda losses, b, e: trajectory.confidence(losses)),
    "variability": (slow_variability, lambda losses, b, e: trajectory.variability(losses)),
    "final_loss": (slow_final_loss, lambda losses, b, e: trajectory.final_loss(losses)),
    "rises": (slow_rises, lambda losses, b, e: trajectory.rises(losses)),
}


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("missing", [0.0, 0.25, 0.8])
@pytest.mark.parametrize("mode", ["pooled", "snapshot"])
def test_a_formula_gives_what_its_slow_twin_gives(name, missing, mode):
    losses = random_losses(missing=missing)
    eps = trajectory.threshold(losses, mode=mode, eps=0.5)
    slow, fast = TWINS[name]

    expected = [slow(losses, sample, 4, eps) for sample in range(losses.shape[1])]

    got = fast(losses, 4, eps)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, np.float32(expected), rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([2, 2, 2, 2], 0),
        ([0, 2, 0, 2, 0], 2 / 4),
        ([0, 2], 1),
        ([2, 0], 0),
        ([0, 2, 0], 1 / 2),
        ([1], NAN),
        ([0, 1, 2], 0),  # at the threshold is neither below nor above: 0 -> 1 is no event, nor is 1 -> 2
        ([0, NAN, 2, NAN], 1),  # one transition between the two observed points
        ([NAN, 0, NAN, NAN], NAN),
    ],
)
def test_memorization_counts_strict_upward_crossings_between_observed_points(losses, expected):
    got = trajectory.memorization(columns(losses), eps=np.ones(len(losses)))

    np.testing.assert_array_equal(got, np.float32([expected]))


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([0, 2, 0, 2], 2 / 3),
        ([0.9, 1.1, 0.9, 1.1], 0),  # trembles within the band
        ([0, 1.1, 2], 1 / 2),  # undecided in between, then forgotten
        ([1.1, 2, 1.1, 2], 0),  # never learnt
    ],
)
def test_a_dead_band_makes_no_events_of_a_loss_that_trembles_at_the_threshold(losses, expected):
    got = trajectory.memorization(columns(losses), eps=np.ones(len(losses)), hysteresis=0.5)

    np.testing.assert_array_equal(got, np.float32([expected]))


@pytest.mark.parametrize(
    ("losses", "expected"),
    [([0, 0, 0, 9], 3), ([9, 0, 0, 0], 4), ([0, 0, 9, 0], 4), ([0, NAN, 0, 0], 4), ([0, 0], NAN)],
)
def test_a_sample_is_learnt_once_it_stayed_below_for_three_observed_points(losses, expected):
    np.testing.assert_array_equal(trajectory.learning_time(columns(losses), eps=np.ones(len(losses))), [expected])


def test_agc_skips_what_lies_below_half_of_the_running_mean():
    losses = columns([4, 4, 4], [4, 1, 1])  # means 4, 2.5, 2.5; running 4, 3.7, 3.46

    got = trajectory.skip_count(losses, mean_losses=trajectory.mean_losses(losses))

    np.testing.assert_allclose(got, [0, 2 / 3], rtol=1e-6)


def test_a_loss_is_compared_with_the_threshold_in_float64():
    below = np.float32(0.1)  # widened it is 0.10000000149..., above the double 0.1

    got = trajectory.memorization(columns([0, below]), eps=np.array([0.1, 0.1]))

    assert got[0] == 1


def test_each_snapshot_is_held_against_its_own_threshold():
    eps = np.array([3.0, 1.0])

    got = trajectory.memorization(columns([2, 2], [2, 0.5], [4, 2]), eps=eps)

    np.testing.assert_array_equal(got, np.float32([1, 0, 0]))


@pytest.mark.parametrize("num_snapshots", [2, 3, 8, 9])
def test_no_trajectory_has_more_events_than_half_its_points(num_snapshots):
    rng = np.random.default_rng(1)
    losses = rng.choice(np.float32([0, 2]), (num_snapshots, 2000))

    events = trajectory.memorization(losses, eps=np.ones(num_snapshots)) * (num_snapshots - 1)

    assert round(float(events.max())) == num_snapshots // 2


def test_consolidation_stays_finite_when_a_loss_reaches_zero():
    got = trajectory.consolidation(columns([4, 0], [0, 0]), burn_in=1)

    assert np.isfinite(got).all()
    assert got[0] > 80
    assert got[1] == 0


def test_exactly_five_percent_above_the_best_is_no_rise():
    got = trajectory.rises(columns([2.0, np.float32(2.0 * 1.05) - np.float32(1e-6)], [2.0, 2.2]))

    np.testing.assert_array_equal(got, np.float32([0, 1]))


def test_the_pooled_threshold_is_a_float64_quantile_of_the_observed_losses():
    losses = columns([1, 2, NAN], [4, NAN, 8])

    got = trajectory.threshold(losses, mode="pooled", eps=0.5)

    np.testing.assert_array_equal(got, [3.0, 3.0, 3.0])
    assert got.dtype == np.float64


def test_a_snapshot_threshold_sees_its_own_snapshot_only():
    losses = columns([1, 5, NAN], [3, NAN, NAN])

    got = trajectory.threshold(losses, mode="snapshot", eps=0.5)

    np.testing.assert_array_equal(got, [2.0, 5.0, NAN])


def test_an_absolute_threshold_is_taken_as_it_is():
    np.testing.assert_array_equal(trajectory.threshold(columns([1, 5]), mode="absolute", eps=0.1), [0.1, 0.1])


@pytest.mark.parametrize(
    ("share", "num_snapshots", "expected"),
    [(0.2, 24, 5), (0.2, 25, 5), (0.2, 21, 5), (0.07, 100, 7), (1, 3, 3), (0.01, 3, 1)],
)
def test_burn_in_is_rounded_up_and_no_further(share, num_snapshots, expected):
    assert trajectory.burn_in_length(share, num_snapshots) == expected


def test_a_sample_counts_itself_among_its_copies():
    got = trajectory.group_size(np.int32([7, 3, 7, 7, 0]))

    np.testing.assert_array_equal(got, np.float32([3, 1, 3, 3, 1]))


def test_mean_losses_are_summed_in_float64_and_unknown_where_nobody_was_seen():
    losses = np.float32([[2**24, 1, 1], [NAN, NAN, NAN], [1, NAN, 3]])

    got = trajectory.mean_losses(losses)

    assert got.dtype == np.float64
    np.testing.assert_array_equal(got, [5592406, NAN, 2])


def test_the_running_mean_of_agc_waits_where_nobody_was_seen():
    losses = columns([4, NAN, 1], [4, NAN, 4])  # means 4, unknown, 2.5; running 4, 4, 3.7

    np.testing.assert_array_equal(
        trajectory.skip_count(losses, mean_losses=trajectory.mean_losses(losses)), np.float32([0.5, 0])
    )


def test_a_threshold_is_float64_however_it_was_written():
    for mode in ("absolute", "pooled", "snapshot"):
        assert trajectory.threshold(columns([1, 5]), mode=mode, eps=1).dtype == np.float64


def test_a_threshold_or_mean_for_each_snapshot_is_needed():
    losses = columns([1, 2, 3])

    for formula, settings in (
        (trajectory.memorization, {"eps": np.ones(2)}),
        (trajectory.learning_time, {"eps": np.ones(4)}),
        (trajectory.skip_count, {"mean_losses": np.ones(2)}),
    ):
        with pytest.raises(ValueError, match="zip"):
            formula(losses, **settings)


def test_exactly_half_of_the_running_mean_is_not_skipped():
    losses = columns([2], [6])  # their mean is 4

    np.testing.assert_array_equal(
        trajectory.skip_count(losses, mean_losses=trajectory.mean_losses(losses)), np.float32([0, 0])
    )
