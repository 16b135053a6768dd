"""How well a score finds what is memorized: what stands beside every detector on the map.

0.5 is chance for the AUC. A score at or below it is shown, never hidden.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from carto_core.scores import SCORES, Direction
from carto_core.scores.labels import Sides, sides
from carto_core.scores.roc import UNKNOWN, Cells, Estimate, bootstrapped
from carto_core.types import Float32, Float64, Int32, SampleTable

if TYPE_CHECKING:
    import pandas as pd

FEW_POSITIVES = 20
BUDGETS = (0.01, 0.05, 0.10)


@dataclass(frozen=True, slots=True)
class Quality:
    """How one score tells two sides apart, oriented so that 1.0 finds every positive first.

    Each canary and each exact-duplicate group has one vote, the mean over its rows.

    Attributes:
        auc: chance that a positive looks more memorized than a negative, ties half.
        average_precision: area under precision over recall; chance is the share of positives.
        recall: by budget, the share of the positives among that share of all votes that looks most memorized; what is
            tied at the edge is left out.
        num_positives: votes.
        num_negatives: votes.
        note: the reading of the AUC in words.
    """

    auc: Estimate
    average_precision: Estimate
    recall: Mapping[float, Estimate]
    num_positives: int
    num_negatives: int
    note: str

    @property
    def is_known(self) -> bool:
        """Whether there was anything to compare."""
        return not math.isnan(self.auc.value)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict; what is unknown is None."""
        return {
            "auc": _known(self.auc),
            "average_precision": _known(self.average_precision),
            "recall": {f"{budget:g}": _known(estimate) for budget, estimate in self.recall.items()},
            "num_positives": self.num_positives,
            "num_negatives": self.num_negatives,
            "note": self.note,
        }

    @property
    def is_enough(self) -> bool:
        """Whether there are enough positives to go by."""
        return self.num_positives >= FEW_POSITIVES


def _known(estimate: Estimate) -> dict[str, float] | None:
    return None if math.isnan(estimate.value) else estimate._asdict()


def qualities(
    table: SampleTable, canaries: pd.DataFrame, *, label: str, role: str, part: str = "all"
) -> dict[str, Quality]:
    """Return the quality of each score against one label; see `labels.sides` for the arguments."""
    apart = sides(table, canaries, label=label, role=role, part=part)
    return {
        name: detector_quality(values, SCORES[name].memorized_when, apart, seed=table.seed)
        for name, values in table.scores.items()
        if name in SCORES
    }


def detector_quality(values: Float32, memorized_when: Direction, apart: Sides, *, seed: int) -> Quality:
    """Return how well `values` tell the positive side from the negative one.

    Args:
        values: float32[N], NaN = unknown and left out.
        memorized_when: which end of the scale the positives should be at.
        apart: who is on which side; what is on neither is left out.
        seed: of the bootstrap.
    """
    oriented = values.astype(np.float64) * (1.0 if memorized_when == "high" else -1.0)
    observed = ~np.isnan(oriented)
    positives, negatives = (
        _votes(oriented[rows], apart.unit[rows]) for rows in (apart.positive & observed, apart.negative & observed)
    )
    if not len(positives) or not len(negatives):
        nothing = dict.fromkeys(BUDGETS, UNKNOWN)
        note = "cannot be said: nothing to compare"
        return Quality(UNKNOWN, UNKNOWN, nothing, len(positives), len(negatives), note)
    measures = [_Cells.auc, _Cells.average_precision, *(partial(_Cells.recall, budget=b) for b in BUDGETS)]
    rng = np.random.default_rng([seed, 6])
    auc, average_precision, *recall = bootstrapped(_Cells.of(positives, negatives), measures, rng)
    return Quality(
        auc=auc,
        average_precision=average_precision,
        recall=dict(zip(BUDGETS, recall, strict=True)),
        num_positives=len(positives),
        num_negatives=len(negatives),
        note=_note(auc.low, auc.high, len(positives)),
    )


class _Cells(Cells):
    """Positives are the few, negatives the many; adds what comes of going through the votes from the top."""

    def average_precision(self) -> Float64:
        """Return the sum over thresholds of precision times the gain in recall (as scikit-learn defines it)."""
        found, false = self._found()
        precision = found / np.maximum(found + false, 1)
        return (precision * self.few).sum(axis=-1) / self.few.sum(axis=-1)

    def recall(self, budget: float) -> Float64:
        """Return the share of the positives among the top `budget` of all votes, in whole blocks of tied values."""
        found, false = self._found()
        total = self.few.sum(axis=-1) + self.many.sum(axis=-1)
        fits = found + false <= budget * total[..., None]
        return np.where(fits, found, 0).max(axis=-1) / self.few.sum(axis=-1)

    def _found(self) -> tuple[np.ndarray, np.ndarray]:
        """Return how many positives and negatives lie at or above each distinct positive value."""
        found, above = (np.cumsum(c[..., ::-1], axis=-1)[..., ::-1] for c in (self.few, self.many))
        return found, above[..., 1::2]


def _votes(values: Float64, unit: Int32) -> Float64:
    _, place = np.unique(unit, return_inverse=True)
    return np.bincount(place, weights=values) / np.bincount(place)


def _note(low: float, high: float, num_positives: int) -> str:
    reading = "below chance" if high < 0.5 else "above chance" if low > 0.5 else "at chance"
    if num_positives < FEW_POSITIVES:
        reading += f"; too few to be sure ({num_positives}, should be {FEW_POSITIVES} or more)"
    return reading
