"""Run a verb in another process, find it again, cancel it.

Everything is on disk, one folder a job under `RUNS_ROOT/.jobs`, so a job outlives the page and the server that started it:
`job.json` (what was started, and as which process), `log.txt`, `exit.json` once it has ended, `cancel.json` when somebody
asked it to stop. States are read off these files and the process table, never remembered.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import psutil

from carto_core.errors import JobError
from carto_core.store.rundir import is_process, last_progress, now, resolve_runs_root, write_json

State = Literal["queued", "running", "done", "failed", "cancelled"]
PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Job:
    """One verb in its own process.

    Attributes:
        job_id: name of its folder; sorts by time.
        kind: what it is for, such as `measure`; for people and for finding it again.
        run_id: the run it works on.
        command: arguments after `python -m carto_core`.
        pid: process id of its runner, which leads a process group of its own.
        pid_start: start time of that process: a pid alone is reused.
        created: ISO 8601, UTC.
        progress: file in which the verb tells how far it is; empty where it has none.
        result: file or folder that holds what it makes; empty where there is none.
        folder: where the job is kept.
    """

    job_id: str
    kind: str
    run_id: str
    command: list[str]
    pid: int
    pid_start: float
    created: str
    progress: str
    result: str
    folder: str

    @property
    def log(self) -> Path:
        """What the verb wrote to stdout and stderr."""
        return Path(self.folder) / "log.txt"

    @property
    def is_alive(self) -> bool:
        """Whether the very process that was started is still there."""
        return is_process(self.pid, self.pid_start)


def launch(
    arguments: Sequence[str],
    *,
    kind: str,
    run_id: str,
    runs_root: str | Path | None = None,
    progress: str | Path = "",
    result: str | Path = "",
) -> Job:
    """Start `python -m carto_core ARGUMENTS` as a process that nobody waits for, and return its job.

    Args:
        arguments: a verb and its arguments, paths absolute.
        kind: see `Job`.
        run_id: see `Job`.
        runs_root: where the registry is; as for `resolve_runs_root`.
        progress: see `Job`.
        result: see `Job`.

    Raises:
        JobError: no process could be started.
    """
    job_id = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    folder = (resolve_runs_root(runs_root) / ".jobs" / job_id).absolute()
    folder.mkdir(parents=True)
    process = _start(folder, arguments)
    job = Job(
        job_id=job_id,
        kind=kind,
        run_id=run_id,
        command=list(arguments),
        pid=process.pid,
        pid_start=psutil.Process(process.pid).create_time(),
        created=now(),
        progress=str(progress),
        result=str(result),
        folder=str(folder),
    )
    write_json(folder / "job.json", asdict(job))
    return job


def list_jobs(runs_root: str | Path | None = None, *, run_id: str | None = None, kind: str | None = None) -> list[Job]:
    """Return the jobs, newest first, of one run or kind where asked; a folder that cannot be read is passed over."""
    jobs = (_read(path) for path in (resolve_runs_root(runs_root) / ".jobs").glob("*/job.json"))
    wanted = [j for j in jobs if j is not None and run_id in (None, j.run_id) and kind in (None, j.kind)]
    return sorted(wanted, key=lambda job: (job.created, job.job_id), reverse=True)


def state_of(job: Job) -> State:
    """Return where a job stands, from disk and the process table alone.

    A process that is gone without `exit.json` was killed or lost with the machine: failed, or cancelled if asked for.
    """
    folder = Path(job.folder)
    ended = _read_json(folder / "exit.json")
    if ended is not None and ended.get("code") == 0:
        return "done"
    if ended is None and job.is_alive:
        return "queued" if _is_waiting(job) else "running"
    return "cancelled" if (folder / "cancel.json").is_file() else "failed"


def is_active(job: Job) -> bool:
    """Return whether a job is still at work or waiting for its turn."""
    return state_of(job) in ("queued", "running")


def progress_of(job: Job) -> dict[str, Any] | None:
    """Return the last progress line that this job wrote: `stage, done, total, rate, eta_s`; None before the first."""
    line = last_progress(Path(job.progress)) if job.progress else None
    return line if line is not None and line.get("time", "") >= job.created else None


def log_tail(job: Job, *, lines: int = 40) -> str:
    """Return the last lines that a job wrote."""
    try:
        text = job.log.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def cancel(job: Job) -> None:
    """Ask a job and all its processes to stop; a second call ends them at once.

    Signals go out only when pid and start time are both those that were noted: a pid alone may by now be somebody else's.

    Raises:
        JobError: the job has ended already.
    """
    if not job.is_alive:
        raise JobError(f"job {job.job_id} is not running any more, so there is nothing to cancel")
    asked = Path(job.folder) / "cancel.json"
    stop = signal.SIGKILL if asked.is_file() else signal.SIGTERM
    write_json(asked, {"time": now()})
    try:
        os.killpg(job.pid, stop)
    except ProcessLookupError:
        return  # it ended between the check and the signal


def _start(folder: Path, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "carto_core.jobs", str(folder), *arguments]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
    }
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise JobError(f"no process could be started: {error}") from None
    # Somebody has to take note of its end, else it stays in the process table as a zombie.
    threading.Thread(target=process.wait, daemon=True).start()
    return process


def _is_waiting(job: Job) -> bool:
    line = progress_of(job)
    return line is not None and str(line.get("stage", "")).startswith("waiting")


def _read(path: Path) -> Job | None:
    try:
        return Job(**(_read_json(path) or {}))
    except TypeError:
        return None


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
