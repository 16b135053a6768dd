"""Perplexity on the validation split, which holds no canary and shares no duplicate group with training."""

from __future__ import annotations

import math

import numpy as np

from carto_core.audits.subject import Subject
from carto_core.types import AuditResult


def audit_perplexity(subject: Subject) -> AuditResult:
    """Return the token-weighted perplexity: exp(-(1/N_tok) sum log p) over every token of the split.

    Windows, tokenizer and BOS are the run's own, so the number compares models of one run, not of different ones.
    """
    tokens = subject.corpus.validation
    losses = subject.corpus.task(subject.config, tokens).token_losses(subject.model, subject.device)
    nats = float(np.mean(losses, dtype=np.float64))
    return AuditResult(
        name="perplexity",
        definition="exp of the mean loss over all tokens of the validation split (token-weighted, canary-free).",
        summary={
            "nats_per_token": nats,
            "perplexity": math.exp(min(nats, 700.0)),
            "num_tokens": len(losses),
            "num_samples": len(tokens),
        },
    )
