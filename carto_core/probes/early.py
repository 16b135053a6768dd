"""EL2N: how far the predictions of models that have only begun to learn lie from the tokens."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from carto_core.engine.order import total_steps
from carto_core.probes.observed import observe_training
from carto_core.probes.probing import Probing
from carto_core.scores.tokenwise import lowest_mean
from carto_core.tasks.language import LanguageTask
from carto_core.types import Float32

EARLY = 0.1
INITIALISATIONS = 3


def early_columns(probing: Probing) -> dict[str, Float32]:
    """Return `el2n`: the mean over 3 initialisations of the mean over a sample's tokens of ||p - onehot||_2.

    Taken after a tenth of the optimizer steps; [0, sqrt 2]; NaN for an empty text. Paul et al. (arXiv 2107.07075) take
    about ten initialisations of a classifier; the mean over tokens is the language-model form.
    """
    engine, task = probing.config.engine, probing.corpus.task(probing.config)
    steps = max(1, round(EARLY * total_steps(engine, np.ones(task.num_samples, np.int32))))
    rows = [
        observe_training(
            task,
            dataclasses.replace(engine, seed=engine.seed + 1 + place),
            _el2n,
            points=1,
            steps=steps,
            progress=probing.progress,
        )[0]
        for place in range(INITIALISATIONS)
    ]
    return {"el2n": np.stack(rows).astype(np.float64).mean(axis=0).astype(np.float32)}


def _el2n(task: LanguageTask, model: torch.nn.Module, device: torch.device) -> Float32:
    # the lowest share of 1 is all tokens: their plain mean
    return lowest_mean(task.token_statistics(model, device).el2n, task.tokens.offsets, 1.0).astype(np.float32)
