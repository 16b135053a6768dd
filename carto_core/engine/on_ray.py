"""Trainings on a Ray cluster: each node gets the run's files once, and the file that a piece writes comes back.

Nodes need no folder in common with this machine, and no copy of this program: that is sent along. Ray itself is loaded
when the first piece is to be run, and never before.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import carto_core
from carto_core.engine.executors import EXECUTORS, Executor
from carto_core.engine.side_by_side import POLL_S, num_workers, share_done
from carto_core.errors import CartoError, ConfigError, ExecutorError
from carto_core.store.reader import Run
from carto_core.store.rundir import RunDir, beside, replacing
from carto_core.types import Progress

RETRIES = 2  # of a piece whose worker or node died
REACHED_WITHIN_S = 20
HEAD_ASKED, HEAD_WITHIN_S = 3, 3  # times, seconds each
SWEPT_WITHIN_S = 15
GRACE_S = 5  # for a piece that is stopped to remove what it wrote
SAME_EVERYWHERE = ("torch", "numpy", "tokenizers")  # what numbers depend on; Ray itself compares Ray and Python

Files = dict[str, np.ndarray]


@contextmanager
def open_ray(address: str | None, workers: int | None) -> Iterator[Executor]:
    """Yield an executor on the cluster at `address`, or on a Ray of its own on this machine; see `open_executor`."""
    if importlib.util.find_spec("ray") is None:
        raise ExecutorError(f"--executor ray needs Ray, which is not installed; run: {EXECUTORS['ray'].needs}")
    if address is not None and not re.fullmatch(r"[^\s:/]+:\d{1,5}", address):
        raise ConfigError(
            f"--address must be HOST:PORT of the cluster's head, such as 10.0.0.5:6379, got {address!r}; this machine must "
            "be a node of that cluster: ray start --address=HOST:PORT"
        )
    with ExitStack() as stack:
        yield RayExecutor(address, workers, stack)


class RayExecutor:
    """See `Executor`. Connects when it is first asked for anything; its stack undoes that.

    Attributes:
        address: HOST:PORT; None starts a Ray of its own, which listens on 127.0.0.1 alone and takes a token.
        workers: pieces at a time; None takes what the cluster has room for, or as many as `LocalExecutor`.
    """

    def __init__(self, address: str | None, workers: int | None, stack: ExitStack) -> None:
        self.address, self.workers = address, workers
        self._stack, self._connected = stack, False

    def num_workers(self, manifest: dict[str, Any]) -> int:
        """See `Executor`.

        Raises:
            ExecutorError: the cluster cannot be used.
        """
        self._connect(manifest)
        return self.room(_needs(manifest))

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
        """See `Executor`. A piece whose worker or node died is tried twice more.

        Raises:
            ExecutorError: the cluster cannot be used, no node of it has what one training takes, or a piece's worker died
                three times.
            CartoError: a piece's own.
        """
        missing = {path: piece for path, piece in zip(paths, pieces, strict=True) if not path.is_file()}
        if not missing:
            return
        run = Run(RunDir(run_path))
        self._connect(run.manifest)
        sweep = _Sweep(self, function, run, missing, stage)
        try:
            sweep.go_on_until_done(progress)
        except BaseException:
            sweep.stop()
            raise

    def room(self, needs: dict[str, float]) -> int:
        """Return how many pieces run at a time as the cluster is now; at least 1."""
        import ray

        there = ray.cluster_resources()
        fits = min(int(there.get(name, 0) // amount) for name, amount in needs.items())
        return max(1, fits if self.workers is None else self.workers)

    def require_room(self, needs: dict[str, float]) -> None:
        """Raise ExecutorError unless some node has enough for one piece, which Ray would wait for without end."""
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(all(node.get(name, 0) >= amount for name, amount in needs.items()) for node in nodes):
            wanted = " and ".join(f"{amount:g} {name}" for name, amount in needs.items())
            raise ExecutorError(
                f"no node of the cluster offers the {wanted} that one training of this run takes ({len(nodes)} nodes are "
                "there); add a node that does"
            )

    def _connect(self, manifest: dict[str, Any]) -> None:
        if self._connected:
            return
        handler = signal.getsignal(signal.SIGTERM)
        if self.address is None:
            self._start(manifest)
        else:
            self._join(self.address)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray's own would end this process without a word
        self._connected = True

    def _start(self, manifest: dict[str, Any]) -> None:
        """Start a Ray on this machine that nobody else can reach."""
        at_a_time = self.workers or num_workers(manifest)
        needs = _needs(manifest)
        self._stack.enter_context(_environment(_PRIVATE))
        folder = self._stack.enter_context(
            tempfile.TemporaryDirectory(prefix="carto-ray-", dir="/tmp", ignore_cleanup_errors=True)
        )  # a socket's path must be short
        self._init(
            "a local Ray cannot be started",
            address="local",
            num_cpus=int(at_a_time * needs["CPU"]),
            num_gpus=int(at_a_time * needs.get("GPU", 0)),
            include_dashboard=False,
            _temp_dir=folder,
        )
        import ray

        if (listens_on := ray.util.get_node_ip_address()) != "127.0.0.1":
            raise ExecutorError(f"a local Ray would listen on {listens_on}, where others reach it; it was ended")

    def _join(self, address: str) -> None:
        """Become a driver of a cluster that is there; its nodes get this program as it is here."""
        self._stack.enter_context(_environment({"RAY_USAGE_STATS_ENABLED": "0"}))
        _require_reachable(address)
        package = str(Path(carto_core.__file__).parent)
        self._init(
            f"the Ray cluster at {address} cannot be used",
            address=address,
            runtime_env={"py_modules": [package], "excludes": ["__pycache__"]},
        )

    def _init(self, problem: str, **how: Any) -> None:
        import ray

        self._stack.callback(ray.shutdown)
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **how)
        except Exception as error:  # noqa: BLE001 (what it raises where a start takes too long has no type of its own)
            said = str(error).strip().splitlines()
            raise ExecutorError(f"{problem}: {said[0] if said else type(error).__name__}") from None


class _Sweep:
    """The pieces of one call: those that wait, those that run, how often each was tried."""

    def __init__(
        self,
        executor: RayExecutor,
        function: Callable[..., None],
        run: Run,
        missing: dict[Path, tuple[Any, ...]],
        stage: str,
    ) -> None:
        import ray

        manifest = run.manifest
        self.needs = _needs(manifest)
        self.head = ray.get_runtime_context().gcs_address
        executor.require_room(self.needs)
        self.executor, self.function, self.stage = executor, function, stage
        self.missing, self.waiting = missing, deque(missing)
        self.running: dict[Any, Path] = {}
        self.tries: Counter[Path] = Counter()
        self.shares: dict[str, float] = {}
        self.num_done = 0
        self.is_killed = False  # whether a piece may have left its folder on a node
        self.about = {"run_id": run.run_id, "versions": versions_here(), "address": executor.address}
        self.files = ray.put(files_to_send(run))
        self.board = self._on(ray.get_runtime_context().get_node_id(), _Board, soft=True).remote()
        self.piece = ray.remote(_run_piece).options(
            num_cpus=self.needs["CPU"], num_gpus=self.needs.get("GPU", 0), max_retries=0
        )

    def go_on_until_done(self, progress: Progress) -> None:
        """Keep as many pieces running as there is room for, and write down what comes back."""
        import ray

        while self.waiting or self.running:
            self._require_head()
            progress(self.stage, self.num_done + sum(self._shares_running()), len(self.missing))
            while self.waiting and len(self.running) < self.executor.room(self.needs):
                path = self.waiting.popleft()
                arguments = (self.function, self.files, self.about, self.missing[path], path.name, self.board)
                self.running[self.piece.remote(*arguments)] = path
            done, _ = ray.wait(list(self.running), timeout=POLL_S)
            for reference in done:
                self._take(reference)
        progress(self.stage, self.num_done, len(self.missing))

    def _require_head(self) -> None:
        """Raise ExecutorError where the cluster's head is gone, before Ray ends this process for that without a word."""
        host, _, port = self.head.rpartition(":")
        for _ in range(HEAD_ASKED):
            with suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), timeout=HEAD_WITHIN_S):
                return
            time.sleep(POLL_S)
        self.running, self.is_killed = {}, False  # nobody is left who could end them
        raise ExecutorError(
            f"{self.stage}: the Ray cluster at {self.head} does not answer any more; what was finished is kept, start again "
            "to go on"
        )

    def stop(self) -> None:
        """End what runs: asked first, so that it removes its files, and then by force; nodes keep nothing of either."""
        import ray
        from ray import exceptions

        for force in (False, True):
            for reference in self.running:
                self.is_killed |= force
                with suppress(exceptions.RayError):
                    ray.cancel(reference, force=force)
            if self.running:
                _, still = ray.wait(list(self.running), num_returns=len(self.running), timeout=GRACE_S)
                self.running = {reference: self.running[reference] for reference in still}
        if self.is_killed:
            nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
            swept = [self._on(node, _remove_what_is_left, soft=False).remote() for node in nodes]
            ray.wait(swept, num_returns=len(swept), timeout=SWEPT_WITHIN_S)

    @staticmethod
    def _on(node: str, what: Any, *, soft: bool) -> Any:
        """Return a function or actor for Ray that takes no processor and runs on one node (or elsewhere, where it is gone)."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(node, soft=soft)
        remote: Any = ray.remote(what)
        return remote.options(num_cpus=0, scheduling_strategy=there)

    def _take(self, reference: Any) -> None:
        import ray
        from ray import exceptions

        path = self.running.pop(reference)
        self.shares.pop(path.name, None)
        try:
            content: Any = ray.get(reference)
        except exceptions.RayTaskError as error:
            raise self._own_error(error) from None
        except exceptions.RayError as error:
            self._try_again(path, error)
            return
        with replacing(path) as temporary:
            temporary.write_bytes(content)
        self.num_done += 1

    def _own_error(self, error: Any) -> BaseException:
        """Return what a piece raised, or that a node could not even begin with it."""
        from ray import exceptions

        cause = error.cause
        if isinstance(cause, ImportError | exceptions.RaySystemError):
            return ExecutorError(
                f"{self.stage}: a node cannot run this program ({str(cause).splitlines()[0]}); install there what "
                "requirements.txt names, in the versions that are here"
            )
        return cause if isinstance(cause, BaseException) else ExecutorError(f"{self.stage}: {error}")

    def _try_again(self, path: Path, error: Exception) -> None:
        """Put a piece whose worker died back into the queue, unless that happens to it every time."""
        self.is_killed = True
        self.tries[path] += 1
        if self.tries[path] > RETRIES:
            raise ExecutorError(
                f"{self.stage}: the worker of one piece died {self.tries[path]} times before it was done "
                f"({type(error).__name__}), perhaps for lack of memory; what was finished is kept, start again to go on"
            ) from None
        self.waiting.append(path)

    def _shares_running(self) -> Iterator[float]:
        """Yield how much of each running piece is done, as far as their nodes have told."""
        import ray
        from ray import exceptions

        with suppress(exceptions.RayError):  # told late, or the node of the board is gone: what was told before
            self.shares = ray.get(self.board.read.remote(), timeout=GRACE_S)
        for path in self.running.values():
            yield self.shares.get(path.name, 0.0)


def files_to_send(run: Run) -> Files:
    """Return what a training reads of a run, uint8[bytes] by file name: nothing that it recorded.

    The manifest names the device that the run was trained on, so that no node chooses another.

    Raises:
        RunCorrupt: a file is gone.
    """
    paths = run.corpus_files()
    if (plan := run.files.table("plan")).is_file():
        paths.append(plan)
    manifest = run.manifest
    config = manifest["config"] | {"engine": manifest["config"]["engine"] | {"device": manifest["device"]}}
    files = {path.name: np.fromfile(path, np.uint8) for path in paths}
    text = json.dumps(manifest | {"config": config})
    return files | {run.files.manifest.name: np.frombuffer(text.encode(), np.uint8)}


class _Board:
    """Where pieces on all nodes note how far they are: an actor beside the driver."""

    def __init__(self) -> None:
        self.shares: dict[str, float] = {}

    def note(self, name: str, share: float) -> None:
        self.shares[name] = share

    def read(self) -> dict[str, float]:
        return self.shares


def _run_piece(
    function: Callable[..., None],
    files: Files,
    about: dict[str, Any],
    piece: tuple[Any, ...],
    name: str,
    board: Any,
) -> bytes:
    """Run one piece on a node, in a folder that is gone afterwards, and return what it wrote."""
    with _naming_the_node(about["address"]), beside(_folder_of_pieces()) as folder:
        _require_versions(about["versions"])
        folder.mkdir(mode=0o700)
        run_path = folder / about["run_id"]
        run_path.mkdir()
        for file, content in files.items():
            (run_path / file).write_bytes(content.data)
        path = folder / "results" / name
        path.parent.mkdir()
        with _telling(board, name, path):
            function(run_path, *piece, path)
        return path.read_bytes()


def _folder_of_pieces() -> Path:
    return Path(tempfile.gettempdir()) / "carto-piece"


def _remove_what_is_left() -> None:
    """Remove from this node the folders of pieces whose processes are gone."""
    with beside(_folder_of_pieces()):
        pass


@contextmanager
def _naming_the_node(address: str | None) -> Iterator[None]:
    """Let an error that comes from a cluster say on which node, where its paths are to be read."""
    try:
        yield
    except CartoError as error:
        if address is not None:
            import ray

            error.args = (f"on node {ray.util.get_node_ip_address()}: {error}", *error.args[1:])
        raise


@contextmanager
def _telling(board: Any, name: str, path: Path) -> Iterator[None]:
    """Note on the board how far a piece is, twice a second, from what it writes down beside its result."""
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(POLL_S):
            board.note.remote(name, share_done(path))

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def versions_here() -> dict[str, str]:
    """Return the versions of the libraries that numbers depend on."""
    return {name: version(name) for name in SAME_EVERYWHERE}


def _require_versions(wanted: dict[str, str]) -> None:
    """Raise ExecutorError where a library is another than the driver's: numbers of both would stand side by side."""
    public = {name: value.split("+")[0] for name, value in wanted.items()}  # without the build: +cpu, +cu128
    other = {name: found for name in public if (found := version(name).split("+")[0]) != public[name]}
    if other:
        there = ", ".join(f"{name} {found}" for name, found in other.items())
        here = ", ".join(f"{name} {public[name]}" for name in other)
        raise ExecutorError(f"this node has {there}, and the machine that asks has {here}; install the same there")


def _needs(manifest: dict[str, Any]) -> dict[str, float]:
    """Return what one training takes of a node, by Ray's names for it."""
    needs = {"CPU": float(manifest["config"]["engine"]["threads"])}
    return needs | {"GPU": 1.0} if manifest["device"] == "cuda" else needs


_PRIVATE = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on every system: a Ray of one machine, which listens on 127.0.0.1
    "RAY_worker_niceness": "0",  # as local processes: else they give way to all else
    "RAY_AUTH_MODE": "token",  # else another user of this machine could have it run code
    "RAY_AUTH_TOKEN": secrets.token_hex(32),  # one a process: Ray reads it once
}


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _require_reachable(address: str) -> None:
    """Raise ExecutorError unless a Ray answers at an address, in another process: Ray would end this one."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        found = subprocess.run(command, capture_output=True, timeout=REACHED_WITHIN_S, check=False)
    except subprocess.TimeoutExpired:
        found = None
    if found is None or found.returncode:
        silent = found is None or b"oken" not in found.stderr
        why = "none answers there" if silent else "it wants a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
        raise ExecutorError(
            f"no Ray cluster can be used at {address}: {why}; check the address and that `ray start --head` runs there"
        )
