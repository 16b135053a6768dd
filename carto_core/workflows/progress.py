"""How long work tells where it is: a bar for the terminal, a file for the dashboard, and one slot on the device."""

from __future__ import annotations

import fcntl
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from tqdm import tqdm

from carto_core.errors import Cancelled
from carto_core.store.rundir import append_progress
from carto_core.types import Progress

WRITE_EVERY_S = 0.5


class ProgressFile:
    """A `Progress` that appends to `progress.jsonl` twice a second, with a rate and the remaining time.

    On a terminal it draws a bar on stderr as well.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
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
            append_progress(self.path, stage=stage, done=done, total=total, rate=rate, eta_s=eta_s)

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
    """Turn SIGTERM, which is how a job is cancelled, into `Cancelled`."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise Cancelled("the work was cancelled; what was finished before is kept")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def device_slot(runs_root: Path, progress: Progress) -> Iterator[None]:
    """Hold the one slot for heavy work among the runs of this folder; a second process waits for the first.

    The lock is the operating system's, so it ends with its process, however that ends.
    """
    with (runs_root / ".device.lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                progress("waiting for other work on this machine", 0, 1)
                time.sleep(WRITE_EVERY_S)
        yield
