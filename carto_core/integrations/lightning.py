"""Record a LightningModule: one callback.

    trainer = L.Trainer(..., callbacks=[CartoCallback("data/runs/mine", corpus=texts)])

A callback sees a batch only before and after its step, and a loss that is scaled; so the module's `training_step` is wrapped while
it trains, and what computes the loss in it is watched. Samples are known by the column `key` of their batch, else by their
row: what the loader's batch sampler drew.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import IterableDataset

from carto_core.errors import ConfigError
from carto_core.integrations.recorder import Recorder, record
from carto_core.integrations.watching import Watched, watching_losses


class CartoCallback(Callback):
    """Records each sample's loss as a LightningModule trains.

    The losses are, in this order: what `training_step` returns as `losses` (mean nats per token of each sample, float[B], and
    `num_tokens`, int[B], beside `loss`); the tokens of the one cross entropy that is computed in the step, by a model in the
    module or by itself. Attribute `recorder` is None before the training, and says afterwards, as
    `recorder.failure`, why recording stopped; None while all is well.

    Args:
        run: the run directory that will be made, see `carto_core.record`.
        corpus: the texts, see `carto_core.record`.
        text_column: its column with the text.
        key_column: column of the batch, where it is a mapping, and of the corpus, with the key; None takes `key`, else the
            number of the row.
        snapshot_steps: end a snapshot every so many optimizer steps; None ends one with each pass over the data.
        resume: go on with a recording that is there; None does where the training goes on from a checkpoint.

    Raises:
        ConfigError: `snapshot_steps` is less than 1.
    """

    def __init__(
        self,
        run: str | Path,
        *,
        corpus: str | Path | Iterable[Mapping[str, Any]] | None = None,
        text_column: str = "text",
        key_column: str | None = None,
        snapshot_steps: int | None = None,
        resume: bool | None = None,
    ) -> None:
        if snapshot_steps is not None and snapshot_steps < 1:
            raise ConfigError(f"snapshot_steps must be at least 1, got {snapshot_steps}")
        self.recorder: Recorder | None = None
        self._open = functools.partial(
            record, run, corpus=corpus, text_column=text_column, key_column=key_column, by="Lightning"
        )
        self._key_column, self._snapshot_steps, self._resume = key_column or "key", snapshot_steps, resume
        self._drawn: deque[list[int]] | None = deque()
        self._last_step, self._epoch = 0, 0.0
        self._step: Any = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Be there when the loader is made: what it draws must be noted from the first batch on."""
        if stage == "fit":
            vars(trainer.strategy)["process_dataloader"] = functools.partial(
                self._process_dataloader, trainer, trainer.strategy.process_dataloader
            )

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the strategy as it was."""
        vars(trainer.strategy).pop("process_dataloader", None)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the recording and wrap the module's step."""
        resume = trainer.global_step > 0 if self._resume is None else self._resume
        self.recorder = self._open(resume=resume)
        self.recorder.start()
        self.recorder.rewind(trainer.global_step)
        self._last_step = trainer.global_step
        if not hasattr(trainer.train_dataloader, "batch_sampler"):
            self._drawn = None  # several loaders: nobody knows which rows are whose
        self._step = step = pl_module.training_step

        @functools.wraps(step)  # Lightning looks at its parameters
        def training_step(batch: Any, *args: Any, **others: Any) -> Any:
            return self._training_step(batch, *args, **others)

        pl_module.training_step = training_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End a snapshot where one is due."""
        self._epoch = trainer.current_epoch + (batch_idx + 1) / trainer.num_training_batches
        if self._snapshot_steps is not None and trainer.global_step % self._snapshot_steps == 0:
            self._snapshot(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End a snapshot with the pass."""
        if self._snapshot_steps is None:
            self._snapshot(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the last snapshot, and the recording."""
        self._snapshot(trainer)
        self._close(pl_module, None)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the recording to be resumed."""
        self._close(pl_module, exception)

    def _close(self, pl_module: LightningModule, error: BaseException | None) -> None:
        if self._step is not None:
            del pl_module.training_step
            self._step = None
        if self.recorder is not None:
            self.recorder.close(error)

    def _snapshot(self, trainer: Trainer) -> None:
        if self.recorder is not None and trainer.global_step > self._last_step:
            self.recorder.snapshot(step=trainer.global_step, epoch=self._epoch)
            self._last_step = trainer.global_step

    def _training_step(self, batch: Any, *args: Any, **others: Any) -> Any:
        """Train on a batch, and note what was seen of each sample's loss."""
        recorder = self.recorder
        if recorder is None or recorder.failure is not None:
            return self._step(batch, *args, **others)
        with watching_losses() as seen:
            result = self._step(batch, *args, **others)
        recorder.guarded(lambda: self._note(recorder, batch, result, seen))
        return result

    def _note(self, recorder: Recorder, batch: Any, result: Any, seen: Watched) -> None:
        keys = self._keys_of(recorder, batch)
        if isinstance(result, Mapping) and "losses" in result:
            recorder.log(keys, result["losses"], result.get("num_tokens"))
            return
        recorder.log(keys, *seen.sample_losses(None, num_samples=len(keys)))

    def _keys_of(self, recorder: Recorder, batch: Any) -> Any:
        drawn = self._drawn.popleft() if self._drawn else None
        if isinstance(batch, Mapping) and self._key_column in batch:
            return batch[self._key_column]
        if drawn is None:
            raise ConfigError(
                f"a batch has no {self._key_column!r}, and the loader draws no rows that have numbers (a stream, several "
                f"loaders, batches out of order): let each batch be a mapping with {self._key_column!r}, one key a sample"
            )
        recorder.require_numbers()
        return drawn

    def _process_dataloader(self, trainer: Trainer, process: Callable[[Any], Any], loader: Any) -> Any:
        """Make a loader what the strategy wants, and let the training's tell which rows it draws."""
        loader = process(loader)
        if trainer.training and self._drawn is not None and _draws_rows(loader):
            sampler = loader.batch_sampler
            inner = sampler.inner if isinstance(sampler, _Telling) else sampler  # of an earlier fit
            vars(loader)["batch_sampler"] = _Telling(inner, self._drawn)  # its setter refuses
        return loader


def _draws_rows(loader: Any) -> bool:
    """Return whether batches come in the order of what a batch sampler draws, and that is rows."""
    return (
        getattr(loader, "batch_sampler", None) is not None
        and not isinstance(loader.dataset, IterableDataset)
        and getattr(loader, "in_order", True)
    )


class _Telling:
    """A batch sampler that tells what it draws.

    Args:
        sampler: the batch sampler.
        drawn: gets the rows of each batch, in order; a new pass begins it anew.
    """

    def __init__(self, sampler: Any, drawn: deque[list[int]]) -> None:
        self.inner, self._drawn = sampler, drawn

    def __iter__(self) -> Iterator[list[int]]:
        self._drawn.clear()
        for rows in self.inner:
            self._drawn.append(list(rows))
            yield rows

    def __len__(self) -> int:
        return len(self.inner)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)
