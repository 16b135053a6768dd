"""How well one number tells two kinds of samples apart: the area under its ROC curve, and what it finds at few alarms.

A higher score must point to the wanted kind. An area below 0.5 is reported as it is, never turned round.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Self, TypeVar

import numpy as np

from carto_core.types import Bool, Float64

NUM_RESAMPLES = 2000
TARGETS = (0.01, 0.001)
BLOCK = 4_000_000  # counts held at once while resampling; bounds memory


class Estimate(NamedTuple):
    """A value with its 95 % bootstrap interval; NaN where unknown."""

    value: float
    low: float
    high: float


UNKNOWN = Estimate(math.nan, math.nan, math.nan)


@dataclass(frozen=True, slots=True)
class Roc:
    """What a ROC curve is summed up by.

    Attributes:
        auc: chance that a member scores above a non-member, ties half; 0.5 is chance.
        tpr: by largest allowed false-positive rate, the share of the members found; unknown where the non-members
            are too few to show so small a rate (see `tpr_at_fpr`).
        num_members: with a known score.
        num_nonmembers: with a known score.
    """

    auc: Estimate
    tpr: dict[float, Estimate]
    num_members: int
    num_nonmembers: int

    @property
    def below_chance(self) -> bool:
        """Whether the whole interval of the area lies below 0.5: the score points the other way, or the two differ."""
        return self.auc.high < 0.5


def auc(scores: Float64, is_member: Bool) -> float:
    """Return the area under the ROC curve, ties half (Mann-Whitney's U / (n m)).

    Args:
        scores: float[N], higher = member; NaN is left out.
        is_member: bool[N].

    Returns:
        in [0, 1]; NaN without members or without non-members.
    """
    cells = _cells(scores, is_member)
    return float(cells.auc()) if cells is not None else math.nan


def tpr_at_fpr(scores: Float64, is_member: Bool, target: float) -> float:
    """Return the largest share of members found by any threshold whose false-positive rate is at most `target`.

    A threshold accepts every score that is at least as high; tied scores are accepted together or not at all.

    Args:
        scores: float[N], higher = member; NaN is left out.
        is_member: bool[N].
        target: in (0, 1).

    Returns:
        in [0, 1]; NaN with fewer than 1 / target non-members, which cannot show so small a rate, or without members.
    """
    cells = _cells(scores, is_member)
    if cells is None:
        return math.nan
    allowed = _allowed(cells, target)
    return float(cells.tpr(allowed)) if allowed else math.nan


def roc(scores: Float64, is_member: Bool, *, seed: int, targets: Sequence[float] = TARGETS) -> Roc:
    """Return area and true-positive rates with intervals: percentiles of resamples of members and of non-members.

    Args:
        scores: float[N], higher = member; NaN is left out.
        is_member: bool[N].
        seed: of the bootstrap.
        targets: false-positive rates.
    """
    known = ~np.isnan(scores)
    counts = int((known & is_member).sum()), int((known & ~is_member).sum())
    cells = _cells(scores, is_member)
    if cells is None:
        return Roc(UNKNOWN, dict.fromkeys(targets, UNKNOWN), *counts)
    allowed = {target: most for target in targets if (most := _allowed(cells, target))}
    measures = [Cells.auc, *(partial(Cells.tpr, allowed=most) for most in allowed.values())]
    area, *rates = bootstrapped(cells, measures, np.random.default_rng([seed, 7]))
    return Roc(area, dict.fromkeys(targets, UNKNOWN) | dict(zip(allowed, rates, strict=True)), *counts)


@dataclass(frozen=True)
class Cells:
    """All that a ROC curve depends on: how many of `many` lie where between the distinct values of `few`.

    Resamples have a leading axis for which of them; every method works over the last.

    Attributes:
        few: int64[..., k], how many of the few at each of their distinct values, ascending.
        many: int64[..., 2k + 1]: below the first value, at it, between it and the second, at that, ..., above the last.
    """

    few: np.ndarray
    many: np.ndarray

    @classmethod
    def of(cls, few: Float64, many: Float64) -> Self:
        """Return the counts of two sides; either may be the larger, but memory and time go with `few`."""
        values, counts = np.unique(few, return_counts=True)
        ordered = np.sort(many)
        edges = [np.searchsorted(ordered, values, side) for side in ("left", "right")]
        return cls(counts, np.diff(np.stack(edges, axis=1).ravel(), prepend=0, append=len(ordered)))

    def auc(self) -> Float64:
        """Return the chance that one of the few lies above one of the many, ties half (Mann-Whitney's U / (n m))."""
        beaten = self._below() + 0.5 * self.many[..., 1::2]
        return (self.few * beaten).sum(axis=-1) / (self.few.sum(axis=-1) * self.many.sum(axis=-1))

    def tpr(self, allowed: int) -> Float64:
        """Return the share of the many that lie strictly below all but `allowed` of the few."""
        first_refused = (np.cumsum(self.few, axis=-1) <= allowed).sum(axis=-1)
        found = np.take_along_axis(self._below(), first_refused[..., None], axis=-1)[..., 0]
        return found / self.many.sum(axis=-1)

    def resampled(self, rng: np.random.Generator) -> Iterator[Self]:
        """Yield NUM_RESAMPLES resamples with replacement of both sides, in blocks; exact, whatever the size of many."""
        block = max(1, BLOCK // (3 * self.few.shape[-1]))
        for start in range(0, NUM_RESAMPLES, block):
            size = min(block, NUM_RESAMPLES - start)
            yield type(self)(*(rng.multinomial(c.sum(), c / c.sum(), size=size) for c in (self.few, self.many)))

    def _below(self) -> np.ndarray:
        """Return int64[..., k]: how many of the many lie strictly below each of the few's values."""
        return np.cumsum(self.many, axis=-1)[..., 0:-1:2]


C = TypeVar("C", bound=Cells)


def bootstrapped(cells: C, measures: Sequence[Callable[[C], Float64]], rng: np.random.Generator) -> list[Estimate]:
    """Return each measure of `cells` with the percentile interval of its values over the same resamples."""
    drawn = [[measure(resample) for measure in measures] for resample in cells.resampled(rng)]
    intervals = [np.quantile(np.concatenate(values), [0.025, 0.975]) for values in zip(*drawn, strict=True)]
    return [
        Estimate(float(measure(cells)), float(low), float(high))
        for measure, (low, high) in zip(measures, intervals, strict=True)
    ]


def _cells(scores: Float64, is_member: Bool) -> Cells | None:
    """Return non-members as the few, both turned round so that a member's high score is a low value; None if either lacks."""
    turned = -np.asarray(scores, np.float64)
    known = ~np.isnan(turned)
    nonmembers, members = turned[known & ~is_member], turned[known & is_member]
    return Cells.of(nonmembers, members) if len(members) and len(nonmembers) else None


def _allowed(cells: Cells, target: float) -> int:
    """Return how many false alarms a rate allows; a product like 9.999999999999998 counts as 10."""
    assert 0 < target < 1
    return math.floor(round(target * int(cells.few.sum()), 9))
