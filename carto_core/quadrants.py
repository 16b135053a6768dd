"""Two scores and two cuts: a quadrant per sample, the cuts by percentile, and ties said in words.

Comparisons are strict and in float64: a sample exactly at a cut stays on the easy, not-memorized side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carto_core.scores import SCORES
from carto_core.types import Bool, Float32, SampleTable


@dataclass(frozen=True, slots=True)
class Quadrant:
    """One corner of the map.

    Attributes:
        name: as in files and flags.
        title: as on the page.
        meaning: sentence.
        default_action: what the paper's policy does with it, in words.
    """

    name: str
    title: str
    meaning: str
    default_action: str


# In this order a sample's place is (is hard) + 2 * (is memorized). Names and actions: GenDataCarto, arXiv 2509.00083.
QUADRANTS: dict[str, Quadrant] = {
    quadrant.name: quadrant
    for quadrant in (
        Quadrant("stable-easy", "Stable-Easy", "Easy, and learned without being memorized.", "Keep as it is."),
        Quadrant("ambiguous-hard", "Ambiguous-Hard", "Difficult, and not memorized.", "Up-sample."),
        Quadrant(
            "hotspot-memorized",
            "Hotspot-Memorized",
            "Easy, and memorized: an extraction risk.",
            "Down-weight or prune.",
        ),
        Quadrant(
            "noisy-outlier", "Noisy-Outlier", "Difficult and memorized, perhaps corrupt.", "Prune if it is noise."
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Cuts:
    """Which two scores are crossed, and where, in the scores' own units."""

    x: str
    y: str
    tau_x: float
    tau_y: float

    @classmethod
    def of(cls, table: SampleTable) -> Cuts:
        """Return the cuts that are saved with the run."""
        return cls(table.x, table.y, table.tau_x, table.tau_y)

    @classmethod
    def at_percentiles(cls, scores: Mapping[str, Float32], *, x: str, y: str, cut_x: float, cut_y: float) -> Cuts:
        """Return the cuts of two scores at two percentiles; see `cut_values`."""
        when = SCORES[y].memorized_when
        return cls(x, y, *cut_values(scores[x], scores[y], cut_x=cut_x, cut_y=cut_y, y_memorized_when=when))

    def assign(self, scores: Mapping[str, Float32]) -> NDArray[np.object_]:
        """Return each sample's quadrant, object[N]; see `assign`."""
        when = SCORES[self.y].memorized_when
        return assign(scores[self.x], scores[self.y], tau_x=self.tau_x, tau_y=self.tau_y, memorized_when=when)


def cut_values(
    x: Float32, y: Float32, *, cut_x: float, cut_y: float, y_memorized_when: str = "high"
) -> tuple[float, float]:
    """Return the cuts (tau_x, tau_y) at two percentiles, in the scores' own units.

    Args:
        x: float32[N], NaN = unknown and left out.
        y: float32[N], the memorization axis.
        cut_x: percentile in [0, 100].
        cut_y: percentile in [0, 100], counted towards more memorized: 75 always leaves about a quarter beyond the cut.
        y_memorized_when: `low` where small values of y point to memorization.

    Returns:
        float64 by linear interpolation; NaN where a score has no known value.
    """
    return _percentile(x, cut_x), _percentile(y, cut_y if y_memorized_when == "high" else 100 - cut_y)


def assign(x: Float32, y: Float32, *, tau_x: float, tau_y: float, memorized_when: str = "high") -> NDArray[np.object_]:
    """Return each sample's quadrant.

    Args:
        x: float32[N], the difficulty axis: hard when x > tau_x.
        y: float32[N], the memorization axis: memorized when y > tau_y, or y < tau_y for a score that is low then.
        tau_x: cut of x.
        tau_y: cut of y.
        memorized_when: `high` or `low`, of y.

    Returns:
        object[N], names in `QUADRANTS`; None where x or y is NaN.
    """
    place = beyond(x, tau_x) + 2 * beyond(y, tau_y, when=memorized_when)
    quadrant = np.array(list(QUADRANTS), object)[place]
    quadrant[np.isnan(x) | np.isnan(y)] = None
    return quadrant


def beyond(values: Float32, tau: float, *, when: str = "high") -> Bool:
    """bool[N]: strictly above the cut, or strictly below it with `when="low"`; NaN never is."""
    wide = values.astype(np.float64)
    return wide > tau if when == "high" else wide < tau


def ties(values: Float32, tau: float) -> int:
    """Return how many samples sit exactly at the cut."""
    return int(np.count_nonzero(values.astype(np.float64) == tau))


def describe_cut(values: Float32, tau: float, *, title: str, memorized_when: str = "high") -> str:
    """Return one sentence: who lies beyond a cut, and how many sit exactly at it.

    Args:
        values: float32[N] of one score.
        tau: its cut.
        title: what to call the score.
        memorized_when: the side that counts, as for `beyond`.
    """
    known = values[~np.isnan(values)]
    if not len(known):
        return f"{title}: unknown for every sample, so nothing can be cut."
    sign = ">" if memorized_when == "high" else "<"
    text = f"{title} {sign} {tau:.4g}: {_share(int(beyond(known, tau, when=memorized_when).sum()), len(known))}"
    if tau == (known.min() if memorized_when == "high" else known.max()):
        text += " (the cut is the scale's end, so any other value counts)"
    if tied := ties(known, tau):
        text += f"; {_share(tied, len(known))} sit exactly at the cut and stay on the near side"
    return text + "."


def counts(quadrant: Sequence[str | None] | NDArray[np.object_]) -> dict[str, int]:
    """Return how many samples each quadrant holds, in the order of `QUADRANTS`; unlabelled samples are in none."""
    labels = np.asarray(quadrant, object)
    return {name: int(np.count_nonzero(labels == name)) for name in QUADRANTS}


def shares(quadrant: Sequence[str | None] | NDArray[np.object_]) -> dict[str, float]:
    """Return each quadrant's share of all samples, unlabelled ones included; 0 for no samples at all."""
    return {name: count / max(len(quadrant), 1) for name, count in counts(quadrant).items()}


def _percentile(values: Float32, percentile: float) -> float:
    known = values[~np.isnan(values)].astype(np.float64)
    return float(np.percentile(known, percentile)) if len(known) else float("nan")


def _share(count: int, total: int) -> str:
    return f"{count:,} of {total:,} samples ({100 * count / total:.0f} %)"
