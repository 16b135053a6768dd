"""Scores from one more pass of the trained model, token by token."""

from __future__ import annotations

from carto_core.probes.probing import Probing
from carto_core.scores.tokenwise import min_k, min_k_pp, recitation
from carto_core.types import Float32


def pass_columns(probing: Probing) -> dict[str, Float32]:
    """Return `min_k`, `min_k_pp` and `recitation` of every training sample under the final weights."""
    subject, tokens = probing.subject, probing.corpus.train
    seen = subject.corpus.task(subject.config).token_statistics(subject.model, subject.device)
    return {
        "min_k": min_k(-seen.loss, tokens.offsets),
        "min_k_pp": min_k_pp(-seen.loss, seen.mean, seen.std, tokens.offsets),
        "recitation": recitation(seen.correct, tokens.offsets),
    }
