"""A trajectory in, one number per sample out: the registry of scores with the words the user sees. No torch.

The formulas are in `trajectory`; how well a score finds planted canaries is in `quality`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from carto_core.config import ScoreConfig
from carto_core.scores import trajectory
from carto_core.types import Float32, Int32

CHUNK = 65_536

Direction = Literal["high", "low"]


@dataclass(frozen=True, slots=True)
class Score:
    """One number per sample, and what a person should know of it.

    Attributes:
        name: column in `scores`, and key in `SCORES`.
        title: short name for axes and headings.
        unit: what it is measured in.
        higher_means: sentence.
        memorized_when: which end of the scale points to memorization.
        source: paper, or "ours".
        needs: the inputs of the formula, among `losses`, `burn_in`, `eps`, `group_id`.
        formula: takes those inputs by name; see `trajectory`.
    """

    name: str
    title: str
    unit: str
    higher_means: str
    memorized_when: Direction
    source: str
    needs: tuple[str, ...]
    formula: Callable[..., Float32]

    @property
    def sign(self) -> int:
        """+1 or -1: times this, higher always means more memorized."""
        return 1 if self.memorized_when == "high" else -1


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """All scores of a run.

    Attributes:
        scores: float32[N] by name, in the order of `SCORES`; NaN = unknown.
        burn_in: number of early snapshots.
        eps: resolved forget threshold in nats; None where each snapshot has its own.
    """

    scores: dict[str, Float32]
    burn_in: int
    eps: float | None


_CARTO = "GenDataCarto, arXiv 2509.00083"
_CARTOGRAPHY = "after Dataset Cartography, Swayamdipta et al. 2020"

SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        Score(
            name="difficulty",
            title="Difficulty",
            unit="nats per token",
            higher_means="The model found the sample hard while it was still new.",
            memorized_when="high",
            source=_CARTO,
            needs=("losses", "burn_in"),
            formula=trajectory.difficulty,
        ),
        Score(
            name="memorization",
            title="Memorization (literal)",
            unit="share of transitions",
            higher_means="The loss crossed the forget threshold upwards more often.",
            memorized_when="high",
            source=_CARTO,
            needs=("losses", "eps"),
            formula=trajectory.memorization,
        ),
        Score(
            name="consolidation",
            title="Consolidation",
            unit="log ratio",
            higher_means="The loss fell further between the first snapshots and the last.",
            memorized_when="high",
            source="ours",
            needs=("losses", "burn_in"),
            formula=trajectory.consolidation,
        ),
        Score(
            name="lt_iqr",
            title="Loss-trace IQR",
            unit="nats per token",
            higher_means="The loss travelled a longer way during training.",
            memorized_when="high",
            source="LT-IQR, Pollock et al., arXiv 2411.05743",
            needs=("losses",),
            formula=trajectory.lt_iqr,
        ),
        Score(
            name="confidence",
            title="Confidence",
            unit="probability per token",
            higher_means="The model gave the sample's tokens more probability throughout; true of boilerplate as well.",
            memorized_when="high",
            source=_CARTOGRAPHY,
            needs=("losses",),
            formula=trajectory.confidence,
        ),
        Score(
            name="variability",
            title="Variability",
            unit="probability per token",
            higher_means="The probability of the sample's tokens changed more during training.",
            memorized_when="high",
            source=_CARTOGRAPHY,
            needs=("losses",),
            formula=trajectory.variability,
        ),
        Score(
            name="final_loss",
            title="Final loss",
            unit="nats per token",
            higher_means="The trained model still finds the sample surprising; low values hold what it knows by heart.",
            memorized_when="low",
            source="loss attack, Yeom et al. 2018",
            needs=("losses",),
            formula=trajectory.final_loss,
        ),
        Score(
            name="rises",
            title="Rises above own best",
            unit="share of transitions",
            higher_means="The loss stood more than 5 % above its best so far at more of the snapshots.",
            memorized_when="high",
            source="ours",
            needs=("losses",),
            formula=trajectory.rises,
        ),
        Score(
            name="group_size",
            title="Exact copies",
            unit="rows",
            higher_means="The same text stands in the corpus more often: the plain baseline that every detector must beat.",
            memorized_when="high",
            source="exact-duplicate count",
            needs=("group_id",),
            formula=trajectory.group_size,
        ),
    )
}


def compute_scores(losses: Float32, group_id: Int32, config: ScoreConfig) -> ScoreTable:
    """Return every score in `SCORES` of every sample.

    Samples are taken in chunks, so that the float64 copies stay small beside `losses` itself.

    Args:
        losses: float32[S, N], nats per token, S >= 1; NaN = not observed.
        group_id: int32[N], exact duplicates share one.
        config: threshold and burn-in; its axes and cuts are not looked at.
    """
    eps = trajectory.threshold(losses, mode=config.eps_mode, eps=config.eps)
    burn_in = trajectory.burn_in_length(config.burn_in, len(losses))
    inputs = {"losses": losses, "group_id": group_id, "eps": eps, "burn_in": burn_in}
    return ScoreTable(
        scores={name: _compute(score, inputs) for name, score in SCORES.items()},
        burn_in=burn_in,
        eps=None if config.eps_mode == "snapshot" else float(eps[0]),
    )


def _compute(score: Score, inputs: dict[str, Any]) -> Float32:
    wanted = {name: inputs[name] for name in score.needs}
    if "losses" not in wanted:
        return score.formula(**wanted)
    losses = wanted.pop("losses")
    starts = range(0, max(losses.shape[1], 1), CHUNK)
    return np.concatenate([score.formula(losses[:, start : start + CHUNK], **wanted) for start in starts])
