"""Verbatim extraction from the corpus's own texts: what the model goes on to recite when it is shown how one begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from carto_core.audits.discoverable import CHANCE, SAMPLES, is_discoverable, samples_needed
from carto_core.audits.proportions import share
from carto_core.audits.subject import Subject
from carto_core.corpus.prepared import Tokens
from carto_core.tasks.decoding import greedy
from carto_core.types import AuditResult, Float64, Int32

PREFIX = 16
SUFFIX = 16
LONGEST = 50  # tokens that are decoded to look for a common run
PREFIXES = (8, 16, 32, 50)
SIZES = {"1": (1, 1), "2": (2, 2), "3-4": (3, 4), "5+": (5, None)}
RUN_PAIRS = 512  # pairs compared at a time; bounds memory
Row = dict[str, Any]


def audit_verbatim(subject: Subject) -> AuditResult:
    """Show the model how each distinct training text begins and see how far it recites the rest.

    Every text of at least 32 tokens counts, canaries left out, also where a plan has pruned it since. A text longer
    than the model's context is asked for as far as its first window goes: beyond it training began anew.
    """
    groups, sizes = _distinct_texts(subject)
    texts = [_first_window(subject, sample) for sample in groups]
    decoded = {k: _continued(subject, texts, k) for k in PREFIXES}
    log_p = _suffix_log_p(subject, texts)
    tokens, chars = _common_runs(subject, texts, decoded[PREFIX])
    rows = [
        {
            "sample_id": int(sample),
            "group_id": int(subject.corpus.group_id[sample]),
            "group_size": int(sizes[i]),
            "extracted": _recited(texts[i], decoded[PREFIX][i], PREFIX),
            "longest_tokens": int(tokens[i]),
            "longest_chars": int(chars[i]),
            "log_p": float(log_p[i]),
            "samples_needed": samples_needed(float(log_p[i])),
            "k_extractable": next(
                (k for k in PREFIXES if i in decoded[k] and _recited(texts[i], decoded[k][i], k)), None
            ),
            "num_tokens": len(texts[i]),
        }
        for i, sample in enumerate(groups)
    ]
    return AuditResult(
        name="verbatim",
        definition=f"Share of the distinct training texts (canaries left out, {PREFIX + SUFFIX} or more tokens) whose "
        f"tokens {PREFIX + 1} to {PREFIX + SUFFIX} greedy decoding gives back after the first {PREFIX}, with a 95 % "
        "Wilson interval. Longest: the longest run that the greedy continuation and the true one have in common, "
        f"wherever it stands, in up to {LONGEST} tokens. k-extractable: the first k tokens give back the next {SUFFIX}. "
        f"Discoverable: {SAMPLES} samples at temperature 1 hold those tokens with a chance of at least {CHANCE:.0%}, "
        f"in closed form. Texts are read as far as the first window of {subject.config.model.context} tokens.",
        summary=_shares(rows) | {"by_group_size": _by_size(rows), "by_prefix": _by_prefix(texts, decoded)},
        per_item=rows,
    )


def longest_common_runs(first: Sequence[Sequence[int]], second: Sequence[Sequence[int]]) -> Int32:
    """Return int32[N]: the length of the longest contiguous run that `first[i]` and `second[i]` share, at any places.

    Args:
        first: N sequences of numbers >= 0.
        second: as many.
    """
    found = [
        _runs(_padded(first[start : start + RUN_PAIRS], -1), _padded(second[start : start + RUN_PAIRS], -2))
        for start in range(0, len(first), RUN_PAIRS)
    ]
    return np.concatenate([np.empty(0, np.int32), *found])


def _runs(first: Int32, second: Int32) -> Int32:
    """The textbook table of common suffix lengths, a row at a time, over all pairs at once."""
    longest = np.zeros(len(first), np.int32)
    ending = np.zeros((len(first), second.shape[1] + 1), np.int32)
    for column in first.T:
        ending[:, 1:] = np.where(second == column[:, None], ending[:, :-1] + 1, 0)
        np.maximum(longest, ending.max(1), out=longest)
    return longest


def _padded(rows: Sequence[Sequence[int]], fill: int) -> Int32:
    table = np.full((len(rows), max((len(row) for row in rows), default=0)), fill, np.int32)
    for place, row in enumerate(rows):
        table[place, : len(row)] = row
    return table


def _distinct_texts(subject: Subject) -> tuple[np.ndarray, np.ndarray]:
    """Return the first sample of every duplicate group that is long enough, and how many unplanted copies it has."""
    corpus = subject.corpus
    unplanted = np.flatnonzero(np.isnan(corpus.canary_id))
    _, first, sizes = np.unique(corpus.group_id[unplanted], return_index=True, return_counts=True)
    samples = unplanted[first]
    readable = np.minimum(corpus.train.lengths[samples], subject.config.model.context)
    enough = readable >= PREFIX + SUFFIX
    return samples[enough], sizes[enough]


def _first_window(subject: Subject, sample: int) -> list[int]:
    return subject.corpus.train[sample][: subject.config.model.context].tolist()


def _continued(subject: Subject, texts: list[list[int]], k: int) -> dict[int, list[int]]:
    """Return what greedy decoding writes after the first `k` tokens, by place of the text; short texts are left out."""
    places = [i for i, text in enumerate(texts) if len(text) >= k + SUFFIX]
    found = greedy(
        subject.model,
        [texts[i][:k] for i in places],
        [min(len(texts[i]) - k, LONGEST) if k == PREFIX else SUFFIX for i in places],
        bos_id=subject.corpus.tokenizer.bos_id,
        device=subject.device,
    )
    return dict(zip(places, found, strict=True))


def _recited(text: list[int], continuation: list[int], k: int) -> bool:
    return continuation[:SUFFIX] == text[k : k + SUFFIX]


def _suffix_log_p(subject: Subject, texts: list[list[int]]) -> Float64:
    """Return float64[N]: the log-probability of tokens 17 to 32 after the first 16, in nats."""
    long = PREFIX + SUFFIX
    ids = np.array([text[:long] for text in texts], np.int32).reshape(len(texts), long)
    tokens = Tokens(ids.ravel(), np.arange(len(texts) + 1, dtype=np.int64) * long)
    losses = subject.corpus.task(subject.config, tokens).token_losses(subject.model, subject.device)
    return -losses.reshape(ids.shape)[:, PREFIX:].sum(1, dtype=np.float64)


def _common_runs(subject: Subject, texts: list[list[int]], decoded: dict[int, list[int]]) -> tuple[Int32, Int32]:
    """Return the longest common run of the continuation and the true one, in tokens and in characters."""
    written = [decoded[i] for i in range(len(texts))]
    true = [text[PREFIX : PREFIX + len(ids)] for text, ids in zip(texts, written, strict=True)]
    decode = subject.corpus.tokenizer.decode
    chars = longest_common_runs([_points(decode(ids)) for ids in written], [_points(decode(ids)) for ids in true])
    return longest_common_runs(written, true), chars


def _points(text: str) -> list[int]:
    return [ord(character) for character in text]


def _by_size(rows: list[Row]) -> dict[str, Any]:
    return {
        name: _shares([r for r in rows if low <= r["group_size"] and (high is None or r["group_size"] <= high)])
        for name, (low, high) in SIZES.items()
    }


def _by_prefix(texts: list[list[int]], decoded: dict[int, dict[int, list[int]]]) -> dict[str, Any]:
    """Return the share recited after each prefix length, among the texts that are long enough for it."""
    return {str(k): share(_recited(texts[i], found, k) for i, found in decoded[k].items()) for k in PREFIXES}


def _shares(rows: list[Row]) -> dict[str, Any]:
    """Return the share extracted, the share discoverable, and how long the common runs are."""
    longest = [row["longest_tokens"] for row in rows]
    return share(row["extracted"] for row in rows) | {
        "discoverable": share(is_discoverable(row["log_p"]) for row in rows),
        "k_extractable": share(row["k_extractable"] is not None for row in rows),
        "longest_tokens": {"median": float(np.median(longest)), "max": max(longest)} if rows else None,
    }
