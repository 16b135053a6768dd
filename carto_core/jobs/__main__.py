"""The runner of one job: `python -m carto_core.jobs FOLDER VERB ...` runs the verb, keeps its log and how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from carto_core.jobs.processes import members
from carto_core.store.rundir import now, write_json

GRACE_S = 3.0  # for what the verb started and did not wait for


def run(folder: Path, arguments: list[str]) -> int:
    """Run `python -m carto_core ARGUMENTS`, write `log.txt` and `exit.json`, and return the exit code."""
    # A cancel goes to the whole group; the runner must outlive it to note how the verb ended.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with (folder / "log.txt").open("wb") as log:
        verb = subprocess.Popen(
            [sys.executable, "-m", "carto_core", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=_listen_again,
        )
        code = verb.wait()
    _end_the_rest(folder)
    write_json(folder / "exit.json", {"code": code, "time": now()})
    return code


def _end_the_rest(folder: Path) -> None:
    """End the processes that a killed verb left behind; one that ended by itself has none."""
    rest = [process for process in members(os.getpgrp(), str(folder)) if process.pid != os.getpid()]
    _, alive = psutil.wait_procs(rest, timeout=GRACE_S)
    for process in alive:
        process.kill()


def _listen_again() -> None:
    """Undo in the verb what its runner ignores: an ignored signal is inherited."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), sys.argv[2:]))
