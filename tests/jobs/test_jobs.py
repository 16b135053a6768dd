import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from carto_core import jobs
from carto_core.errors import JobError
from carto_core.store.rundir import append_progress, write_json


def wait_for(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.fixture
def sleeper():
    """A real process in a session of its own, as a runner is, but one that sleeps."""
    code = "import time\nprint('up', flush=True)\ntime.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def job_of(process, folder, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    job = jobs.Job(
        job_id=folder.name,
        kind="measure",
        run_id="demo",
        command=["measure", "demo"],
        pid=process.pid,
        pid_start=psutil.Process(process.pid).create_time(),
        created="2026-01-01T00:00:00+00:00",
        progress=str(folder / "progress.jsonl"),
        result="",
        folder=str(folder),
    )
    job = dataclasses.replace(job, **changes)
    write_json(folder / "job.json", dataclasses.asdict(job))
    return job


def test_a_verb_that_ends_well_is_done_and_its_output_is_kept(tmp_path):
    job = jobs.launch(["--version"], kind="version", run_id="demo", runs_root=tmp_path)

    wait_for(lambda: not jobs.is_active(job))

    assert jobs.state_of(job) == "done"
    assert "version" in jobs.log_tail(job)
    assert json.loads((Path(job.folder) / "exit.json").read_text())["code"] == 0


def test_a_verb_that_fails_leaves_its_log(tmp_path):
    job = jobs.launch(["score", "no-such-run"], kind="score", run_id="no-such-run", runs_root=tmp_path)

    wait_for(lambda: not jobs.is_active(job))

    assert jobs.state_of(job) == "failed"
    assert "no run 'no-such-run'" in jobs.log_tail(job)


def test_a_job_is_found_again_by_run_and_kind_newest_first(tmp_path, sleeper):
    old = job_of(sleeper, tmp_path / ".jobs" / "a")
    new = job_of(sleeper, tmp_path / ".jobs" / "b", created="2026-01-02T00:00:00+00:00")
    other = job_of(sleeper, tmp_path / ".jobs" / "c", run_id="else", kind="audit")

    assert jobs.list_jobs(tmp_path, run_id="demo", kind="measure") == [new, old]
    assert jobs.list_jobs(tmp_path, kind="audit") == [other]


def test_a_damaged_entry_is_passed_over(tmp_path, sleeper):
    job = job_of(sleeper, tmp_path / ".jobs" / "a")
    (tmp_path / ".jobs" / "b").mkdir()
    (tmp_path / ".jobs" / "b" / "job.json").write_text('{"job_id": ')
    (tmp_path / ".jobs" / "c").mkdir()
    (tmp_path / ".jobs" / "c" / "job.json").write_text('{"job_id": "c"}')

    assert jobs.list_jobs(tmp_path) == [job]


def test_a_live_process_is_running_and_one_that_waits_is_queued(tmp_path, sleeper):
    job = job_of(sleeper, tmp_path / "a")
    assert jobs.state_of(job) == "running"

    append_progress(Path(job.progress), stage="waiting for other work on this machine", done=0, total=1)

    assert jobs.state_of(job) == "queued"


def test_progress_of_an_earlier_job_is_not_this_ones(tmp_path, sleeper):
    job = job_of(sleeper, tmp_path / "a", created="2999-01-01T00:00:00+00:00")
    append_progress(Path(job.progress), stage="waiting", done=0, total=1)

    assert jobs.progress_of(job) is None
    assert jobs.state_of(job) == "running"


def test_cancel_stops_the_whole_group(tmp_path, sleeper):
    job = job_of(sleeper, tmp_path / "a")

    jobs.cancel(job)

    assert sleeper.wait(timeout=10) == -signal.SIGTERM
    assert jobs.state_of(job) == "cancelled"


def test_cancel_spares_a_process_with_another_start_time(tmp_path, sleeper):
    job = job_of(sleeper, tmp_path / "a", pid_start=psutil.Process(sleeper.pid).create_time() - 100)

    with pytest.raises(JobError, match="not running any more"):
        jobs.cancel(job)

    time.sleep(0.2)
    assert sleeper.poll() is None
    assert jobs.state_of(job) == "failed"


def test_a_second_cancel_ends_a_process_that_does_not_listen(tmp_path):
    code = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True) as deaf:
        deaf.stdout.readline()
        job = job_of(deaf, tmp_path / "a")
        jobs.cancel(job)
        time.sleep(0.2)
        assert jobs.state_of(job) == "running"

        jobs.cancel(job)

        assert deaf.wait(timeout=10) == -signal.SIGKILL
        assert jobs.state_of(job) == "cancelled"


def test_a_process_that_vanished_without_a_word_has_failed(tmp_path, sleeper):
    job = job_of(sleeper, tmp_path / "a")
    os.killpg(sleeper.pid, signal.SIGKILL)
    sleeper.wait()

    assert jobs.state_of(job) == "failed"
    with pytest.raises(JobError):
        jobs.cancel(job)


def test_a_cancelled_verb_notes_how_it_ended(tmp_path):
    """Through the real runner: it must outlive the signal that it passes on."""
    folder = tmp_path / "job"
    folder.mkdir()
    (tmp_path / "carto_core").mkdir()
    (tmp_path / "carto_core" / "__main__.py").write_text("import time\nprint('up', flush=True)\ntime.sleep(60)\n")
    (tmp_path / "run.py").write_text(
        "import sys, pathlib\n"
        f"sys.path.insert(0, {str(jobs.PROJECT)!r})\n"
        "from carto_core.jobs.__main__ import run\n"
        f"sys.exit(run(pathlib.Path({str(folder)!r}), []))\n"
    )
    with subprocess.Popen([sys.executable, "run.py"], cwd=tmp_path, start_new_session=True) as runner:
        wait_for(lambda: (folder / "log.txt").is_file() and "up" in (folder / "log.txt").read_text())
        job = job_of(runner, folder)

        jobs.cancel(job)
        runner.wait(timeout=20)

    assert json.loads((folder / "exit.json").read_text())["code"] == -signal.SIGTERM
    assert jobs.state_of(job) == "cancelled"
