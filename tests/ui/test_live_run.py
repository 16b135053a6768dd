"""A run that trains, or was stopped at it, on every page: the map of the snapshots so far, and how to go on."""

from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from carto_core import jobs
from carto_core.errors import RunNotSealed
from carto_core.store.reader import Run
from carto_core.store.rundir import update_manifest
from carto_core.store.sealed import seal
from carto_core.store.writer import PartWriter
from carto_core.types import Snapshot
from carto_core.workflows import light
from tests import tiny

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A live run with 3 of 24 snapshots."""
    monkeypatch.setenv("CARTO_RUNS", str(tmp_path / "runs"))
    made = tiny.make_run(tmp_path / "runs" / "live", sealed=False)
    tiny.keep_snapshots(made, 3)
    return made


def grow(run):
    """Write one more snapshot, as the training does."""
    writer, number = PartWriter(run.files), len(run.snapshots())
    losses = np.linspace(0.1, 4, run.num_samples).astype(np.float32)
    writer.record(Snapshot(number, 10 * (number + 1), 1.0, "after", 1.0), losses, np.ones(run.num_samples, np.int32))


def stop(run, **facts):
    update_manifest(run.files, status="cancelled", error="cancelled; continue with --resume", **facts)


def opened(page):
    app = AppTest.from_file(PROJECT / "app.py", default_timeout=60)
    app.query_params["run"] = "live"
    app.switch_page(f"pages/{page}.py").run()
    return sound(app)


def sound(app):
    assert not app.exception, app.exception[0].message + "\n".join(app.exception[0].stack_trace)
    return app


def words(app):
    kinds = ("title", "markdown", "caption", "info", "error", "code")
    return "\n".join(str(element.value) for kind in kinds for element in app.get(kind))


def test_a_live_run_is_scored_by_its_complete_snapshots_and_nothing_is_written(run):
    before = sorted(path for path in run.files.path.rglob("*"))

    table = light.load_live_table(run)

    final = run.trajectories("after")[-1]
    assert np.array_equal(table.scores["final_loss"], final)
    assert (table.x, table.y) == ("difficulty", "memorization")
    assert sorted(path for path in run.files.path.rglob("*")) == before


def test_verbs_that_choose_for_good_still_wait_for_the_end(run):
    with pytest.raises(RunNotSealed):
        light.load_table(run)


def test_the_saved_axis_of_a_live_run_is_taken_where_it_needs_no_probe(run):
    update_manifest(run.files, scores=light.score_config(run).to_dict() | {"y": "consolidation"})
    assert light.load_live_table(run).y == "consolidation"

    update_manifest(run.files, scores=light.score_config(run).to_dict() | {"y": "recitation"})
    assert light.load_live_table(run).y == "memorization"


def test_a_run_that_is_sealed_while_it_is_read_is_read_again(run, monkeypatch):
    real = Run.part_paths

    def just_before(self):
        paths = real(self)
        monkeypatch.setattr(Run, "part_paths", real)
        seal(run.files, {"seed": "0", "corpus_sha256": "0"})  # the parts whose names were found are gone now
        return paths

    monkeypatch.setattr(Run, "part_paths", just_before)

    table = light.load_live_table(run)

    assert run.is_sealed
    assert len(table) == 200


def test_the_map_grows_with_its_snapshots_and_keeps_the_selection(run):
    app = opened("map")
    assert "**3 of 24 snapshots so far.**" in words(app)
    app.button(key="choose_hotspot-memorized").click().run()
    chosen = app.query_params["view"]

    grow(run)
    sound(app.run())

    assert "**4 of 24 snapshots so far.**" in words(app)
    assert app.query_params["view"] == chosen
    assert "Rescore" not in "".join(b.label for b in app.button)


def test_one_snapshot_is_no_map_yet(run):
    tiny.keep_snapshots(run, 1)

    assert "The map appears with snapshot 2; so far it has 1 of 24 snapshots." in words(opened("map"))


def test_samples_can_be_read_while_the_run_trains(run):
    app = opened("samples")

    assert "snapshots so far" in words(app)
    assert app.dataframe


@pytest.mark.parametrize("page", ["intervene", "audit", "compare", "calibration"])
def test_other_pages_say_why_they_wait(run, page):
    app = opened(page)

    assert "end of the training" in words(app)
    assert not app.error


def test_a_run_that_was_stopped_is_resumed_by_a_button(run, monkeypatch):
    started = []
    monkeypatch.setattr(jobs, "launch", lambda arguments, **facts: started.append((arguments, facts)))
    stop(run)

    app = opened("map")
    sound(app.button(key="resume_live").click().run())

    ((arguments, facts),) = started
    assert arguments == ["train", "--resume", "--out", str(run.files.path)]
    assert (facts["kind"], facts["run_id"]) == ("train", "live")
    assert f"python -m carto_core train --resume --out {run.files.path}" in words(app)


def test_a_run_that_trains_offers_no_second_training(run):
    app = opened("map")

    assert not any("Resume" in button.label for button in app.button)
