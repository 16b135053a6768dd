"""Every page through `app.py`, as a browser session would see it, in every state that a run can be in."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from streamlit.testing.v1 import AppTest
from streamlit.typing import DataframeState

from carto_core import jobs
from carto_core.audits import AUDITS
from carto_core.config import ScoreConfig
from carto_core.preview.effects import METRICS, effects_of
from carto_core.quadrants import QUADRANTS, Cuts
from carto_core.selection import inside, simplify_polygon
from carto_core.store.rundir import append_progress, update_manifest, write_json
from carto_core.workflows import light
from tests import tiny

PROJECT = Path(__file__).parents[2]
PAGES = ("home", "map", "samples", "intervene", "audit")
SCORES = ScoreConfig(x="difficulty", y="consolidation")
# A U: its bounding box holds much that it does not.
CONCAVE = [[1.6, 0.1], [5.2, 0.1], [5.2, 1.6], [4.4, 1.6], [4.4, 0.5], [2.4, 0.5], [2.4, 1.6], [1.6, 1.6]]


@pytest.fixture
def runs_root(tmp_path, monkeypatch):
    root = tmp_path / "runs"
    root.mkdir()
    monkeypatch.setenv("CARTO_RUNS", str(root))
    return root


@pytest.fixture
def run(runs_root):
    made = tiny.make_run(runs_root / "tiny", num_samples=300, config=SCORES)
    update_manifest(made.files, train_s=20.0, measure_s=5.0)
    return made


def opened(page, **address):
    app = AppTest.from_file(PROJECT / "app.py", default_timeout=60)
    for name, value in address.items():
        app.query_params[name] = value
    return turned(app, page)  # cold: the first thing that this session asks for


def address_of(app):
    return {name: value if isinstance(value, str) else value[0] for name, value in app.query_params.items()}


def turned(app, page):
    app.switch_page(f"pages/{page}.py").run()
    return sound(app)


def sound(app):
    assert not app.exception, app.exception[0].message + "\n".join(app.exception[0].stack_trace)
    return app


def words(app):
    kinds = ("title", "subheader", "markdown", "caption", "info", "warning", "error", "success", "code", "text")
    return "\n".join(str(element.value) for kind in kinds for element in app.get(kind))


def button(app, label):
    found = [b for b in app.button if label in b.label]
    assert found, f"no button {label!r} among {[b.label for b in app.button]}"
    return found[0]


def press(app, label):
    return sound(button(app, label).click().run())


def labelled(elements, label):
    """The element of this label, or else the first whose label holds it."""
    exact = [element for element in elements if element.label == label]
    return next(iter([*exact, *(element for element in elements if label in element.label)]))


def chart(app):
    """The map is the chart that listens to a lasso."""
    return next(c for c in app.get("plotly_chart") if "Map of" in c.proto.alt or "lasso" in c.proto.spec)


def drag(app, *, lasso=(), box=()):
    """Send what the browser sends after a lasso or a box, so that the callback fires. AppTest has no public way yet."""
    event = {
        "points": [],
        "point_indices": [],
        "lasso": [{"xref": "x2", "yref": "y2", "x": [p[0] for p in o], "y": [p[1] for p in o]} for o in lasso],
        "box": [{"xref": "x2", "yref": "y2", "x": x, "y": y} for x, y in box],
    }
    widget_id, states = chart(app).proto.id, app._tree.get_widget_states()
    state = states.widgets.add()
    state.id, state.string_value = widget_id, json.dumps({"selection": event})
    return sound(app._run(states))


def keys_inside(run, polygons):
    table = light.load_table(run)
    return np.flatnonzero(inside(table.scores["difficulty"], table.scores["consolidation"], polygons))


def status(app):
    return next(m.value for m in app.markdown if " samples in " in m.value or "Nothing selected" in m.value)


# Every page opens


@pytest.mark.parametrize("page", PAGES)
def test_without_a_run_every_page_says_how_to_get_one(runs_root, page):
    app = opened(page)

    assert "python -m carto_core" in words(app)


@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens_with_nothing_selected(run, page):
    app = opened(page)

    assert app.title or app.subheader
    assert not app.error


@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens_with_a_selection(run, page):
    app = opened("map", run="tiny")
    press(app, QUADRANTS["hotspot-memorized"].title)

    turned(app, page)

    assert not app.error


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("made", [{"sealed": False}, {"canaries": False}, {"losses": "during"}, {"losses": "both"}])
def test_every_page_opens_on_a_run_of_every_kind(runs_root, made, page):
    tiny.make_run(runs_root / "other", **made)

    opened(page, run="other")


@pytest.mark.parametrize("page", PAGES)
def test_a_sealed_run_without_scores_is_told_of(runs_root, page):
    tiny.make_run(runs_root / "unscored", scored=False)

    app = opened(page, run="unscored")

    if page in ("map", "samples", "intervene"):
        assert "python -m carto_core score unscored" in words(app)


@pytest.mark.parametrize("page", PAGES)
def test_a_run_that_is_not_there_is_one_sentence(run, page):
    app = opened(page, run="gone")

    assert "gone" in words(app)


def test_two_runs_can_be_switched_between(run, runs_root):
    tiny.make_run(runs_root / "second", num_samples=150, seed=1)
    app = opened("map", run="tiny")
    press(app, QUADRANTS["stable-easy"].title)

    sound(labelled(app.selectbox, "Run").set_value("second").run())

    assert address_of(app)["run"] == "second"
    assert "Nothing selected" in status(app)


# The map


def test_a_concave_lasso_counts_what_lies_inside_it_and_not_in_its_box(run):
    app = drag(opened("map", run="tiny"), lasso=[CONCAVE])

    expected = len(keys_inside(run, [simplify_polygon(CONCAVE)]))
    (low, high) = np.min(CONCAVE, axis=0), np.max(CONCAVE, axis=0)
    boxed = len(keys_inside(run, [[low.tolist(), [high[0], low[1]], high.tolist(), [low[0], high[1]]]]))
    assert 0 < expected < boxed
    assert f"{expected:,} of 300 samples" in status(app)


def test_a_box_is_a_polygon_whatever_corner_it_began_in(run):
    app = drag(opened("map", run="tiny"), box=[([4.0, 2.0], [0.1, 0.9])])

    expected = len(keys_inside(run, [[[2.0, 0.1], [4.0, 0.1], [4.0, 0.9], [2.0, 0.9]]]))
    assert 0 < expected < 300
    assert f"{expected:,} of 300 samples" in status(app)


def test_two_outlines_are_a_union(run):
    other = [[2.5, 0.6], [4.0, 0.6], [3.2, 3.0]]

    app = drag(opened("map", run="tiny"), lasso=[CONCAVE, other])

    expected = len(keys_inside(run, [CONCAVE, other]))
    assert expected > len(keys_inside(run, [CONCAVE]))
    assert f"{expected:,} of 300 samples" in status(app)


def test_a_click_that_was_no_drag_selects_nothing(run):
    app = drag(opened("map", run="tiny"), lasso=[[[2.0, 0.5]]])

    assert "Nothing selected" in status(app)


def test_a_lasso_around_nothing_says_so(run):
    app = drag(opened("map", run="tiny"), lasso=[[[90, 90], [91, 90], [91, 91]]])

    assert "0 of 300 samples" in status(app)
    assert "No sample" in words(app)


def test_a_lasso_is_kept_on_another_page_and_cleared_by_a_button(run):
    app = drag(opened("map", run="tiny"), lasso=[CONCAVE])
    selected = status(app)
    turned(app, "audit")
    turned(app, "map")
    assert status(app).rsplit(" in ", 1)[0] == selected.rsplit(" in ", 1)[0]

    press(app, "Clear selection")

    assert "Nothing selected" in status(app)


def test_a_copied_link_shows_the_same_in_another_session(run):
    app = opened("map", run="tiny")
    labelled(app.text_input, "Search").set_value("river")
    sound(app.run())
    sound(labelled(app.selectbox, "Across").set_value("lt_iqr").run())
    drag(app, lasso=[[[0.0, 0.2], [2.0, 0.2], [1.0, 3.0]]])

    other = opened("map", **address_of(app))

    assert status(other).rsplit(" in ", 1)[0] == status(app).rsplit(" in ", 1)[0]
    assert labelled(other.text_input, "Search").value == "river"
    assert labelled(other.selectbox, "Across").value == "lt_iqr"
    assert '"selections":[{' in chart(other).proto.spec
    assert "**polygon: 0 of" not in status(app)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("view", ["@@@", "eNqrVqpQslJKyUxLy0wuzSmpVNJRqgQ", "eNoDAAAAAAE", "e30"])
def test_a_damaged_link_is_no_crash(run, page, view):
    opened(page, run="tiny", view=view)


def test_a_search_rings_its_hits_and_restricts_only_when_asked(run):
    app = opened("map", run="tiny")
    sound(labelled(app.text_input, "Search").set_value("RIVER").run())
    hits = light.search(run, "river")
    assert f"{len(hits):,} search hits" in status(app)
    drag(app, lasso=[CONCAVE])
    lassoed = keys_inside(run, [CONCAVE])
    assert f"{len(lassoed):,} of 300 samples" in status(app)

    sound(labelled(app.checkbox, "Restrict").check().run())

    assert f"{len(np.intersect1d(lassoed, hits)):,} of 300 samples" in status(app)


def test_a_search_is_no_pattern_and_no_markup(run):
    app = opened("map", run="tiny")

    sound(labelled(app.text_input, "Search").set_value("<script>").run())

    assert "1 search hits" in status(app)


def test_filters_highlight_by_source_length_and_copies(run):
    app = opened("map", run="tiny")
    sound(labelled(app.multiselect, "Sources").set_value(["quotes"]).run())
    sound(labelled(app.checkbox, "copies only").check().run())

    table = light.load_table(run)
    expected = (table.source == "quotes") & (table.scores["group_size"] > 1)
    assert f"{int(expected.sum()):,} search hits" in status(app)


@pytest.mark.parametrize("name", QUADRANTS)
def test_a_quadrant_is_chosen_without_dragging(run, name):
    app = press(opened("map", run="tiny"), QUADRANTS[name].title)

    table = light.load_table(run)
    expected = int((Cuts.of(table).assign(table.scores) == name).sum())
    assert f"{expected:,} of 300 samples" in status(app)


def test_the_top_share_is_chosen_without_dragging(run):
    app = opened("map", run="tiny")
    labelled(app.number_input, "Top share").set_value(10.0)
    press(app, "Choose the top")

    expected = light.select(run, {"type": "top", "by": "consolidation", "q": 0.1})
    assert f"{len(expected.sample_ids):,} of 300 samples" in status(app)


def test_a_range_is_chosen_without_dragging(run):
    app = opened("map", run="tiny")
    labelled(app.selectbox, "Range of").set_value("final_loss")
    labelled(app.number_input, "to").set_value(1.0)
    press(app, "Choose the range")

    expected = light.select(run, {"type": "range", "score": "final_loss", "low": None, "high": 1.0})
    assert 0 < len(expected.sample_ids) < 300
    assert f"{len(expected.sample_ids):,} of 300 samples" in status(app)


def test_a_range_upside_down_is_one_sentence(run):
    app = opened("map", run="tiny")
    labelled(app.number_input, "from").set_value(3.0)
    labelled(app.number_input, "to").set_value(1.0)

    press(app, "Choose the range")

    assert "above" in words(app)


def test_all_copies_of_a_selection_can_be_taken_along(run):
    rule = {"type": "polygon", "x": "difficulty", "y": "consolidation", "polygons": [CONCAVE]}
    app = drag(opened("map", run="tiny"), lasso=[CONCAVE])

    sound(labelled(app.checkbox, "All copies").check().run())

    expected = light.select(run, {"type": "duplicates_of", "rule": rule})
    assert f"{len(expected.sample_ids):,} of 300 samples" in status(app)


def test_the_map_zooms_to_the_selection_and_out_again(run):
    app = drag(opened("map", run="tiny"), lasso=[CONCAVE])
    whole = json.loads(chart(app).proto.spec)["layout"]["xaxis"]["range"]

    press(app, "Zoom to selection")
    zoomed = json.loads(chart(app).proto.spec)["layout"]["xaxis"]["range"]
    press(app, "Zoom out")

    assert whole[0] < zoomed[0] < zoomed[1] < whole[1]
    assert json.loads(chart(app).proto.spec)["layout"]["xaxis"]["range"] == whole


@pytest.mark.parametrize("colour", ["quadrant", "source", "year", "author"])
def test_the_map_is_coloured_by(run, colour):
    app = opened("map", run="tiny")

    sound(labelled(app.selectbox, "Colour").set_value(colour).run())

    assert not app.error


@pytest.mark.parametrize("name", list(light.SCORES))
def test_every_score_can_be_either_axis(run, name):
    app = opened("map", run="tiny")
    sound(labelled(app.selectbox, "Across").set_value(name).run())

    sound(labelled(app.selectbox, "Memorization axis").set_value(name).run())

    title = light.SCORES[name].title
    assert f"**{title}** finds this run's inserted calibration canaries with AUC" in words(app)
    assert not app.error


def test_the_map_sends_no_text_unescaped(run):
    spec = chart(opened("map", run="tiny")).proto.spec

    assert "alert(1)" in spec
    assert "<script>" not in spec


def test_an_untouched_map_is_the_same_to_the_byte(run):
    """A figure that changes forgets in the browser what was drawn on it."""
    app = opened("map", run="tiny")
    before = chart(app).proto.spec

    drag(app, lasso=[CONCAVE])

    assert chart(app).proto.spec == before


def test_a_rescore_is_saved_with_the_cuts_in_view(run):
    app = opened("map", run="tiny")
    sound(labelled(app.slider, "Cut of Difficulty").set_value(60.0).run())
    labelled(app.selectbox, "Forget threshold").set_value("absolute")
    labelled(app.number_input, "eps").set_value(1.5)

    press(app, "Rescore")

    saved = light.score_config(run)
    assert (saved.eps_mode, saved.eps, saved.cut_x, saved.y) == ("absolute", 1.5, 60.0, "consolidation")
    assert run.meta()["eps"] == "1.5"


def test_an_impossible_threshold_is_one_sentence(run):
    app = opened("map", run="tiny")
    labelled(app.selectbox, "Forget threshold").set_value("pooled")
    labelled(app.number_input, "eps").set_value(7.0)

    press(app, "Rescore")

    assert "quantile" in app.error[0].value


# Rows and samples


def rows(app):
    """The table of texts, not that of the detectors."""
    return next(d for d in app.dataframe if "text" in d.value.columns)


def test_the_selected_texts_are_listed(run):
    app = drag(opened("map", run="tiny"), lasso=[CONCAVE])

    listed = set(rows(app).value["key"]) - {"(hidden)"}
    assert listed <= set(light.load_table(run).key[keys_inside(run, [CONCAVE])])
    assert listed


def test_a_ticked_row_is_shown_whole(run):
    app = opened("samples", run="tiny")
    sound(labelled(app.text_input, "Search").set_value("number 42.").run())
    sound(next(r for r in app.radio).set_value(next(o for o in app.radio[0].options if "hits" in o.lower())).run())
    (key,) = rows(app).value["key"]

    app.session_state[rows(app).key] = DataframeState({"selection": {"rows": [0], "columns": [], "cells": []}})
    sound(app.run())

    text = run.texts([int(np.flatnonzero(light.load_table(run).key == key)[0])])[0]
    assert text in words(app)


def test_samples_are_paged_and_sorted(run):
    app = opened("samples", run="tiny")
    sound(labelled(app.selectbox, "Sort").set_value("final_loss").run())
    first = rows(app).value["final_loss"].tolist()

    sound(labelled(app.number_input, "Page").set_value(2).run())

    assert first == sorted(first)
    assert first[-1] <= rows(app).value["final_loss"].tolist()[0]


def test_report_canaries_stay_hidden_until_somebody_asks(run):
    canaries = run.canaries()
    secrets = canaries.loc[(canaries["role"] == "report") & canaries["inserted"], ["prefix", "secret"]].sum(axis=1)
    app = opened("samples", run="tiny")

    def shown():
        return set(rows(app).value["text"])

    assert not shown() & set(secrets)
    assert run.manifest["report_seen"] is False

    press(app, "report")

    assert shown() & set(secrets)
    assert run.manifest["report_seen"] is True


def test_hovering_does_not_give_report_canaries_away(run):
    canaries = run.canaries()
    report = canaries[(canaries["role"] == "report") & canaries["inserted"]]

    spec = chart(opened("map", run="tiny")).proto.spec

    assert not [row.prefix for row in report.itertuples() if row.prefix in spec]


# Interventions


def with_hotspots(run, page="intervene"):
    app = press(opened("map", run="tiny"), QUADRANTS["hotspot-memorized"].title)
    return turned(app, page)


def actions(app):
    return next(g for g in app.get("button_group") if "Prune" in str(g.options))


def test_a_plan_says_how_many_samples_it_changes(run):
    app = with_hotspots(run)

    table = light.load_table(run)
    count = int((Cuts.of(table).assign(table.scores) == "hotspot-memorized").sum())
    assert labelled(app.metric, "Samples changed").value == f"{count:,}"


@pytest.mark.parametrize("action", ["reweight", "upsample", "policy"])
def test_every_action_makes_a_plan(run, action):
    app = with_hotspots(run)

    sound(actions(app).set_value(action).run())

    assert not app.error
    assert int(labelled(app.metric, "Samples changed").value) > 0


def test_the_policy_warns_of_the_canaries_that_it_would_repeat(run):
    app = opened("intervene", run="tiny")

    sound(actions(app).set_value("policy").run())

    assert any("up-samples" in w.value for w in app.warning)


def test_no_estimate_is_made_up(run):
    app = with_hotspots(run)

    assert "Not available yet" in words(app)


def test_minutes_are_said_before_the_click(run):
    button(with_hotspots(run), "min)")


def test_a_measurement_is_read_with_all_arms_and_a_verdict(run):
    app = with_hotspots(run)
    (plan_dir,) = run.files.plans.iterdir()
    folder = light.measurement_dir(run, plan_dir)
    write_json(folder / "measure.json", {"arms": ARMS, "effects": effects_of(ARMS), "seeds": [0, 1, 2]})

    sound(app.run())

    alts = [c.proto.alt for c in app.get("plotly_chart")]
    assert all(any(METRICS[m] in alt for alt in alts) for m in ("extraction.report", "ppl_nats", "natural_extraction"))
    assert "more than a random choice of its size" in words(app)


def test_an_unknown_metric_of_a_measurement_is_no_crash(run):
    app = with_hotspots(run)
    (plan_dir,) = run.files.plans.iterdir()
    arms = [arm | {"natural_extraction": {"k": 0, "n": 0}, "exposure": dict.fromkeys(arm["exposure"])} for arm in ARMS]
    write_json(light.measurement_dir(run, plan_dir) / "measure.json", {"arms": arms, "effects": effects_of(arms)})

    sound(app.run())


def made_up_arm(arm, seed, share):
    counts = {"k": round(16 * share), "n": 16, "by_repeats": {"8": {"k": 1, "n": 4}}}
    return {
        "arm": arm,
        "seed": seed,
        "steps": 10,
        "tokens": 100,
        "extraction": {"calibration": counts, "report": counts},
        "natural_extraction": {"k": seed, "n": 9},
        "exposure": {"calibration": 5.0 + seed, "report": 4.0 + seed},
        "ppl_nats": 2.0 + seed / 10,
        "notes": {},
    }


ARMS = [
    made_up_arm(arm, seed, share + seed / 16)
    for seed in range(3)
    for arm, share in {"baseline": 0.6, "plan": 0.1, "control": 0.6, "dedup": 0.2}.items()
]


# Jobs


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def registered(runs_root, run, process, *, kind, result, progress):
    folder = runs_root / ".jobs" / "1"
    folder.mkdir(parents=True)
    fields = {
        "job_id": "1",
        "kind": kind,
        "run_id": run.run_id,
        "command": [kind],
        "created": "2020-01-01T00:00:00+00:00",
    }
    where = {"progress": str(progress), "result": str(result), "folder": str(folder)}
    who = {"pid": process.pid, "pid_start": psutil.Process(process.pid).create_time()}
    write_json(folder / "job.json", fields | where | who)
    return jobs.list_jobs(runs_root)[0]


def audit_job(runs_root, run, process):
    audits = run.files.audits
    return registered(
        runs_root, run, process, kind="audit", result=audits / "tokens.json", progress=audits / "progress.jsonl"
    )


def test_a_job_under_way_shows_its_progress_in_a_new_session_and_can_be_cancelled(run, runs_root, sleeper):
    job = audit_job(runs_root, run, sleeper)
    append_progress(Path(job.progress), stage="audit: Canary extraction", done=1, total=4, rate=0.5, eta_s=6.0)
    app = opened("audit", run="tiny")
    assert any("Canary extraction" in str(p.proto.text) and p.proto.value == 25 for p in app.get("progress"))

    sound(button(app, "Cancel").click().run())
    sleeper.wait(timeout=10)

    assert jobs.state_of(job) == "cancelled"


def test_a_failed_job_shows_its_log(run, runs_root, sleeper):
    job = audit_job(runs_root, run, sleeper)
    job.log.write_text("error: the checkpoint is damaged\n")
    write_json(Path(job.folder) / "exit.json", {"code": 2, "time": "2020-01-01T00:00:00+00:00"})

    app = opened("audit", run="tiny")

    assert "the checkpoint is damaged" in words(app)


def test_a_button_starts_the_audits_as_a_job(run, runs_root, monkeypatch):
    started = []
    monkeypatch.setattr(jobs, "launch", lambda arguments, **facts: started.append((arguments, facts)))

    press(opened("audit", run="tiny"), "Run the audits")

    ((arguments, facts),) = started
    assert arguments[:2] == ["audit", str(run.files.path)]
    assert (facts["kind"], facts["run_id"]) == ("audit", "tiny")


def test_a_button_starts_a_measurement_as_a_job(run, monkeypatch):
    started = []
    monkeypatch.setattr(jobs, "launch", lambda arguments, **facts: started.append(arguments))

    press(with_hotspots(run), "Measure")

    ((verb, path, plan_dir, *options),) = started
    assert (verb, path, options) == ("measure", str(run.files.path), ["--seeds", "3"])
    assert (Path(plan_dir) / "plan.json").is_file()


# Audits


def write_audits(run):
    def role(k):
        part = {"k": k, "n": 16, "rate": k / 16, "low": 0.1, "high": 0.9}
        return {
            "inserted": part | {"by_repeats": {"1": part, "8": part}},
            "control": part | {"k": 0, "rate": 0.0, "low": 0.0},
        }

    def spread(value):
        part = {"n": 4, "mean": value, "median": value, "low": value - 1, "high": value + 1}
        return {"inserted": part | {"by_repeats": {"1": part, "8": part}}, "control": part}

    group = {"group_id": 1, "group_size": 2, "sample_ids": [1, 2], "extracted": True}
    found = {
        "perplexity": {"nats_per_token": 2.5, "perplexity": 12.18, "num_tokens": 900, "num_samples": 20},
        "extraction": {"calibration": role(11), "report": role(13)},
        "exposure": {"calibration": spread(6.25), "report": spread(3.75), "num_references": 1000},
        "natural": {"k": 1, "n": 1, "rate": 1.0, "low": 0.2, "high": 1.0},
        "membership": {"num_members": 100, "num_nonmembers": 20, "attacks": {}},
        "tokens": {"num_samples": 300, "num_tokens": 3000},
    }
    items = {
        "extraction": [{"canary_id": 0}],
        "exposure": [{"canary_id": 0}],
        "natural": [group | {"prefix": "<b>river</b>", "expected": "stone", "decoded": "stone"}],
    }
    for name in AUDITS:
        audit = {"name": name, "definition": f"how {name} is counted", "summary": found[name]}
        write_json(run.files.audits / f"{name}.json", audit | {"per_item": items.get(name, [])})


def test_audits_show_the_calibration_half_alone(run):
    write_audits(run)
    app = opened("audit", run="tiny")
    assert "11 of 16" in words(app)
    assert "13 of 16" not in words(app)
    assert "3.75" not in words(app)

    update_manifest(run.files, report_seen=True)
    sound(app.run())

    assert "13 of 16" in words(app)
    assert "3.75" in words(app)


def test_audits_say_how_they_are_counted(run):
    write_audits(run)

    said = words(opened("audit", run="tiny"))

    assert all(f"how {name} is counted" in said for name in ("extraction", "exposure", "natural"))


def test_every_chart_is_told_in_words(run):
    write_audits(run)
    app = drag(opened("map", run="tiny"), lasso=[CONCAVE])
    charts = app.get("plotly_chart") + turned(app, "audit").get("plotly_chart")

    assert len(charts) >= 4
    assert all(len(c.proto.alt) > 20 for c in charts)


# The process


def test_the_dashboard_never_loads_torch():
    code = (
        "import sys, importlib, pkgutil, carto_core.ui.panels as panels\n"
        "for module in pkgutil.iter_modules(panels.__path__, panels.__name__ + '.'):\n"
        "    importlib.import_module(module.name)\n"
        "assert 'torch' not in sys.modules\n"
    )

    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True)
