"""Which score the map should show: the best detector of this run's calibration half, if it earns its place.

A detector that only counts copies, or only prefers short texts, is not worth a training run. So a score is recommended
only where it beats the plain baselines on secrets that they cannot see: inserted once, and repeated in varied context.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from carto_core.scores import SCORES
from carto_core.scores.quality import Quality

LITERAL = "memorization"
HARD_PARTS = {"once": "inserted once", "kind varied": "repeated in varied context"}


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The memorization axis of a run, and why.

    Attributes:
        score: name in `SCORES`; the literal score where nothing earns its place.
        reason: one sentence for the page.
        beats_baselines: whether it beats every baseline on the hard parts.
    """

    score: str
    reason: str
    beats_baselines: bool


def recommend(label: str, quality_of: Callable[[str, str], Mapping[str, Quality]]) -> Recommendation:
    """Return the recommended score, chosen on calibration canaries alone.

    The candidates are the detectors that beat every baseline on both hard parts (where this run has them); the best AUC
    on all positives of the label wins, ties in favour of the earlier in `SCORES`. Where none beats the baselines the
    best AUC is taken all the same, and the reason says so. Nothing known gives the literal score.

    Args:
        label: against which truth, key in `LABELS`.
        quality_of: (label, part) to the quality of each score on the calibration half.
    """
    overall = {n: q.auc.value for n, q in quality_of(label, "all").items() if q.is_known and not SCORES[n].is_baseline}
    if not overall:
        return Recommendation(
            LITERAL, "No inserted canaries to judge scores by, so the paper's own is shown.", beats_baselines=False
        )
    hard = {part: quality_of("inserted", part) for part in HARD_PARTS}
    better = [name for name in overall if all(_beats_baselines(name, quality) for quality in hard.values())]
    best = max(better or overall, key=overall.__getitem__)
    reason = _reason(best, overall, label, beats=bool(better))
    if overall[best] <= overall.get(LITERAL, -1.0):
        return Recommendation(LITERAL, reason, LITERAL in better)
    return Recommendation(best, reason, bool(better))


def _beats_baselines(name: str, quality: Mapping[str, Quality]) -> bool:
    """Return whether a score's AUC is above that of every baseline, on a part; a part without positives asks nothing."""
    baselines = [q.auc.value for n, q in quality.items() if SCORES[n].is_baseline and q.is_known]
    return not baselines or (quality[name].is_known and quality[name].auc.value > max(baselines))


def _reason(best: str, overall: Mapping[str, float], label: str, *, beats: bool) -> str:
    literal = overall.get(LITERAL)
    text = f"{SCORES[best].title} tells {label} calibration samples from the rest with AUC {overall[best]:.2f}"
    if literal is not None and best != LITERAL:
        text += f", the paper's literal score with {literal:.2f}"
    hard = " and ".join(HARD_PARTS.values())
    if beats:
        return f"{text}, and it beats copy counts and length on secrets {hard}."
    return f"{text}; but on secrets {hard} it does not beat copy counts and length, so do not rely on it for those."
