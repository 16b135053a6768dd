"""TracIn self-influence: the squared length of a sample's own gradient, summed over checkpoints."""

from __future__ import annotations

import numpy as np
import torch

from carto_core.probes.observed import observe_training
from carto_core.probes.probing import Probing
from carto_core.tasks.influence import gradient_norms
from carto_core.tasks.language import LanguageTask
from carto_core.types import Float32

CHECKPOINTS = 4
PIECE = 64


def influence_columns(probing: Probing) -> dict[str, Float32]:
    """Return `self_influence` = sum over 4 checkpoints of learning rate x ||gradient of the sample's loss||^2.

    Pruthi et al. (arXiv 2002.08484), all weights, the plain gradient (not AdamW's preconditioned step), the checkpoints
    at a quarter, half, three quarters and the end of one more training with the run's own seed.
    """
    engine, task = probing.config.engine, probing.corpus.task(probing.config)

    def squared_norms(task: LanguageTask, model: torch.nn.Module, device: torch.device) -> Float32:
        found = []
        for start in range(0, task.num_samples, PIECE):
            ids = np.arange(start, min(start + PIECE, task.num_samples))
            found.append(gradient_norms(task, model, ids, device))
            probing.progress("gradients", start + len(ids), task.num_samples)
        return np.concatenate(found).astype(np.float32)

    rows = observe_training(task, engine, squared_norms, points=CHECKPOINTS, steps=None, progress=probing.progress)
    return {"self_influence": (engine.learning_rate * rows.sum(axis=0, dtype=np.float64)).astype(np.float32)}
