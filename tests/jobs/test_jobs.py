import contextlib
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
from carto_core.errors import DiskError, JobError
from carto_core.jobs.processes import JOB_FOLDER, members
from carto_core.store.rundir import append_progress, last_progress, write_json
from carto_core.workflows.progress import ProgressFile, device_holder


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
        progress=str(folder / "of-the-run.jsonl"),
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


def test_a_job_that_cannot_be_noted_is_not_left_running(tmp_path, monkeypatch):
    started = []
    start = jobs._start

    def refuse(path, value):
        raise DiskError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(jobs, "_start", lambda *arguments: started.append(start(*arguments)) or started[0])
    monkeypatch.setattr(jobs, "write_json", refuse)

    with pytest.raises(DiskError, match=r"job\.json: No space left"):
        jobs.launch(["doctor"], kind="doctor", run_id="demo", runs_root=tmp_path)

    assert started[0].wait(timeout=20) == -signal.SIGKILL


def test_no_room_for_a_job_is_one_sentence(tmp_path):
    (tmp_path / ".jobs").write_text("a file where the folder should be")

    with pytest.raises(DiskError, match="choose another place"):
        jobs.launch(["--version"], kind="version", run_id="demo", runs_root=tmp_path)


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


@pytest.fixture
def started(tmp_path):
    """Start the real runner on a made-up verb, and return its process and job; what is left of it is killed afterwards."""
    runners = []

    def start(verb, *, name="job", **changes):
        place, folder = tmp_path / name, tmp_path / "runs" / ".jobs" / name
        folder.mkdir(parents=True)
        (place / "carto_core").mkdir(parents=True)
        (place / "carto_core" / "__main__.py").write_text(verb)
        (place / "run.py").write_text(
            "import sys, pathlib\n"
            f"sys.path.insert(0, {str(jobs.PROJECT)!r})\n"
            "from carto_core.jobs.__main__ import run\n"
            f"sys.exit(run(pathlib.Path({str(folder)!r}), []))\n"
        )
        marked = os.environ | {JOB_FOLDER: str(folder)}
        runner = subprocess.Popen([sys.executable, "run.py"], cwd=place, env=marked, start_new_session=True)
        runners.append(runner)
        wait_for(lambda: (folder / "log.txt").is_file() and "up" in (folder / "log.txt").read_text())
        return runner, job_of(runner, folder, **changes)

    yield start
    for runner in runners:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(runner.pid, signal.SIGKILL)
        runner.wait()


SLEEP = "import time\nprint('up', flush=True)\ntime.sleep(60)\n"
DEAF = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEP
WITH_A_CHILD = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {DEAF!r}])\n" + SLEEP


def test_a_cancelled_verb_notes_how_it_ended(started):
    """Through the real runner: it must outlive the signal that it passes on."""
    runner, job = started(SLEEP)

    jobs.cancel(job)
    runner.wait(timeout=20)

    assert job.exit_code == -signal.SIGTERM
    assert jobs.state_of(job) == "cancelled"


def test_a_job_goes_on_while_its_verb_does_although_the_runner_was_killed_and_cancel_reaches_it(started):
    runner, job = started(SLEEP)
    runner.kill()
    runner.wait()
    assert jobs.state_of(job) == "running"

    jobs.cancel(job)
    wait_for(lambda: not jobs.is_active(job))

    assert not members(job.pid, job.folder)
    assert jobs.state_of(job) == "cancelled"


def test_a_job_whose_verb_was_killed_has_failed_says_so_and_leaves_no_process(started):
    runner, job = started(WITH_A_CHILD)
    wait_for(lambda: len(members(job.pid, job.folder)) == 3)
    verb = next(p for p in members(job.pid, job.folder) if p.ppid() == runner.pid)

    verb.kill()
    runner.wait(timeout=20)

    assert jobs.state_of(job) == "failed"
    assert "signal 9" in jobs.reason(job)
    assert not members(job.pid, job.folder)


def test_a_second_cancel_leaves_neither_a_process_nor_half_a_file(started, tmp_path):
    runner, job = started(DEAF)
    half = tmp_path / "runs" / "demo" / ".trajectory.duckdb.0123abcd.tmp"
    own = half.with_name(".mine.tmp")
    half.parent.mkdir()
    half.touch()
    own.touch()

    jobs.cancel(job)
    jobs.cancel(job)
    runner.wait(timeout=20)

    assert not members(job.pid, job.folder)
    assert not half.exists()
    assert own.exists()


def test_a_second_cancel_spares_the_files_of_another_job_on_the_run(started, tmp_path):
    _, job = started(DEAF)
    started(SLEEP, name="other")
    half = tmp_path / "runs" / "demo" / ".trajectory.duckdb.0123abcd.tmp"
    half.parent.mkdir()
    half.touch()

    jobs.cancel(job)
    jobs.cancel(job)

    assert half.exists()


def test_a_group_whose_number_was_given_to_others_is_not_the_jobs(sleeper, tmp_path):
    """The sleeper leads a group of this number, but carries no job's mark."""
    job = job_of(sleeper, tmp_path / "a", pid_start=1.0)

    assert not job.is_alive
    assert jobs.state_of(job) == "failed"


def test_a_zombie_is_not_alive(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "pass"], start_new_session=True)
    job = job_of(child, tmp_path / "a")
    wait_for(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE)

    assert jobs.state_of(job) == "failed"
    child.wait()


def test_an_ended_child_is_reaped(tmp_path):
    job = jobs.launch(["--version"], kind="version", run_id="demo", runs_root=tmp_path)

    wait_for(lambda: not psutil.pid_exists(job.pid))

    assert jobs.state_of(job) == "done"


def test_a_failed_verb_says_why_in_its_own_words(tmp_path, sleeper):
    job = job_of(sleeper, tmp_path / "a")
    write_json(tmp_path / "a" / "exit.json", {"code": 2})
    job.log.write_text("about 3 minutes\nerror: the checkpoint is damaged\n")

    assert jobs.reason(job) == "the checkpoint is damaged"


def test_ended_jobs_are_forgotten_and_active_ones_are_not(tmp_path, sleeper):
    active = job_of(sleeper, tmp_path / ".jobs" / "a")
    ended = job_of(sleeper, tmp_path / ".jobs" / "b")
    write_json(tmp_path / ".jobs" / "b" / "exit.json", {"code": 0})
    with pytest.raises(JobError, match="still at work"):
        jobs.forget(active)

    assert jobs.forget_ended(tmp_path) == 1

    assert jobs.list_jobs(tmp_path) == [active]
    assert not Path(ended.folder).exists()


def test_a_job_tells_its_own_progress_whatever_file_its_verb_writes(tmp_path, sleeper, monkeypatch):
    job = job_of(sleeper, tmp_path / "a", created="2999-01-01T00:00:00+00:00")
    monkeypatch.setenv(JOB_FOLDER, job.folder)

    ProgressFile(tmp_path / "elsewhere.jsonl")("audit: Perplexity", 1, 4)

    assert jobs.progress_of(job)["stage"] == "audit: Perplexity"
    assert last_progress(tmp_path / "elsewhere.jsonl")["done"] == 1


# The queue


HOLD = """
import pathlib, sys, time
from carto_core.store.rundir import RunDir
from carto_core.workflows.progress import device_slot
run = RunDir(pathlib.Path(sys.argv[1]) / sys.argv[3])
with device_slot(run, lambda *line: print(*line, flush=True), work=sys.argv[2]):
    print("in", flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def holding(root, work, run_id):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root), work, run_id], stdout=subprocess.PIPE, text=True, cwd=jobs.PROJECT
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_work_that_would_fight_over_the_device_waits_says_for_what_and_starts_when_the_first_is_killed(tmp_path):
    with holding(tmp_path, "training", "a") as first:
        assert first.stdout.readline() == "in\n"
        assert device_holder(tmp_path)["run"] == "a"
        with holding(tmp_path, "audit", "b") as second:
            assert second.stdout.readline() == "waiting for the training of a to end 0 1\n"

            first.kill()

            assert any(line == "in\n" for line in second.stdout)
            assert device_holder(tmp_path)["run"] == "b"
    assert device_holder(tmp_path) is None
