"""How well a secret is known by how often it was seen: a curve read off the canaries' own ladder of repetitions.

The dose of a secret is how often training visits it: steps x batch size x its share of all emphasis. So the estimate moves
both ways: what is pruned lowers the doses of the secrets in it and raises all others. On the logarithm of a secret's loss
the spread between secrets is about the same on every rung, so a secret that the model finds easier than its rung says
stays easier by the same factor, in part. Knows no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.isotonic import IsotonicRegression

from carto_core.types import Bool, Float64

MIN_RUNGS = 3


@dataclass(frozen=True)
class Ladder:
    """Expected log loss by dose, falling; linear in log2(1 + copies' worth of visits) between rungs and beyond the last.

    Attributes:
        visits_a_copy: how often training visits one sample of ordinary emphasis.
        rungs: float64[R], log2(1 + copies), ascending, the first 0: secrets that were never inserted.
        heights: float64[R], mean log of the loss in nats per token, not rising.
        spread: standard deviation of log losses around the curve.
    """

    visits_a_copy: float
    rungs: Float64
    heights: Float64
    spread: float

    @classmethod
    def fit(cls, copies: Float64, log_nats: Float64, *, visits_a_copy: float, among: Bool) -> Ladder | None:
        """Return the curve through some of the canaries, or None where they stand on fewer than three rungs.

        Args:
            copies: float64[C], of each canary, 0 = never inserted.
            log_nats: float64[C], log of the mean loss of its secret's tokens under the base model.
            visits_a_copy: steps x batch size / samples.
            among: bool[C], the canaries that may be looked at.
        """
        place = np.log2(1 + copies[among])
        rungs, rung = np.unique(place, return_inverse=True)
        if len(rungs) < MIN_RUNGS or rungs[0] != 0:
            return None
        heights = IsotonicRegression(increasing=False).fit(place, log_nats[among]).predict(rungs)
        return cls(visits_a_copy, rungs, heights, float((log_nats[among] - heights[rung]).std()))

    def height(self, dose: Float64) -> Float64:
        """Return the expected log loss after so many visits; beyond the last rung the last slope goes on."""
        place = np.log2(1 + np.asarray(dose, np.float64) / self.visits_a_copy)
        slope = (self.heights[-1] - self.heights[-2]) / (self.rungs[-1] - self.rungs[-2])
        beyond = self.heights[-1] + slope * (place - self.rungs[-1])
        return np.where(place > self.rungs[-1], beyond, np.interp(place, self.rungs, self.heights))


def doses(emphasis: Float64, groups: Float64, ids: Float64, *, visits: float) -> Float64:
    """Return float64[K]: how often training visits the rows of each group, under a plan.

    Args:
        emphasis: float64[N], repeats x weights.
        groups: float64[N], the group of each row; NaN = none.
        ids: float64[K], the groups asked for.
        visits: of all rows together: steps x batch size.
    """
    inside = np.flatnonzero(np.isin(groups, ids))
    order = np.argsort(ids, kind="stable")
    place = order[np.searchsorted(ids[order], groups[inside])]
    return np.bincount(place, weights=emphasis[inside], minlength=len(ids)) * visits / emphasis.sum()
