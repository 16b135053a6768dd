"""Exposure: how far up a secret ranks among never-inserted secrets of its own format and prefix."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import stats

from carto_core.audits.groups import Row, by_insertion, facts_of
from carto_core.audits.subject import Subject
from carto_core.corpus.canaries import Canary
from carto_core.tasks.decoding import ROUNDING_NATS, continuation_losses, count_at_most
from carto_core.types import ROLES, AuditResult, Float64

NUM_REFERENCES = 1000
COUNT_BUDGET = 10_000
REJECTED = 0.05


def exposure_of_rank(num_references: int, num_at_most: int) -> float:
    """Return log2(m) - log2(1 + #references with loss <= the secret's), in bits.

    Saturates at log2(m), to be read as "at least"; ties count against the secret; a secret behind all references is
    slightly negative. Source: arXiv 1802.08232, the sampling estimate of `tensorflow/privacy` secret_sharer.
    """
    return math.log2(num_references) - math.log2(1 + num_at_most)


def extrapolated(references: Float64, cost: float) -> tuple[float | None, float | None]:
    """Return -log2 of the skew-normal distribution function at `cost`, fitted to the references' costs; and the fit's p.

    The p-value is that of a Kolmogorov-Smirnov test against the fitted curve itself, hence lenient: a small one says
    that the curve is wrong, a large one not that its tail is right. The first is None where the tail is too thin for a
    double, both where the references do not vary. Source: arXiv 1802.08232.

    Args:
        references: float64[m], -log p of each reference, in nats.
        cost: of the secret, likewise.
    """
    if np.ptp(references) <= ROUNDING_NATS:
        return None, None
    curve = stats.skewnorm(*stats.skewnorm.fit(references))
    bits = -float(curve.logcdf(cost)) / math.log(2)
    p_value = float(stats.kstest(references, curve.cdf).pvalue)
    return (abs(bits) if math.isfinite(bits) else None), p_value


def audit_exposure(
    subject: Subject,
    *,
    num_references: int = NUM_REFERENCES,
    searches: bool = True,
    controls: bool = True,
    budget: int = COUNT_BUDGET,
) -> AuditResult:
    """Rank every canary's secret among others of its format, each read after the canary's own prefix, in three ways.

    Among `num_references` sampled ones; on a curve fitted to those; and exactly, among all, by counting the cheaper ones.

    Args:
        subject: the model.
        num_references: how many are sampled.
        searches: False leaves out the curve and the exact rank.
        controls: False leaves out the canaries that were never inserted.
        budget: how many beginnings of secrets the model may read to count those that rank before one canary's; beyond
            it the exact rank is None.
    """
    rows = []
    for place, canary in enumerate(subject.corpus.canaries):
        if not (canary.inserted or controls):
            continue
        cost, references = _costs(subject, place, num_references=num_references)
        row = _sampled(canary, cost, references)
        if searches:
            row |= _fitted(cost, references) | _enumerated(subject, place, cost, budget=budget)
        rows.append(row)
    definition = (
        f"log2 of {num_references} references minus log2 of the secret's rank by loss after its own prefix; at "
        f"{math.log2(num_references):.2f} bits it is saturated (read: at least). Chance averages 1.44 bits."
    )
    if searches:
        definition += (
            " Extrapolated: -log2 of a skew-normal distribution fitted to the references, unless a Kolmogorov-Smirnov "
            f"test rejects the fit (p < {REJECTED}). Enumerated: log2 of the number of secrets of the format minus log2 "
            f"of the exact rank among all of them, counted by a search that may read {budget:,} beginnings of secrets, "
            "unknown where that does not do."
        )
    by_role = {role: _summary([r for r in rows if r["role"] == role], searches=searches) for role in ROLES}
    return AuditResult(
        name="exposure", definition=definition, summary=by_role | {"num_references": num_references}, per_item=rows
    )


def _costs(subject: Subject, place: int, *, num_references: int) -> tuple[float, Float64]:
    """Return -log p of the canary's secret and of the references, in nats."""
    prefix, secret = subject.canary_tokens[place]
    references = subject.corpus.references(
        subject.corpus.canaries[place], count=num_references, seed=subject.config.engine.seed
    )
    losses = continuation_losses(
        subject.model,
        prefix,
        [secret, *references],
        bos_id=subject.corpus.tokenizer.bos_id,
        device=subject.device,
    )
    total = np.array([loss.sum(dtype=np.float64) for loss in losses])
    return float(total[0]), total[1:]


def _sampled(canary: Canary, cost: float, references: Float64) -> Row:
    num_at_most = int((references <= cost).sum())
    exposure, saturated = exposure_of_rank(len(references), num_at_most), num_at_most == 0
    return facts_of(canary) | {
        "exposure": exposure,
        "rank": 1 + num_at_most,
        "log2_space": canary.log2_space,
        "saturated": saturated,
        "reading": f"{'>= ' if saturated else ''}{exposure:.2f}",
    }


def _fitted(cost: float, references: Float64) -> Row:
    bits, p_value = extrapolated(references, cost)
    accepted = p_value is not None and p_value >= REJECTED
    return {"exposure_extrapolated": bits if accepted else None, "skewnorm_bits": bits, "skewnorm_p": p_value}


def _enumerated(subject: Subject, place: int, cost: float, *, budget: int) -> Row:
    """Return the exact rank among all secrets of the format, ties against the secret, and the exposure it gives."""
    secrets = subject.secret_formats[place]
    if secrets is None:
        return {"rank_exact": None, "exposure_enumeration": None, "unknown": "format does not split into tokens"}
    count = count_at_most(
        subject.model,
        subject.canary_tokens[place][0],
        secrets,
        cost + ROUNDING_NATS,
        bos_id=subject.corpus.tokenizer.bos_id,
        device=subject.device,
        budget=budget,
    )
    if count is None:
        return {"rank_exact": None, "exposure_enumeration": None, "unknown": "more to count than the budget allows"}
    rank = max(1, count)  # the count holds the secret itself
    bits = subject.corpus.canaries[place].log2_space - math.log2(rank)
    return {"rank_exact": rank, "exposure_enumeration": bits, "unknown": ""}


def _summary(rows: list[Row], *, searches: bool) -> dict[str, Any]:
    """Return how exposure spreads over one role's canaries; the exact ranks beside, under `enumeration`."""
    sampled = by_insertion(rows, lambda part: _spread([row["exposure"] for row in part]))
    return sampled | {"enumeration": by_insertion(rows, _ranked)} if searches else sampled


def _ranked(rows: list[Row]) -> Row:
    """Return how many exact ranks are known, how many are the first of all, and how many are unknown."""
    ranks = [row["rank_exact"] for row in rows if row["rank_exact"] is not None]
    return {"n": len(rows), "known": len(ranks), "first": ranks.count(1), "unknown": len(rows) - len(ranks)}


def _spread(values: list[float]) -> dict[str, Any]:
    """Return `n`, mean, median and quartiles; None where there is nothing."""
    if not values:
        return {"n": 0, "mean": None, "median": None, "low": None, "high": None}
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return {
        "n": len(values),
        "mean": float(np.mean(values)),
        "median": float(median),
        "low": float(low),
        "high": float(high),
    }
