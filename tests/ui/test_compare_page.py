"""The compare page through `app.py`, in the states that two runs can be in."""

import json

import duckdb
import numpy as np
import pytest

from carto_core.config import ScoreConfig
from carto_core.store.rundir import update_manifest
from carto_core.types import Plan
from carto_core.workflows import light
from tests import tiny
from tests.ui.test_pages import SCORES, address_of, as_read, labelled, opened, press, sound, turned, words


@pytest.fixture
def runs_root(tmp_path, monkeypatch):
    root = tmp_path / "runs"
    root.mkdir()
    monkeypatch.setenv("CARTO_RUNS", str(root))
    return root


@pytest.fixture
def before(runs_root):
    return tiny.make_run(runs_root / "before", num_samples=300, config=SCORES)


@pytest.fixture
def after(runs_root, before):
    """Made of the same samples, cut elsewhere: half of them are hotspots by their own cuts."""
    scores = ScoreConfig(x="difficulty", y="consolidation", cut_x=100, cut_y=50)
    run = tiny.make_run(runs_root / "after", num_samples=300, config=scores)
    tiny.as_retrain(run, "before")
    repeats = np.ones(300, np.int32)
    repeats[10:30] = 0
    plan = Plan(repeats, np.ones(300, np.float32), [""] * 300, {"type": "test"}, "prune")
    path = light.save_plan(before, plan) / "plan.parquet"
    (run.files.path / "plan.parquet").write_bytes(path.read_bytes())
    return run


def audited(run, extracted):
    rows = [
        {name: row[name] for name in ("canary_id", "kind", "role")} | {"extracted": row["canary_id"] in extracted}
        for row in run.canaries().to_dict("records")
    ]
    tiny.write_audit(run, "extraction", rows)


def metrics(app):
    return {m.label: m.value for m in app.metric}


def alts(app):
    return [chart.proto.alt for chart in app.get("plotly_chart")]


def test_without_a_second_run_the_page_says_how_to_train_one(before):
    app = opened("compare", run="before")

    assert not app.error
    assert "python -m carto_core retrain before PLAN_DIR --out" in words(app)
    assert "There is no second run" in words(app)


def test_a_plan_that_is_there_is_named_in_the_command(before):
    selection = light.select(before, {"type": "top", "by": "consolidation", "q": 0.1})
    path = light.save_plan(before, light.plan_action(before, selection, action="prune"))

    assert f"retrain before {path} --out" in words(opened("compare", run="before"))


def test_a_run_that_still_trains_is_no_second_run(before, runs_root):
    tiny.make_run(runs_root / "live", sealed=False)

    assert "There is no second run" in words(opened("compare", run="before"))


def test_two_runs_are_compared_with_charts_that_say_what_to_see(before, after):
    app = opened("compare", run="before")

    assert not app.error
    assert metrics(app)["In both runs"] == "300"
    assert metrics(app)["Gone"] == "20"
    assert int(metrics(app)["New hotspots"]) > 0
    assert "20 of them after never trains on" in words(app)
    assert len(alts(app)) == 2, "nothing moved, so there is nothing to draw of moves"
    assert alts(app)[0].startswith("Samples by quadrant before and after. Stable-Easy to Stable-Easy")
    assert "No sample changed its place" in words(app)
    assert address_of(app)["run"] == "before"


def test_the_same_cuts_for_both_leave_no_new_hotspot(before, after):
    app = opened("compare", run="before")

    sound(labelled(app.toggle, "Cut both where before is").set_value(True).run())

    assert metrics(app)["New hotspots"] == "0"
    assert "No sample that was no hotspot in before is one in after" in words(app)


def test_a_link_keeps_both_runs_the_axis_and_the_cuts(before, after, runs_root):
    tiny.make_run(runs_root / "third", num_samples=300, config=SCORES)
    app = opened("compare", run="before")
    sound(labelled(app.selectbox, "After (B)").set_value("third").run())
    sound(labelled(app.selectbox, "Memorization axis").set_value("final_loss").run())
    sound(labelled(app.toggle, "Cut both").set_value(True).run())

    again = opened("compare", **address_of(app))

    assert labelled(again.selectbox, "After (B)").value == "third"
    assert labelled(again.selectbox, "Memorization axis").value == "final_loss"
    assert labelled(again.toggle, "Cut both").value is True


def test_runs_can_be_swapped(before, after, runs_root):
    tiny.make_run(runs_root / "third", num_samples=300, config=SCORES)
    app = opened("compare", run="before")
    sound(labelled(app.selectbox, "After (B)").set_value("third").run())

    press(app, "Swap A and B")

    assert address_of(app)["run"] == "third"
    assert labelled(app.selectbox, "After (B)").value == "before", "not its likeliest, which is the newest"
    assert labelled(app.selectbox, "Before (A)").value == "third"


def test_a_run_of_other_axes_is_said_and_both_are_placed_by_one(before, after):
    light.score(after, ScoreConfig(x="difficulty", y="final_loss"))

    app = opened("compare", run="before")

    assert not app.error
    assert "before is cut on Difficulty and Consolidation, after on Difficulty and Final loss" in words(app)
    assert labelled(app.selectbox, "Memorization axis").value == "consolidation"


def test_moves_are_drawn_by_rank_and_by_value_and_one_sample_is_read(before, runs_root):
    other = tiny.make_run(runs_root / "moved", num_samples=300, config=SCORES, num_snapshots=12)

    app = opened("compare", run="before")

    moves = next(alt for alt in alts(app) if alt.startswith("Largest moves"))
    assert "Difficulty and Consolidation" in moves
    assert "snapshots differ" in words(app)
    sample = labelled(app.selectbox, "Sample (")
    key = other.samples()["key"].tolist()[sample.value]
    assert sample.options[0] == key
    assert any("optimizer step" in c.proto.spec for c in app.get("plotly_chart"))


def test_canaries_that_changed_are_listed_by_the_roles_that_may_be_looked_at(before, after):
    first = before.canaries().query("inserted").groupby("role").first()
    audited(before, set())
    audited(after, set(first["canary_id"]))

    app = opened("compare", run="before")

    shown = json.dumps([frame.value.to_dict() for frame in app.dataframe], default=str)
    assert "became extractable" in shown
    assert first.loc["calibration", "secret"] in shown
    assert first.loc["report", "secret"] not in shown
    for run in (before, after):
        update_manifest(run.files, report_seen=True)
    app = opened("compare", run="before")
    assert first.loc["report", "secret"] in json.dumps([f.value.to_dict() for f in app.dataframe], default=str)


def test_without_an_audit_the_command_is_given(before, after):
    assert "python -m carto_core audit before extraction" in words(opened("compare", run="before"))


def test_of_two_corpora_the_shared_samples_are_counted(before, runs_root):
    tiny.make_run(runs_root / "else", num_samples=150, seed=1, canaries=False, config=SCORES)

    app = opened("compare", run="before")

    assert not app.error
    assert "1 samples are in both runs, of 300 in before and 150 in else. The two were trained on different" in words(
        app
    )
    assert "149 keys stand for another text" in words(app)


def test_runs_without_a_common_sample_are_one_sentence(before, runs_root):
    other = tiny.make_run(runs_root / "else", num_samples=150, seed=1, canaries=False, config=SCORES)
    with duckdb.connect(str(other.files.database)) as con:
        con.execute("update samples set key = 'else/' || key")

    app = opened("compare", run="before")

    assert [as_read(e.value) for e in app.error] == [
        "runs before (300 samples) and else (150) share none of their keys; compare runs of one corpus"
    ]


def test_a_link_to_a_run_that_is_gone_is_one_sentence(before, after):
    app = opened("compare", run="before")
    sound(labelled(app.selectbox, "After (B)").set_value("after").run())
    (after.files.path / "trajectory.duckdb").unlink()
    other = tiny.make_run(after.files.path.parent / "third", num_samples=300, config=SCORES)

    again = opened("compare", **address_of(app))

    assert "There is no trained run 'after'" in words(again)
    assert labelled(again.selectbox, "After (B)").value == other.run_id


def test_switching_the_run_on_another_page_keeps_the_comparison_apart(before, after):
    app = opened("compare", run="before")

    turned(app, "map")
    turned(app, "compare")

    assert labelled(app.selectbox, "After (B)").value == "after"


def test_a_second_plan_can_be_made_but_not_measured(before, after):
    from carto_core.quadrants import QUADRANTS

    app = opened("map", run="after")
    press(app, QUADRANTS["hotspot-memorized"].title)

    turned(app, "intervene")

    assert [as_read(e.value) for e in app.error if "measure a plan of before" in e.value]
    assert "Take the list with you" in words(app)
    assert "On top of the plan that run after was trained under" in words(app)
