"""Membership inference: can one tell texts that the model was trained on from texts of the same pool that it was not?

Every attack gives a text one number, higher = member. Two of them compare with models that did not see the text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from carto_core.audits.subject import Subject
from carto_core.corpus.identity import duplicate_groups
from carto_core.corpus.prepared import Tokens
from carto_core.engine.run_corpus import RunCorpus
from carto_core.errors import RunCorrupt
from carto_core.scores.roc import Estimate, roc
from carto_core.scores.tokenwise import min_k, min_k_pp, zlib_bytes, zlib_ratio
from carto_core.store.folds import Folds
from carto_core.types import AuditResult, Bool, Float64

ATTACKS = ("loss", "zlib", "reference", "min_k", "min_k_pp", "lira")
COMMAND = "python -m carto_core probe RUN folds"
MANY_MODELS = 64  # below it a text's own variance is too rough; the number is the field's custom
MIN_STD = 1e-30
TOO_FEW = "too few"
POOLED = f"fewer than {MANY_MODELS} reference models: one pooled variance, so it ranks the texts as the reference attack does"


def audit_membership(subject: Subject) -> AuditResult:
    """Attack one model in six ways and return how well each tells members from non-members.

    Args:
        subject: the model, its run's corpus and, where they were trained, the fold models.

    Raises:
        RunCorrupt: the fold models were trained on another number of texts.
    """
    pool = draw_pool(subject.corpus, seed=subject.config.engine.seed)
    scores = attack_scores(subject, pool)
    attacks = {name: _report(name, scores, pool, subject) for name in ATTACKS}
    return AuditResult(
        name="membership",
        definition="How well a number tells training samples (members; one per duplicate group, no canary) from "
        "validation samples (non-members; one per duplicate group). Both come from one pool by a random split by "
        "duplicate group; training groups larger than the largest validation group are left out, so that sizes cannot "
        "tell them apart. Area under the ROC curve, and the largest true-positive rate at a false-positive rate of at "
        "most 1 % and 0.1 %, with 95 % bootstrap intervals over texts, for this one model; 0.5 is chance."
        + _pruned(pool.left_out["not_trained_on"]),
        summary={
            "num_members": len(pool.members),
            "num_nonmembers": len(pool.nonmembers),
            "left_out": pool.left_out,
            "num_reference_models": len(subject.folds) if subject.folds else 0,
            "attacks": attacks,
        },
    )


@dataclass(frozen=True)
class Pool:
    """The texts that the attacks are tried on.

    Attributes:
        members: int64[n], sample ids, ascending.
        nonmembers: int64[m], places in the validation split, ascending.
        left_out: how many samples are in neither, by reason.
    """

    members: np.ndarray
    nonmembers: np.ndarray
    left_out: dict[str, int]

    @property
    def is_member(self) -> Bool:
        """bool[n + m]: members first."""
        return np.arange(len(self.members) + len(self.nonmembers)) < len(self.members)


def draw_pool(corpus: RunCorpus, *, seed: int) -> Pool:
    """Draw one text per duplicate group of either side.

    Args:
        corpus: of the run; a text of which no copy was trained on is no member.
        seed: of the draw within groups.
    """
    rng = np.random.default_rng([seed, 9])
    group, validation_group = corpus.group_id, duplicate_groups(_texts(corpus, corpus.validation))
    trained = np.ones(len(group), bool) if corpus.repeats is None else corpus.repeats > 0
    too_large = np.bincount(group)[group] > np.bincount(validation_group).max(initial=0)
    reasons = {
        "canaries": np.isin(group, group[~np.isnan(corpus.canary_id)]),
        "in_large_groups": too_large,
        "not_trained_on": ~np.isin(group, group[trained]),
        "empty": corpus.train.lengths == 0,
    }
    left, left_out = np.ones(len(group), bool), {}
    for reason, applies in reasons.items():
        left_out[reason] = int((left & applies).sum())
        left &= ~applies
    filled = corpus.validation.lengths > 0
    members = _one_per_group(np.flatnonzero(left), group, rng)
    nonmembers = _one_per_group(np.flatnonzero(filled), validation_group, rng)
    left_out |= {
        "further_copies": int(left.sum()) - len(members),
        "validation_empty": int((~filled).sum()),
        "validation_further_copies": int(filled.sum()) - len(nonmembers),
    }
    return Pool(members, nonmembers, left_out)


def attack_scores(subject: Subject, pool: Pool) -> dict[str, Float64]:
    """Return float64[n + m] of each attack that can be run, members first; NaN where it says nothing of a text."""
    corpus = subject.corpus
    sides = [
        _from_tokens(subject, corpus.train, pool.members),
        _from_tokens(subject, corpus.validation, pool.nonmembers),
    ]
    scores = {name: np.concatenate([side[name] for side in sides]) for name in sides[0]}
    if subject.folds is not None:
        losses, is_out = reference_losses(subject.folds, pool, corpus, seed=subject.config.engine.seed)
        scores["reference"] = reference_score(scores["loss"], losses, is_out)
        scores["lira"] = offline_lira(scores["loss"], losses, is_out)
    return scores


def reference_losses(folds: Folds, pool: Pool, corpus: RunCorpus, *, seed: int) -> tuple[Float64, Bool]:
    """Return the fold models' losses of the pool, and which of those models count as not having seen the text.

    No fold model saw a validation text, but all of them would make its mean steadier than a member's: each
    non-member takes over the models of a member drawn at random, so that the number of models cannot tell them apart.

    Returns:
        float64[K, n + m] in nats per token, and bool[K, n + m].

    Raises:
        RunCorrupt: the fold models were trained on another number of texts.
    """
    wanted = len(corpus.train), len(corpus.validation)
    found = folds.losses.shape[1], folds.validation_losses.shape[1]
    if found != wanted:
        raise RunCorrupt(
            f"the fold models know {found} training and validation texts, the run {wanted}; train them again"
        )
    is_out = ~folds.trained_on[:, pool.members]
    if len(pool.members):
        lent = np.random.default_rng([seed, 10]).integers(len(pool.members), size=len(pool.nonmembers))
        is_out = np.concatenate([is_out, is_out[:, lent]], axis=1)
    else:
        is_out = np.ones((len(folds), len(pool.nonmembers)), bool)
    losses = np.concatenate([folds.losses[:, pool.members], folds.validation_losses[:, pool.nonmembers]], axis=1)
    return losses.astype(np.float64), is_out


def reference_score(log_prob: Float64, losses: Float64, is_out: Bool) -> Float64:
    """Return float64[n]: how much better the model predicts each text than the models that did not see it.

    Args:
        log_prob: float64[n], the model's mean log-probability of each text's tokens, in nats.
        losses: float64[K, n], the other models' mean nats per token.
        is_out: bool[K, n], which of them did not see the text; none gives NaN.
    """
    mean, _, _ = _moments(losses, is_out)
    return log_prob + mean


def offline_lira(log_prob: Float64, losses: Float64, is_out: Bool) -> Float64:
    """Return float64[n]: offline LiRA's z = (phi - mu_out) / sigma_out (Carlini et al., arXiv 2112.03570).

    phi is the mean log-probability of a text's tokens, mu_out and sigma_out its mean and spread over the models that did
    not see the text. The paper's one-sided score 1 - Pr[N(mu_out, sigma_out) > phi] is the normal CDF of z, so z has
    its ROC curve, and never rounds to 1. With fewer than MANY_MODELS models sigma_out is pooled: one number, the root
    of the mean within-text variance; 1 where no text has two such models, which ranks alike.

    Args:
        log_prob: see `reference_score`.
        losses: see `reference_score`.
        is_out: see `reference_score`; none gives NaN, and so does a single one where sigma_out is each text's own.
    """
    mean, squares, count = _moments(losses, is_out)
    spare = np.maximum(count - 1, 0)
    if len(losses) < MANY_MODELS:
        variance = np.full(len(mean), squares.sum() / spare.sum() if spare.sum() else 1.0)
    else:
        variance = np.where(spare > 0, squares / np.maximum(spare, 1), np.nan)
    return (log_prob + mean) / np.maximum(np.sqrt(variance), MIN_STD)


def _moments(losses: Float64, is_out: Bool) -> tuple[Float64, Float64, Float64]:
    """Return per text the mean loss over the chosen models (NaN: none), the sum of squares about it, and their number."""
    count = is_out.sum(axis=0)
    mean = np.where(count > 0, np.where(is_out, losses, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)
    squares = np.where(is_out, (losses - mean) ** 2, 0.0).sum(axis=0)
    return mean, squares, count.astype(np.float64)


def _from_tokens(subject: Subject, tokens: Tokens, chosen: np.ndarray) -> dict[str, Float64]:
    """Return the attacks that need the model alone, float64[len(chosen)] each."""
    corpus = subject.corpus
    texts = _only(tokens, chosen)
    told = corpus.task(subject.config, texts).token_statistics(subject.model, subject.device)
    loss = np.add.reduceat(told.loss, texts.offsets[:-1], dtype=np.float64) / texts.lengths  # none of them is empty
    return {
        "loss": -loss,
        "zlib": -zlib_ratio(loss.astype(np.float32), zlib_bytes(_texts(corpus, texts))).astype(np.float64),
        "min_k": min_k(-told.loss, texts.offsets).astype(np.float64),
        "min_k_pp": min_k_pp(-told.loss, told.mean, told.std, texts.offsets).astype(np.float64),
    }


def _only(tokens: Tokens, chosen: np.ndarray) -> Tokens:
    lengths = tokens.lengths[chosen].astype(np.int64)
    ids = np.concatenate([np.empty(0, np.int32), *(tokens[i] for i in chosen)])
    return Tokens(ids, np.concatenate([[0], np.cumsum(lengths)]))


def _texts(corpus: RunCorpus, tokens: Tokens) -> list[str]:
    """Return the texts; the tokenizer works on bytes, so that nothing is lost on the way."""
    return [corpus.tokenizer.decode(tokens[i].tolist()) for i in range(len(tokens))]


def _one_per_group(samples: np.ndarray, group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    shuffled = rng.permutation(samples)
    _, first = np.unique(group[shuffled], return_index=True)
    return np.sort(shuffled[first])


def _pruned(count: int) -> str:
    if not count:
        return ""
    return (
        f" {count:,} texts were pruned from the training, which was no random choice: the members that are left may differ from "
        "non-members by more than their membership."
    )


def _report(name: str, scores: dict[str, Float64], pool: Pool, subject: Subject) -> dict[str, Any]:
    """Return the JSON-ready figures of one attack, or what to run so that it can be made."""
    if name not in scores:
        return {"status": "not run", "command": COMMAND}
    found = roc(scores[name], pool.is_member, seed=subject.config.engine.seed)
    few_models = name == "lira" and subject.folds is not None and len(subject.folds) < MANY_MODELS
    return {
        "status": "run",
        "auc": _figures(found.auc),
        "advantage": _known(2 * found.auc.value - 1),
        **{f"tpr_at_fpr_{target:g}": _figures(rate) for target, rate in found.tpr.items()},
        "num_members": found.num_members,
        "num_nonmembers": found.num_nonmembers,
        "flag": "below_chance" if found.below_chance else None,
        "note": POOLED if few_models else None,
    }


def _figures(estimate: Estimate) -> dict[str, Any]:
    figures = {name: _known(getattr(estimate, name)) for name in ("value", "low", "high")}
    return figures | {"note": TOO_FEW if math.isnan(estimate.value) else None}


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
