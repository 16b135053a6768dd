"""How long work tells where it is: a bar for the terminal, a file for the dashboard, and one slot on the device."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from tqdm import tqdm

from carto_core.errors import Cancelled
from carto_core.jobs.processes import JOB_FOLDER
from carto_core.store.rundir import RunDir, append_progress, this_process, writing
from carto_core.types import Progress

WRITE_EVERY_S = 0.5
STOPPED = "stopped; what was finished before is kept: give the same command again to go on (a training: with --resume)"


class ProgressFile:
    """A `Progress` that appends to `progress.jsonl` twice a second, with a rate and the remaining time.

    Work that is one for several directories is told in each.

    In a job it tells the job's folder too, so that all that one job does is one story. On a terminal it draws a bar on
    stderr as well.
    """

    def __init__(self, *paths: Path) -> None:
        folder = os.environ.get(JOB_FOLDER)
        self.paths = paths if folder is None else (*paths, Path(folder) / "progress.jsonl")
        self._stage = ""
        self._began = (0.0, 0.0)
        self._written = 0.0
        self._bar: tqdm | None = None

    def __call__(self, stage: str, done: float, total: float) -> None:
        """Note that `done` of `total` units of `stage` are finished."""
        now = time.monotonic()
        if stage != self._stage:
            self._begin(stage, done, total, now)
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
        if now - self._written >= WRITE_EVERY_S or done >= total:
            self._written = now
            rate = self._rate(done, now)
            eta_s = (total - done) / rate if rate else None
            for path in self.paths:
                append_progress(path, stage=stage, done=done, total=total, rate=rate, eta_s=eta_s)

    def _begin(self, stage: str, done: float, total: float, now: float) -> None:
        self._stage, self._began, self._written = stage, (done, now), 0.0
        if self._bar is not None:
            self._bar.close()
        shown = sys.stderr.isatty()
        self._bar = tqdm(total=total, initial=done, desc=stage, file=sys.stderr, mininterval=0.5) if shown else None

    def _rate(self, done: float, now: float) -> float | None:
        first, began = self._began
        return (done - first) / (now - began) if now > began and done > first else None


@contextmanager
def stoppable() -> Iterator[None]:
    """Turn SIGTERM, which is how a job is cancelled, into `Cancelled`, and leave Ctrl-C what it is.

    A library may make something else of what a signal raises within it: DuckDB tells no signal from another in a query, makes a
    RuntimeError of one while it hands over rows, and does not find a table while it looks for it among Python's variables; Ray makes a
    SystemError of one while it waits. So what came is remembered here, and raised in place of any error that follows.
    """
    came: BaseException | None = None

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal came
        came = KeyboardInterrupt() if signum == signal.SIGINT else Cancelled(STOPPED)
        raise came

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, stop)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, or somebody else's
        before[signal.SIGINT] = signal.signal(signal.SIGINT, stop)
    try:
        yield
    except (KeyboardInterrupt, Exception) as error:
        if came is not None and error is not came:
            raise came from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def device_slot(run: RunDir, progress: Progress, *, work: str) -> Iterator[None]:
    """Hold the one slot for heavy work among the runs of a folder; a second process waits for the first.

    The lock is the operating system's, so it ends with its process, however that ends. Runs of another folder have a
    slot of their own.

    Args:
        run: what is worked on.
        progress: told what is waited for.
        work: what is to be done, such as `training`.
    """
    path = _lock_file(run.path.parent)
    with writing(path):
        lock = path.open("a+", encoding="utf-8")
    with lock:
        while not _take(lock, fcntl.LOCK_EX):
            said = _said(lock)
            other = f"the {said['work']} of {said['run']}" if {"work", "run"} <= set(said) else "other work"
            progress(f"waiting for {other} to end", 0, 1)
            time.sleep(WRITE_EVERY_S)
        lock.truncate(0)
        lock.write(json.dumps({"work": work, "run": run.run_id} | this_process()))
        lock.flush()
        yield


def device_holder(runs_root: Path) -> dict[str, Any] | None:
    """Return what holds the slot of a folder, `work`, `run`, `pid` and `pid_start`; None where nothing does."""
    path = _lock_file(runs_root)
    if not path.is_file():
        return None
    with path.open(encoding="utf-8") as lock:
        return None if _take(lock, fcntl.LOCK_SH) else _said(lock)


def _lock_file(runs_root: Path) -> Path:
    return runs_root / ".device.lock"


def _take(lock: TextIO, kind: int) -> bool:
    """Take the lock if it is free, and return whether it was."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _said(lock: TextIO) -> dict[str, Any]:
    """Return what the holder wrote; empty where it has not written yet."""
    lock.seek(0)
    try:
        said = json.loads(lock.read())
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
