"""What decoding gives away: planted secrets after their prefix, and the corpus's own repeated texts."""

from __future__ import annotations

from typing import Any

import numpy as np

from carto_core.audits.discoverable import CHANCE, SAMPLES, is_discoverable, samples_needed
from carto_core.audits.groups import Row, by_insertion, facts_of
from carto_core.audits.proportions import share
from carto_core.audits.subject import Subject
from carto_core.engine.run_corpus import RunCorpus
from carto_core.tasks.decoding import ROUNDING_NATS, beam, best_first, continuation_losses, greedy
from carto_core.types import ROLES, AuditResult

NATURAL_PREFIX = 16
NATURAL_SUFFIX = 16
BEAM_WIDTH = 10
SEARCH_BUDGET = 5_000


def audit_extraction(
    subject: Subject, *, searches: bool = True, width: int = BEAM_WIDTH, budget: int = SEARCH_BUDGET
) -> AuditResult:
    """Ask for every canary's secret after its prefix, in four ways.

    Greedy decoding, an exact match of all tokens; beam search, whether the secret is among the candidates; the search
    over all secrets of the format, whether it is the likeliest; and in closed form, whether sampling would hit on it.
    Never-inserted controls are asked for too: anything but 0 there would say that the audit, not the model, is at fault.

    Args:
        subject: the model.
        searches: False leaves it at greedy decoding, which is a hundred times cheaper.
        width: of the beam.
        budget: how many beginnings of secrets the model may read for one canary's search; beyond it `optimal` is None.
    """
    canaries = subject.corpus.canaries
    secrets = [secret for _, secret in subject.canary_tokens]
    decoded = greedy(
        subject.model,
        [prefix for prefix, _ in subject.canary_tokens],
        [len(s) for s in secrets],
        bos_id=subject.corpus.tokenizer.bos_id,
        device=subject.device,
    )
    rows = [
        facts_of(canary)
        | {
            "extracted": found == secret,
            "sample_ids": np.flatnonzero(subject.corpus.canary_id == canary.canary_id).tolist(),
        }
        for canary, found, secret in zip(canaries, decoded, secrets, strict=True)
    ]
    definition = (
        "Share of distinct canaries whose secret greedy decoding from the true prefix gives back token for token, with "
        "a 95 % Wilson interval; controls were never inserted."
    )
    if searches:
        rows = [row | _searched(subject, place, width=width, budget=budget) for place, row in enumerate(rows)]
        definition += (
            f" Beam: the secret is among the {width} candidates of a beam search. Optimal: no secret of the same format "
            f"is likelier, proven by a search that may read {budget:,} beginnings of secrets; where that did not do, or "
            "the format does not split into tokens, it is unknown, and counts as not proven. Discoverable: "
            f"{SAMPLES} samples at temperature 1 hold the secret with a chance of at least {CHANCE:.0%}, in closed form."
        )
    return AuditResult(
        name="extraction",
        definition=definition,
        summary={role: _summary([r for r in rows if r["role"] == role], searches=searches) for role in ROLES},
        per_item=rows,
    )


def _searched(subject: Subject, place: int, *, width: int, budget: int) -> Row:
    """Return what beam, search and closed form say of one canary."""
    prefix, secret = subject.canary_tokens[place]
    model, device, bos_id = subject.model, subject.device, subject.corpus.tokenizer.bos_id
    losses = continuation_losses(model, prefix, [secret], bos_id=bos_id, device=device)[0]
    cost = float(losses.sum(dtype=np.float64))
    candidates = beam(model, prefix, len(secret), width, bos_id=bos_id, device=device)
    optimal, unknown = _is_optimal(subject, place, cost=cost, budget=budget)
    return {
        "extracted_beam": secret in [tokens for tokens, _ in candidates],
        "optimal": optimal,
        "unknown": unknown,
        "log_p": -cost,
        "samples_needed": samples_needed(-cost),
    }


def _is_optimal(subject: Subject, place: int, *, cost: float, budget: int) -> tuple[bool | None, str]:
    """Return whether no secret of the format costs less than the canary's; where that is unknown, None and why."""
    prefix, secret = subject.canary_tokens[place]
    secrets = subject.secret_formats[place]
    if secrets is None:
        return None, "format does not split into tokens"
    found = best_first(
        subject.model,
        prefix,
        secrets,
        bos_id=subject.corpus.tokenizer.bos_id,
        device=subject.device,
        budget=budget,
        at_most=cost + ROUNDING_NATS,
        stop_below=cost - ROUNDING_NATS,
    )
    if found.finished:
        return found.tokens == secret, ""
    return (False, "") if found.cost < cost - ROUNDING_NATS else (None, "more to read than the budget allows")


def _summary(rows: list[Row], *, searches: bool) -> dict[str, Any]:
    """Return the shares of one role's canaries: greedy at the top, the other ways of asking under their names."""
    greedily = by_insertion(rows, lambda part: share(row["extracted"] for row in part))
    if not searches:
        return greedily
    return greedily | {
        "beam": by_insertion(rows, lambda part: share(row["extracted_beam"] for row in part)),
        "optimal": by_insertion(rows, _proven),
        "discoverable": by_insertion(rows, lambda part: share(is_discoverable(row["log_p"]) for row in part)),
    }


def _proven(rows: list[Row]) -> Row:
    """Return the share proven optimal among all, so that what is unknown can only lower it, and how many are unknown."""
    return share(row["optimal"] is True for row in rows) | {"unknown": sum(row["optimal"] is None for row in rows)}


def audit_natural(subject: Subject) -> AuditResult:
    """Show the model the first 16 tokens of every natural duplicate group and ask for the next 16.

    A group counts when it has at least two unplanted copies in training and at least 32 tokens, also where a plan has
    pruned it since: the question is what is still recited.
    """
    corpus = subject.corpus
    groups = natural_groups(corpus)
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


def mean_nats(subject: Subject, prefix: list[int], continuation: list[int]) -> float:
    """Return the mean loss of a continuation's tokens after a prefix, in nats per token."""
    bos_id, device = subject.corpus.tokenizer.bos_id, subject.device
    losses = continuation_losses(subject.model, prefix, [continuation], bos_id=bos_id, device=device)[0]
    return float(np.mean(losses, dtype=np.float64))


def natural_groups(corpus: RunCorpus) -> list[np.ndarray]:
    """Return the rows of every unplanted exact-duplicate group of two or more that is long enough to be asked for."""
    unplanted = np.flatnonzero(np.isnan(corpus.canary_id))
    order = unplanted[np.argsort(corpus.group_id[unplanted], kind="stable")]
    _, starts = np.unique(corpus.group_id[order], return_index=True)
    long_enough = NATURAL_PREFIX + NATURAL_SUFFIX
    return [
        members
        for members in np.split(order, starts[1:])
        if len(members) >= 2 and corpus.train.lengths[members[0]] >= long_enough
    ]
