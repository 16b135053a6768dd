"""From a dose to the chance that decoding gives a text back, with what is uncertain about it.

A text's log loss after `dose` visits is the ladder's height plus what the text had beyond it before, carried over in part:
`h(dose) = H(dose) + carry (log loss - H(dose before))`. It is given back with chance `Phi((threshold - h) / width)`. The
three numbers are fitted by maximum a posteriori to what greedy decoding gave back from the base run and, where plans were
measured, to the rates of those retrains; the priors are what retrains on four corpora gave (docs/experiments.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize
from scipy.special import ndtr

from carto_core.preview.ladder import Ladder
from carto_core.types import Bool, Float64

MISFIT = 0.03  # standard deviation of a rate that the curve itself may be wrong by
CLIP = 1e-3


@dataclass(frozen=True)
class Prior:
    """Normal beliefs before anything is seen, mean and standard deviation each.

    Attributes:
        threshold: log of the loss in nats per token at which half of the texts are given back.
        log_width: log of how gradually.
        carry: which part of a text's own deviation from the ladder another seed repeats, 0 to 1.
    """

    threshold: tuple[float, float]
    log_width: tuple[float, float]
    carry: tuple[float, float]

    @property
    def means(self) -> Float64:
        """float64[3]."""
        return np.array([self.threshold[0], self.log_width[0], self.carry[0]])

    @property
    def deviations(self) -> Float64:
        """float64[3]."""
        return np.array([self.threshold[1], self.log_width[1], self.carry[1]])


SECRETS = Prior((math.log(0.5), 0.35), (math.log(0.4), 0.5), (0.6, 0.3))


@dataclass(frozen=True)
class Rate:
    """What a measured arm gave back.

    Attributes:
        doses: float64[K], of every text.
        share: of those that count, mean over seeds.
        num_seeds: how many retrains.
    """

    doses: Float64
    share: float
    num_seeds: int


@dataclass(frozen=True)
class Recall:
    """Texts with what the base run says of them, and the fitted numbers.

    Attributes:
        ladder: of the canaries.
        doses: float64[K], visits in the base run.
        log_nats: float64[K], log of the loss under the base model.
        ceiling: log loss that no text exceeds: that of text never seen; infinity for secrets, whose ladder begins there.
        numbers: float64[3], threshold, log width, carry.
        covariance: float64[3, 3], of `numbers`.
    """

    ladder: Ladder
    doses: Float64
    log_nats: Float64
    ceiling: float
    numbers: Float64
    covariance: Float64

    @classmethod
    def fit(
        cls,
        ladder: Ladder,
        doses: Float64,
        log_nats: Float64,
        given_back: Bool,
        *,
        among: Bool,
        prior: Prior,
        rates: Sequence[Rate] = (),
        ceiling: float = math.inf,
    ) -> Recall:
        """Return the fit.

        Args:
            ladder: see `Ladder`.
            doses: float64[K].
            log_nats: float64[K].
            given_back: bool[K], by the base model.
            among: bool[K], the texts that may be looked at, whose `rates` are.
            prior: beliefs.
            rates: measured arms.
            ceiling: see `Recall`.
        """
        start = cls(ladder, doses, log_nats, ceiling, prior.means, np.diag(prior.deviations**2))
        own = (log_nats - ladder.height(doses))[among]
        # the base run first, then every measured arm: the ladder is read once, not at every step of the search
        expected = np.stack([ladder.height(each)[among] for each in (doses, *(rate.doses for rate in rates))])
        measured = np.array([rate.share for rate in rates])
        trials = among.sum() * np.array([rate.num_seeds for rate in rates])
        back = given_back[among]

        def badness(numbers: Float64) -> float:
            threshold, log_width, carry = numbers
            chances = ndtr((threshold - np.minimum(expected + carry * own, ceiling)) / math.exp(log_width))
            base = np.clip(chances[0], CLIP, 1 - CLIP)
            loss = -np.log(np.where(back, base, 1 - base)).sum()
            loss += 0.5 * np.square((numbers - prior.means) / prior.deviations).sum()
            shares = chances[1:].mean(1)
            loss += 0.5 * (np.square(shares - measured) / (shares * (1 - shares) / trials + MISFIT**2)).sum()
            return float(loss)

        best = minimize(badness, prior.means, method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-3}).x
        return replace(start, numbers=best, covariance=_covariance(badness, best, prior.deviations))

    def heights(self, doses: Float64, *, carry: float | None = None) -> Float64:
        """Return float64[K]: the expected log loss after these doses."""
        own = self.log_nats - self.ladder.height(self.doses)
        carried = self.numbers[2] if carry is None else carry
        return np.minimum(self.ladder.height(doses) + carried * own, self.ceiling)

    def chances(self, doses: Float64) -> Float64:
        """Return float64[K]: the chance that each text is given back."""
        return ndtr((self.numbers[0] - self.heights(doses)) / np.exp(self.numbers[1]))

    def drawn(self, doses: Float64, rng: np.random.Generator, *, draws: int, widened: float) -> Float64:
        """Return float64[draws, K]: chances under numbers drawn from what the fit leaves open.

        Args:
            doses: float64[K].
            rng: for the draws.
            draws: how many.
            widened: factor on the standard deviations.
        """
        numbers = rng.multivariate_normal(self.numbers, self.covariance * widened**2, size=draws)
        own = self.log_nats - self.ladder.height(self.doses)
        heights = np.minimum(self.ladder.height(doses) + numbers[:, 2:] * own, self.ceiling)
        return ndtr((numbers[:, :1] - heights) / np.exp(numbers[:, 1:2]))


def _covariance(badness: Callable[[Float64], float], at: Float64, deviations: Float64) -> Float64:
    """Return the inverse of the curvature at the best fit (Laplace), never wider than the prior in any direction."""
    step = 0.1 * deviations
    size = len(at)
    curvature = np.empty((size, size))
    for i in range(size):
        for j in range(size):
            a, b = np.eye(size)[i] * step, np.eye(size)[j] * step
            corners = badness(at + a + b) - badness(at + a - b) - badness(at - a + b) + badness(at - a - b)
            curvature[i, j] = corners / 4  # in units of the steps
    values, vectors = np.linalg.eigh((curvature + curvature.T) / 2)
    values = np.maximum(values, 0.1**2)  # the prior's own curvature in these units
    return (vectors / values) @ vectors.T * np.outer(step, step)
