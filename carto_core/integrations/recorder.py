"""Record any PyTorch training loop: three lines in the loop, and a run with a map when it ends.

    with carto_core.record("data/runs/mine", corpus="corpus.jsonl") as rec:
        for batch in loader:
            with rec.watch(batch["key"]):  # or, with losses at hand: rec.log(batch["key"], losses, num_tokens)
                loss = model(batch)
            ...
        rec.snapshot()

The recorder never raises into the loop and never waits for the device at a step: losses stay where they are until a
snapshot ends. Where something goes wrong it says so once, loudly, and stops recording; the training goes on.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from carto_core.corpus.foreign import foreign_canaries, foreign_rows
from carto_core.errors import CartoError, ConfigError, RunError, RunExists
from carto_core.store.records import (
    KINDS,
    Folder,
    LocalFolder,
    RecordWriter,
    Visits,
    begin_recording,
    folder_at,
    is_remote,
    read_moments,
)
from carto_core.store.rundir import RunDir, json_text, making_run, this_process, update_manifest
from carto_core.store.shapes import parse_json
from carto_core.types import SnapshotKind

MOST_WAITING = 512  # batches that may lie on the device; moving them all is one wait for it
RANK_S = 120.0  # how long a rank waits for another's files: to begin, and to end
LIBRARIES = ("torch", "numpy", "pyarrow", "transformers", "trl", "lightning", "accelerate")

_log = logging.getLogger("carto_core.recorder")


def record(
    out: str | Path,
    *,
    corpus: str | Path | Iterable[Mapping[str, Any]] | None = None,
    text_column: str = "text",
    key_column: str | None = None,
    canaries: str | Path | None = None,
    seed: int = 0,
    resume: bool = False,
    by: str = "a PyTorch loop",
    rank: int | None = None,
    ranks: int | None = None,
) -> Recorder:
    """Return a recorder, to be entered with `with`; the run is sealed and scored when the block is left.

    Args:
        out: the run directory, whose name is the run's id (`data/runs/mine`); or a folder on any file system that fsspec
            knows (`s3://bucket/mine`), to be sealed later with `python -m carto_core seal ADDRESS`.
        corpus: the texts, so that they can be read on the map: a file or folder that `train` reads, or the rows
            themselves, one mapping each; may be joined later with `python -m carto_core join RUN CORPUS`. A column
            `group` says which rows are one; without it byte-equal texts are. Rows without a key have their number.
        text_column: its column with the text.
        key_column: its column with the key; None takes `key`.
        canaries: `canaries.parquet` of `python -m carto_core plant`, whose `corpus.jsonl` is the corpus: with it the map
            says how well each score finds them.
        seed: breaks ties when a plan is made.
        resume: go on with a recording that is there; see `Recorder.rewind`.
        by: what recorded it, in words.
        rank: which process this is; None asks torch.distributed, or the environment that torchrun sets.
        ranks: how many there are; None likewise.

    Raises:
        RunExists: there is a run already, and `resume` is not asked for. This and what follows before training begins.
        RunError: `resume`, and what is there is no recording, or one of another number of ranks, or is sealed already.
        CorpusError: the corpus or the table of canaries cannot be read, or the one does not go with the other.
        ConfigError: the address is on a file system that is not known.
    """
    found = _ranks()
    place = (found[0] if rank is None else rank, found[1] if ranks is None else ranks)
    if not 0 <= place[0] < place[1]:
        raise ConfigError(f"rank must lie from 0 to ranks - 1, got rank {place[0]} of {place[1]} ranks")
    rows = None if corpus is None else foreign_rows(corpus, text_column=text_column, key_column=key_column)
    begins_with = {
        "rows": rows,
        "canaries": [] if canaries is None else foreign_canaries(canaries),
        "run_id": str(out).rstrip("/").rsplit("/", 1)[-1],
        "origin": {"kind": "recorded", "by": by, "ranks": place[1]},
        "versions": dict(_versions()),
        "seed": seed,
    }
    where = str(out) if is_remote(out) else Path(out)
    return Recorder(where, begins_with=begins_with, resume=resume, rank=place[0])


class Recorder:
    """Takes the losses of a training loop; made by `record`.

    Attributes:
        failure: why recording stopped, in one sentence; None while all is well.
    """

    def __init__(self, out: str | Path, *, begins_with: dict[str, Any], resume: bool, rank: int) -> None:
        self.out = out
        self.failure: str | None = None
        self.rank, self.ranks = rank, begins_with["origin"]["ranks"]
        self._begins_with, self._resume = begins_with, resume
        self._waiting: dict[SnapshotKind, _Waiting] = {}
        self._writer: RecordWriter | None = None
        self._step = 0
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(error)

    def start(self) -> None:
        """Make the run, or find the one to go on with; what `with` does first.

        Raises:
            RunExists, RunError: see `record`.
        """
        base = folder_at(self.out)
        if self.rank == 0:
            self._begin(base)
        else:
            self._wait_for(lambda: "run.json" in base.names(), "the run that rank 0 makes")
        records = folder_at(f"{self.out}/records" if isinstance(self.out, str) else self.out / "records")
        self._writer = RecordWriter(records, rank=self.rank)
        self._began = time.monotonic()
        if self._writer.moments:
            self._step = self._writer.moments[-1]["step"]
            self._began -= self._writer.moments[-1]["wall_s"]

    def log(self, keys: Any, losses: Any, num_tokens: Any = None, *, kind: SnapshotKind = "during") -> None:
        """Note the losses of one batch.

        Args:
            keys: one key a sample, in a list, array or tensor; numbers become their decimal text.
            losses: float[B], mean nats per token of each sample; a tensor on any device, with or without gradient, or
                numbers. One that is infinite or not a number is left out and counted.
            num_tokens: int[B], predicted tokens behind each loss; None counts one each. A sample with 0 is left out.
            kind: `during` for the training batch; `after` for a sweep that measures all samples under the same weights.
        """
        self.guarded(lambda: self._log(keys, losses, num_tokens, kind))

    @contextmanager
    def watch(self, keys: Any) -> Iterator[None]:
        """Note the losses of one batch as they are computed inside the `with`: no second pass over the vocabulary.

        For a step that calls `torch.nn.functional.cross_entropy` once and reduces it to a mean or a sum, in the model or
        outside, over tokens that lie sample by sample; any other loss is for `log`. Neither loss nor gradient changes.

        Args:
            keys: as for `log`.
        """
        if self.failure is not None:
            yield
            return
        from carto_core.integrations.watching import watching_losses  # needs torch, which `log` does not

        with watching_losses() as seen:
            yield
        self.guarded(lambda: self._log(keys, *seen.sample_losses(None, num_samples=len(keys)), "during"))

    def snapshot(self, *, step: int | None = None, epoch: float | None = None) -> None:
        """End a snapshot: write what was logged since the last one.

        Args:
            step: optimizer steps so far; None counts the calls of `log` with kind `during`.
            epoch: passes over the data so far; None counts the snapshots.
        """
        self.guarded(lambda: self._snapshot(step, epoch))

    def rewind(self, step: int) -> None:
        """Forget the snapshots after an optimizer step: a loop that goes on from a checkpoint takes them again."""
        self.guarded(lambda: self._rewind(step))

    def close(self, error: BaseException | None = None) -> None:
        """End the recording; what leaving `with` does.

        Args:
            error: what ended the loop, if it did not end well: the run is then left interrupted, to be resumed or sealed.
        """
        if self._writer is None:
            return
        if error is None:
            self.guarded(self._finish)
        else:
            said = f": {error}" if str(error) else ""
            self.guarded(
                lambda: self._tell(
                    status="interrupted", error=f"the training loop ended with {type(error).__name__}{said}"
                )
            )
        self._writer = None

    def guarded(self, work: Callable[[], None]) -> None:
        """Do something beside the loop that must not hurt it: what goes wrong is said once, and ends the recording."""
        if self.failure is not None:
            return
        try:
            work()
        except Exception as error:  # noqa: BLE001 (whatever it is, the training goes on)
            self.failure = str(error) if isinstance(error, CartoError) else f"{type(error).__name__}: {error}"
            self._waiting = {}
            _log.error(
                "GenDataCarto STOPPED RECORDING %s (rank %d): %s. The training goes on; what was recorded before is kept "
                "and can be sealed with: python -m carto_core seal %s",
                self.out, self.rank, self.failure, self.out,
            )  # fmt: skip
            with suppress(Exception):
                self._tell(status="interrupted", error=self.failure)

    def require_numbers(self) -> None:
        """Check that samples can be known by the number of their row.

        Raises:
            ConfigError: the corpus gives its rows other names.
        """
        rows = self._begins_with["rows"]
        if rows and not any(row.key.isdecimal() for row in rows):
            raise ConfigError(
                f"the corpus names its rows (the first is {rows[0].key!r}), and the loop knows only their numbers: keep the "
                "column with the keys when you tokenize the data set"
            )

    def _begin(self, base: Folder) -> None:
        if self._resume and "run.json" in base.names():
            self._require_resumable(base)
            return
        if isinstance(self.out, Path):
            with making_run(self.out) as run:
                run.records.mkdir()
                begin_recording(LocalFolder(run.path), **self._begins_with)
            return
        if base.names():
            raise RunExists(f"{self.out} exists already; choose another folder, or go on with resume=True")
        begin_recording(base, **self._begins_with)

    def _require_resumable(self, base: Folder) -> None:
        origin = parse_json(base.read("run.json").decode()).get("origin") or {}
        sealed = "trajectory.duckdb" in base.names()
        if sealed or origin.get("kind") != "recorded":
            raise RunError(f"{self.out} cannot be gone on with: it is sealed, or no recording; choose another folder")
        if origin.get("ranks") != self.ranks:
            raise RunError(
                f"{self.out} was recorded by {origin.get('ranks')} ranks, and here are {self.ranks}; use as many, or another "
                "folder"
            )
        self._tell(status="running", error=None, **this_process())

    def _tell(self, **facts: Any) -> None:
        """Write into `run.json` what became of the run; only the first rank does."""
        if self.rank != 0:
            return
        if isinstance(self.out, Path):
            update_manifest(RunDir(self.out), **facts)
        else:
            base = folder_at(self.out)
            before = parse_json(base.read("run.json").decode())
            base.write("run.json", json_text(before | facts).encode())

    def _log(self, keys: Any, losses: Any, num_tokens: Any, kind: SnapshotKind) -> None:
        if kind not in KINDS:
            raise ConfigError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
        waiting = self._waiting.setdefault(kind, _Waiting())
        waiting.add(keys, losses, num_tokens)
        if kind == "during":
            self._step += 1

    def _snapshot(self, step: int | None, epoch: float | None) -> None:
        writer = self._open()
        self._step = self._step if step is None else int(step)
        epoch = float(len(writer.moments) + 1 if epoch is None else epoch)
        visits: dict[SnapshotKind, Visits] = {
            kind: self._waiting[kind].visits() for kind in KINDS if kind in self._waiting
        }
        self._waiting = {}
        writer.write(visits, step=self._step, epoch=epoch, wall_s=time.monotonic() - self._began)

    def _rewind(self, step: int) -> None:
        self._open().rewind(step)
        self._waiting, self._step = {}, step

    def _open(self) -> RecordWriter:
        if self._writer is None:
            raise RunError("the recorder is not open: use it inside `with`, or call start() first")
        return self._writer

    def _finish(self) -> None:
        if self._waiting:
            self._snapshot(None, None)
        if self.rank != 0:
            return
        if not isinstance(self.out, Path):
            self._tell(status="interrupted", error=f"recorded; seal it with: python -m carto_core seal {self.out}")
            return
        records, mine = self._open().folder, len(self._open().moments)
        ranks = range(1, self.ranks)
        self._wait_for(
            lambda: all(len(read_moments(records, rank)) >= mine for rank in ranks), "the last snapshot of every rank"
        )
        from carto_core.workflows.recording import seal_files  # needs duckdb, which whoever only records may lack

        for note in seal_files(RunDir(self.out))["notes"]:
            _log.warning("GenDataCarto, run %s: %s", self.out, note)

    def _wait_for(self, is_there: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + RANK_S
        while not is_there():
            if time.monotonic() > deadline:
                raise RunError(f"{self.out}: waited {RANK_S:.0f} s for {what}, in vain; is there a rank that has died?")
            time.sleep(0.05)


class _Waiting:
    """Batches as they came, of one kind; turned into rows when a snapshot ends."""

    def __init__(self) -> None:
        self._keys: list[Any] = []
        self._losses: list[Any] = []
        self._tokens: list[Any] = []
        self._moved = 0

    def add(self, keys: Any, losses: Any, num_tokens: Any) -> None:
        """Take copies of one batch, without waiting for the device.

        Raises:
            ConfigError: the three are not of one length.
        """
        copies = _copy(losses), None if num_tokens is None else _copy(num_tokens)
        self._keys.append(_copy_of_keys(keys))
        count = len(self._keys[-1])
        for name, values in zip(("losses", "num_tokens"), copies, strict=True):
            if values is not None and values.shape != (count,):
                raise ConfigError(
                    f"log needs one of {name} a key: {count} keys, and {name} of shape {tuple(values.shape)}"
                )
        self._losses.append(copies[0])
        self._tokens.append(np.ones(count, np.int32) if copies[1] is None else copies[1])
        if len(self._losses) - self._moved >= MOST_WAITING:
            self._move()

    def visits(self) -> Visits:
        """Return all rows."""
        self._move()
        keys = [text for batch in self._keys for text in _texts_of(batch)]
        return Visits(keys, self._losses, self._tokens)

    def _move(self) -> None:
        for values in (self._keys, self._losses, self._tokens):
            values[self._moved :] = [_here(value) for value in values[self._moved :]]
        self._moved = len(self._losses)


def _copy(values: Any) -> Any:
    """Return a copy: of a tensor, where it lies and without its gradient; of anything else, as an array."""
    return values.detach().clone() if _is_tensor(values) else np.array(values)


def _copy_of_keys(keys: Any) -> Any:
    return _copy(keys) if _is_tensor(keys) else list(keys)


def _here(values: Any) -> Any:
    """Return values as an array of this machine's memory, keys that are no tensor as they are."""
    if not _is_tensor(values):
        return values
    values = values.cpu()
    return (values.float() if values.is_floating_point() else values).numpy()


def _texts_of(keys: Any) -> list[str]:
    return [str(key) for key in (keys.tolist() if isinstance(keys, np.ndarray) else keys)]


def _is_tensor(values: Any) -> bool:
    return hasattr(values, "detach")


def _ranks() -> tuple[int, int]:
    """Return this process's rank and how many there are: as torch.distributed says, else as torchrun's environment does."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def _versions() -> Iterator[tuple[str, str]]:
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            yield name, version(name)
