"""Which score the map should show: the best detector of this run's calibration half, if it earns its place.

A detector that only counts copies, or only prefers short texts, is not worth a training run. So a score is recommended
only where it beats the plain baselines on secrets that they cannot see: inserted once, and repeated in varied context.

A run without canaries cannot say which score to trust. The one shown is then what found most where it could be judged.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from carto_core.scores import SCORES
from carto_core.scores.quality import Estimate, Quality

LITERAL = "memorization"
UNJUDGED = "confidence"  # of the scores that losses alone give, the best on the calibration halves of docs/results/detectors.json
FOUND_ELSEWHERE = {UNJUDGED: (0.96, 1.00), LITERAL: (0.22, 0.29)}  # lowest and highest AUC on the report halves there
HARD_PARTS = {"once": "inserted once", "kind varied": "repeated in varied context"}
# Hardly any secret that stands in the corpus once is recited: whether it is exposed can be asked of all of them.
HARD_LABELS = {"inserted": ("inserted", "inserted"), "extracted": ("exposed", "extracted"), "exposed": ("exposed",) * 2}


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The memorization axis of a run, and why.

    Attributes:
        score: name in `SCORES`; the literal score where no other finds more, `UNJUDGED` where nothing can be judged.
        reason: one sentence for the page.
        beats_baselines: whether it beats every baseline on the hard parts.
    """

    score: str
    reason: str
    beats_baselines: bool


def recommend(label: str, quality_of: Callable[[str, str], Mapping[str, Quality]]) -> Recommendation:
    """Return the recommended score, chosen on calibration canaries alone.

    The best AUC on all positives of the label wins; but where it does not beat every baseline on both hard parts, a score
    that does and whose AUC lies within the best one's interval is preferred. Ties go to the earlier in `SCORES`. A part
    without positives, or with too few of them, asks nothing, and the reason says so. Where nothing can be judged, what found
    most elsewhere is shown.

    Args:
        label: against which truth, key in `LABELS`.
        quality_of: (label, part) to the quality of each score on the calibration half.
    """
    known = {n: q for n, q in quality_of(label, "all").items() if q.is_known and not SCORES[n].is_baseline}
    overall = {name: quality.auc for name, quality in known.items()}
    if not overall:
        return Recommendation(UNJUDGED, _unjudged(), beats_baselines=False)
    hard = {part: quality_of(wanted, part) for part, wanted in zip(HARD_PARTS, HARD_LABELS[label], strict=True)}
    asked = {part: quality for part, quality in hard.items() if any(q.is_enough for q in quality.values())}
    best = max(overall, key=lambda name: overall[name].value)
    near = [name for name in overall if overall[name].value >= overall[best].low]
    better = [name for name in near if all(_beats_baselines(name, quality) for quality in asked.values())]
    chosen = max(better or [best], key=lambda name: overall[name].value)
    if LITERAL in overall and overall[best].value <= overall[LITERAL].value:
        chosen = LITERAL
    beats = bool(asked) and chosen in better
    return Recommendation(
        chosen, _reason(chosen, known[chosen], overall.get(LITERAL), label, asked, beats=beats), beats
    )


def _beats_baselines(name: str, quality: Mapping[str, Quality]) -> bool:
    """Return whether a score's AUC is above that of every baseline, on one part."""
    baselines = [q.auc.value for n, q in quality.items() if SCORES[n].is_baseline and q.is_known]
    return quality[name].is_known and all(quality[name].auc.value > auc for auc in baselines)


def _unjudged() -> str:
    found = {name: f"{low:.2f} to {high:.2f}" for name, (low, high) in FOUND_ELSEWHERE.items()}
    return (
        f"On the four corpora that we measured {SCORES[UNJUDGED].title} told what a second model recites with AUC "
        f"{found[UNJUDGED]}, the paper's literal score with {found[LITERAL]}; nothing in this run can confirm it (canaries "
        "would), and texts that are merely easy to predict stand high too."
    )


def _reason(
    chosen: str, quality: Quality, literal: Estimate | None, label: str, asked: Collection[str], *, beats: bool
) -> str:
    text = f"{SCORES[chosen].title} tells {label} calibration samples from the rest with AUC {quality.auc.value:.2f}"
    if not quality.is_enough:
        text += f" (on {quality.num_positives} of them, too few to be sure)"
    if literal is not None and chosen != LITERAL:
        text += f", the paper's literal score with {literal.value:.2f}"
    if not asked:
        return f"{text}; whether it beats copy counts and length on secrets they cannot see, too few were memorized to say."
    seen = " and ".join(HARD_PARTS[part] for part in asked)
    if beats:
        return f"{text}, and it beats copy counts and length on secrets {seen}."
    return f"{text}; but on secrets {seen} it does not beat copy counts and length, so do not rely on it for those."
