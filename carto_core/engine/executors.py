"""Where many trainings of one job run: beside one another on this machine, or on a cluster.

What trains knows neither: it writes one file, given a run directory and its own arguments. An executor calls it wherever
there is room and sees that the file lies where it is looked for, so results are found again whoever made them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from carto_core.engine.side_by_side import num_workers, run_side_by_side
from carto_core.errors import ConfigError, UnknownNameError
from carto_core.store.rundir import RunDir, read_manifest
from carto_core.types import Progress

MAX_WORKERS = 10_000


class Executor(Protocol):
    """Runs the pieces of a sweep, each with the run's own threads."""

    def num_workers(self, manifest: dict[str, Any]) -> int:
        """Return how many models like a run's are trained at a time, from its manifest."""
        ...

    def __call__(
        self,
        function: Callable[..., None],
        run_path: Path,
        pieces: Sequence[tuple[Any, ...]],
        paths: Sequence[Path],
        *,
        stage: str,
        progress: Progress,
    ) -> None:
        """Call `function(run directory, *piece, path)` for every path that is not there yet.

        Args:
            function: importable by name; reads of the run no more than `Run.corpus_files`, its manifest and its plan, and
                writes `path` whole, last of all. Where it runs, directory and path may be others than here.
            run_path: the run's directory.
            pieces: its other arguments, one tuple a path.
            paths: what each call writes.
            stage: what progress calls it.
            progress: told how many pieces' worth of work is done; may raise to stop, which ends all that runs. Pieces that
                were finished by then stay.

        Raises:
            CartoError: of a piece itself; or a process, worker or cluster died, which a message says.
        """
        ...


@dataclass(frozen=True, slots=True)
class LocalExecutor:
    """One process a training, on this machine.

    Attributes:
        workers: processes at a time; None takes `side_by_side.num_workers`.
    """

    workers: int | None = None

    def num_workers(self, manifest: dict[str, Any]) -> int:
        """See `Executor`."""
        return self.workers or num_workers(manifest)

    def __call__(
        self,
        function: Callable[..., None],
        run_path: Path,
        pieces: Sequence[tuple[Any, ...]],
        paths: Sequence[Path],
        *,
        stage: str,
        progress: Progress,
    ) -> None:
        """See `Executor`."""
        workers = self.num_workers(read_manifest(RunDir(run_path)))
        calls = [(run_path, *piece) for piece in pieces]
        run_side_by_side(function, calls, paths, workers=workers, stage=stage, progress=progress)


LOCAL = LocalExecutor()


@dataclass(frozen=True, slots=True)
class ExecutorKind:
    """One way to run a sweep.

    Attributes:
        name: key in `EXECUTORS`.
        title: what it does, in a few words.
        opened: `module:function(address, workers)`, a context manager that yields an `Executor`; loaded when it is asked for.
        needs: the command that installs what it takes beyond the requirements; empty for nothing.
    """

    name: str
    title: str
    opened: str
    needs: str = ""


EXECUTORS: dict[str, ExecutorKind] = {
    kind.name: kind
    for kind in (
        ExecutorKind("local", "processes on this machine", "carto_core.engine.executors:open_local"),
        ExecutorKind(
            "ray",
            "a Ray cluster, or a local Ray without --address",
            "carto_core.engine.on_ray:open_ray",
            needs="python -m pip install 'ray>=2.60,<3'",
        ),
    )
}


@contextmanager
def open_local(address: str | None, workers: int | None) -> Iterator[Executor]:
    """Yield the executor of this machine.

    Raises:
        ConfigError: an address is given, for which there is no use here.
    """
    if address is not None:
        raise ConfigError("--address names a cluster, so it goes with --executor ray")
    yield LocalExecutor(workers)


@contextmanager
def open_executor(name: str, *, address: str | None = None, workers: int | None = None) -> Iterator[Executor]:
    """Yield an executor by its name, and end in the end what it started.

    Args:
        name: in `EXECUTORS`.
        address: HOST:PORT of a cluster; None uses this machine.
        workers: trainings at a time, 1 to 10,000; None takes what there is room for.

    Raises:
        UnknownNameError: no such executor.
        ConfigError: an argument is out of range or does not go with this executor.
        ExecutorError: what it needs is not installed, or the cluster cannot be used.
    """
    if name not in EXECUTORS:
        raise UnknownNameError.of("executor", name, EXECUTORS)
    if workers is not None and not 1 <= workers <= MAX_WORKERS:
        raise ConfigError(f"--workers must be 1 to {MAX_WORKERS:,}, got {workers}")
    module, function = EXECUTORS[name].opened.split(":")
    with getattr(importlib.import_module(module), function)(address, workers) as executor:
        yield executor
