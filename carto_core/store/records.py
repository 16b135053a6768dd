"""What other people's training loops saw: one row a sample that went by, each rank's in files of its own.

A `moment` is where a loop ended a snapshot, counted from 0 on every rank alike; its rows are in one file a rank and kind. It
is complete when every rank has named it, so no rank waits for another and a rank that dies takes one moment along at
most. `RunDir.records` holds them; on another file system (any that fsspec knows) they lie in a folder of the same form.

Needs pyarrow only, and fsspec for other file systems.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa

from carto_core import CONTRACT_VERSION, __version__
from carto_core.config import ScoreConfig
from carto_core.corpus.canaries import Canary
from carto_core.corpus.foreign import foreign_tables
from carto_core.corpus.reading import Row, corpus_sha256
from carto_core.errors import ConfigError, DiskError, RunCorrupt
from carto_core.store.rundir import RunDir, json_text, now, replacing, this_machine, this_process
from carto_core.store.shapes import COUNT, SECONDS, Kind, among, parse_json, problem_of
from carto_core.store.writer import table_bytes
from carto_core.types import Float32, Int32, Snapshot, SnapshotKind

RECORD = pa.schema(
    [
        ("key", pa.string()),
        ("moment", pa.int32()),
        ("kind", pa.string()),
        ("occurrence", pa.int32()),
        ("loss", pa.float32()),
        ("num_tokens", pa.int32()),
    ]
)
MOST_MOMENTS = 2**14  # each may be two snapshots, and those are counted in 16 bits
KINDS: tuple[SnapshotKind, ...] = ("during", "after")  # in this order where a moment has both
MOMENT = {
    "moment": Kind(f"a number below {MOST_MOMENTS:,}", lambda value: COUNT.fits(value) and value < MOST_MOMENTS),
    "step": COUNT,
    "epoch": SECONDS,
    "wall_s": SECONDS,
    "kinds": [among(*KINDS)],
    "left_out": COUNT,
}
CURE = "copy it back; without it what this rank saw is lost"
_PART = re.compile(r"(\d{5})-(after|during)-rank(\d{4})\.parquet")


class Folder(Protocol):
    """Where files of records are: here, or on another file system."""

    def write(self, name: str, content: bytes) -> None:
        """Put a file there, whole or not at all."""
        ...

    def read(self, name: str) -> bytes:
        """Return a file."""
        ...

    def names(self) -> list[str]:
        """Return the names of the files that are there, sorted; none where the folder is not."""
        ...

    def remove(self, name: str) -> None:
        """Take a file away."""
        ...


@dataclass(frozen=True)
class LocalFolder:
    """A folder of this machine."""

    path: Path

    def write(self, name: str, content: bytes) -> None:
        """See `Folder`. Raises DiskError."""
        with replacing(self.path / name) as temporary:
            temporary.write_bytes(content)

    def read(self, name: str) -> bytes:
        """See `Folder`."""
        return (self.path / name).read_bytes()

    def names(self) -> list[str]:
        """See `Folder`."""
        return sorted(p.name for p in self.path.iterdir() if p.is_file()) if self.path.is_dir() else []

    def remove(self, name: str) -> None:
        """See `Folder`."""
        (self.path / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class RemoteFolder:
    """A folder on a file system that fsspec knows; object stores put a file whole or not at all."""

    fs: Any
    path: str

    def write(self, name: str, content: bytes) -> None:
        """See `Folder`. Raises DiskError."""
        try:
            self.fs.makedirs(self.path, exist_ok=True)
            self.fs.pipe_file(f"{self.path}/{name}", content)
        except OSError as error:
            raise DiskError.of(f"{self.path}/{name}", error) from error

    def read(self, name: str) -> bytes:
        """See `Folder`."""
        return self.fs.cat_file(f"{self.path}/{name}")

    def names(self) -> list[str]:
        """See `Folder`."""
        if not self.fs.exists(self.path):
            return []
        found = self.fs.ls(self.path, detail=True, refresh=True)
        return sorted(entry["name"].rsplit("/", 1)[-1] for entry in found if entry["type"] == "file")

    def remove(self, name: str) -> None:
        """See `Folder`."""
        if self.fs.exists(f"{self.path}/{name}"):
            self.fs.rm_file(f"{self.path}/{name}")


def is_remote(place: str | Path) -> bool:
    """Return whether a place is an address of another file system, such as `s3://bucket/run`."""
    return isinstance(place, str) and "://" in place and not place.startswith("file://")


def folder_at(place: str | Path) -> Folder:
    """Return the folder at a path of this machine, or at an address that fsspec knows.

    Raises:
        ConfigError: there is no such file system, or a package for it is missing.
    """
    if not is_remote(place):
        return LocalFolder(Path(str(place).removeprefix("file://")))
    try:
        from fsspec.core import url_to_fs

        return RemoteFolder(*url_to_fs(place))
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{place} is on a file system that cannot be reached from here: {error}") from None


@dataclass
class Visits:
    """What went by since the last moment, of one kind; cheap to add to.

    Attributes:
        keys: lists of keys, as they came.
        losses: float32 arrays, nats per token.
        num_tokens: int32 arrays.
    """

    keys: list[str] = field(default_factory=list)
    losses: list[Float32] = field(default_factory=list)
    num_tokens: list[Int32] = field(default_factory=list)

    def table(self, moment: int, kind: SnapshotKind) -> tuple[pa.Table, int]:
        """Return the rows as `RECORD` has them, and how many were left out: losses that are no finite number.

        `occurrence` counts a key's rows from 0, in the order in which they came.
        """
        losses = np.concatenate([np.empty(0, np.float32), *self.losses], dtype=np.float32, casting="same_kind")
        tokens = np.concatenate([np.empty(0, np.int64), *self.num_tokens])
        rows = pd.DataFrame({"key": self.keys, "loss": losses, "num_tokens": tokens})
        usable = rows.loc[np.isfinite(losses) & (tokens > 0)]
        occurrence = usable.groupby("key", sort=False).cumcount().to_numpy(np.int32)
        usable = usable.assign(moment=np.int32(moment), kind=kind, occurrence=occurrence)
        infinite = int((~np.isfinite(losses) & (tokens > 0)).sum())
        return pa.Table.from_pandas(usable[RECORD.names], schema=RECORD, preserve_index=False), infinite


class RecordWriter:
    """Writes one rank's moments; a moment counts once the rank's list names it, which is written last.

    Args:
        folder: of the records.
        rank: which process this is.
    """

    def __init__(self, folder: Folder, *, rank: int = 0) -> None:
        self.folder = folder
        self.rank = rank
        self.moments = read_moments(folder, rank)

    def write(self, visits: dict[SnapshotKind, Visits], *, step: int, epoch: float, wall_s: float) -> None:
        """End a moment: write its rows, then its name.

        Raises:
            DiskError: it cannot be written.
        """
        moment, left_out = len(self.moments), 0
        for kind, seen in visits.items():
            table, infinite = seen.table(moment, kind)
            left_out += infinite
            self.folder.write(_part_name(moment, kind, self.rank), table_bytes(table))
        facts = {"moment": moment, "step": step, "epoch": epoch, "wall_s": wall_s, "kinds": list(visits)}
        self._keep([*self.moments, facts | {"left_out": left_out}])

    def rewind(self, step: int) -> None:
        """Forget the moments after an optimizer step, as a loop does that goes on from a checkpoint."""
        self._keep([m for m in self.moments if m["step"] <= step])
        for name in self.folder.names():
            part = _PART.fullmatch(name)
            if part and int(part[3]) == self.rank and int(part[1]) >= len(self.moments):
                self.folder.remove(name)

    def _keep(self, moments: list[dict[str, Any]]) -> None:
        text = json.dumps({"moments": moments}, indent=1, allow_nan=False)
        self.folder.write(_list_name(self.rank), text.encode())
        self.moments = moments


@dataclass(frozen=True)
class Records:
    """The complete moments of a recording, read.

    Attributes:
        snapshots: in order, numbered 0, 1, ...; of one moment `during` comes before `after`.
        places: the moment of each snapshot.
        parts: the names of their files.
        left_out: rows whose loss was no finite number.
    """

    snapshots: list[Snapshot]
    places: list[int]
    parts: list[str]
    left_out: int


def read_records(folder: Folder, *, ranks: int) -> Records:
    """Return what every rank has finished.

    Raises:
        RunCorrupt: a rank's list is damaged, or a file that it names is gone.
    """
    lists = [read_moments(folder, rank) for rank in range(ranks)]
    there = set(folder.names())
    snapshots, places, parts = [], [], []
    for moment, same in enumerate(zip(*lists, strict=False)):
        for kind in KINDS:
            names = [_part_name(moment, kind, rank) for rank, facts in enumerate(same) if kind in facts["kinds"]]
            if gone := sorted(set(names) - there):
                raise RunCorrupt(f"{gone[0]} is gone from the records of moment {moment}; copy it back")
            if names:
                first = same[0]
                snapshots.append(Snapshot(len(snapshots), first["step"], first["epoch"], kind, first["wall_s"]))
                places.append(moment)
                parts += names
    complete = min(map(len, lists), default=0)
    return Records(snapshots, places, parts, sum(m["left_out"] for of_rank in lists for m in of_rank[:complete]))


def read_moments(folder: Folder, rank: int) -> list[dict[str, Any]]:
    """Return the moments that one rank has finished, in order; none before the first.

    Raises:
        RunCorrupt: its list is damaged.
    """
    name = _list_name(rank)
    if name not in folder.names():
        return []
    try:
        found = parse_json(folder.read(name).decode("utf-8"))
    except ValueError as error:
        raise RunCorrupt(f"{name} of a recording cannot be read: {error}; {CURE}") from None
    problem = problem_of(found, {"moments": [MOMENT]})
    if problem is None and [m["moment"] for m in found["moments"]] != list(range(len(found["moments"]))):
        problem = "moments must be numbered 0, 1, ..."
    if problem:
        raise RunCorrupt(f"{name} of a recording: {problem}; {CURE}")
    return found["moments"]


def begin_recording(
    base: Folder,
    rows: list[Row] | None,
    *,
    run_id: str,
    origin: Mapping[str, Any],
    versions: Mapping[str, str] = MappingProxyType({}),
    canaries: Sequence[Canary] = (),
    seed: int = 0,
) -> None:
    """Write what a run of foreign losses begins with, `run.json` last: from then on it is one.

    Args:
        base: the run directory.
        rows: its corpus; None where the keys are not known yet.
        run_id: the directory's name.
        origin: where the losses come from; see the contract.
        versions: of the libraries that made them.
        canaries: that somebody planted in the corpus.
        seed: breaks ties when a plan is made.
    """
    tables = foreign_tables(rows or [], canaries)
    if rows is None:
        del tables["samples"]
    for name, table in tables.items():
        base.write(f"{name}.parquet", table_bytes(table))
    manifest = {
        "contract_version": CONTRACT_VERSION,
        "run_id": run_id,
        "status": "running",
        "created": now(),
        "carto_version": __version__,
        "versions": {"python": platform.python_version(), **versions},
        "origin": dict(origin),
        "corpus_sha256": corpus_sha256(rows or []),
        "num_samples": len(rows or []),
        "num_snapshots": 0,
        "seed": seed,
        "scores": ScoreConfig().to_dict(),
        "report_seen": False,
        "error": None,
        "machine": this_machine(),
        **this_process(),
    }
    base.write("run.json", json_text(manifest).encode())


def copy_records(source: Folder, target: Folder, *, ranks: int) -> None:
    """Copy the complete moments of a recording into another folder, files that are there already excepted."""
    there = set(target.names())
    for name in read_records(source, ranks=ranks).parts:
        if name not in there:
            target.write(name, source.read(name))
    for rank in range(ranks):
        if _list_name(rank) in source.names():
            target.write(_list_name(rank), source.read(_list_name(rank)))


def records_of(run: RunDir, manifest: dict[str, Any]) -> Records:
    """Return the complete moments of a recorded run that is not sealed."""
    return read_records(LocalFolder(run.records), ranks=manifest["origin"]["ranks"])


def _part_name(moment: int, kind: str, rank: int) -> str:
    return f"{moment:05d}-{kind}-rank{rank:04d}.parquet"


def _list_name(rank: int) -> str:
    return f"rank{rank:04d}.json"
