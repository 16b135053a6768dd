"""Many trainings of one job, one process a core: each writes its own file, and a file that is there is not made again.

Where stacking parameters is not faster (on one CPU core it was 0.9 times), this is what uses the machine.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from carto_core.errors import RunError
from carto_core.store.rundir import append_progress, last_progress
from carto_core.types import Progress

POLL_S = 0.5


def num_workers(manifest: dict[str, Any]) -> int:
    """Return how many models like a run's are trained at a time, from its manifest.

    One process a core, each with the run's own threads. One alone where the run was trained on CUDA: a second model on
    the card would share its time, and might not fit into its memory.
    """
    if manifest["device"] == "cuda":
        return 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable // manifest["config"]["engine"]["threads"])


def run_side_by_side(
    function: Callable[..., None],
    pieces: Sequence[tuple[Any, ...]],
    paths: Sequence[Path],
    *,
    workers: int,
    stage: str,
    progress: Progress,
) -> None:
    """Call `function(*piece, path)` in a process of its own for every path that is not there yet.

    Args:
        function: importable by name; writes `path` whole, last of all.
        pieces: its other arguments, one tuple a path.
        paths: what each call writes.
        workers: processes at a time.
        stage: what progress calls it.
        progress: told how many pieces' worth of work is done; may raise to stop, which ends the processes. Pieces that
            were finished by then stay.

    Raises:
        RunError: a process died without an error of its own, as one does that the system kills for its memory.
    """
    missing = {path: piece for path, piece in zip(paths, pieces, strict=True) if not path.is_file()}
    if not missing:
        return
    others = set(multiprocessing.active_children())
    # spawn: a forked child would inherit torch's thread pool in a state that may hang
    pool = ProcessPoolExecutor(
        min(workers, len(missing)), mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent
    )
    try:
        with _starting_processes():
            waiting = [pool.submit(function, *piece, path) for path, piece in missing.items()]
        _watch(waiting, list(missing), stage, progress)
    except BrokenProcessPool:
        raise RunError(
            f"{stage}: a process died before it was done, perhaps for lack of memory ({workers} ran at a time); what was "
            "finished is kept, start again to go on"
        ) from None
    except BaseException:
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)  # its own thread waits for the processes: two that wait lose one's end
        for path in missing:  # of pieces that did not come to their end
            _progress_path(path).unlink(missing_ok=True)


@contextmanager
def _starting_processes() -> Iterator[None]:
    """Let signals wait while processes are started: one whose parent stops half-way ends in a traceback.

    And let the processes never hear Ctrl-C, which a terminal sends to them too: the parent ends them, with SIGTERM.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which processes inherit
    try:
        with _later(signal.SIGTERM):
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _later(number: signal.Signals) -> Iterator[None]:
    """Handle a signal that comes meanwhile at the end; only the main thread handles any."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = threading.Event()
    before = signal.signal(number, lambda *_: came.set())
    try:
        yield
    finally:
        signal.signal(number, before)
        if came.is_set():
            signal.raise_signal(number)


def _end_with_parent() -> None:
    """Let a process of the pool end when its parent does, however that ends.

    Nobody would take its results any more, and it would train on beside whoever starts the same again.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_exit_after, args=(parent.sentinel,), daemon=True).start()


def _exit_after(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


class Told:
    """Progress of one piece, twice a second into a file beside its result, where the parent reads it."""

    def __init__(self, path: Path) -> None:
        self.path = _progress_path(path)
        self.path.unlink(missing_ok=True)
        self.written = 0.0

    def __call__(self, stage: str, done: float, total: float) -> None:
        """Note that `done` of `total` steps are taken."""
        if time.monotonic() - self.written > POLL_S:
            self.written = time.monotonic()
            append_progress(self.path, done=done, total=total)

    def close(self) -> None:
        """Remove the file: the result stands for it now."""
        self.path.unlink(missing_ok=True)


def _watch(waiting: list[Future[None]], paths: list[Path], stage: str, progress: Progress) -> None:
    """Wait for all pieces, telling progress; raise what a piece raised."""
    while True:
        shares = [1.0 if path.is_file() else share_done(path) for path in paths]
        progress(stage, sum(shares), len(paths))
        for result in waiting:
            if result.done():
                result.result()
        if all(result.done() for result in waiting):
            return
        time.sleep(POLL_S)


def share_done(path: Path) -> float:
    """Return how much of a piece is done, 0 to 1, as `Told` wrote it down beside `path`; 0 where it has not yet."""
    line = last_progress(_progress_path(path))
    return 0.0 if line is None else float(line["done"]) / float(line["total"])


def _progress_path(path: Path) -> Path:
    return path.with_suffix(".progress.jsonl")
