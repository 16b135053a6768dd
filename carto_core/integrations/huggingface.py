"""Record a Trainer of Hugging Face (transformers, TRL): one line after it is made.

    trainer = prepare_trainer(Trainer(...), run="data/runs/mine", corpus=texts)
    trainer.train()

Or, where a class is wanted: `class MyTrainer(RecordingMixin, SFTTrainer)`, and `MyTrainer(..., run="data/runs/mine")`.

A callback sees neither a batch nor its losses, so four methods of the Trainer are wrapped: `get_train_dataloader`, whose batches
get the keys of their samples; `training_step`, which takes them out again; `compute_loss`, during which the model is
watched; and `train`, which opens and closes the recording. The losses that the Trainer reports are not used: they are divided by the tokens of several batches.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from carto_core.errors import ConfigError
from carto_core.integrations.recorder import Recorder, record
from carto_core.integrations.watching import watching

COLUMN = (
    "carto_key"  # of a batch: the keys of its samples; of a data set: the numbers of its rows, where it has no keys
)
KEPT = ("source", "group")  # columns of a data set that become the map's, beside the text

AnyTrainer = TypeVar("AnyTrainer", bound=Trainer)


def prepare_trainer(
    trainer: AnyTrainer,
    run: str | Path,
    *,
    corpus: str | Path | Iterable[Mapping[str, Any]] | None = None,
    text_column: str = "text",
    key_column: str | None = None,
    snapshot_steps: int | None = None,
    sweeps: int = 0,
) -> AnyTrainer:
    """Make a Trainer record each sample's loss as it trains; returns the same Trainer.

    `trainer.recorder.failure` says, after `train`, why recording stopped; None while all is well. A training that goes on
    from a checkpoint (`train(resume_from_checkpoint=...)`) goes on with its recording.

    Args:
        trainer: whose model returns logits and takes labels, or TRL's, with its fused head. Its data set is numbered, row
            by row, unless it has a column with keys.
        run: the run directory that will be made, see `carto_core.record`.
        corpus: the texts, see `carto_core.record`; None takes those of the Trainer's data set where it has `text_column`.
        text_column: column with the text, of the corpus or the data set.
        key_column: column of the data set, and of the corpus, with the key; None takes `key`, else rows are numbered from 0.
        snapshot_steps: end a snapshot every so many optimizer steps; None ends one with each pass over the data.
        sweeps: how many times, spread evenly and the last at the end, all samples are measured under the same weights
            (losses `after`); each costs one pass forward.

    Raises:
        ConfigError: this Trainer's samples cannot be told apart, or a number is out of range.
        CorpusError: the corpus cannot be read.
    """
    _require_recordable(trainer, sweeps)
    recording = _Recording(
        trainer, key_column=_key_column(trainer, key_column), snapshot_steps=snapshot_steps, sweeps=sweeps
    )
    if corpus is None:
        corpus, key_column = _texts_of(trainer.train_dataset, text_column, recording.key_column), None
    options = {"corpus": corpus, "text_column": text_column, "key_column": key_column}
    recording.open = functools.partial(record, run, by=f"{type(trainer).__name__} of Hugging Face", **options)
    recording.wrap()
    return trainer


class RecordingMixin:
    """A Trainer that records: name it before the Trainer, and give `run` and what else `prepare_trainer` takes by name.

    A data set that is given by name (`train_dataset=`) is numbered before the Trainer sees it: rows that the Trainer drops or
    shuffles, as TRL's do, keep their number.
    """

    def __init__(
        self,
        *args: Any,
        run: str | Path,
        corpus: str | Path | Iterable[Mapping[str, Any]] | None = None,
        text_column: str = "text",
        key_column: str | None = None,
        snapshot_steps: int | None = None,
        sweeps: int = 0,
        **others: Any,
    ) -> None:
        dataset = others.get("train_dataset")
        if key_column is None and hasattr(dataset, "add_column") and not _has_column(dataset, "key"):
            others["train_dataset"] = _numbered(dataset)
        super().__init__(*args, **others)
        prepare_trainer(
            self,  # pyright: ignore[reportArgumentType]
            run,
            corpus=corpus,
            text_column=text_column,
            key_column=key_column,
            snapshot_steps=snapshot_steps,
            sweeps=sweeps,
        )


class _Recording(TrainerCallback):
    """What is wrapped around one Trainer."""

    open: Callable[..., Recorder]

    def __init__(self, trainer: Trainer, *, key_column: str, snapshot_steps: int | None, sweeps: int) -> None:
        if sweeps < 0 or (snapshot_steps is not None and snapshot_steps < 1):
            raise ConfigError(
                f"snapshot_steps must be at least 1 and sweeps at least 0, got {snapshot_steps}, {sweeps}"
            )
        self.trainer = trainer
        self.key_column = key_column
        self.recorder: Recorder | None = None
        self._snapshot_steps, self._sweeps = snapshot_steps, sweeps
        self._sweep_steps: set[int] = set()
        self._last_step = 0
        self._keys: Any = None  # of the batch that is trained on
        self._train = trainer.train
        self._loader = trainer.get_train_dataloader
        self._training_step = trainer.training_step
        self._compute_loss = trainer.compute_loss

    def wrap(self) -> None:
        """Put it around the Trainer's methods."""
        methods: dict[str, Callable[..., Any]] = {
            "train": self.train,
            "get_train_dataloader": self.loader,
            "training_step": self.training_step,
            "compute_loss": self.compute_loss,
        }
        for name, method in methods.items():
            setattr(self.trainer, name, method)
        self.trainer.add_callback(self)

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **others: Any) -> Any:
        """Train, and record: the recording is sealed when the training ends, and left to be resumed where it fails."""
        trainer: Any = self.trainer
        self.recorder = trainer.recorder = self.open(resume=bool(resume_from_checkpoint))
        if self.key_column == COLUMN:
            self.recorder.require_numbers()
        with self.recorder:
            return self._train(resume_from_checkpoint, *args, **others)

    def loader(self) -> Any:
        """Return the training's loader, whose batches carry the keys of their samples."""
        with self._keyed():
            return self._loader()

    def training_step(self, model: nn.Module, inputs: Any, *args: Any, **others: Any) -> Any:
        """Train on a batch, without the keys that only we know of."""
        self._keys = inputs.pop(COLUMN, None)
        if self.recorder is not None:
            self.recorder.guarded(lambda: _require_keys(self._keys))
        loss = self._training_step(model, inputs, *args, **others)
        if self.recorder is not None and self._keys is not None:
            self.recorder.guarded(self._say_unseen)
        return loss

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **others: Any) -> Any:
        """Compute the Trainer's loss, and note what was seen of each sample's."""
        keys, self._keys = self._keys, None
        recorder = self.recorder
        if keys is None or recorder is None or recorder.failure is not None:
            return self._compute_loss(model, inputs, *args, **others)
        labels = inputs.get("labels")
        with watching(model) as seen:
            loss = self._compute_loss(model, inputs, *args, **others)
        recorder.guarded(lambda: recorder.log(keys, *seen.sample_losses(labels, num_samples=len(keys))))
        return loss

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Go on from the optimizer step that the training goes on from; it may also have begun anew, in smaller batches."""
        if self.recorder is None:
            return
        self.recorder.rewind(state.global_step)
        self._last_step = state.global_step
        self._sweep_steps = {round(state.max_steps * (i + 1) / self._sweeps) for i in range(self._sweeps)}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """End a snapshot where one is due."""
        sweeps = state.global_step in self._sweep_steps
        if sweeps and self.recorder is not None:
            self.recorder.guarded(self._sweep)
        if sweeps or (self._snapshot_steps is not None and state.global_step % self._snapshot_steps == 0):
            self._snapshot(state)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """End a snapshot with the pass."""
        if self._snapshot_steps is None:
            self._snapshot(state)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """End the last snapshot."""
        self._snapshot(state)

    def _snapshot(self, state: TrainerState) -> None:
        if self.recorder is not None and state.global_step > self._last_step:
            self.recorder.snapshot(step=state.global_step, epoch=state.epoch)
            self._last_step = state.global_step

    def _say_unseen(self) -> None:
        raise ConfigError(
            f"{type(self.trainer).__name__} does not call compute_loss as it trains, so that no loss can be seen; record the "
            "loop with carto_core.record"
        )

    @contextmanager
    def _keyed(self) -> Iterator[None]:
        """For the while, give the Trainer a data set and a collator that carry keys."""
        trainer: Any = self.trainer
        trainer._set_signature_columns_if_needed()
        before = trainer.train_dataset, trainer.data_collator, trainer._signature_columns
        dataset = trainer.train_dataset
        if self.key_column == COLUMN and not _has_column(dataset, COLUMN):
            dataset = _numbered(dataset)
        trainer.train_dataset = dataset
        trainer.data_collator = KeyedCollator(
            trainer.data_collator, self.key_column, keep=not trainer.args.remove_unused_columns
        )
        trainer._signature_columns = [*trainer._signature_columns, self.key_column]
        try:
            yield
        finally:
            trainer.train_dataset, trainer.data_collator, trainer._signature_columns = before

    def _sweep(self) -> None:
        """Measure this rank's share of all samples under the weights as they are."""
        trainer, recorder = self.trainer, self.recorder
        assert recorder is not None
        model: Any = trainer.model
        with self._keyed(), _undisturbed(model), torch.no_grad():
            for batch in self._sweep_loader(recorder):
                inputs: Any = trainer._prepare_inputs(batch)
                keys, labels = inputs.pop(COLUMN, None), inputs.get("labels")
                _require_keys(keys)
                with watching(model) as seen:
                    model(**inputs)
                recorder.log(keys, *seen.sample_losses(labels, num_samples=len(keys)), kind="after")

    def _sweep_loader(self, recorder: Recorder) -> DataLoader[Any]:
        trainer: Any = self.trainer
        dataset, collator = trainer.train_dataset, trainer.data_collator
        if hasattr(dataset, "column_names"):
            dataset = trainer._remove_unused_columns(dataset, description="sweep")
        else:
            collator = trainer._get_collator_with_removed_columns(collator, description="sweep")
        share = Subset(dataset, range(recorder.rank, len(dataset), recorder.ranks))
        # a generator of its own: otherwise each pass draws a number from the training's
        return DataLoader(
            share, batch_size=trainer.args.eval_batch_size, collate_fn=collator, generator=torch.Generator()
        )


class KeyedCollator:
    """A collator whose batches carry the keys of their samples beside what another collator makes of them.

    Args:
        collate: the other collator.
        key_column: of a sample; a batch without it has no keys.
        keep: whether the other collator sees the column, as it did before.
    """

    def __init__(self, collate: Callable[[list[Any]], Any], key_column: str, *, keep: bool) -> None:
        self.collate, self.key_column = collate, key_column
        self.keep = keep and key_column != COLUMN

    def __call__(self, samples: list[Any]) -> Any:
        """Return a batch with `COLUMN`: int64[B], or a list of texts."""
        keys = [sample[self.key_column] for sample in samples if self.key_column in sample]
        if not self.keep:
            samples = [{k: v for k, v in sample.items() if k != self.key_column} for sample in samples]
        batch = self.collate(samples)
        if len(keys) == len(samples):
            keys = [key.item() if hasattr(key, "item") else key for key in keys]
            batch[COLUMN] = torch.tensor(keys) if all(isinstance(key, int) for key in keys) else list(map(str, keys))
        return batch


class _Numbered(Dataset[Any]):
    """A data set of mappings whose rows have their number."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self._rows[index], COLUMN: int(index)}


def _numbered(dataset: Any) -> Any:
    """Return a data set with the numbers of its rows."""
    return dataset.add_column(COLUMN, np.arange(len(dataset))) if hasattr(dataset, "add_column") else _Numbered(dataset)


def _require_recordable(trainer: Trainer, sweeps: int) -> None:
    args: Any = trainer.args
    if trainer.train_dataset is None:
        raise ConfigError("the Trainer has no train_dataset, so there is nothing to record")
    if getattr(args, "packing", False) or getattr(trainer, "padding_free", False):
        raise ConfigError(
            "packing and padding_free lay several samples in one row, whose losses cannot be told apart afterwards: set "
            "packing=False and padding_free=False, or record the loop with carto_core.record"
        )
    if sweeps and _is_stream(trainer.train_dataset):
        raise ConfigError("sweeps need a data set with a length: a stream cannot be gone through again; set sweeps=0")
    if sweeps and (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        raise ConfigError("sweeps need the whole model on each rank, and here it is in pieces; set sweeps=0")


def _key_column(trainer: Trainer, key_column: str | None) -> str:
    """Return the column that will tell samples apart: the one asked for, `key`, or `COLUMN`, the numbers of the rows.

    Raises:
        ConfigError: there is none, and rows cannot be numbered.
    """
    dataset: Any = trainer.train_dataset
    if key_column is not None:
        if _columns(dataset) is not None and not _has_column(dataset, key_column):
            raise ConfigError(f"the Trainer's data set has no column {key_column!r}; it has {_columns(dataset)}")
        return key_column
    for name in (COLUMN, "key"):
        if _has_column(dataset, name):
            return name
    if _is_stream(dataset):
        raise ConfigError("rows of a stream have no number: give them a column with a key, and name it: key_column=...")
    if hasattr(trainer, "_prepare_dataset"):
        raise ConfigError(
            f"{type(trainer).__name__} drops and reorders rows before anybody can number them: give the data set a column "
            "`key` before, or use RecordingMixin"
        )
    if _columns(dataset) == []:
        raise ConfigError("rows of the Trainer's data set must be mappings, such as {'input_ids': ..., 'labels': ...}")
    return COLUMN


def _is_stream(dataset: Any) -> bool:
    return isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__")


def _columns(dataset: Any) -> list[str] | None:
    """Return the columns that the rows of a data set have: none where they are no mappings, None where it cannot be known."""
    if getattr(dataset, "column_names", None) is not None:
        return list(dataset.format["columns"] if hasattr(dataset, "format") else dataset.column_names)
    if _is_stream(dataset) or not len(dataset):
        return None
    return list(dataset[0]) if isinstance(dataset[0], Mapping) else []


def _has_column(dataset: Any, name: str) -> bool:
    return name in (_columns(dataset) or [])


def _texts_of(dataset: Any, text_column: str, key_column: str) -> Iterable[Mapping[str, Any]] | None:
    """Return what the map shows of a data set's own rows, by the keys that are recorded; None where it has no texts."""
    plain = dataset.with_format(None) if hasattr(dataset, "with_format") else dataset
    columns = _columns(plain) or []
    if text_column not in columns or _is_stream(dataset):
        return None
    kept = [name for name in dict.fromkeys((text_column, key_column, *KEPT)) if name in columns]
    rows = plain.select_columns(kept) if hasattr(plain, "select_columns") else (plain[i] for i in range(len(plain)))
    return (
        {name: row[name] for name in kept if name != key_column} | {"key": row.get(key_column, number)}
        for number, row in enumerate(rows)
    )


def _require_keys(keys: Any) -> None:
    if keys is None:
        raise ConfigError(
            "a training batch came without the keys of its samples: the Trainer's get_train_dataloader uses neither its "
            "train_dataset nor its data_collator, or some row has no key; record the loop with carto_core.record"
        )


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """For the while, switch a model to evaluation; afterwards it, and every source of random numbers, is as before."""
    training = [module for module in model.modules() if module.training]
    states = random.getstate(), np.random.get_state()
    device = next(model.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        model.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True
            random.setstate(states[0])
            np.random.set_state(states[1])


__all__ = ["KeyedCollator", "RecordingMixin", "prepare_trainer"]
