"""What a score or a truth needs beyond the recorded losses: extra passes, or extra models. Each probe is one job.

The registry holds words only, free of torch; a probe's function is named as `module:function` and loaded by the job.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from carto_core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Probe:
    """One job that fills columns.

    Attributes:
        name: key in `PROBES`, and file under `RUN/probes`.
        title: short name.
        question: what it answers.
        columns: what it fills; scores and truths.
        source: paper, or "ours".
        trainings: about how many trainings of the base run it takes, given the number of fold models.
        function: `module:function(probing) -> dict of float32[N] by column`.
        needs_model: whether it asks or trains a model; else the texts suffice.
    """

    name: str
    title: str
    question: str
    columns: tuple[str, ...]
    source: str
    trainings: Callable[[int], float]
    function: str
    needs_model: bool = True


MOST_MODELS = 1000
DEFAULT_MODELS = 8

PROBES: dict[str, Probe] = {
    probe.name: probe
    for probe in (
        Probe(
            "near_duplicates",
            "Near duplicates",
            "Which other rows hold nearly the same text?",
            ("near_duplicates", "near_group"),
            "MinHash, Broder 1997; verified by exact Jaccard",
            lambda models: 0.0,
            "carto_core.probes.near:near_duplicate_columns",
            needs_model=False,
        ),
        Probe(
            "passes",
            "Token-level passes",
            "Which samples does the trained model find too likely, token by token?",
            ("min_k", "min_k_pp", "recitation"),
            "arXiv 2310.16789, arXiv 2404.02936; recitation is ours",
            lambda models: 0.05,
            "carto_core.probes.passes:pass_columns",
        ),
        Probe(
            "early",
            "Early models",
            "How far off are models that have only begun to learn?",
            ("el2n",),
            "arXiv 2107.07075: a tenth of the training, three initialisations",
            lambda models: 0.35,
            "carto_core.probes.early:early_columns",
        ),
        Probe(
            "influence",
            "Self-influence",
            "How strongly does each sample pull the model towards itself?",
            ("self_influence",),
            "arXiv 2002.08484: gradients of all weights at four checkpoints of one more training",
            lambda models: 3.0,
            "carto_core.probes.influence:influence_columns",
        ),
        Probe(
            "twin",
            "Twin model",
            "What does a model trained alike, from another seed, give away?",
            ("extracted", "exposed", "exposure"),
            "canary and verbatim extraction, exposure among 10,000 references",
            lambda models: 1.5,
            "carto_core.probes.twin:twin_columns",
        ),
        Probe(
            "folds",
            "Fold models",
            "How much of a sample's low loss comes from having been trained on it?",
            (
                "two_fold_gap",
                "two_fold_normalised",
                "held_out_gap",
                "normalised_gap",
                "counterfactual",
                "counterfactual_se",
                "counterfactual_accuracy",
                "counterfactual_accuracy_se",
            ),
            "arXiv 2008.03703, arXiv 2112.12938: models on random halves, duplicates in one half",
            lambda models: models / 2,
            "carto_core.probes.folds:fold_columns",
        ),
    )
}
UNDER_A_PLAN = (
    "near_duplicates",
    "passes",
    "twin",
)  # the others train on the whole corpus, whatever the run was drawn by
CHEAP = ("near_duplicates",)  # a training runs them by itself: less than a millisecond a text


def require_models(models: int) -> None:
    """Raise ConfigError unless so many fold models can be trained: they come in pairs."""
    if not 4 <= models <= MOST_MODELS or models % 2:
        raise ConfigError(f"--models must be an even number from 4 to {MOST_MODELS}, got {models}: they come in pairs")
