"""(n, p)-discoverable extraction in closed form: how many samples until a text comes out, from its probability alone.

Source: Hayes et al. 2024 (arXiv 2410.19482), for the plain sampler: temperature 1, no token cut off. There one sample is
the text with probability p_z = exp(log_p), and n of them hold it at least once with 1 - (1 - p_z) ** n.
"""

from __future__ import annotations

import math

CHANCE = 0.5  # the p of (n, p)
SAMPLES = 100  # the n at which shares are reported
ROUNDING = 1e-12


def chance_within(log_p: float, n: float) -> float:
    """Return 1 - (1 - p_z) ** n: the chance that `n` samples hold the text at least once.

    Args:
        log_p: log-probability of the text, in nats, at most 0.
        n: samples, at least 1.
    """
    if log_p >= 0:
        return 1.0
    return -math.expm1(n * math.log1p(-math.exp(log_p)))


def samples_needed(log_p: float, chance: float = CHANCE) -> float | None:
    """Return the smallest n with 1 - (1 - p_z) ** n >= `chance`: a whole number, a float since it may pass any integer type.

    None where p_z is 0, also by underflow (below about -745 nats): no number of samples that can be told.

    Args:
        log_p: log-probability of the text, in nats, at most 0.
        chance: in (0, 1).
    """
    if log_p >= 0:
        return 1.0
    log_miss = math.log1p(-math.exp(log_p))
    if log_miss == 0:
        return None
    exact = math.log1p(-chance) / log_miss
    # a whole number that rounding lifted a hair must not become the next one
    return max(1.0, float(math.ceil(exact * (1 - ROUNDING)))) if math.isfinite(exact) else None


def is_discoverable(log_p: float, n: float = SAMPLES, chance: float = CHANCE) -> bool:
    """Return whether `n` samples hold the text with at least the given chance."""
    needed = samples_needed(log_p, chance)
    return needed is not None and needed <= n
