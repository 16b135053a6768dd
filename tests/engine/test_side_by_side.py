import multiprocessing
import multiprocessing.resource_tracker
import multiprocessing.util
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest

from carto_core.engine.side_by_side import Told, num_workers, run_side_by_side
from carto_core.errors import Cancelled, RunError
from carto_core.workflows.progress import stoppable


def write(text, path):
    path.write_text(text)


def die(text, path):
    os._exit(9)


def fail(text, path):
    raise ValueError(text)


def sleep(text, path):
    time.sleep(60)


def run(function, root, *, progress=lambda *_: None):
    paths = [root / name for name in "abc"]
    run_side_by_side(function, [(p.name,) for p in paths], paths, workers=2, stage="testing", progress=progress)
    return paths


def test_every_piece_writes_its_file_and_one_that_is_there_is_left_alone(tmp_path):
    (tmp_path / "b").write_text("made before")

    assert [path.read_text() for path in run(write, tmp_path)] == ["a", "made before", "c"]


def test_a_process_that_dies_is_an_error_and_not_a_wait(tmp_path):
    with pytest.raises(RunError, match="testing: a process died before it was done"):
        run(die, tmp_path)


def test_a_pieces_own_error_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"^[abc]$"):
        run(fail, tmp_path)


def test_to_cancel_leaves_no_process(tmp_path):
    def cancel(stage, done, total):
        if multiprocessing.active_children():
            raise Cancelled("enough")

    before = time.monotonic()
    with pytest.raises(Cancelled):
        run(sleep, tmp_path, progress=cancel)

    assert time.monotonic() - before < 30
    assert not [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


def tell_and_sleep(text, path):
    Told(path)("training", 1, 2)
    time.sleep(60)


def test_to_cancel_leaves_no_half_told_progress(tmp_path):
    def cancel(stage, done, total):
        if list(tmp_path.glob("*.progress.jsonl")):
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        run(tell_and_sleep, tmp_path, progress=cancel)

    assert list(tmp_path.iterdir()) == []


def tell_pid_and_sleep(text, path):
    path.with_suffix(".pid").write_text(str(os.getpid()))
    time.sleep(60)


def run_and_wait(root):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests that run in the background ignore it
    run(tell_pid_and_sleep, root)


def pids(root, count):
    deadline = time.monotonic() + 60
    while len(found := [int(text) for p in root.glob("*.pid") if (text := p.read_text())]) < count:
        assert time.monotonic() < deadline, "the processes did not start"
        time.sleep(0.05)
    return found


@pytest.fixture
def parent(tmp_path):
    """A process of its own group whose two children sleep, and their pids."""
    code = "import sys, pathlib\nfrom tests.engine.test_side_by_side import run_and_wait\nrun_and_wait(pathlib.Path(sys.argv[1]))"
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], stderr=subprocess.PIPE, start_new_session=True)
    yield process, pids(tmp_path, 2)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()


def test_to_kill_the_parent_leaves_no_process(parent):
    process, children = parent

    process.kill()
    process.wait()

    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in children if psutil.pid_exists(pid)], timeout=20)
    assert not alive


def test_ctrl_c_is_the_parents_alone(parent):
    process, children = parent

    for pid in children:
        os.kill(pid, signal.SIGINT)

    time.sleep(0.5)
    assert all(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in children)
    os.killpg(process.pid, signal.SIGINT)
    said = process.stderr.read().decode()
    assert said.count("Traceback") == said.count("KeyboardInterrupt\n") == 1, said


def test_a_cancel_while_a_process_is_started_waits_until_it_is(tmp_path, monkeypatch, capfd):
    """A process that is there and is told nothing ends in a traceback of its own."""
    spawn, spawned = multiprocessing.util.spawnv_passfds, []
    multiprocessing.resource_tracker.ensure_running()  # is started in the same way, once

    def spawn_and_cancel(*how):
        spawned.append(psutil.Process(pid := spawn(*how)))
        signal.raise_signal(signal.SIGTERM)
        return pid

    monkeypatch.setattr(multiprocessing.util, "spawnv_passfds", spawn_and_cancel)

    with pytest.raises(Cancelled), stoppable():
        run(sleep, tmp_path)

    _, alive = psutil.wait_procs(spawned, 30)
    assert spawned
    assert not alive
    assert "Traceback" not in capfd.readouterr().err


def manifest(device, threads):
    return {"device": device, "config": {"engine": {"threads": threads}}}


def test_models_share_the_cores_and_never_a_card(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)

    assert num_workers(manifest("cpu", 1)) == 8
    assert num_workers(manifest("cpu", 3)) == 2
    assert num_workers(manifest("cpu", 16)) == 1
    assert num_workers(manifest("cuda", 1)) == 1
