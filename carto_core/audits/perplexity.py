"""Perplexity on the validation split, which holds no canary and shares no duplicate group with training."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from carto_core.audits.bootstrap import DRAWS, middle, resampled_sums
from carto_core.audits.subject import Subject
from carto_core.corpus.identity import duplicate_groups
from carto_core.corpus.tokenizer import BOS
from carto_core.types import AuditResult, Float64

LARGEST_EXPONENT = 700.0  # beyond it a double overflows; a perplexity of e^700 says enough


def audit_perplexity(subject: Subject) -> AuditResult:
    """Return the perplexity per token and per word, and the bits per byte, each with its interval.

    With `nats` the loss of the whole split, summed over every token: exp(nats / tokens), exp(nats / words), and
    nats / (ln 2 * bytes). Words (between whitespace) and bytes (UTF-8) are those of the original texts, so that the
    latter two compare models with different tokenizers; the first compares models of one tokenizer and window alone.
    The intervals resample whole groups of duplicate validation texts, under this one model.
    """
    sums = _sums_by_group(subject)
    nats, tokens, words, num_bytes = sums.sum(0)
    drawn = resampled_sums(sums, seed=subject.config.engine.seed) if len(sums) > 1 else None
    per_token = _ratio(sums, drawn, 1)
    token, word = _exp(per_token), _exp(_ratio(sums, drawn, 2))
    byte = {name: None if value is None else value / math.log(2) for name, value in _ratio(sums, drawn, 3).items()}
    context = subject.config.model.context
    return AuditResult(
        name="perplexity",
        definition="exp of the mean loss over all tokens of the validation split (token-weighted, canary-free), read in "
        f"disjoint windows of {context} tokens; a text begins with {BOS}, every token is predicted once. Per word and "
        "per byte: the same loss over the original texts' words and UTF-8 bytes. 95 % intervals by bootstrap over "
        "groups of duplicate texts, for this model alone.",
        summary={
            "nats_per_token": per_token["value"],
            "perplexity": token["value"],
            "num_tokens": int(tokens),
            "num_samples": len(subject.corpus.validation),
            "num_words": int(words),
            "num_bytes": int(num_bytes),
            "nats": float(nats),
            "intervals": {"nats_per_token": per_token, "perplexity": token, "word_perplexity": word}
            | {"bits_per_byte": byte},
            "window": {"context": context, "stride": context, "bos": BOS, "predicted": "every token once"},
            "tokenizer_sha256": subject.tokenizer_sha256,
            "bootstrap": {"draws": DRAWS, "clusters": len(sums), "seed": subject.config.engine.seed},
        },
    )


def _sums_by_group(subject: Subject) -> Float64:
    """Return float64[G, 4]: nats, tokens, words and bytes of every group of duplicate validation texts."""
    tokens, texts = subject.corpus.validation, subject.corpus.validation_texts
    losses = subject.corpus.task(subject.config, tokens).token_losses(subject.model, subject.device)
    running = np.concatenate([[0.0], np.cumsum(losses, dtype=np.float64)])
    columns = [
        running[tokens.offsets[1:]] - running[tokens.offsets[:-1]],
        tokens.lengths,
        [len(text.split()) for text in texts],
        [len(text.encode("utf-8")) for text in texts],
    ]
    group_id = duplicate_groups(texts)
    return np.stack([np.bincount(group_id, weights=column).astype(np.float64) for column in columns], axis=1)


def _ratio(sums: Float64, drawn: Float64 | None, column: int) -> dict[str, float | None]:
    """Return nats over the sums of a column, with its interval; None where there is nothing to divide by or to draw."""
    total = sums.sum(0)
    if total[column] == 0:
        return {"value": None, "low": None, "high": None}
    value = float(total[0] / total[column])
    if drawn is None or not (drawn[:, column] > 0).all():
        return {"value": value, "low": None, "high": None}
    low, high = middle(drawn[:, 0] / drawn[:, column])
    return {"value": value, "low": low, "high": high}


def _exp(parts: dict[str, float | None]) -> dict[str, Any]:
    return {k: None if v is None else math.exp(min(v, LARGEST_EXPONENT)) for k, v in parts.items()}
