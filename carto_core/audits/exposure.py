"""Exposure: how far up a secret ranks among never-inserted secrets of its own format and prefix."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from carto_core.audits.subject import Subject
from carto_core.corpus.canaries import Canary, draw_references
from carto_core.tasks.language import continuation_losses
from carto_core.types import ROLES, AuditResult

NUM_REFERENCES = 1000


def exposure_of_rank(num_references: int, num_at_most: int) -> float:
    """Return log2(m) - log2(1 + #references with loss <= the secret's), in bits.

    Saturates at log2(m), to be read as "at least"; ties count against the secret; a secret behind all references is
    slightly negative. Source: arXiv 1802.08232, the sampling estimate of `tensorflow/privacy` secret_sharer.
    """
    return math.log2(num_references) - math.log2(1 + num_at_most)


def audit_exposure(subject: Subject, *, num_references: int = NUM_REFERENCES) -> AuditResult:
    """Rank every canary's secret among `num_references` sampled ones, each read after the canary's own prefix."""
    taken = {canary.secret for canary in subject.corpus.canaries}
    rows = [
        _row(subject, canary, tokens, taken=taken, num_references=num_references)
        for canary, tokens in zip(subject.corpus.canaries, subject.canary_tokens, strict=True)
    ]
    summary = {role: _summarize([row for row in rows if row["role"] == role]) for role in ROLES}
    return AuditResult(
        name="exposure",
        definition=f"log2 of {num_references} references minus log2 of the secret's rank by loss after its own prefix; "
        f"at {math.log2(num_references):.2f} bits it is saturated (read: at least). Chance averages 1.44 bits.",
        summary=summary | {"num_references": num_references},
        per_item=rows,
    )


def _row(
    subject: Subject, canary: Canary, tokens: tuple[list[int], list[int]], *, taken: set[str], num_references: int
) -> dict[str, Any]:
    prefix, secret = tokens
    references = draw_references(
        canary,
        words=subject.corpus.words,
        tokenizer=subject.corpus.tokenizer,
        taken=taken,
        count=num_references,
        seed=subject.config.engine.seed,
    )
    losses = continuation_losses(
        subject.model,
        prefix,
        [secret, *references],
        bos_id=subject.corpus.tokenizer.bos_id,
        device=subject.device,
    )
    total = np.array([loss.sum(dtype=np.float64) for loss in losses])
    num_at_most = int((total[1:] <= total[0]).sum())
    return {
        "canary_id": canary.canary_id,
        "kind": canary.kind,
        "role": canary.role,
        "repeats": canary.repeats,
        "inserted": canary.inserted,
        "exposure": exposure_of_rank(num_references, num_at_most),
        "rank": 1 + num_at_most,
        "log2_space": canary.log2_space,
        "saturated": num_at_most == 0,
    }


def _summarize(rows: list[dict[str, Any]]) -> dict[str, Any]:
    inserted = [row for row in rows if row["inserted"]]
    repeats = sorted({row["repeats"] for row in inserted})
    by_repeats = {str(r): _spread([row["exposure"] for row in inserted if row["repeats"] == r]) for r in repeats}
    return {
        "inserted": _spread([row["exposure"] for row in inserted]) | {"by_repeats": by_repeats},
        "control": _spread([row["exposure"] for row in rows if not row["inserted"]]),
    }


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
