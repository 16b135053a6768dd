"""Runs under another name, and gone: nothing else is lost, and a kill in between leaves either name whole."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from carto_core import jobs
from carto_core.errors import RunError, RunExists, RunNotFound
from carto_core.store.reader import open_run
from carto_core.store.rundir import disk_use, list_runs, write_json
from carto_core.workflows import housekeeping, light, lineage
from carto_core.workflows.comparing import likeliest_other
from tests import tiny

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path):
    return tiny.make_run(tmp_path / "runs" / "first", num_samples=120)


def planned(run):
    table = light.load_table(run)
    selection = light.select(run, {"type": "top", "by": "difficulty", "q": 0.1}, table=table)
    return light.save_plan(run, light.plan_action(run, selection, action="prune"))


def retrain_of(run, plan_dir, name):
    other = tiny.make_run(run.files.path.with_name(name), num_samples=120)
    digest = json.loads((plan_dir / "plan.json").read_text())["plan_sha256"]
    tiny.as_retrain(other, run.run_id, digest)
    return other


def job_on(run, **changes):
    folder = run.files.path.parent / ".jobs" / "1"
    folder.mkdir(parents=True)
    fields = {"job_id": "1", "kind": "audit", "run_id": run.run_id, "command": [], "created": "2026-01-01"}
    fields |= {"pid": 1, "pid_start": 0.0, "folder": str(folder), "progress": ""}
    write_json(folder / "job.json", fields | {"result": str(run.files.audits / "tokens.json")} | changes)


def verb(*arguments, **options):
    command = [sys.executable, "-W", "ignore", "-m", "carto_core", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=False, **options)


def test_a_renamed_run_keeps_its_plans_its_retrains_and_its_jobs(run):
    plan_dir = planned(run)
    retrain = retrain_of(run, plan_dir, "after")
    job_on(run)

    renamed = housekeeping.rename_run(run, "second")

    table = light.load_table(renamed)
    again = planned(renamed)
    (job,) = jobs.list_jobs(renamed.files.path.parent, run_id="second")
    assert (renamed.run_id, table.run_id, renamed.formerly) == ("second", "second", ("first",))
    assert again == renamed.files.plans / plan_dir.name
    assert light.export(renamed, again, file_format="csv", out=renamed.files.path.parent / "list.csv").is_file()
    assert lineage.list_plans(renamed)[0].used_by == ("after",)
    assert retrain.manifest["parent_run"] == "second"
    assert likeliest_other(renamed, [tiny.make_run(run.files.path.with_name("a")), retrain]) is retrain
    assert job.result == str(renamed.files.audits / "tokens.json")


def test_a_run_renamed_twice_and_back_is_known_by_all_its_names(run):
    planned(run)

    renamed = housekeeping.rename_run(housekeeping.rename_run(run, "second"), "third")
    thrice = renamed.formerly
    back = housekeeping.rename_run(renamed, "first")

    assert thrice == ("first", "second")
    assert back.formerly == ("second", "third")
    assert len(lineage.list_plans(back)) == 1


def test_a_run_that_took_the_old_name_does_not_take_the_retrains(run):
    retrain = retrain_of(run, planned(run), "after")
    renamed = housekeeping.rename_run(run, "second")

    newcomer = tiny.make_run(renamed.files.path.with_name("first"), num_samples=120)

    assert lineage.retrains(newcomer) == []
    assert lineage.retrains(renamed) == [retrain.files]


def test_a_rename_that_is_killed_after_the_folder_moved_leaves_a_whole_run(run):
    plan_dir = planned(run)
    retrain = retrain_of(run, plan_dir, "after")
    code = (
        "import os, signal, sys\n"
        "from carto_core.store.reader import open_run\n"
        "from carto_core.workflows import housekeeping\n"
        "housekeeping.update_manifest = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
        "housekeeping.rename_run(open_run(sys.argv[1]), 'second')\n"
    )

    killed = subprocess.run([sys.executable, "-c", code, str(run.files.path)], cwd=PROJECT, check=False)

    moved = open_run("second", run.files.path.parent)
    assert killed.returncode == -signal.SIGKILL
    assert planned(moved) == moved.files.plans / plan_dir.name
    assert lineage.retrains(moved) == [retrain.files]


@pytest.mark.parametrize("name", ["", "  ", "a/b", "..", ".hidden", "-x", "a\nb", "x" * 81, "what?"])
def test_a_name_that_cannot_be_a_folders_is_refused(run, name):
    with pytest.raises(RunError):
        housekeeping.rename_run(run, name)

    assert run.files.manifest.is_file()


def test_a_name_that_is_taken_is_refused_also_by_a_dead_link(run):
    run.files.path.with_name("dead").symlink_to("nowhere")
    run.files.path.with_name("there").mkdir()

    for name in ("first", "dead", "there"):
        with pytest.raises(RunExists, match="there already"):
            housekeeping.rename_run(run, name)


def test_a_deleted_run_goes_with_its_jobs_and_leaves_its_retrains(run):
    retrain = retrain_of(run, planned(run), "after")
    job_on(run)
    size = disk_use(run.files.path)

    held = housekeeping.delete_run(run)

    root = retrain.files.path.parent
    assert (held.num_bytes, held.num_plans, held.retrains) == (size, 1, ("after",))
    assert [files.run_id for files in list_runs(root)] == ["after"]
    assert jobs.list_jobs(root) == []
    assert not (root / ".trash").exists()


def test_a_delete_that_is_killed_leaves_no_half_run_and_the_next_removes_the_rest(run):
    root, other = run.files.path.parent, tiny.make_run(run.files.path.with_name("other"))
    code = (
        "import os, signal, sys\n"
        "from carto_core.store.reader import open_run\n"
        "from carto_core.workflows import housekeeping\n"
        "housekeeping.empty_trash = lambda root: os.kill(os.getpid(), signal.SIGKILL)\n"
        "housekeeping.delete_run(open_run(sys.argv[1]))\n"
    )

    killed = subprocess.run([sys.executable, "-c", code, str(run.files.path)], cwd=PROJECT, check=False)

    assert killed.returncode == -signal.SIGKILL
    assert list_runs(root) == [other.files]
    assert len(list((root / ".trash").iterdir())) == 1
    housekeeping.delete_run(other)
    assert not (root / ".trash").exists()


def test_a_link_is_removed_and_what_it_points_to_stays(tmp_path, run):
    root = tmp_path / "elsewhere"
    root.mkdir()
    (root / "linked").symlink_to(run.files.path)
    linked = open_run(root / "linked")

    held = housekeeping.delete_run(linked)

    assert (linked.run_id, held.num_bytes, held.link_to) == ("linked", 0, str(run.files.path))
    assert list(root.iterdir()) == []
    assert len(light.load_table(run)) == 120


def test_a_link_inside_a_run_is_removed_and_its_target_stays(tmp_path, run):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    (run.files.path / "notes").symlink_to(mine)

    housekeeping.delete_run(run)

    assert (mine / "thesis.txt").read_text() == "years of work"


def test_a_run_whose_manifest_is_damaged_can_be_deleted(run):
    run.files.manifest.write_text("{")

    housekeeping.delete_run(run)

    assert not run.files.path.exists()


def test_a_run_that_is_worked_on_is_left_alone(tmp_path, run):
    live = tiny.make_run(tmp_path / "runs" / "live", sealed=False)
    me = live.manifest
    job_on(run, pid=os.getpid(), pid_start=me["pid_start"])

    for busy, why in ((live, "being trained"), (run, "its job audit is under way")):
        for change in (housekeeping.delete_run, lambda r: housekeeping.rename_run(r, "new")):
            with pytest.raises(RunError, match=why):
                change(busy)
        assert busy.files.manifest.is_file()


def test_a_run_that_a_shell_works_on_is_left_alone(run):
    code = (
        "import sys\n"
        "from carto_core.store.rundir import find_run\n"
        "from carto_core.workflows.progress import device_slot\n"
        "with device_slot(find_run(sys.argv[1]), print, work='audit'):\n"
        "    print('in', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(run.files.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT) as process:
        process.stdout.readline()

        with pytest.raises(RunError, match="its audit is under way"):
            housekeeping.delete_run(run)


def test_the_verbs_rename_and_delete(run):
    renamed = verb("rename", run.files.path, "second", "--json")
    asked = verb("delete", "second", "--runs-root", run.files.path.parent, stdin=subprocess.DEVNULL)
    deleted = verb("delete", "second", "--yes", "--json", "--runs-root", run.files.path.parent)

    assert json.loads(renamed.stdout)["formerly"] == ["first"]
    assert (asked.returncode, asked.stdout) == (2, "")
    assert "--yes" in asked.stderr
    assert json.loads(deleted.stdout)["bytes"] > 0
    with pytest.raises(RunNotFound):
        open_run("second", run.files.path.parent)
