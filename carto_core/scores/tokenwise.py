"""Formulas over a text's tokens: how unlikely its least likely tokens are, and how its loss compares with its zip.

Tokens lie end to end, text i at `offsets[i]:offsets[i + 1]` (offsets: int64[N + 1]). Sums are float64, results
float32[N]; NaN = a text without tokens.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import numpy as np

from carto_core.types import Float32, Float64

SHARE = 0.2
MIN_STD = 1e-3  # nats; where a model is certain the spread of its log-probabilities is zero


def min_k(log_probs: Float32, offsets: np.ndarray, share: float = SHARE) -> Float32:
    """Return Min-K%: the mean of each text's lowest log-probabilities (Shi et al., arXiv 2310.16789).

    Higher = member.

    Args:
        log_probs: float32[sum of lengths], log p of each token given those before it, in nats.
        offsets: see the module.
        share: of the tokens that count, in (0, 1]: max(1, floor(share * length)) of them.
    """
    return lowest_mean(log_probs, offsets, share).astype(np.float32)


def min_k_pp(log_probs: Float32, mean: Float32, std: Float32, offsets: np.ndarray, share: float = SHARE) -> Float32:
    """Return Min-K%++: the mean of each text's lowest z = (log p - mean) / std (Zhang et al., arXiv 2404.02936).

    Higher = member.

    Args:
        log_probs: see `min_k`.
        mean: float32[sum of lengths], the log-probability that the model expected at that place, sum_v p log p.
        std: float32[sum of lengths], its standard deviation over the vocabulary; held at or above 0.001.
        offsets: see the module.
        share: see `min_k`.
    """
    z = (log_probs.astype(np.float64) - mean) / np.maximum(std, MIN_STD)
    return lowest_mean(z, offsets, share).astype(np.float32)


def recitation(correct: Float32, offsets: np.ndarray) -> Float32:
    """Return the longest run of tokens that greedy decoding would write, over the number of tokens (ours).

    Fed the true text throughout, so it bounds from above what decoding recites on its own. Higher = memorized; in [0, 1].

    Args:
        correct: float32[sum of lengths], 1 where no other token is more probable, else 0.
        offsets: see the module.
    """
    lengths = np.diff(offsets)
    place = np.arange(len(correct))
    text = np.repeat(np.arange(len(lengths)), lengths)
    # a run begins after the last wrong token, or where its text begins
    last_wrong = np.maximum.accumulate(np.where(correct > 0, -1, place))
    run = place - np.maximum(last_wrong, offsets[text] - 1)
    longest = np.zeros(len(lengths))
    np.maximum.at(longest, text, run)
    return np.where(lengths > 0, longest / np.maximum(lengths, 1), np.nan).astype(np.float32)


def lowest_mean(values: np.ndarray, offsets: np.ndarray, share: float) -> Float64:
    """Return the mean of the lowest max(1, floor(share * length)) values of each text; a product like 2.9999999999 counts as 3."""
    assert 0 < share <= 1
    lengths = np.diff(offsets)
    text = np.repeat(np.arange(len(lengths)), lengths)
    ordered = values[np.lexsort((values, text))].astype(np.float64)
    counts = np.maximum(1, np.floor(np.round(share * lengths, 9))).astype(np.int64)
    is_low = np.arange(len(ordered)) - offsets[text] < counts[text]
    total = np.bincount(text[is_low], weights=ordered[is_low], minlength=len(lengths))
    return np.where(lengths > 0, total / counts, np.nan)


def zlib_ratio(loss: Float32, num_bytes: np.ndarray) -> Float32:
    """Return each text's mean loss over the bytes of its zip (Carlini et al., arXiv 2012.07805). Lower = member.

    Args:
        loss: float32[N], nats per token.
        num_bytes: int64[N], see `zlib_bytes`.

    Returns:
        float32[N]; NaN for a text that is empty, or not known.
    """
    return (loss.astype(np.float64) / np.where(num_bytes > 0, num_bytes, np.nan)).astype(np.float32)


def zlib_bytes(texts: Iterable[str]) -> np.ndarray:
    """Return int64[N]: the length of each text's UTF-8 bytes under zlib's default level; 0 for a text that is empty or not known."""
    return np.fromiter(
        (len(zlib.compress(text.encode("utf-8", "surrogatepass"))) if text else 0 for text in texts), np.int64
    )
