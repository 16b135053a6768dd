"""A task whose snapshots hold something else than losses: the engine records whatever `measure` returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch

from carto_core.config import EngineConfig
from carto_core.engine.loop import train
from carto_core.tasks.language import LanguageTask
from carto_core.types import Float32, Int32, Progress, Snapshot

Observe = Callable[[LanguageTask, torch.nn.Module, torch.device], Float32]


class _Observed:
    """A task with another measurement; all else is the task's own."""

    def __init__(self, task: LanguageTask, observe: Observe) -> None:
        self.task = task
        self.observe = observe
        self.num_samples = task.num_samples
        self.num_tokens = task.num_tokens
        self.build = task.build
        self.per_sample_loss = task.per_sample_loss

    def measure(self, model: torch.nn.Module, device: torch.device) -> Float32:
        """Return float32[N]: what was asked for."""
        return self.observe(self.task, model, device)


class _Rows:
    """A recorder that keeps what it is given."""

    def __init__(self) -> None:
        self.rows: list[Float32] = []

    def record(self, snapshot: Snapshot, losses: Float32, num_tokens: Int32) -> None:
        """Keep one snapshot."""
        self.rows.append(losses)


def observe_training(
    task: LanguageTask, engine: EngineConfig, observe: Observe, *, points: int, steps: int | None, progress: Progress
) -> Float32:
    """Train once more and return float32[points, N]: `observe` of every sample at evenly spread points, the last at the end.

    Args:
        task: of the run.
        engine: its settings.
        observe: called as `observe(task, model, device)`.
        points: how often.
        steps: optimizer steps; None = the run's own.
        progress: told after every step.
    """
    recorder = _Rows()
    engine = dataclasses.replace(engine, snapshots=points, losses="after")
    train(_Observed(task, observe), engine, steps=steps, recorder=recorder, progress=progress)
    return np.stack(recorder.rows)
