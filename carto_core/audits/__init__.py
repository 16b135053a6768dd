"""One result per model: perplexity, extraction, exposure, recited texts, membership, per-token losses.

The registry holds words only, free of torch; an audit's function is named as `module:function` and loaded by the job.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Audit:
    """What a person sees of an audit, and where its function is: `module:function(subject, **options) -> AuditResult`."""

    name: str
    title: str
    question: str
    unit: str
    worse: str
    source: str
    function: str


AUDITS: dict[str, Audit] = {
    audit.name: audit
    for audit in (
        Audit(
            "perplexity",
            "Perplexity",
            "How well does the model predict text that it has not seen?",
            "nats per token",
            "higher is worse",
            "per token, per word and in bits per byte over the validation split; bootstrap intervals",
            "carto_core.audits.perplexity:audit_perplexity",
        ),
        Audit(
            "extraction",
            "Canary extraction",
            "Which planted secrets does the model give away when it is shown what stands before them?",
            "share of the distinct canaries",
            "higher is worse",
            "greedy, beam and optimal search, exact match; Carlini et al. 2019 (arXiv 1802.08232); by sampling, "
            "Hayes et al. 2024 (arXiv 2410.19482)",
            "carto_core.audits.extraction:audit_extraction",
        ),
        Audit(
            "exposure",
            "Canary exposure",
            "How far up does a planted secret rank among secrets that the model never saw?",
            "bits",
            "higher is worse",
            "rank among sampled references, on a curve fitted to them, and among all; Carlini et al. 2019 "
            "(arXiv 1802.08232)",
            "carto_core.audits.exposure:audit_exposure",
        ),
        Audit(
            "natural",
            "Natural extraction",
            "Which of the corpus's own repeated texts does the model recite?",
            "share of the duplicate groups",
            "higher is worse",
            "16-token prefix, next 16 greedy, exact match; after Carlini et al. 2022 (arXiv 2202.07646)",
            "carto_core.audits.extraction:audit_natural",
        ),
        Audit(
            "verbatim",
            "Verbatim extraction",
            "Which of the corpus's texts does the model recite, copied or not?",
            "share of the distinct texts",
            "higher is worse",
            "16-token prefix, next 16 greedy, exact match; longest common run; several prefix lengths; after Carlini et "
            "al. 2022 (arXiv 2202.07646) and Hayes et al. 2024 (arXiv 2410.19482)",
            "carto_core.audits.verbatim:audit_verbatim",
        ),
        Audit(
            "membership",
            "Membership inference",
            "Can someone who holds a text tell whether the model was trained on it?",
            "area under the ROC curve",
            "higher is worse",
            "six attacks, members against validation texts; Carlini et al. 2022 (arXiv 2112.03570)",
            "carto_core.audits.membership:audit_membership",
        ),
        Audit(
            "tokens",
            "Per-token losses",
            "Which tokens of a sample has the model learned?",
            "nats",
            "lower is more learned",
            "final weights",
            "carto_core.audits.tokens:audit_tokens",
        ),
    )
}

# The attacks of the membership audit, by their names in its summary.
ATTACK_TITLES: dict[str, str] = {
    "loss": "Loss",
    "zlib": "Loss per compressed byte",
    "reference": "Reference models",
    "min_k": "Min-K%",
    "min_k_pp": "Min-K%++",
    "lira": "LiRA, offline",
}
