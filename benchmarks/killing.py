"""One kill -9: a command in a process of its own, the moment at which it dies, and what is on disk afterwards.

A victim is forked from a process that has torch loaded, so that a trial takes a second or two. It tells every change that it
is about to make to a file through a pipe; a moment is given as one of these changes, or as a time. What it leaves is compared
file by file with what the same command leaves when nobody disturbs it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import safe_open

from carto_core.store.reader import Run
from carto_core.store.rundir import RunDir

PRELOADED = (
    __name__,
    "carto_core.cli",
    "carto_core.workflows.training",
    "carto_core.workflows.auditing",
    "carto_core.workflows.measuring",
    "carto_core.probes.passes",
    "torch._inductor.config",  # what torch imports when it is told to be deterministic: seconds
)
TAKES_ROOM = ("open", "os.rename", "os.mkdir", "os.link")
CHANGES = (*TAKES_ROOM, "os.remove", "os.rmdir")
WRITING = os.O_WRONLY | os.O_RDWR
UNTOLD = ("progress.jsonl", "prepare.jsonl", ".device.lock")  # written by the clock, or by nobody
VOLATILE = {
    *("created", "finished", "exported", "time", "pid", "pid_start", "pid_boot"),
    *("wall_s", "train_s", "measure_s", "peak_memory_bytes"),
}
END_S = 30.0  # for processes of a victim to notice that it is gone


class Change(NamedTuple):
    """What a victim was about to do: an audit event of Python's, the file, and seconds since the verb began."""

    event: str
    path: str
    at_s: float


@dataclass(frozen=True)
class Moment:
    """When to send a signal: `delay_s` after the change number `change`, or after the start where that is None."""

    change: int | None
    delay_s: float
    signal: int = signal.SIGKILL

    @property
    def is_exact(self) -> bool:
        """Whether it is just before a change, where the victim itself sends the signal; else the parent does."""
        return self.change is not None and not self.delay_s


@dataclass(frozen=True)
class Verb:
    """Something that a person starts.

    Attributes:
        name: key in `kills.SHARES`.
        begin: puts into an empty folder what the verb starts from.
        act: the verb, in a folder; again after it was killed, it goes on.
    """

    name: str
    begin: Callable[[Path], None]
    act: Callable[[Path], Any]


@dataclass(frozen=True)
class Undisturbed:
    """What a verb does and leaves when nobody kills it: its changes, a digest of every file, and all losses."""

    changes: list[Change]
    digests: dict[str, str]
    losses: dict[str, np.ndarray]


class Ended(NamedTuple):
    """How a victim ended.

    Attributes:
        changes: those that it made, and the one that it was about to make.
        code: its exit code, or the signal that it died of, below 0.
        said: what it wrote to stderr.
        session: the id of its session, which all its processes have.
    """

    changes: list[Change]
    code: int
    said: str
    session: int

    @property
    def last_words(self) -> str:
        """The last line that it said."""
        return (self.said.strip().splitlines() or [f"exit code {self.code}"])[-1]


def start_forkserver() -> Any:
    """Return the context from which victims are forked, with everything heavy loaded once."""
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # a thread pool would not survive the fork
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


def perform(
    context: Any,
    act: Callable[[Path], Any],
    folder: Path,
    moment: Moment | None = None,
    *,
    room_until: int | None = None,
) -> Ended:
    """Run `act(folder)` in a victim and return how it ended.

    Args:
        context: see `start_forkserver`.
        act: what the victim does.
        folder: where it does it.
        moment: when to send it a signal, if at all.
        room_until: number of the change from which on none finds room any more; what is refused does not count as a change.
    """
    ours, theirs = context.Pipe(duplex=False)
    handle, name = tempfile.mkstemp()  # not beside the folder: that disk may be full
    os.close(handle)
    said = Path(name)
    victim = context.Process(target=_victim, args=(act, folder, moment, room_until, said, theirs))
    victim.start()
    theirs.close()
    changes: list[Change] = []
    strikes_at = None
    while True:
        if strikes_at is not None and time.monotonic() >= strikes_at and moment is not None:
            os.kill(victim.pid, moment.signal)
            strikes_at = moment = None
        wait_s = 1.0 if strikes_at is None else max(0.0, strikes_at - time.monotonic())
        try:
            if not ours.poll(wait_s):
                continue
            change = ours.recv()
        except (EOFError, ConnectionResetError):
            break
        if change is not None:
            changes.append(change)
        wanted = None if moment is None or moment.is_exact else 0 if moment.change is None else moment.change + 1
        if moment is not None and len(changes) == wanted and strikes_at is None:
            strikes_at = time.monotonic() + moment.delay_s
    victim.join()
    told = said.read_text(encoding="utf-8", errors="replace")
    said.unlink()
    return Ended(changes, victim.exitcode, told, victim.pid)


def _victim(
    act: Callable[[Path], Any],
    folder: Path,
    moment: Moment | None,
    room_until: int | None,
    said: Path,
    tell: Connection,
) -> None:
    os.setsid()  # whatever it starts can be found by its session
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started in the background ignores it
    with Path(os.devnull).open("r+b") as nothing, said.open("wb") as words:
        os.dup2(nothing.fileno(), 1)
        os.dup2(words.fileno(), 2)
    root, count, began = str(folder), 0, time.monotonic()
    own = moment if moment is not None and moment.is_exact else None

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in CHANGES or (path := _changed(event, arguments, root)) is None:
            return
        if room_until is not None and count >= room_until and event in TAKES_ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        tell.send(Change(event, path, time.monotonic() - began))
        count += 1
        if own is not None and count == own.change + 1:
            os.kill(os.getpid(), own.signal)

    tell.send(None)
    sys.addaudithook(hook)
    act(folder)


def _changed(event: str, arguments: tuple[Any, ...], root: str) -> str | None:
    """Return the file that an audit event is about to change, relative to the root; None for all others."""
    if event == "open" and not (set(arguments[1] or "") & set("wax+") or (arguments[2] or 0) & WRITING):
        return None
    path = arguments[1] if event in ("os.rename", "os.link") else arguments[0]
    if not isinstance(path, str | os.PathLike) or not os.fspath(path).startswith(root):
        return None
    if event == "os.mkdir" and Path(path).is_dir():
        return None  # it only makes sure
    name = os.path.relpath(path, root)
    return None if name.endswith(UNTOLD) else name


def processes_left(session: int) -> list[int]:
    """Return the processes of a killed victim that do not end by themselves, after waiting for them."""
    deadline = time.monotonic() + END_S
    while found := [pid for pid in psutil.pids() if _session_of(pid) == session]:
        if time.monotonic() > deadline:
            return found
        time.sleep(0.05)
    return []


def _session_of(pid: int) -> int | None:
    with suppress(OSError, psutil.Error):
        if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            return os.getsid(pid)
    return None


def files_of(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the files with final names, and what is left over under temporary ones; paths relative to the folder."""
    final, left_over = [], []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if name.name.endswith(UNTOLD) or ".progress." in name.name:
            continue
        if any(part.startswith(".") for part in name.parts):
            left_over.append(name)
        elif path.is_file():
            final.append(name)
    return final, left_over


def digest(path: Path) -> str:
    """Return a hash of what a file says, without times and process ids; raises whatever its reader does if it is torn."""
    return hashlib.sha256(b"".join(_content(path))).hexdigest()


def _content(path: Path) -> Iterator[bytes]:
    if path.suffix == ".parquet":
        yield _bytes_of(pq.read_table(path))
    elif path.suffix == ".duckdb":
        with duckdb.connect(str(path), read_only=True) as con:
            for (name,) in con.execute("select table_name from duckdb_tables() order by 1").fetchall():
                rows = con.table(name).order("all").to_arrow_table()
                yield _bytes_of(rows.drop_columns("wall_s") if name == "snapshots" else rows)
    elif path.suffix == ".safetensors":
        with safe_open(path, "np") as tensors:
            for name in sorted(tensors.keys()):
                yield name.encode() + tensors.get_tensor(name).tobytes()
    elif path.suffix in (".npy", ".npz"):
        np.load(path, allow_pickle=False)
        yield path.read_bytes()
    elif path.suffix == ".json":
        yield json.dumps(_lasting(json.loads(path.read_text(encoding="utf-8"))), sort_keys=True).encode()
    else:
        yield path.read_bytes()


def _bytes_of(table: pa.Table) -> bytes:
    """Return the values as text: Arrow's buffers hold anything where a value is NULL."""
    return repr([table.column_names, *table.to_pydict().values()]).encode()


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _lasting(part) for name, part in value.items() if name not in VOLATILE}
    return [_lasting(part) for part in value] if isinstance(value, list) else value


def undisturbed(context: Any, verb: Verb, folder: Path) -> Undisturbed:
    """Perform a verb and take down what it does and leaves."""
    folder.mkdir(parents=True)
    verb.begin(folder)
    ended = perform(context, verb.act, folder)
    assert ended.code == 0, f"{verb.name}: {ended.said}"
    final, left_over = files_of(folder)
    assert not left_over, f"{verb.name} leaves {left_over} even when nobody kills it"
    digests = {str(name): digest(folder / name) for name in final}
    losses = {name: loss for run in runs_in(folder) for name, loss in losses_of(run).items()}
    return Undisturbed(ended.changes, digests, losses)


def runs_in(folder: Path) -> list[Run]:
    """Return the runs of a trial's folder."""
    return [Run(RunDir(path.parent)) for path in sorted(folder.glob("[!.]*/run.json"))]


def losses_of(run: Run) -> dict[str, np.ndarray]:
    """Return each committed snapshot's losses by `RUN/SNAPSHOT`, read as a map reads them."""
    found = {}
    for kind in ("during", "after"):
        numbers = run.snapshots(kind)["snapshot"]
        for number, row in zip(numbers, run.trajectories(kind), strict=True):
            found[f"{run.run_id}/{number}"] = row
    return found


@dataclass
class Trial:
    """One kill and what came of it.

    Attributes:
        verb: its name.
        stage: what was being done, told by the disk and the last change.
        moment: `any time`, `after a change`, `at a rename` or `at another change`, both just before it.
        killed: whether it died; a verb that was done before proves nothing.
        left_over: temporary names that lay about.
        losses: one sentence each; empty where nothing was lost.
        seconds: of the whole trial.
    """

    verb: str
    stage: str
    moment: str
    killed: bool
    left_over: list[str]
    losses: list[str]
    seconds: float


def try_kill(context: Any, verb: Verb, expected: Undisturbed, moment: Moment, folder: Path) -> Trial:
    """Kill a verb at a moment, look at what it left, do it again, and compare with what it should have come to."""
    began = time.monotonic()
    folder.mkdir(parents=True)
    verb.begin(folder)
    ended = perform(context, verb.act, folder, moment)
    losses = [f"ended by itself: {ended.last_words}"] if ended.code not in (0, -signal.SIGKILL) else []
    losses += [f"process {pid} is left" for pid in processes_left(ended.session)]
    final, left_over = files_of(folder)
    losses += torn(folder, final) + snapshots_lost(folder, ended.changes, expected)
    done = {name: (folder / name).stat().st_mtime_ns for name in final if "arms" in name.parts}
    stage = stage_of(verb, ended.changes, expected.changes, left_over, moment)
    again = perform(context, verb.act, folder)
    losses += [f"again: {again.last_words}"] if again.code else []
    losses += [f"trained again: {name}" for name, at in done.items() if (folder / name).stat().st_mtime_ns != at]
    losses += differences(folder, expected)
    how = "any time" if moment.change is None else "after a change"
    if moment.is_exact and ended.changes:
        how = "at a rename" if ended.changes[-1].event == "os.rename" else "at another change"
    shutil.rmtree(folder)
    return Trial(
        verb.name, stage, how, ended.code < 0, [str(p) for p in left_over], losses, round(time.monotonic() - began, 2)
    )


def torn(folder: Path, final: list[Path]) -> list[str]:
    """Say which files with a final name cannot be read, and which manifest does not fit the list beside it."""
    losses = []
    for name in final:
        try:
            digest(folder / name)
        except Exception as error:  # noqa: BLE001 (every reader has its own)
            losses.append(f"torn: {name}: {error!r}")
        manifest = folder / f"{name}.manifest.json"
        if manifest.is_file():
            told = json.loads(manifest.read_text(encoding="utf-8"))["sha256"]
            if told != hashlib.sha256((folder / name).read_bytes()).hexdigest():
                losses.append(f"torn: {manifest.name} speaks of another list than {name}")
    return losses


def snapshots_lost(
    folder: Path,
    changes: list[Change],
    expected: Undisturbed,
    *,
    statuses: tuple[str, ...] = ("interrupted", "complete"),
) -> list[str]:
    """Compare every committed snapshot with the undisturbed run's, and count those whose commit was past.

    Args:
        folder: the trial's.
        changes: what the victim did, and was about to do.
        expected: of the same verb.
        statuses: what a run may be shown as.
    """
    losses = []
    committed = sum(c.event == "os.rename" and c.path.endswith("snapshots.json") for c in changes[:-1])
    for run in runs_in(folder):
        try:
            found = losses_of(run)
            status = run.status
        except Exception as error:  # noqa: BLE001 (every reader has its own)
            losses.append(f"the map of {run.run_id} does not open: {error!r}")
            continue
        losses += [f"other losses: {n}" for n, row in found.items() if not _same(row, expected.losses[n])]
        if status not in statuses:
            losses.append(f"{run.run_id} is shown as {status}")
        if committed and len(found) < committed:
            losses.append(f"{committed} snapshots were committed and {len(found)} are there")
    return losses


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.tobytes() == b.tobytes()


def differences(folder: Path, expected: Undisturbed) -> list[str]:
    """Say in which files a folder differs from what the verb comes to undisturbed, and what is left over."""
    final, left_over = files_of(folder)
    losses = [f"not removed: {name}" for name in left_over]
    names = {str(name) for name in final}
    losses += [f"missing: {name}" for name in sorted(set(expected.digests) - names)]
    losses += [f"too much: {name}" for name in sorted(names - set(expected.digests))]
    for name in sorted(names & set(expected.digests)):
        try:
            if digest(folder / name) != expected.digests[name]:
                losses.append(f"differs: {name}")
        except Exception as error:  # noqa: BLE001 (every reader has its own)
            losses.append(f"torn in the end: {name}: {error!r}")
    return losses


def stage_of(verb: Verb, changes: list[Change], usual: list[Change], left_over: list[Path], moment: Moment) -> str:
    """Return what a victim was doing: the temporary file that it left tells, else the change that it was at or went on to."""
    if verb.name in TRAININGS and left_over:
        return stage_of_change(verb.name, Change("os.rename", str(left_over[0]), 0.0))
    if not changes:
        return STAGE_OF_VERB.get(verb.name, "reading")
    if moment.is_exact or len(changes) >= len(usual):
        return stage_of_change(verb.name, changes[-1])
    towards = stage_of_change(verb.name, usual[len(changes)])
    return "training" if towards == "write of a part" else towards


TRAININGS = ("train", "resume", "retrain")
STAGES = {
    "snapshots.json": "manifest of the parts",
    "-rank0000": "write of a part",
    "checkpoints": "checkpoint",
    "trajectory.duckdb": "sealing or first scores",
    "scores.parquet": "sealing or first scores",
    "probes": "probing",
    "prepared": "preparing",
}
STAGE_OF_VERB = {
    "score": "rescoring",
    "probe": "probing",
    "prepare": "preparing",
    "audit": "auditing",
    "plan": "planning",
    "export": "exporting",
    "measure": "measuring",
}


def stage_of_change(verb: str, change: Change) -> str:
    """Return the stage in which a file is changed."""
    if verb not in TRAININGS:
        return STAGE_OF_VERB[verb]
    if change.path.endswith("parts"):
        return "write of a part" if change.event == "os.mkdir" else "removal of the parts"
    return next((stage for part, stage in STAGES.items() if part in change.path), "the run's own files")
