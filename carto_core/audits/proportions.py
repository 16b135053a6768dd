"""Shares with their intervals, in the one shape that every audit reports."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from scipy.stats import binomtest


def share(successes: Iterable[bool]) -> dict[str, Any]:
    """Return `k, n, rate, low, high`: a proportion with its 95 % Wilson interval.

    Of nothing, rate, low and high are None: unknown, not zero.
    """
    outcomes = list(successes)
    k, n = sum(outcomes), len(outcomes)
    if n == 0:
        return {"k": 0, "n": 0, "rate": None, "low": None, "high": None}
    interval = binomtest(k, n).proportion_ci(confidence_level=0.95, method="wilson")
    return {"k": k, "n": n, "rate": k / n, "low": float(interval.low), "high": float(interval.high)}
