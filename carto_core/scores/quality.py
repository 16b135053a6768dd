"""How well a score finds the canaries that were planted: what stands beside every detector on the map.

0.5 is chance. A score at or below it is shown, never hidden.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from carto_core.scores import SCORES, Direction
from carto_core.types import Bool, Float32, Float64, Int32, SampleTable

if TYPE_CHECKING:
    import pandas as pd

MIN_REPEATS = 2
FEW_POSITIVES = 20
NUM_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Quality:
    """Area under the ROC curve of one score, oriented so that 1.0 finds every canary first.

    Attributes:
        auc: chance that a planted canary looks more memorized than an ordinary sample, ties half; NaN without either.
        low: lower end of the 95 % interval.
        high: upper end.
        num_positives: canaries (one vote each).
        num_negatives: unplanted samples that have no duplicate.
        note: the reading in words.
    """

    auc: float
    low: float
    high: float
    num_positives: int
    num_negatives: int
    note: str


def canary_quality(table: SampleTable, canaries: pd.DataFrame, role: str) -> dict[str, Quality]:
    """Return the quality of each score as a detector of the run's inserted canaries of one role.

    Positives were inserted at least twice: what stands in the corpus once is hardly ever memorized.

    Args:
        table: a scored run's samples.
        canaries: the run's `canaries` table.
        role: `calibration`, or `report` once one may look.
    """
    wanted = canaries["inserted"].astype(bool) & (canaries["role"] == role) & (canaries["repeats"] >= MIN_REPEATS)
    ids = canaries.loc[wanted, "canary_id"].tolist()
    return {
        name: detector_quality(
            values,
            SCORES[name].memorized_when,
            canary_id=table.canary_id,
            positive_canary_ids=ids,
            group_id=table.group_id,
            seed=table.seed,
        )
        for name, values in table.scores.items()
        if name in SCORES
    }


def detector_quality(
    values: Float32,
    memorized_when: Direction,
    *,
    canary_id: Float64,
    positive_canary_ids: Iterable[int],
    group_id: Int32,
    seed: int,
) -> Quality:
    """Return how well `values` rank planted canaries above ordinary samples.

    Positives: one value per duplicate group of a positive canary, the mean over its copies. Negatives: unplanted
    samples alone in their group. Everything else (other canaries, natural duplicates, NaN) is left out.

    Args:
        values: float32[N], NaN = unknown.
        memorized_when: which end of the scale the canaries should be at.
        canary_id: float64[N], NaN = not planted.
        positive_canary_ids: which canaries count.
        group_id: int32[N].
        seed: of the bootstrap.
    """
    oriented = values.astype(np.float64) * (1.0 if memorized_when == "high" else -1.0)
    observed = ~np.isnan(oriented)
    is_positive = np.isin(canary_id, list(positive_canary_ids)) & observed
    is_negative = _alone(group_id, among=np.isnan(canary_id)) & observed
    positives = _group_means(oriented[is_positive], group_id[is_positive])
    negatives = oriented[is_negative]
    if not len(positives) or not len(negatives):
        return Quality(
            math.nan, math.nan, math.nan, len(positives), len(negatives), "cannot be said: nothing to compare"
        )
    cells = _Cells.of(positives, negatives)
    low, high = np.quantile(cells.resampled_auc(np.random.default_rng([seed, 6])), [0.025, 0.975])
    note = _note(low, high, len(positives))
    return Quality(cells.auc, float(low), float(high), len(positives), len(negatives), note)


@dataclass(frozen=True)
class _Cells:
    """All that the AUC depends on: how many values lie where between the distinct positive values.

    Attributes:
        positives: int64[k], how many positives at each distinct value, ascending.
        negatives: int64[2k + 1]: below the first value, at it, between it and the second, at that, ..., above the last.
    """

    positives: np.ndarray
    negatives: np.ndarray

    @classmethod
    def of(cls, positives: Float64, negatives: Float64) -> _Cells:
        values, counts = np.unique(positives, return_counts=True)
        ordered = np.sort(negatives)
        edges = [np.searchsorted(ordered, values, side) for side in ("left", "right")]
        return cls(counts, np.diff(np.stack(edges, axis=1).ravel(), prepend=0, append=len(ordered)))

    @property
    def auc(self) -> float:
        return float(_auc(self.positives, self.negatives))

    def resampled_auc(self, rng: np.random.Generator) -> Float64:
        """Return the AUC of resamples with replacement of both sides: exact, whatever the number of negatives."""
        drawn = [rng.multinomial(c.sum(), c / c.sum(), size=NUM_RESAMPLES) for c in (self.positives, self.negatives)]
        return _auc(*drawn)


def _auc(positives: np.ndarray, negatives: np.ndarray) -> Float64:
    """Return Mann-Whitney's U / (n m), ties half, over the last axis of counts as in `_Cells`."""
    below = np.cumsum(negatives, axis=-1)[..., 0:-1:2]
    beaten = below + 0.5 * negatives[..., 1::2]
    return (positives * beaten).sum(axis=-1) / (positives.sum(axis=-1) * negatives.sum(axis=-1))


def _alone(group_id: Int32, *, among: Bool) -> Bool:
    """bool[N]: members of `among` whose group holds no other member of it."""
    _, group = np.unique(group_id, return_inverse=True)
    return among & (np.bincount(group, weights=among)[group] == 1)


def _group_means(values: Float64, group_id: Int32) -> Float64:
    _, group = np.unique(group_id, return_inverse=True)
    return np.bincount(group, weights=values) / np.bincount(group)


def _note(low: float, high: float, num_positives: int) -> str:
    reading = "below chance" if high < 0.5 else "above chance" if low > 0.5 else "at chance"
    if num_positives < FEW_POSITIVES:
        reading += f"; too few canaries to be sure ({num_positives}, should be {FEW_POSITIVES} or more)"
    return reading
