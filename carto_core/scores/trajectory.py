"""The formulas: a trajectory in, one number per sample out.

Every function takes `losses` of shape float32[S, n] (snapshots x samples, nats per token, NaN = not observed), sums in
float64 and returns float32[n]; NaN = cannot be said from what was observed. A sample's score depends on no other
sample, so callers may cut `losses` into chunks of samples. Knows no file, no registry and no threshold but its own.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from carto_core.types import Float32, Float64, Int32

RISE = 1.05
LEARNT_FOR = 3
SKIP_RATIO = 2.0
SKIP_DECAY = 0.8
_TINY = float(np.finfo(np.float32).tiny)


def difficulty(losses: Float32, *, burn_in: int) -> Float32:
    """Return the mean loss over the observed ones of the first `burn_in` snapshots (GenDataCarto, arXiv 2509.00083).

    Not observed in any of them gives NaN.
    """
    return _mean(losses[:burn_in].astype(np.float64)).astype(np.float32)


def memorization(losses: Float32, *, eps: Float64, hysteresis: float = 0.0) -> Float32:
    """Return the share of transitions that are forget events, the paper's literal score (GenDataCarto).

    A forget event goes from strictly below the threshold to strictly above it between two consecutive observed
    points; what was not observed in between does not break the pair. All snapshots count, burn-in or not.

    Args:
        losses: see the module.
        eps: float64[S], the threshold at each snapshot; the same number throughout unless each has its own.
        hysteresis: half width in nats of a dead band around the threshold (ours; 0 is the paper's definition): a sample
            counts as learnt below `eps - hysteresis`, as forgotten above `eps + hysteresis`, and in between as before, so
            that a loss that trembles at the threshold makes no events.

    Returns:
        float32[n] in [0, 1]: events / (observed points - 1); fewer than two observed points give NaN.
    """
    below = np.zeros(losses.shape[1], bool)
    events = np.zeros(losses.shape[1])
    for row, threshold in zip(losses.astype(np.float64), eps, strict=True):
        events += below & (row > threshold + hysteresis)
        undecided = np.isnan(row) | ((np.abs(row - threshold) <= hysteresis) & (hysteresis > 0))
        below = np.where(undecided, below, row < threshold)
    return _per_transition(events, losses)


def cumulative_loss(losses: Float32) -> Float32:
    """Return the mean of all observed losses: cumulative sample loss per snapshot (CSL, openreview KZlQEoEtiu)."""
    return _mean(losses.astype(np.float64)).astype(np.float32)


def learning_time(losses: Float32, *, eps: Float64) -> Float32:
    """Return the first snapshot, counted from 1, that ends a streak of 3 observed losses strictly below the threshold.

    First-time k-epoch learning (FkL, Late Stopping, ICCV 2023) with k = 3 and `loss < eps` for "correct". Never learnt
    is censored at S, the number of snapshots; fewer than 3 observed losses give NaN.

    Args:
        losses: see the module.
        eps: float64[S], the threshold at each snapshot.
    """
    streak = np.zeros(losses.shape[1], int)
    time = np.full(losses.shape[1], float(len(losses)))
    learnt = np.zeros(losses.shape[1], bool)
    for number, (row, threshold) in enumerate(zip(losses.astype(np.float64), eps, strict=True), start=1):
        streak = np.where(np.isnan(row), streak, np.where(row < threshold, streak + 1, 0))
        new = ~learnt & (streak >= LEARNT_FOR)
        time[new], learnt = number, learnt | new
    return np.where(_num_observed(losses) >= LEARNT_FOR, time, np.nan).astype(np.float32)


def skip_count(losses: Float32, *, mean_losses: Float64) -> Float32:
    """Return the share of observed points at which AGC would have skipped the sample (IET-AGC, arXiv 2407.15328).

    Skipped means `2 l < a` with `a <- 0.8 a + 0.2 mean loss` running over the snapshots, begun at the first mean. The
    authors keep one running mean per diffusion timestep; a language model has no timestep, so there is one.

    Args:
        losses: see the module.
        mean_losses: float64[S], mean over all samples observed at each snapshot; see `mean_losses`.

    Returns:
        float32[n] in [0, 1]; nothing observed gives NaN.
    """
    skipped = np.zeros(losses.shape[1])
    running = math.nan
    for row, mean in zip(losses.astype(np.float64), mean_losses, strict=True):
        running = mean if math.isnan(running) else running if math.isnan(mean) else _blend(running, mean)
        skipped += row * SKIP_RATIO < running
    seen = _num_observed(losses)
    return np.where(seen > 0, skipped / np.maximum(seen, 1), np.nan).astype(np.float32)


def consolidation(losses: Float32, *, burn_in: int) -> Float32:
    """Return log(early loss / last observed loss): how far a sample fell after the burn-in (ours, not the paper's).

    Both are held above float32's smallest normal number, so that a loss of zero stays finite. 0 = as at the start,
    log 2 = halved, negative = it grew. Nothing observed in the burn-in gives NaN.
    """
    early = _mean(losses[:burn_in].astype(np.float64))
    last = _last(losses).astype(np.float64)
    return np.log(np.maximum(early, _TINY) / np.maximum(last, _TINY)).astype(np.float32)


def lt_iqr(losses: Float32) -> Float32:
    """Return Q75 - Q25 of the observed losses, quantiles by linear interpolation (Pollock et al., arXiv 2411.05743)."""
    ordered = np.sort(losses.astype(np.float64), axis=0)  # NaN goes last, so the first `seen` rows are the observed
    seen = _num_observed(losses)
    return (_ordered_quantile(ordered, seen, 0.75) - _ordered_quantile(ordered, seen, 0.25)).astype(np.float32)


def confidence(losses: Float32) -> Float32:
    """Return the mean of exp(-loss), the language-model analogue of Dataset Cartography's (arXiv 2009.10795)."""
    return _mean(np.exp(-losses.astype(np.float64))).astype(np.float32)


def variability(losses: Float32) -> Float32:
    """Return the population standard deviation of exp(-loss), again the analogue of Dataset Cartography's."""
    probability = np.exp(-losses.astype(np.float64))
    return np.sqrt(_mean((probability - _mean(probability)) ** 2)).astype(np.float32)


def final_loss(losses: Float32) -> Float32:
    """Return the last observed loss."""
    return _last(losses)


def rises(losses: Float32) -> Float32:
    """Return the share of observed points, after the first, that lie over 1.05 x the best loss before them (ours).

    Fewer than two observed points give NaN.
    """
    best = np.full(losses.shape[1], np.inf)
    events = np.zeros(losses.shape[1])
    for row in losses.astype(np.float64):
        events += row > RISE * best
        best = np.fmin(best, row)
    return _per_transition(events, losses)


def group_size(group_id: Int32) -> Float32:
    """Return how many rows, itself included, share the sample's duplicate group.

    Args:
        group_id: int32[N], of all samples at once.
    """
    _, group, sizes = np.unique(group_id, return_inverse=True, return_counts=True)
    return sizes[group].astype(np.float32)


def mean_losses(losses: Float32) -> Float64:
    """Return float64[S]: the mean over the samples observed at each snapshot; NaN where there are none."""
    return np.array(
        [np.mean(row[~np.isnan(row)], dtype=np.float64) if (~np.isnan(row)).any() else np.nan for row in losses]
    )


def threshold(losses: Float32, *, mode: str, eps: float) -> Float64:
    """Return the forget threshold at each snapshot, in nats.

    Args:
        losses: float32[S, N], all samples.
        mode: `absolute` takes `eps` as nats; `pooled` as a quantile of all observed losses; `snapshot` as a quantile of
            each snapshot's own.
        eps: see `mode`. Quantiles are float64 with linear interpolation.

    Returns:
        float64[S]; NaN where nothing was observed.
    """
    if mode == "snapshot":
        return np.array([_quantile(row, eps) for row in losses], np.float64)
    return np.full(len(losses), eps if mode == "absolute" else _quantile(losses, eps), np.float64)


def burn_in_length(share: float, num_snapshots: int) -> int:
    """Return ceil(share * num_snapshots), at least 1; a product like 7.000000000000001 counts as 7."""
    return max(1, math.ceil(round(share * num_snapshots, 9)))


def _blend(running: float, mean: float) -> float:
    return SKIP_DECAY * running + (1 - SKIP_DECAY) * mean


def _num_observed(losses: NDArray[np.floating]) -> NDArray[np.intp]:
    return np.count_nonzero(~np.isnan(losses), axis=0)


def _mean(values: Float64) -> Float64:
    """Return the mean over the observed rows; NaN where there are none."""
    seen = _num_observed(values)
    return np.where(seen > 0, np.nansum(values, axis=0) / np.maximum(seen, 1), np.nan)


def _last(losses: Float32) -> Float32:
    last = np.full(losses.shape[1], np.nan, np.float32)
    for row in losses:
        last = np.where(np.isnan(row), last, row)
    return last


def _per_transition(events: Float64, losses: Float32) -> Float32:
    transitions = _num_observed(losses) - 1
    return np.where(transitions > 0, events / np.maximum(transitions, 1), np.nan).astype(np.float32)


def _ordered_quantile(ordered: Float64, seen: NDArray[np.intp], q: float) -> Float64:
    """Return quantile `q` of the first `seen` rows of each sorted column; NaN where `seen` is 0."""
    place = q * np.maximum(seen - 1, 0)
    low = np.floor(place).astype(np.intp)
    high = np.ceil(place).astype(np.intp)
    at_low, at_high = (np.take_along_axis(ordered, i[None], axis=0)[0] for i in (low, high))
    return at_low + (place - low) * (at_high - at_low)


def _quantile(values: Float32, q: float) -> float:
    seen = values[~np.isnan(values)].astype(np.float64)
    return float(np.quantile(seen, q)) if len(seen) else math.nan
