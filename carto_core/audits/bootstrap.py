"""Intervals for ratios of sums, by resampling whole clusters."""

from __future__ import annotations

import numpy as np

from carto_core.types import Float64

DRAWS = 2000
LEVEL = 0.95


def resampled_sums(cluster_sums: Float64, *, seed: int, draws: int = DRAWS) -> Float64:
    """Return the column sums of `draws` samples of as many clusters, drawn with replacement.

    Args:
        cluster_sums: float64[G, C], what each cluster adds to each sum.
        seed: of the draws.
        draws: how many.

    Returns:
        float64[draws, C].
    """
    rng = np.random.default_rng([seed, 5])
    count = len(cluster_sums)
    picked = (np.bincount(rng.integers(count, size=count), minlength=count) for _ in range(draws))
    return np.array([times @ cluster_sums for times in picked])


def middle(values: Float64) -> tuple[float, float]:
    """Return the percentile interval of bootstrapped values, at 95 %."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
