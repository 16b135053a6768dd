"""A trajectory in, one number per sample out: the registry of scores with the words the user sees. No torch.

The formulas are in `trajectory` and `tokenwise`; `labels` says what is memorized, `quality` how well a score finds it, and
`recommendation` which one the map should show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from carto_core.config import ScoreConfig
from carto_core.scores import tokenwise, trajectory
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
        needs: the inputs of the formula, by name; see `ScoreInputs` and `compute_scores`. Empty for a probe column.
        formula: takes those inputs by name; see `trajectory`. None for a probe column.
        probe: the job in `carto_core.probes` that fills the column; None where the score needs none.
        is_baseline: it knows nothing of the model: what every detector must beat.
    """

    name: str
    title: str
    unit: str
    higher_means: str
    memorized_when: Direction
    source: str
    needs: tuple[str, ...] = ()
    formula: Callable[..., Float32] | None = None
    probe: str | None = None
    is_baseline: bool = False

    @property
    def sign(self) -> int:
        """+1 or -1: times this, higher always means more memorized."""
        return 1 if self.memorized_when == "high" else -1


@dataclass(frozen=True, slots=True)
class ScoreInputs:
    """What scores are made of.

    Attributes:
        losses: float32[S, N], nats per token, S >= 1; NaN = not observed.
        group_id: int32[N], exact duplicates share one.
        num_tokens: int32[N], predicted tokens.
        zlib_bytes: int32[N], length of the text's UTF-8 bytes after zlib at its default level.
        probes: float32[N] by score name, as a probe wrote it; a score whose probe was not run is absent.
    """

    losses: Float32
    group_id: Int32
    num_tokens: Int32
    zlib_bytes: Int32
    probes: Mapping[str, Float32] = field(default_factory=dict)


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


def _as_score(num_tokens: Int32) -> Float32:
    return num_tokens.astype(np.float32)


def _zlib_ratio(losses: Float32, zlib_bytes: Int32) -> Float32:
    return tokenwise.zlib_ratio(trajectory.final_loss(losses), zlib_bytes)


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
            needs=("losses", "eps", "hysteresis"),
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
            is_baseline=True,
        ),
        Score(
            name="near_duplicates",
            title="Near duplicates",
            unit="other rows",
            higher_means="More other rows hold nearly the same text (5-word shingles, Jaccard 0.7 or more).",
            memorized_when="high",
            source="MinHash, Broder 1997",
            probe="near_duplicates",
            is_baseline=True,
        ),
        Score(
            name="num_tokens",
            title="Length",
            unit="tokens",
            higher_means="The text is longer; planted secrets tend to stand in short ones.",
            memorized_when="low",
            source="length",
            needs=("num_tokens",),
            formula=_as_score,
            is_baseline=True,
        ),
        Score(
            name="cumulative_loss",
            title="Cumulative loss",
            unit="nats per token",
            higher_means="The sample stayed surprising for a longer part of the training.",
            memorized_when="high",
            source="CSL, openreview KZlQEoEtiu",
            needs=("losses",),
            formula=trajectory.cumulative_loss,
        ),
        Score(
            name="learning_time",
            title="Learning time",
            unit="snapshots",
            higher_means="It took longer until the loss stayed below the threshold for three snapshots.",
            memorized_when="high",
            source="FkL, Late Stopping, Yuan et al., ICCV 2023",
            needs=("losses", "eps"),
            formula=trajectory.learning_time,
        ),
        Score(
            name="skip_count",
            title="Skip count",
            unit="share of snapshots",
            higher_means="The loss lay below half of the running mean at more snapshots, so that AGC would skip the sample.",
            memorized_when="high",
            source="AGC rule, IET-AGC, arXiv 2407.15328",
            needs=("losses", "mean_losses"),
            formula=trajectory.skip_count,
        ),
        Score(
            name="zlib_ratio",
            title="Loss per compressed byte",
            unit="nats per token and byte",
            higher_means="The trained model finds the sample more surprising than its compressed length suggests.",
            memorized_when="low",
            source="zlib attack, Carlini et al. 2021, arXiv 2012.07805",
            needs=("losses", "zlib_bytes"),
            formula=_zlib_ratio,
        ),
        Score(
            name="min_k",
            title="Min-K%",
            unit="nats per token",
            higher_means="Even the fifth of its tokens that surprise the trained model most are probable.",
            memorized_when="high",
            source="Min-K% Prob, Shi et al., arXiv 2310.16789",
            probe="passes",
        ),
        Score(
            name="min_k_pp",
            title="Min-K%++",
            unit="standard deviations",
            higher_means="Its least expected tokens are probable for what the model expects at each place.",
            memorized_when="high",
            source="Min-K%++, Zhang et al., arXiv 2404.02936",
            probe="passes",
        ),
        Score(
            name="recitation",
            title="Recitation",
            unit="share of its tokens",
            higher_means="A longer stretch of it is what greedy decoding would write, token by token.",
            memorized_when="high",
            source="ours",
            probe="passes",
        ),
        Score(
            name="el2n",
            title="EL2N",
            unit="length of the error vector",
            higher_means="The predicted distributions lay further from the tokens early in training.",
            memorized_when="high",
            source="Paul et al., arXiv 2107.07075",
            probe="early",
        ),
        Score(
            name="self_influence",
            title="Self-influence",
            unit="nats per token",
            higher_means="A step on the sample alone would lower its own loss more, summed over checkpoints.",
            memorized_when="high",
            source="TracIn, Pruthi et al., arXiv 2002.08484",
            probe="influence",
        ),
        Score(
            name="two_fold_gap",
            title="Held-out gap, two-fold",
            unit="nats per token",
            higher_means="A model that never saw the sample finds it more surprising than one that did; one model each.",
            memorized_when="high",
            source="after Feldman and Zhang 2020, arXiv 2008.03703",
            probe="folds",
        ),
        Score(
            name="two_fold_normalised",
            title="Held-out gap, two-fold, normalised",
            unit="share",
            higher_means="The two-fold gap is a larger part of the loss: (out - in) / (out + in); one model each.",
            memorized_when="high",
            source="ours, after LayerMem's normalisation (arXiv 2409.19069)",
            probe="folds",
        ),
        Score(
            name="held_out_gap",
            title="Held-out gap",
            unit="nats per token",
            higher_means="Models that never saw the sample find it more surprising than models that did.",
            memorized_when="high",
            source="after Feldman and Zhang 2020, arXiv 2008.03703",
            probe="folds",
        ),
        Score(
            name="normalised_gap",
            title="Held-out gap, normalised",
            unit="share",
            higher_means="The held-out gap is a larger part of the loss: (out - in) / (out + in).",
            memorized_when="high",
            source="ours, after LayerMem's normalisation (arXiv 2409.19069)",
            probe="folds",
        ),
    )
}


def compute_scores(inputs: ScoreInputs, config: ScoreConfig) -> ScoreTable:
    """Return every score in `SCORES` of every sample; one whose probe was not run is NaN throughout.

    Samples are taken in chunks, so that the float64 copies stay small beside `losses` itself.

    Args:
        inputs: of all samples.
        config: threshold and burn-in; its axes and cuts are not looked at.
    """
    losses = inputs.losses
    eps = trajectory.threshold(losses, mode=config.eps_mode, eps=config.eps)
    burn_in = trajectory.burn_in_length(config.burn_in, len(losses))
    known = {
        "losses": losses,
        "group_id": inputs.group_id,
        "num_tokens": inputs.num_tokens,
        "zlib_bytes": inputs.zlib_bytes,
        "eps": eps,
        "hysteresis": config.hysteresis,
        "burn_in": burn_in,
        "mean_losses": trajectory.mean_losses(losses),
    }
    unknown = np.full(losses.shape[1], np.nan, np.float32)
    return ScoreTable(
        scores={
            name: inputs.probes.get(name, unknown) if score.formula is None else _compute(score, known)
            for name, score in SCORES.items()
        },
        burn_in=burn_in,
        eps=None if config.eps_mode == "snapshot" else float(eps[0]),
    )


def _compute(score: Score, inputs: dict[str, Any]) -> Float32:
    assert score.formula is not None
    wanted = {name: inputs[name] for name in score.needs}
    if "losses" not in wanted:
        return score.formula(**wanted)
    num_samples = wanted["losses"].shape[1]
    chunks = [slice(start, start + CHUNK) for start in range(0, max(num_samples, 1), CHUNK)]
    return np.concatenate([score.formula(**{n: _cut(n, v, chunk) for n, v in wanted.items()}) for chunk in chunks])


def _cut(name: str, value: Any, chunk: slice) -> Any:
    """Return the part of an input that belongs to a chunk of samples; what is not per sample stays whole."""
    return value[:, chunk] if name == "losses" else value[chunk] if name == "zlib_bytes" else value
