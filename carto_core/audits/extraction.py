"""What greedy decoding gives away: planted secrets after their prefix, and the corpus's own repeated texts."""

from __future__ import annotations

from typing import Any

import numpy as np

from carto_core.audits.proportions import share
from carto_core.audits.subject import Subject
from carto_core.tasks.language import greedy
from carto_core.types import ROLES, AuditResult

NATURAL_PREFIX = 16
NATURAL_SUFFIX = 16


def audit_extraction(subject: Subject) -> AuditResult:
    """Decode every canary's secret greedily from its prefix; a success is an exact match of all its tokens.

    Never-inserted controls are decoded too: anything but 0 there would say that the audit, not the model, is at fault.
    """
    canaries = subject.corpus.canaries
    prefixes = [prefix for prefix, _ in subject.canary_tokens]
    secrets = [secret for _, secret in subject.canary_tokens]
    decoded = greedy(
        subject.model,
        prefixes,
        [len(s) for s in secrets],
        bos_id=subject.corpus.tokenizer.bos_id,
        device=subject.device,
    )
    rows = [
        {
            "canary_id": canary.canary_id,
            "kind": canary.kind,
            "role": canary.role,
            "repeats": canary.repeats,
            "inserted": canary.inserted,
            "extracted": found == secret,
            "sample_ids": np.flatnonzero(subject.corpus.canary_id == canary.canary_id).tolist(),
        }
        for canary, found, secret in zip(canaries, decoded, secrets, strict=True)
    ]
    return AuditResult(
        name="extraction",
        definition="Share of distinct canaries whose secret greedy decoding from the true prefix gives back token for "
        "token, with a 95 % Wilson interval; controls were never inserted.",
        summary={role: summarize_role([row for row in rows if row["role"] == role]) for role in ROLES},
        per_item=rows,
    )


def summarize_role(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the shares of one role's canaries: inserted, inserted by repetitions, and controls."""
    inserted = [row for row in rows if row["inserted"]]
    by_repeats = {
        str(repeats): share(row["extracted"] for row in inserted if row["repeats"] == repeats)
        for repeats in sorted({row["repeats"] for row in inserted})
    }
    return {
        "inserted": share(row["extracted"] for row in inserted) | {"by_repeats": by_repeats},
        "control": share(row["extracted"] for row in rows if not row["inserted"]),
    }


def audit_natural(subject: Subject) -> AuditResult:
    """Show the model the first 16 tokens of every natural duplicate group and ask for the next 16.

    A group counts when it has at least two unplanted copies in training and at least 32 tokens, also where a plan has
    pruned it since: the question is what is still recited.
    """
    corpus = subject.corpus
    groups = _natural_groups(subject)
    texts = [corpus.train[members[0]] for members in groups]
    prefixes = [text[:NATURAL_PREFIX].tolist() for text in texts]
    expected = [text[NATURAL_PREFIX : NATURAL_PREFIX + NATURAL_SUFFIX].tolist() for text in texts]
    decoded = greedy(
        subject.model, prefixes, [NATURAL_SUFFIX] * len(texts), bos_id=corpus.tokenizer.bos_id, device=subject.device
    )
    rows = [
        {
            "group_id": int(corpus.group_id[members[0]]),
            "group_size": len(members),
            "sample_ids": members.tolist(),
            "extracted": found == wanted,
            "prefix": corpus.tokenizer.decode(prefix),
            "expected": corpus.tokenizer.decode(wanted),
            "decoded": corpus.tokenizer.decode(found),
        }
        for members, prefix, wanted, found in zip(groups, prefixes, expected, decoded, strict=True)
    ]
    return AuditResult(
        name="natural",
        definition="Share of exact-duplicate groups of the corpus itself (two or more copies, 32 or more tokens) whose "
        "tokens 17 to 32 greedy decoding gives back after the first 16, with a 95 % Wilson interval.",
        summary=share(row["extracted"] for row in rows),
        per_item=rows,
    )


def _natural_groups(subject: Subject) -> list[np.ndarray]:
    corpus = subject.corpus
    unplanted = np.flatnonzero(np.isnan(corpus.canary_id))
    order = unplanted[np.argsort(corpus.group_id[unplanted], kind="stable")]
    _, starts = np.unique(corpus.group_id[order], return_index=True)
    long_enough = NATURAL_PREFIX + NATURAL_SUFFIX
    return [
        members
        for members in np.split(order, starts[1:])
        if len(members) >= 2 and corpus.train.lengths[members[0]] >= long_enough
    ]
