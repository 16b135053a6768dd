"""Run a verb in another process, find it again, cancel it.

Everything is on disk, one folder a job under `RUNS_ROOT/.jobs`, so a job outlives the page and the server that started it:
`job.json` (what was started, and as which process), `log.txt`, `progress.jsonl`, `exit.json` once it has ended, `cancel.json`
when somebody asked it to stop. States are read off these files and the process table, never remembered.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import psutil

from carto_core.errors import DiskError, JobError
from carto_core.jobs.processes import JOB_FOLDER, members
from carto_core.store.manifest import PID
from carto_core.store.rundir import (
    is_process,
    last_lines,
    last_progress,
    left_overs,
    now,
    resolve_runs_root,
    write_json,
    writing,
)
from carto_core.store.shapes import NUMBER, TEXT, problem_of

State = Literal["queued", "running", "done", "failed", "cancelled"]
PROJECT = Path(__file__).parents[2]
KILL_S = 5.0  # how long a killed process may take to be gone
TEXTS = ("job_id", "kind", "run_id", "created", "progress", "result", "folder")
SHAPE: dict[str, Any] = dict.fromkeys(TEXTS, TEXT)
SHAPE |= {"command": [TEXT], "pid": PID, "pid_start": NUMBER}


@dataclass(frozen=True, slots=True)
class Job:
    """One verb in its own process.

    Attributes:
        job_id: name of its folder; sorts by time.
        kind: what it is for, such as `measure`; for people and for finding it again.
        run_id: the run it works on; empty where that is none.
        command: arguments after `python -m carto_core`.
        pid: process id of its runner, which leads a process group of its own.
        pid_start: start time of that process: a pid alone is reused.
        created: ISO 8601, UTC.
        progress: file beside its result in which the verb tells how far it is; empty where it has none.
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
        """Whether its runner, the very process that was started, or a process of the verb's is still there."""
        return is_process(self.pid, self.pid_start) or bool(members(self.pid, self.folder))

    @property
    def exit_code(self) -> int | None:
        """The verb's exit code, below 0 for the signal that ended it; None where nobody noted one."""
        code = (_read_json(Path(self.folder) / "exit.json") or {}).get("code")
        return code if isinstance(code, int) else None


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
        DiskError: it cannot be noted; then none is left.
    """
    job_id = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    folder = (resolve_runs_root(runs_root) / ".jobs" / job_id).absolute()
    with writing(folder):
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
    try:
        write_json(folder / "job.json", asdict(job))
    except DiskError:
        os.killpg(process.pid, signal.SIGKILL)  # nobody would find it again
        raise
    return job


def list_jobs(runs_root: str | Path | None = None, *, run_id: str | None = None, kind: str | None = None) -> list[Job]:
    """Return the jobs, newest first, of one run or kind where asked; a folder that cannot be read is passed over."""
    jobs = (_read(path) for path in (resolve_runs_root(runs_root) / ".jobs").glob("*/job.json"))
    wanted = [j for j in jobs if j is not None and run_id in (None, j.run_id) and kind in (None, j.kind)]
    return sorted(wanted, key=lambda job: (job.created, job.job_id), reverse=True)


def state_of(job: Job) -> State:
    """Return where a job stands, from disk and the process table alone.

    A job whose runner was killed goes on while its verb does. One that is gone without `exit.json` was killed or lost with
    the machine: failed, or cancelled if asked for.
    """
    code = job.exit_code
    if code == 0:
        return "done"
    if code is None and job.is_alive:
        return "queued" if _is_waiting(job) else "running"
    return "cancelled" if (Path(job.folder) / "cancel.json").is_file() else "failed"


def is_active(job: Job) -> bool:
    """Return whether a job is still at work or waiting for its turn."""
    return state_of(job) in ("queued", "running")


def is_asked_to_stop(job: Job) -> bool:
    """Return whether somebody has cancelled the job, whether or not it has heard."""
    return (Path(job.folder) / "cancel.json").is_file()


def reason(job: Job) -> str:
    """Return in a sentence, plain text, why a job failed."""
    code = job.exit_code
    if code is None:
        return "Its processes are gone and none noted how it ended: they were killed, or lost with the machine."
    if code < 0:
        return f"Its process was killed ({signal.strsignal(-code)}, signal {-code}), as the system does where memory runs out."
    said = [line for line in log_tail(job).splitlines() if line.startswith("error: ")]
    return said[-1].removeprefix("error: ") if said else f"It ended with exit code {code}; its log says more."


def progress_of(job: Job) -> dict[str, Any] | None:
    """Return the last progress line that this job wrote: `stage, done, total, rate, eta_s`; None before the first."""
    own = last_progress(Path(job.folder) / "progress.jsonl")
    if own is not None or not job.progress:
        return own
    line = last_progress(Path(job.progress))
    return line if line is not None and line.get("time", "") >= job.created else None


def log_tail(job: Job, *, lines: int = 40) -> str:
    """Return the last lines that a job wrote."""
    return "\n".join(last_lines(job.log, lines=lines))


def cancel(job: Job) -> None:
    """Ask a job and all its processes to stop; a second call ends them at once and removes the files they left half done.

    Signals go out only to processes that are known to be the job's: a pid alone may by now be somebody else's.

    Raises:
        JobError: the job has ended already, or does not end even when it is killed.
    """
    if not job.is_alive:
        raise JobError(f"job {job.job_id} is not running any more, so there is nothing to cancel")
    is_second = is_asked_to_stop(job)
    write_json(Path(job.folder) / "cancel.json", {"time": now()})
    try:
        os.killpg(job.pid, signal.SIGKILL if is_second else signal.SIGTERM)
    except ProcessLookupError:
        return  # it ended between the check and the signal
    if is_second:
        _wait_until_gone(job)
        _tidy(job)


def forget(job: Job) -> None:
    """Remove an ended job's folder with its log; what it made stays.

    Raises:
        JobError: it is still at work.
    """
    if is_active(job):
        raise JobError(f"job {job.job_id} is still at work; cancel it first")
    shutil.rmtree(job.folder, ignore_errors=True)


def forget_ended(runs_root: str | Path | None = None) -> int:
    """Remove the folders of all ended jobs, and return how many."""
    ended = [job for job in list_jobs(runs_root) if not is_active(job)]
    for job in ended:
        shutil.rmtree(job.folder, ignore_errors=True)
    return len(ended)


def move_run(old: Path, new: Path) -> None:
    """Let the jobs of a run that was renamed be found under its new id."""
    for job in list_jobs(old.parent, run_id=old.name):
        where = {name: _moved(getattr(job, name), old, new) for name in ("progress", "result")}
        write_json(Path(job.folder) / "job.json", asdict(job) | where | {"run_id": new.name})


def _moved(path: str, old: Path, new: Path) -> str:
    return str(new / Path(path).relative_to(old)) if path and Path(path).is_relative_to(old) else path


def _wait_until_gone(job: Job) -> None:
    deadline = time.monotonic() + KILL_S
    while job.is_alive:
        if time.monotonic() > deadline:
            raise JobError(f"job {job.job_id} does not end although it was killed (process group {job.pid})")
        time.sleep(0.05)


def _tidy(job: Job) -> None:
    """Remove the temporary files in the run of a job that was killed, unless another works there."""
    root = Path(job.folder).parents[1]
    if job.run_id and not any(is_active(other) for other in list_jobs(root, run_id=job.run_id)):
        for path in left_overs(root / job.run_id):
            path.unlink(missing_ok=True)


def _start(folder: Path, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "carto_core.jobs", str(folder), *arguments]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")])),
        JOB_FOLDER: str(folder),
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
    """Return the job of a `job.json`; None where it is damaged, or speaks of another folder than its own."""
    content = _read_json(path)
    if content is None or problem_of(content, SHAPE) or Path(content["folder"]) != path.parent.absolute():
        return None
    return Job(**{name: content[name] for name in SHAPE})


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
