"""What `doctor` finds: nothing in a sound folder of runs, and every kind of damage with what mends it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from carto_core.store.rundir import update_manifest
from carto_core.workflows import doctor
from tests import tiny

PROJECT = Path(__file__).parents[2]
TORCH = {"version": "2", "built_for": "CPU", "cuda": "none", "matmul": True}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_ask_torch", lambda: TORCH)
    return tmp_path / "runs"


@pytest.fixture
def run(root):
    return tiny.make_run(root / "tiny", num_samples=120)


def found(root, state):
    return [check for check in doctor.examine(root)["checks"] if check["state"] == state]


def test_a_sound_run_is_found_sound_by_the_verb(tmp_path):
    """With the real torch, in the process that doctor starts for it."""
    tiny.make_run(tmp_path / "tiny", num_samples=120)
    command = [sys.executable, "-W", "ignore", "-m", "carto_core", "doctor", "--json", "--runs-root", str(tmp_path)]

    said = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=False)

    facts = json.loads(said.stdout)
    kept = {"carto_version", "contract_version", "python", "torch", "duckdb", "streamlit", "cuda", "runs_root"}
    checks = {(check["section"], check["name"]): check for check in facts["checks"]}
    assert said.returncode == 0
    assert kept | {"plotly", "pandas", "numpy", "num_runs"} <= set(facts)
    assert checks["runs", "tiny"]["state"] == checks["device", "arithmetic"]["state"] == "ok"
    assert not [check for check in facts["checks"] if check["state"] == "bad"]


def lose_rows(run):
    update_manifest(run.files, num_samples=121)


def break_database(run):
    run.files.database.write_bytes(b"not a database")


def other_tokenizer(run):
    run.files.tokenizer.write_text("{}")
    update_manifest(run.files, tokenizer={"sha256": "0" * 64})


def other_contract(run):
    update_manifest(run.files, contract_version=2)


def damage_manifest(run):
    run.files.manifest.write_text("{")


def lose_database(run):
    run.files.database.unlink()


def list_for_manifest(run):
    run.files.manifest.write_text("[]")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lose_rows, "samples has 120 rows, and run.json says 121"),
        (break_database, "cannot be read: IO Error"),
        (other_tokenizer, "not the one that it was trained with"),
        (other_contract, "of version 2 of the data contract"),
        (damage_manifest, "run.json cannot be read: Expecting"),
        (lose_database, "trajectory.duckdb is gone"),
        (list_for_manifest, "it must be an object"),
    ],
)
def test_damage_is_found_with_what_mends_it_and_the_rest_goes_on(root, run, damage, said):
    tiny.make_run(root / "sound", num_samples=120)
    damage(run)

    bad = found(root, "bad")

    assert {check["name"] for check in bad} == {"tiny"}
    assert said in " ".join(check["found"] for check in bad)
    assert all(check["mend"] for check in bad)
    assert "sound" in {check["name"] for check in found(root, "ok")}


def test_a_part_that_is_gone_or_torn_is_found(root):
    live = tiny.make_run(root / "live", num_samples=120, sealed=False)
    part = sorted(live.files.parts.glob("*.parquet"))[3]
    part.write_bytes(part.read_bytes()[:50])
    assert "ArrowInvalid" in found(root, "bad")[0]["found"]

    part.unlink()

    assert "has no part of snapshot 3" in found(root, "bad")[0]["found"]


def test_a_dead_training_is_a_warning_with_the_command_that_resumes_it(root):
    live = tiny.make_run(root / "live", num_samples=120, sealed=False)
    update_manifest(live.files, pid=psutil.Process().pid, pid_start=1.0)

    (check,) = found(root, "warn")

    assert check["mend"] == f"python -m carto_core train --resume --out {live.files.path}"


def test_what_killed_processes_left_is_a_warning(root, run):
    (run.files.path / ".scores.parquet.0123abcd.tmp").touch()
    (root / "stray").mkdir()
    lost = root / ".jobs" / "20260101-000000-abcdef"
    lost.mkdir(parents=True)
    os.utime(lost, (time.time() - 3600,) * 2)
    (root / ".trash" / "gone-01234567").mkdir(parents=True)

    names = {check["name"]: check["mend"] for check in found(root, "warn")}

    assert set(names) == {"tiny", "stray", lost.name, ".trash"}
    assert names["tiny"].startswith("rm ")


def test_a_run_moved_by_hand_is_a_warning(root, run):
    run.files.path.rename(root / "moved")

    assert "it was tiny" in found(root, "warn")[0]["found"]


def test_missing_and_old_packages_are_named(root, tmp_path, monkeypatch):
    path = tmp_path / "requirements.txt"
    path.write_text("# a remark\nnumpy>=99\nno-such-package>=1\nclick>=8\n")
    monkeypatch.setattr(doctor, "REQUIREMENTS", path)

    said = " ".join(check["found"] for check in found(root, "bad"))

    assert "numpy >=99, and " in said
    assert "no-such-package >=1, which is not installed" in said
    assert "click" not in said


def test_a_torch_that_crashes_is_a_finding(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "TORCH", "import os; os.abort()")

    (check,) = found(tmp_path, "bad")

    assert check["name"] == "torch"
    assert "exit code -6" in check["found"]


def test_a_folder_that_cannot_be_written_is_a_finding(root, monkeypatch):
    def refuse(**options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)

    (check,) = found(root, "bad")

    assert "Permission denied" in check["found"]
    assert "CARTO_RUNS" in check["mend"]
