import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import time

import duckdb
import numpy as np
import psutil
import pytest

from carto_core.config import RunConfig
from carto_core.errors import (
    ConfigError,
    DiskError,
    RunCorrupt,
    RunError,
    RunExists,
    RunNotFound,
    RunNotSealed,
)
from carto_core.store.reader import Run, open_run
from carto_core.store.rundir import (
    RunDir,
    create_run,
    discard,
    is_process,
    list_runs,
    making_run,
    replacing,
    run_status,
    this_process,
    update_manifest,
    write_json,
)
from carto_core.store.writer import PartWriter
from carto_core.types import Snapshot
from carto_core.workflows.training import resume_run, train_run
from tests.texts import sentences, tiny_config, write_jsonl
from tests.tiny import make_run


def test_the_reader_gives_the_same_from_parts_and_from_the_sealed_file(tmp_path):
    live, sealed = make_run(tmp_path / "a", sealed=False), make_run(tmp_path / "b")

    assert not live.is_sealed
    assert sealed.is_sealed
    np.testing.assert_array_equal(live.trajectories(), sealed.trajectories())
    ids = np.array([7, 3, 3, 100], np.int32)
    np.testing.assert_array_equal(live.trajectories(sample_ids=ids), sealed.trajectories()[:, ids])
    assert live.samples().equals(sealed.samples())
    assert live.snapshots().to_dict("list") == sealed.snapshots().to_dict("list")


def test_the_sealed_file_holds_the_contracts_tables_and_types(trained_run):
    with duckdb.connect(str(trained_run.files.database), read_only=True) as con:
        types = {
            table: dict(con.execute(f"select column_name, column_type from (describe {table})").fetchall())
            for table in ("samples", "validation", "snapshots", "losses", "scores", "canaries", "meta")
        }
        repeated = con.execute(
            "select count(*) from (select 1 from losses group by sample_id, snapshot having count(*) > 1)"
        ).fetchall()

    assert types["losses"] == {"sample_id": "INTEGER", "snapshot": "SMALLINT", "loss": "FLOAT"}
    assert types["samples"] == {
        "sample_id": "INTEGER", "key": "VARCHAR", "text": "VARCHAR", "source": "VARCHAR", "group_id": "INTEGER",
        "num_tokens": "INTEGER", "canary_id": "INTEGER", "meta": "JSON",
    }  # fmt: skip
    assert types["snapshots"] == {
        "snapshot": "SMALLINT",
        "step": "BIGINT",
        "epoch": "DOUBLE",
        "kind": "VARCHAR",
        "wall_s": "DOUBLE",
    }
    assert types["canaries"]["log2_space"] == "DOUBLE"
    assert types["canaries"]["inserted"] == "BOOLEAN"
    assert types["scores"]["quadrant"] == "VARCHAR"
    assert {t for n, t in types["scores"].items() if n not in ("sample_id", "quadrant")} == {"FLOAT"}
    assert repeated == [(0,)]


def test_the_meta_table_is_the_contracts(trained_run):
    meta = trained_run.meta()

    assert set(meta) == {
        "contract_version", "run_id", "task", "seed", "corpus_sha256", "score_kind", "burn_in", "eps_mode", "eps_quantile",
        "eps", "hysteresis", "quadrant_x", "quadrant_y", "tau_d", "tau_m",
    }  # fmt: skip
    assert meta["score_kind"] == "after"
    assert meta["eps"] == repr(float(meta["eps"]))


def test_a_part_counts_only_once_the_manifest_names_it(tmp_path):
    run = make_run(tmp_path / "a", sealed=False, num_snapshots=3)
    writer = PartWriter(run.files)
    losses = np.ones(run.num_samples, np.float32)
    (run.files.parts / "00003-rank0000.parquet").write_bytes((run.files.parts / "00002-rank0000.parquet").read_bytes())
    assert len(run.trajectories()) == 3

    writer.record(Snapshot(3, 99, 9.0, "after", 1.0), losses, np.ones(run.num_samples, np.int32))

    assert np.array_equal(run.trajectories()[3], losses)


def test_a_committed_snapshot_stands_until_a_resumed_run_has_taken_it_again(tmp_path):
    run = make_run(tmp_path / "a", sealed=False, num_snapshots=5)
    before = run.trajectories()

    PartWriter(run.files).record(Snapshot(3, 99, 9.0, "after", 1.0), before[0], np.ones(run.num_samples, np.int32))

    assert run.snapshots()["snapshot"].tolist() == [0, 1, 2, 3, 4]
    assert np.array_equal(run.trajectories(), before[[0, 1, 2, 0, 4]])


def test_a_missing_part_is_named(tmp_path):
    run = make_run(tmp_path / "a", sealed=False, num_snapshots=3)
    (run.files.parts / "00001-rank0000.parquet").unlink()

    with pytest.raises(RunCorrupt, match="no part of snapshot 1"):
        run.trajectories()


def test_a_run_is_never_written_over(tmp_path):
    create_run(tmp_path / "a", {"run_id": "a"})

    with pytest.raises(RunExists, match="choose another --out, or add --resume"):
        create_run(tmp_path / "a", {})


def test_an_unknown_run_is_told_what_there_is(tmp_path):
    create_run(tmp_path / "first", {"run_id": "first"})

    with pytest.raises(RunNotFound, match=r"no run 'nope'.*there: first"):
        open_run("nope", tmp_path)
    assert [r.run_id for r in list_runs(tmp_path)] == ["first"]
    assert list_runs(tmp_path / "absent") == []


def test_a_running_run_whose_process_is_gone_or_another_is_interrupted(tmp_path):
    files = make_run(tmp_path / "a", sealed=False).files
    update_manifest(files, pid=os.getpid(), pid_start=1.0)

    assert run_status(files) == "interrupted"


def test_scores_of_a_live_run_say_what_to_do(tmp_path):
    with pytest.raises(RunNotSealed, match="train --resume"):
        make_run(tmp_path / "a", sealed=False).scores()


def test_a_failed_replacement_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    with pytest.raises(DiskError, match="disk full"), replacing(path) as temporary:  # noqa: PT012 (the order is the point)
        temporary.write_text("half")
        raise OSError("disk full")

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_of_a_file_is_removed_by_the_next_that_writes_it(tmp_path):
    path = tmp_path / "list.csv"
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        owner = (
            f"{gone.pid:x}-{round(psutil.Process(gone.pid).create_time() * 100):x}-{round(psutil.boot_time() * 100):x}"
        )
    dead, other = f".list.csv.{owner}.0123abcd.tmp", f".list.json.{owner}.0123abcd.tmp"
    for name in (dead, f"{dead}.wal", other):
        (tmp_path / name).write_text("half")
    (tmp_path / f"{dead}.tmp").mkdir()  # where DuckDB puts what does not fit into memory

    with replacing(path) as mine, replacing(path) as second:
        mine.write_text("new")
        second.write_text("newer")
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted([mine.name, second.name, other])

    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, other])
    discard(tmp_path / "list.json")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_run_that_cannot_be_made_leaves_nothing_and_is_listed_nowhere(tmp_path):
    with pytest.raises(DiskError, match="No space left on device; make room"), making_run(tmp_path / "a") as run:  # noqa: PT012
        write_json(run.manifest, {"run_id": "a"})
        assert list_runs(tmp_path) == []
        raise OSError(errno.ENOSPC, "No space left on device")

    assert list(tmp_path.iterdir()) == []


def test_who_makes_a_run_second_is_told_so(tmp_path):
    with pytest.raises(RunExists), making_run(tmp_path / "a") as second:  # noqa: PT012 (the order is the point)
        write_json(second.manifest, {"run_id": "second"})
        create_run(tmp_path / "a", {"run_id": "first"})

    assert json.loads((tmp_path / "a" / "run.json").read_text()) == {"run_id": "first"}
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_process_is_known_again_after_the_clock_was_set_back(monkeypatch):
    me = this_process()
    pid, start, boot = me["pid"], me["pid_start"], me["pid_boot"]

    if psutil.LINUX:  # where start times are counted from the machine's start
        monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: boot - 3600)
        assert psutil.Process().create_time() == pytest.approx(start - 3600)
    assert is_process(pid, start, boot)
    assert not is_process(pid, start + 5, boot)
    assert not is_process(pid, start - 3600 + 5, boot)


def test_a_config_survives_json_and_refuses_what_it_does_not_know(tmp_path):
    config = tiny_config(tmp_path / "c.jsonl")

    assert RunConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError, match="EngineConfig has no field wings"):
        RunConfig.from_dict(config.to_dict() | {"engine": {"wings": 2}})
    with pytest.raises(ConfigError, match="--threads must be 1 to 1,024, got 0"):
        dataclasses.replace(config.engine, threads=0)


def test_a_killed_run_is_resumed_to_the_very_same_losses(tmp_path):
    corpus = write_jsonl(tmp_path / "c.jsonl", sentences(200))
    whole = tmp_path / "whole"
    train_run(tiny_config(corpus, epochs=12, snapshots=24), whole)
    command = [sys.executable, "-m", "tests.train_slowly", str(corpus), str(tmp_path / "killed")]
    child = subprocess.Popen(command)
    killed = Run(RunDir(tmp_path / "killed"))
    while len(killed.snapshots() if killed.files.manifest.is_file() else []) < 3:
        assert child.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()

    assert killed.status == "interrupted"
    assert 3 <= len(killed.trajectories()) < 24
    result = resume_run(tmp_path / "killed")

    assert result["status"] == "complete"
    assert np.array_equal(killed.trajectories(), Run(RunDir(whole)).trajectories())


def test_a_run_that_is_being_trained_is_not_resumed_by_another(tmp_path):
    run = make_run(tmp_path / "a", sealed=False)
    with subprocess.Popen(["sleep", "30"]) as other:
        update_manifest(run.files, status="running", pid=other.pid, pid_start=psutil.Process(other.pid).create_time())
        with pytest.raises(RunError, match=f"being trained by another process .pid {other.pid}"):
            resume_run(run.files.path)
        other.kill()
