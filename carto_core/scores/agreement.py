"""How well a score ranks samples as another measure does: counterfactual memorization, or self-influence."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import rankdata

from carto_core.scores import SCORES
from carto_core.types import Bool, Float32, Float64, Int32, SampleTable

MEASURES = {
    "counterfactual": "counterfactual memorization, in loss",
    "counterfactual_accuracy": "counterfactual memorization, in accuracy",
    "self_influence": "self-influence",
}
NUM_RESAMPLES = 500
BLOCK = 2**22  # weights held at once


def agreement(table: SampleTable, measure: Float32) -> dict[str, dict[str, Any]]:
    """Return by score the Spearman correlation with a measure and its 95 % interval, JSON-ready.

    `among_all` over every sample, `among_natural` without planted canaries: `{"value", "low", "high", "n"}`, values None
    where unknown. A score is turned so that +1 means agreement. The interval is a bootstrap over exact-duplicate groups.

    Args:
        table: a scored run.
        measure: float32[N], NaN = unknown; high where a sample matters more to the model.
    """
    return {
        name: {
            among: rank_correlation(
                values * np.float32(SCORES[name].sign), measure, table.group_id, rows, seed=table.seed
            )
            for among, rows in (("among_all", np.ones(len(table), bool)), ("among_natural", ~table.is_canary))
        }
        for name, values in table.scores.items()
        if name in SCORES
    }


def rank_correlation(values: Float32, truth: Float32, group_id: Int32, among: Bool, *, seed: int) -> dict[str, Any]:
    """Return Spearman's correlation of two columns over the rows known in both, ties averaged, with its interval.

    Ranks are taken once: a resample weights groups by how often they were drawn, which moves a rank by about 1 / sqrt(N).

    Args:
        values: float32[N], NaN = unknown.
        truth: float32[N].
        group_id: int32[N], what is resampled.
        among: bool[N], the rows that count.
        seed: of the bootstrap.
    """
    rows = np.flatnonzero(among & ~np.isnan(values) & ~np.isnan(truth))
    if len(rows) < 3 or np.ptp(values[rows]) == 0 or np.ptp(truth[rows]) == 0:
        return {"value": None, "low": None, "high": None, "n": len(rows)}
    x, y = (rankdata(column[rows]) - (len(rows) + 1) / 2 for column in (values, truth))
    _, group = np.unique(group_id[rows], return_inverse=True)
    sums = [np.bincount(group, of) for of in (np.ones(len(rows)), x, y, x * x, y * y, x * y)]
    moments = np.stack(sums, axis=1).astype(np.float64)
    num_groups = len(moments)
    block = max(1, BLOCK // num_groups)
    rng = np.random.default_rng([seed, 11])
    drawn = [
        _correlations(rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), size=size) @ moments)
        for size in (min(block, NUM_RESAMPLES - start) for start in range(0, NUM_RESAMPLES, block))
    ]
    low, high = np.nanquantile(np.concatenate(drawn), [0.025, 0.975])
    return {"value": float(_correlations(moments.sum(axis=0))), "low": float(low), "high": float(high), "n": len(rows)}


def _correlations(moments: Float64) -> Float64:
    """Return Pearson's correlation of weighted sums float64[..., 6]: weight, x, y, x squared, y squared, x y; NaN without spread."""
    weight, x, y, xx, yy, xy = np.moveaxis(moments, -1, 0)
    spread = np.maximum((xx - x * x / weight) * (yy - y * y / weight), 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(spread > 0, (xy - x * y / weight) / np.sqrt(spread), np.nan)
