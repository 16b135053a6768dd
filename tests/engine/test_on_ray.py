"""The Ray executor, on one local Ray with two workers for the whole module: starting one takes seconds."""

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import psutil
import pytest

from carto_core.engine import on_ray
from carto_core.engine.executors import open_executor
from carto_core.engine.on_ray import files_to_send
from carto_core.errors import Cancelled, ConfigError, ExecutorError, TrainingDiverged, UnknownNameError
from carto_core.preview.arms import arms_of
from carto_core.preview.measured import train_arms
from carto_core.workflows import light
from tests import tiny
from tests.engine import pieces

# not `importorskip`: the executor decides how Ray is to be loaded
if importlib.util.find_spec("ray") is None:
    pytest.skip("Ray is not installed: python -m pip install 'ray>=2.60,<3'", allow_module_level=True)
QUIET = {"progress": lambda *_: None, "stage": "testing"}


@pytest.fixture(scope="module")
def ray_executor():
    with open_executor("ray", workers=2) as executor:
        yield executor


@pytest.fixture
def run(tmp_path):
    return tiny.make_run(tmp_path / "tiny")


def results(path):
    """What every arm came to, by file name, but for how long it took."""
    found = {arm.name: json.loads(arm.read_text()) for arm in (path / "previews" / "arms").iterdir()}
    return {name: {key: value for key, value in arm.items() if key != "wall_s"} for name, arm in found.items()}


class Here:
    """An executor that trains in this process, which saves two more processes the loading of torch."""

    num_workers = staticmethod(lambda manifest: 1)

    def __call__(self, function, run_path, pieces, paths, *, stage, progress):
        for path, piece in zip(paths, pieces, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            function(run_path, *piece, path)


def test_a_sweep_gives_the_numbers_that_it_gives_here_bit_for_bit(trained_run, ray_executor, tmp_path):
    here, there = (tmp_path / name / "trained" for name in ("here", "ray"))
    for copy in (here, there):
        shutil.copytree(trained_run.files.path, copy)
    table, tops = light.load_table(trained_run), [{"type": "top", "by": "consolidation", "q": q} for q in (0.1, 0.2)]
    plans = [light.plan_action(trained_run, light.select(trained_run, top), action="prune") for top in tops]
    how = {"seeds": 1, "equal": "steps", "audits": ("extraction", "perplexity")}
    arms = [arm for plan in plans for arm in arms_of(trained_run, plan, table, **how)]

    train_arms(here, arms, progress=lambda *_: None, executor=Here())
    train_arms(there, arms, progress=lambda *_: None, executor=ray_executor)

    assert results(there) == results(here)
    assert len(results(there)) == 6, "unchanged and unique texts are trained once"
    assert len({json.dumps(result) for result in results(there).values()}) == 6


def test_a_node_gets_what_a_training_reads_and_keeps_nothing(run, ray_executor, tmp_path):
    run.files.tokenizer.write_text("{}")
    paths = [tmp_path / "out" / "a.json", tmp_path / "out" / "b.json"]
    paths[1].parent.mkdir()
    paths[1].write_text("made before")

    ray_executor(pieces.note_what_is_there, run.files.path, [("a",), ("b",)], paths, **QUIET)

    found = json.loads(paths[0].read_text())
    assert found["there"] == ["canaries.parquet", "run.json", "samples.parquet", "tokenizer.json", "validation.parquet"]
    assert found["text"] == "a"
    assert found["run_id"] == "tiny"
    assert found["texts"] == run.samples("text")["text"].tolist()
    assert found["device"] == run.manifest["device"]
    assert not Path(found["folder"]).parent.exists()
    assert paths[1].read_text() == "made before"


def test_a_pieces_own_error_is_told_as_it_was(run, ray_executor, tmp_path):
    run.files.tokenizer.write_text("{}")

    with pytest.raises(TrainingDiverged, match=r"^the loss became infinite$") as raised:
        ray_executor(pieces.diverge, run.files.path, [()], [tmp_path / "a"], **QUIET)

    assert raised.value.sample_ids == [3, 5]


@pytest.mark.parametrize("deaths", [2, 3])
def test_a_piece_whose_worker_dies_is_tried_twice_more(run, ray_executor, tmp_path, deaths):
    run.files.tokenizer.write_text("{}")
    how = (pieces.die_until, run.files.path, [(str(tmp_path), deaths)], [tmp_path / "a"])

    if deaths <= 2:
        ray_executor(*how, **QUIET)
        assert (tmp_path / "a").read_text() == "done"
    else:
        with pytest.raises(ExecutorError, match="testing: the worker of one piece died 3 times before it was done"):
            ray_executor(*how, **QUIET)
        assert not (tmp_path / "a").exists()


def test_progress_comes_back_while_a_piece_runs_and_to_cancel_leaves_none(run, ray_executor, tmp_path, monkeypatch):
    run.files.tokenizer.write_text("{}")
    assert ray_executor.num_workers(run.manifest) == 2
    monkeypatch.setattr(ray_executor, "workers", 1)  # of the two that there is room for
    seen = []

    def cancel(stage, done, total):
        seen.append((stage, done, total))
        if done == 0.25:
            raise Cancelled("enough")

    paths = [tmp_path / "a", tmp_path / "b", tmp_path / "c"]
    with pytest.raises(Cancelled, match="enough"):
        ray_executor(
            pieces.tell_and_go_on, run.files.path, [(str(tmp_path),)] * 3, paths, stage="testing", progress=cancel
        )

    assert seen[0] == ("testing", 0, 3)
    assert sorted(path.name for path in tmp_path.glob("*.pid")) == ["a.pid"], "one at a time"
    assert not [path for path in tmp_path.glob("*.at") if Path(path.read_text()).exists()]
    assert not any(path.exists() for path in paths)


def test_a_piece_that_must_be_killed_leaves_no_texts_on_its_node(run, ray_executor, tmp_path, monkeypatch):
    run.files.tokenizer.write_text("{}")
    monkeypatch.setattr(on_ray, "GRACE_S", 0.2)

    def cancel(stage, done, total):
        if (tmp_path / "a.at").is_file():
            raise Cancelled("enough")

    how = (pieces.sleep_deeply, run.files.path, [(str(tmp_path),)], [tmp_path / "a"])
    with pytest.raises(Cancelled):
        ray_executor(*how, stage="testing", progress=cancel)

    assert not Path((tmp_path / "a.at").read_text()).exists()


def test_only_this_machine_reaches_it_and_no_one_counts_how_it_is_used(ray_executor, run):
    ray_executor.num_workers(run.manifest)

    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = [c.laddr.ip for p in processes for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert len(listening) > 3
    assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert os.environ["RAY_AUTH_MODE"] == "token"


def test_a_training_that_no_node_could_run_is_refused_and_not_waited_for(run, ray_executor, tmp_path):
    run.files.tokenizer.write_text("{}")
    manifest = json.loads(run.files.manifest.read_text())
    manifest["config"]["engine"]["threads"] = 64
    run.files.manifest.write_text(json.dumps(manifest))

    with pytest.raises(ExecutorError, match="no node of the cluster offers the 64 CPU"):
        ray_executor(pieces.note_what_is_there, run.files.path, [("a",)], [tmp_path / "a"], **QUIET)


def test_what_is_sent_holds_nothing_that_was_recorded(run):
    run.files.tokenizer.write_text("{}")

    files = files_to_send(run)

    assert sorted(files) == ["canaries.parquet", "run.json", "samples.parquet", "tokenizer.json", "validation.parquet"]
    assert files["samples.parquet"].tobytes() == run.files.table("samples").read_bytes()
    assert files["samples.parquet"].dtype == np.uint8


def test_another_version_of_a_library_is_refused():
    on_ray._require_versions(on_ray.versions_here())

    with pytest.raises(ExecutorError, match=r"this node has numpy .*, and the machine that asks has numpy 1\.0"):
        on_ray._require_versions(on_ray.versions_here() | {"numpy": "1.0+cpu"})


def unimportable():
    """Return a function of a module that no other process finds."""
    module = types.ModuleType("only_here")
    exec("def f(run_path, path): ...", module.__dict__)
    sys.modules["only_here"] = module
    return module.f


def test_a_node_that_lacks_a_library_ends_in_a_sentence(run, ray_executor, tmp_path, monkeypatch):
    run.files.tokenizer.write_text("{}")
    monkeypatch.setitem(sys.modules, "only_here", None)

    with pytest.raises(ExecutorError, match=r"a node cannot run this program .*No module named 'only_here'"):
        ray_executor(unimportable(), run.files.path, [()], [tmp_path / "a"], **QUIET)


def test_a_cluster_whose_head_is_gone_ends_in_a_sentence(run, ray_executor, tmp_path, monkeypatch):
    run.files.tokenizer.write_text("{}")
    with socket.create_server(("127.0.0.1", 0)) as server:
        gone = f"127.0.0.1:{server.getsockname()[1]}"
    ray_executor.num_workers(run.manifest)
    from ray.runtime_context import RuntimeContext  # loaded by now

    monkeypatch.setattr(RuntimeContext, "gcs_address", gone)

    with pytest.raises(ExecutorError, match=f"testing: the Ray cluster at {gone} does not answer any more"):
        ray_executor(pieces.diverge, run.files.path, [()], [tmp_path / "a"], **QUIET)


# Without any Ray


@pytest.mark.parametrize(
    ("how", "error", "said"),
    [
        ({"name": "slurm"}, UnknownNameError, "unknown executor 'slurm'; choose one of: local, ray"),
        ({"name": "local", "address": "10.0.0.5:6379"}, ConfigError, "--address names a cluster"),
        ({"name": "local", "workers": 0}, ConfigError, "--workers must be 1 to 10,000, got 0"),
        ({"name": "ray", "address": "auto"}, ConfigError, "--address must be HOST:PORT"),
        ({"name": "ray", "address": "ray://10.0.0.5:10001"}, ConfigError, "--address must be HOST:PORT"),
    ],
)
def test_settings_that_cannot_be_are_refused(how, error, said):
    with pytest.raises(error, match=said), open_executor(**how):
        pass


def test_without_ray_a_sentence_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    said = r"not installed; run: python -m pip install 'ray>=2\.60,<3'"
    with pytest.raises(ExecutorError, match=said), open_executor("ray"):
        pass


def test_an_address_where_nothing_answers_is_told_in_time(run, monkeypatch):
    monkeypatch.setattr(on_ray, "REACHED_WITHIN_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"127.0.0.1:{deaf.getsockname()[1]}"

        said = f"no Ray cluster can be used at {address}: none answers there"
        with pytest.raises(ExecutorError, match=said), open_executor("ray", address=address) as executor:
            executor.num_workers(run.manifest)


def test_no_one_loads_ray_who_did_not_ask_for_it():
    code = "import carto_core.cli, carto_core.workflows.measuring, sys; sys.exit('ray' in sys.modules)"

    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0
