"""Scores from one more pass of the trained model, token by token."""

from __future__ import annotations

import numpy as np

from carto_core.probes.probing import Probing
from carto_core.scores.tokenwise import min_k, min_k_pp, recitation
from carto_core.tasks.language import TokenStatistics
from carto_core.types import Float32


def pass_columns(probing: Probing) -> dict[str, Float32]:
    """Return `min_k`, `min_k_pp` and `recitation` of every training sample under the final weights."""
    subject, tokens = probing.subject, probing.corpus.train
    return text_columns(
        subject.corpus.task(subject.config).token_statistics(subject.model, subject.device), tokens.offsets
    )


def text_columns(seen: TokenStatistics, offsets: np.ndarray) -> dict[str, Float32]:
    """Return the same of texts whose tokens lie end to end, float32[N] each.

    Args:
        seen: what the model thought of every token.
        offsets: int64[N + 1], see `tokenwise`.
    """
    return {
        "min_k": min_k(-seen.loss, offsets),
        "min_k_pp": min_k_pp(-seen.loss, seen.mean, seen.std, offsets),
        "recitation": recitation(seen.correct, offsets),
    }
