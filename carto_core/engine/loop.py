"""The training loop: a task, a plan and a seed in; losses to the recorder and a trained model out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from carto_core.config import EngineConfig
from carto_core.engine.checkpoint import drop_older, last_checkpoint, load_model, load_training, save_checkpoint
from carto_core.engine.device import forward_precision, pick_device
from carto_core.engine.order import batches, steps_per_epoch, total_steps
from carto_core.errors import TrainingDiverged
from carto_core.tasks.base import Task
from carto_core.types import Float32, Int32, Progress, Recorder, Snapshot

WARMUP_STEPS = 20


@dataclass(frozen=True)
class Trained:
    """What a training leaves behind.

    Attributes:
        model: in evaluation mode, on `device`.
        device: where it is.
        steps: optimizer steps taken.
        tokens: predicted tokens trained on, repeats counted.
        measure_s: seconds of the training that went into snapshots and checkpoints.
        earlier_s: seconds that it took before it was resumed, the last time; 0 where it went through.
    """

    model: torch.nn.Module
    device: torch.device
    steps: int
    tokens: int
    measure_s: float
    earlier_s: float


def train(
    task: Task,
    config: EngineConfig,
    *,
    repeats: Int32 | None = None,
    weights: Float32 | None = None,
    steps: int | None = None,
    recorder: Recorder | None = None,
    checkpoints: Path | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train a model; the same arguments on the same device and thread count give the same losses bit for bit.

    The batch loss is sum(w * l) / sum(w), l a sample's mean nats per token; w = 1 is the plain mean. A batch whose
    weights are all 0 takes no step forward in the weights but counts as one.

    Args:
        task: what is trained.
        config: the loop's settings.
        repeats: int32[N], how often a sample is drawn per epoch; None = once each.
        weights: float32[N]; None = 1 each.
        steps: optimizer steps; None = `total_steps`.
        recorder: gets the snapshots; None = none are taken.
        checkpoints: folder to save to after each snapshot and to go on from if it holds one; None = neither.
        progress: told after every step; may raise to stop.

    Raises:
        TrainingDiverged: the loss of a text that is not empty, or a gradient, is no finite number; earlier snapshots and
            the last checkpoint stay.
    """
    session = _Session(task, config, repeats=repeats, weights=weights, steps=steps)
    if checkpoints is not None:
        session.resume(checkpoints)
    session.run(recorder, checkpoints, progress)
    session.model.eval()
    return Trained(session.model, session.device, session.steps, session.tokens, session.measure_s, session.wall_before)


class _Session:
    """The state of one training between two steps."""

    def __init__(
        self,
        task: Task,
        config: EngineConfig,
        *,
        repeats: Int32 | None,
        weights: Float32 | None,
        steps: int | None,
    ) -> None:
        self.task = task
        self.config = config
        self.repeats = np.ones(task.num_samples, np.int32) if repeats is None else repeats
        self.weights = np.ones(task.num_samples, np.float32) if weights is None else weights
        self.steps = total_steps(config, self.repeats) if steps is None else steps
        self.device = pick_device(config.device, threads=config.threads)
        self.precision = forward_precision(self.device, config.precision)
        torch.manual_seed(config.seed)
        self.model = task.build().to(self.device).train()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.step = 0
        self.tokens = 0
        self.wall_before = 0.0
        self.measure_s = 0.0
        self.during = _During(task.num_samples)

    def resume(self, checkpoints: Path) -> None:
        """Go on from the last complete checkpoint, if there is one."""
        drop_older(checkpoints)
        checkpoint = last_checkpoint(checkpoints)
        if checkpoint is not None:
            load_model(checkpoint, self.model, self.device)
            facts = load_training(checkpoint, self.optimizer)
            self.step, self.tokens = facts["step"], facts["tokens"]
            self.wall_before, self.measure_s = facts["wall_s"], facts["measure_s"]

    def run(self, recorder: Recorder | None, checkpoints: Path | None, progress: Progress | None) -> None:
        """Take all steps that are left."""
        started = time.perf_counter()
        points = _snapshot_steps(self.steps, self.config.snapshots) if recorder is not None else []
        stream = batches(self.repeats, batch_size=self.config.batch_size, seed=self.config.seed, start_step=self.step)
        while self.step < self.steps:
            self._take_step(next(stream))
            if recorder is not None and self.step in points:
                paused = time.perf_counter()
                wall_s = self.wall_before + paused - started
                self._record(recorder, points.index(self.step), wall_s)
                self._save(checkpoints, wall_s)
                self.measure_s += time.perf_counter() - paused
            if progress is not None:
                progress("training", self.step, self.steps)

    def _take_step(self, sample_ids: np.ndarray) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(self.config, self.step)
        with self.precision:
            losses_B = self.task.per_sample_loss(self.model, sample_ids, self.device)
        weights_B = torch.from_numpy(self.weights[sample_ids]).to(self.device)
        noted = losses_B.detach().float().cpu().numpy()
        self._require_finite(noted, sample_ids, f"step {self.step + 1}")
        usable = ~losses_B.isnan() & (weights_B > 0)
        self.optimizer.zero_grad(set_to_none=True)
        if usable.any():
            # A sample that cannot or may not count is left out, rather than multiplied by 0: 0 * NaN is NaN.
            loss = (weights_B[usable] * losses_B[usable]).sum() / weights_B[usable].sum()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
            if not norm.isfinite():
                raise diverged("the gradient", sample_ids, f"step {self.step + 1}")
            self.optimizer.step()
        self.step += 1
        self.tokens += int(self.task.num_tokens[sample_ids].sum())
        if self.config.losses != "after":
            self.during.add(sample_ids, noted)

    def _require_finite(self, losses: np.ndarray, sample_ids: np.ndarray, where: str) -> None:
        """Raise TrainingDiverged where a loss is no finite number; that of a text without tokens is NaN and may be."""
        bad = ~np.isfinite(losses) & (self.task.num_tokens[sample_ids] > 0)
        if bad.any():
            raise diverged("the loss", sample_ids[bad], where)

    def _measure(self) -> Float32:
        with self.precision:
            return self.task.measure(self.model, self.device)

    def _save(self, checkpoints: Path | None, wall_s: float) -> None:
        if checkpoints is not None:
            state = {"tokens": self.tokens, "wall_s": wall_s, "measure_s": self.measure_s}
            save_checkpoint(checkpoints, step=self.step, model=self.model, optimizer=self.optimizer, state=state)

    def _record(self, recorder: Recorder, place: int, wall_s: float) -> None:
        epoch = self.step / steps_per_epoch(self.repeats, batch_size=self.config.batch_size)
        kinds = ("during", "after") if self.config.losses == "both" else (self.config.losses,)
        for offset, kind in enumerate(kinds):
            losses = self.during.flush() if kind == "during" else self._measure()
            if kind == "after":
                self._require_finite(losses, np.arange(len(losses)), f"snapshot {place} (step {self.step})")
            snapshot = Snapshot(place * len(kinds) + offset, self.step, epoch, kind, wall_s)
            recorder.record(snapshot, losses, self.task.num_tokens)


class _During:
    """Losses noted as samples went by since the last snapshot; several visits give their mean.

    A sample's visits all predict the same tokens, so the plain mean is the token-weighted one.
    """

    def __init__(self, num_samples: int) -> None:
        self.total = np.zeros(num_samples, np.float64)
        self.visits = np.zeros(num_samples, np.int64)

    def add(self, sample_ids: np.ndarray, losses: np.ndarray) -> None:
        """Note one batch."""
        np.add.at(self.total, sample_ids, losses)
        np.add.at(self.visits, sample_ids, 1)

    def flush(self) -> Float32:
        """Return float32[N], NaN = not visited, and begin anew."""
        with np.errstate(invalid="ignore"):
            mean = (self.total / self.visits).astype(np.float32)
        self.total[:] = 0
        self.visits[:] = 0
        return mean


def learning_rate_at(config: EngineConfig, step: int) -> float:
    """Return the learning rate of a step, counted from 0: it rises over the first 20, then stays."""
    return config.learning_rate * min(1.0, (step + 1) / WARMUP_STEPS)


def diverged(what: str, sample_ids: np.ndarray, where: str) -> TrainingDiverged:
    """Return the error that says so, with the samples at fault."""
    return TrainingDiverged(
        f"{what} became infinite or not a number at {where}; train with a smaller --learning-rate", sample_ids.tolist()
    )


def _snapshot_steps(steps: int, snapshots: int) -> list[int]:
    """Return the steps after which a snapshot is taken, evenly spread, the last at the end; fewer if steps run out."""
    return sorted({max(1, round(steps * (i + 1) / snapshots)) for i in range(snapshots)})
