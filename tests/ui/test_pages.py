"""Every page through `app.py`, as a browser session would see it, in every state that a run can be in."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from streamlit.testing.v1 import AppTest
from streamlit.typing import DataframeState

from benchmarks.paper_table import base_config
from carto_core import jobs
from carto_core.audits import AUDITS
from carto_core.config import ScoreConfig
from carto_core.preview.effects import METRICS, effects_of
from carto_core.quadrants import QUADRANTS, Cuts
from carto_core.scores.labels import LABELS
from carto_core.selection import inside, simplify_polygon
from carto_core.store.rundir import append_progress, update_manifest, write_json
from carto_core.ui.panels import evidence
from carto_core.workflows import light
from tests import tiny

PROJECT = Path(__file__).parents[2]
PAGES = ("home", "map", "samples", "intervene", "audit", "evidence")
SCORES = ScoreConfig(x="difficulty", y="consolidation")
# A U: its bounding box holds much that it does not.
CONCAVE = [[1.6, 0.1], [5.2, 0.1], [5.2, 1.6], [4.4, 1.6], [4.4, 0.5], [2.4, 0.5], [2.4, 1.6], [1.6, 1.6]]


@pytest.fixture
def runs_root(tmp_path, monkeypatch):
    root = tmp_path / "runs"
    root.mkdir()
    monkeypatch.setenv("CARTO_RUNS", str(root))
    monkeypatch.setattr(evidence, "RESULTS", tmp_path / "results")
    return root


@pytest.fixture
def run(runs_root):
    return tiny.make_run(runs_root / "tiny", num_samples=300, config=SCORES)


@pytest.fixture
def probed(runs_root):
    return tiny.make_run(runs_root / "probed", num_samples=300, config=SCORES, probes=True)


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
    return "\n".join(as_read(element.value) for kind in kinds for element in app.get(kind))


def as_read(text):
    """A text as a browser shows it, without the signs that keep Markdown from taking it for its own."""
    return re.sub(r"\\([^a-zA-Z0-9\s])", r"\1", str(text))


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

    assert "python -m " in words(app)


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
@pytest.mark.parametrize(
    "made", [{"sealed": False}, {"canaries": False}, {"losses": "during"}, {"losses": "both"}, {"probes": True}]
)
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

    title, probe = light.SCORES[name].title, light.SCORES[name].probe
    assert f"**{title}** {'tells inserted samples' if probe is None else 'is not run'}" in words(app)
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

    assert "quantile" in as_read(app.error[0].value)


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


def test_a_run_without_canaries_has_none_to_show(runs_root):
    tiny.make_run(runs_root / "bare", canaries=False)
    tiny.make_run(runs_root / "tiny")

    labels = {name: [button.label for button in opened("map", run=name).button] for name in ("bare", "tiny")}

    assert "Show report canaries" in labels["tiny"]
    assert "Show report canaries" not in labels["bare"]


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


def test_a_link_keeps_what_was_to_be_done_with_the_selection(run):
    app = with_hotspots(run)
    sound(actions(app).set_value("reweight").run())
    sound(labelled(app.slider, "Loss weight of the selection").set_value(0.25).run())
    before = labelled(app.metric, "Samples changed").value

    again = opened("intervene", **address_of(app))

    assert actions(again).value == "reweight"
    assert labelled(again.slider, "Loss weight of the selection").value == 0.25
    assert labelled(again.metric, "Samples changed").value == before


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


def one_copy_each(app):
    sound(actions(app).set_value("policy").run())
    return labelled(app.radio, "For the whole corpus").set_value("deduplicate").run()


def test_one_copy_of_each_text_needs_no_selection_and_a_link_keeps_it(run):
    app = sound(one_copy_each(opened("intervene", run="tiny")))

    group_id = light.load_table(run).group_id
    assert labelled(app.metric, "Samples changed").value == str(len(group_id) - len(set(group_id)))
    again = opened("intervene", **address_of(app))
    assert labelled(again.metric, "Samples changed").value == labelled(app.metric, "Samples changed").value


def test_where_every_text_stands_once_there_is_no_copy_to_prune(runs_root):
    run = tiny.make_run(runs_root / "tiny", canaries=False, num_samples=9)
    assert (run.scores()["group_size"] == 1).all()

    app = one_copy_each(opened("intervene", run="tiny"))

    assert "trained on no text twice" in as_read(app.error[0].value)


def test_the_policy_warns_of_the_canaries_that_it_would_repeat(run):
    app = opened("intervene", run="tiny")

    sound(actions(app).set_value("policy").run())

    assert any("up-samples" in as_read(w.value) for w in app.warning)


def test_a_measurement_under_way_shows_what_it_has_so_far(run):
    app = with_hotspots(run)
    (plan_dir,) = run.files.plans.iterdir()
    some = [arm for arm in ARMS if arm["seed"] == 0]
    partial = {"arms": some, "effects": effects_of(some), "finished": len(some), "wanted": len(ARMS)}
    write_json(light.measurement_dir(run, plan_dir) / "partial.json", partial)

    sound(app.run())

    assert f"So far: {len(some)} of {len(ARMS)} retrains" in words(app)
    assert "Too little for a verdict yet" in words(app)


def test_a_measurement_may_stop_early(run, monkeypatch):
    launched = []
    monkeypatch.setattr(jobs, "launch", lambda arguments, **how: launched.append(arguments))
    app = with_hotspots(run)

    labelled(app.checkbox, "Stop early").check().run()
    press(app, "Measure it")

    assert launched[0][-2:] == ["--stop-at", "0.05"]


@pytest.mark.parametrize(
    ("wish", "option"), [("With an oracle", "--oracle"), ("With membership inference", "--membership")]
)
def test_more_may_be_measured(run, monkeypatch, wish, option):
    launched = []
    monkeypatch.setattr(jobs, "launch", lambda arguments, **how: launched.append(arguments))
    app = with_hotspots(run)

    labelled(app.checkbox, wish).check().run()
    press(app, "Measure it")

    assert launched[0][-1] == option


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
    assert not any(METRICS["membership_tpr"] in alt for alt in alts)


def test_membership_is_shown_where_it_was_measured(run):
    app = with_hotspots(run)
    (plan_dir,) = run.files.plans.iterdir()
    arms = [arm | {"membership_tpr": 0.03 + arm["seed"] / 100} for arm in ARMS]
    write_json(light.measurement_dir(run, plan_dir) / "measure.json", {"arms": arms, "effects": effects_of(arms)})

    sound(app.run())

    assert any(METRICS["membership_tpr"] in c.proto.alt for c in app.get("plotly_chart"))
    (table,) = [m.value for m in app.markdown if m.value.startswith("| metric | against | difference | reading |")]
    assert f"| {METRICS['membership_tpr']} | control | +0.000 [+0.000, +0.000] | no effect shown (covers 0) |" in table


def test_retrains_of_several_devices_are_told_beside_the_verdict(run):
    app = with_hotspots(run)
    (plan_dir,) = run.files.plans.iterdir()
    arms = [arm | {"device": "cuda" if arm["arm"] == "plan" else "cpu"} for arm in ARMS]
    write_json(light.measurement_dir(run, plan_dir) / "measure.json", {"arms": arms, "effects": effects_of(arms)})

    sound(app.run())

    assert "more than one device" in words(app)


def test_the_report_can_be_taken_along_measured_or_not(run):
    app = with_hotspots(run)

    assert "Download the report" in [button.proto.label for button in app.get("download_button")]


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
    made_up_arm(arm, seed, share + (seed / 8 if arm == "control" else seed / 16))
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


def write_audits(run, **replaced):
    """Write what the audits would; `replaced` takes the place of an audit's own summary."""

    def part(k, n=16):
        return {"k": k, "n": n, "rate": k / n, "low": 0.1, "high": 0.9, "unknown": 3}

    def cut(k):
        inserted = part(k) | {"by_repeats": {"1": part(1), "8": part(k)}, "by_kind": {"template": part(k)}}
        return {"inserted": inserted, "control": part(0) | {"low": 0.0, "by_kind": {}}}

    def role(k):
        return cut(k) | {"beam": cut(k + 1), "optimal": cut(k - 2), "discoverable": cut(k - 1)}

    def spread(value):
        part = {"n": 4, "mean": value, "median": value, "low": value - 1, "high": value + 1}
        ranked = {"n": 16, "known": 12, "first": 5, "unknown": 4}
        return {
            "inserted": part | {"by_repeats": {"1": part, "8": part}},
            "control": part,
            "enumeration": {"inserted": ranked, "control": ranked},
        }

    def interval(value):
        return {"value": value, "low": value - 0.25, "high": value + 0.5}

    shares = part(3, 90) | {"discoverable": part(2, 90), "longest_tokens": {"median": 2.0, "max": 31}}
    group = {"group_id": 1, "group_size": 2, "sample_ids": [1, 2], "extracted": True}
    found = {
        "perplexity": {
            "nats_per_token": 2.5, "perplexity": 12.18, "num_tokens": 900, "num_samples": 20,
            "intervals": {"perplexity": interval(12.18), "word_perplexity": interval(2345.5), "bits_per_byte": interval(1.75)},
            "window": {"context": 64, "stride": 64, "bos": "<bos>", "predicted": "every token once"},
            "tokenizer_sha256": "abc123def456" + 52 * "0",
        },
        "extraction": {"calibration": role(11), "report": role(13)},
        "exposure": {"calibration": spread(6.25), "report": spread(3.75), "num_references": 1000},
        "natural": {"k": 1, "n": 1, "rate": 1.0, "low": 0.2, "high": 1.0},
        "verbatim": shares | {"by_group_size": {"1": shares, "5+": shares}, "by_prefix": {"8": part(1, 90), "16": part(3, 90)}},
        "membership": {"num_members": 100, "num_nonmembers": 20, "left_out": {"empty": 7}, "attacks": ATTACKS},
        "tokens": {"num_samples": 300, "num_tokens": 3000},
    }  # fmt: skip
    recited = {"extracted": True, "longest_tokens": 31, "longest_chars": 90, "group_size": 1, "log_p": -2.0}
    items = {
        "extraction": [
            {"canary_id": c, "kind": "template", "role": r, "repeats": 1, "inserted": True, "extracted": False, "extracted_beam": True,
             "optimal": None, "samples_needed": 12.0} for c, r in ((0, "calibration"), (1, "report"))
        ],
        "exposure": [
            {"canary_id": c, "kind": "template", "role": r, "repeats": 1, "inserted": True, "exposure": 9.97, "reading": ">= 9.97",
             "exposure_enumeration": 19.93, "exposure_extrapolated": None, "rank_exact": 1}
            for c, r in ((0, "calibration"), (1, "report"))
        ],
        "natural": [group | {"prefix": "<b>river</b>", "expected": "stone", "decoded": "stone"}],
        "verbatim": [recited | {"sample_id": 0, "samples_needed": None, "k_extractable": 8}],
    }  # fmt: skip
    for name in AUDITS:
        audit = {
            "name": name,
            "definition": f"how {name} is counted",
            "summary": replaced.get(name, found.get(name, {})),
        }
        write_json(run.files.audits / f"{name}.json", audit | {"per_item": items.get(name, [])})


def attack(value, low, high, *, flag=None):
    nothing = {"value": None, "low": None, "high": None, "note": "too few"}
    rate = {"value": 0.0625, "low": 0.01, "high": 0.1, "note": None}
    auc = {"value": value, "low": low, "high": high, "note": None}
    rates = {"tpr_at_fpr_0.01": rate, "tpr_at_fpr_0.001": nothing}
    return {"status": "run", "auc": auc, **rates, "flag": flag, "note": None}


ATTACKS = {
    "loss": attack(0.625, 0.55, 0.7),
    "zlib": attack(0.375, 0.3, 0.45, flag="below_chance"),
    "lira": {"status": "not run", "command": "python -m carto_core probe RUN folds"},
}


def frame(app, column):
    """The first table that has a column."""
    return next(d.value for d in app.dataframe if column in d.value.columns)


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

    shown = ("extraction", "exposure", "natural", "verbatim", "membership")
    assert all(f"how {name} is counted" in said for name in shown)


def test_perplexity_is_said_per_token_word_and_byte_with_window_and_tokenizer(run):
    write_audits(run)
    app = opened("audit", run="tiny")

    values = {m.label: m.value for m in app.metric}
    assert values["Perplexity a token"] == "12.18"
    assert values["Perplexity a word"] in ("2,345", "2,346")
    assert values["Bits per byte"] == "1.75"
    assert "95 % interval 1.5 to 2.25" in words(app)
    assert "windows of 64 tokens" in words(app)
    assert "abc123def456" in words(app)


def test_an_older_audit_without_searches_and_intervals_is_still_read(run):
    part = {"k": 4, "n": 16, "rate": 0.25, "low": 0.1, "high": 0.5}
    cut = {"inserted": part | {"by_repeats": {"8": part}}, "control": part}
    spread = {"n": 4, "mean": 1.0, "median": 1.0, "low": 0.5, "high": 2.0}
    exposed = {"inserted": spread | {"by_repeats": {"8": spread}}, "control": spread}
    write_audits(
        run,
        perplexity={"nats_per_token": 2.5, "perplexity": 12.18, "num_tokens": 900, "num_samples": 20},
        extraction={"calibration": cut, "report": cut},
        exposure={"calibration": exposed, "report": exposed, "num_references": 1000},
    )

    app = opened("audit", run="tiny")

    assert "4 of 16" in words(app)
    assert "audit again" in words(app)


def test_every_way_of_asking_for_a_secret_stands_beside_greedy_decoding(run):
    write_audits(run)
    app = opened("audit", run="tiny")

    said = words(app)
    assert "beam search: **12 of 16**" in said
    assert "optimal search: **9 of 16**, never-inserted 0 of 16; 3 unknown, counted as not" in said
    assert "100 samples: **10 of 16**" in said
    assert "**5 of 12** rank first; 4 of 16 could not be counted" in said
    series = [json.loads(c.proto.spec)["data"] for c in app.get("plotly_chart") if "by kind" in c.proto.alt]
    assert [trace["name"] for trace in series[0]] == ["greedy", "beam search", "optimal search", "100 samples"]


def test_every_canary_is_listed_with_its_answers_and_only_of_the_half_that_may_be_seen(run):
    write_audits(run)
    secrets = run.canaries().set_index("canary_id")["secret"]
    app = opened("audit", run="tiny")

    listed = frame(app, "rank among all")
    first = listed[listed["secret"] == secrets[0]].iloc[0]
    assert (first["greedy"], first["beam"], first["optimal"]) == ("no", "yes", "unknown")
    assert (first["exposure, sampled (bits)"], first["exposure, counted"]) == (">= 9.97", "19.93")
    assert set(listed["role"]) == {"calibration"}

    update_manifest(run.files, report_seen=True)
    sound(app.run())

    assert set(frame(app, "rank among all")["role"]) == {"calibration", "report"}


def test_recited_texts_are_read_from_the_store_and_shown_as_they_are(run):
    write_audits(run)
    app = opened("audit", run="tiny")

    top = frame(app, "longest run (tokens)").iloc[0]
    assert top["text"] == tiny.NASTY
    assert top["samples needed"] == "–"
    assert "**3 of 90** distinct texts are recited" in words(app)
    assert "**31 tokens**" in words(app)


def test_membership_attacks_are_never_flipped_and_what_was_not_run_says_how(run):
    write_audits(run)
    app = opened("audit", run="tiny")

    rows = frame(app, "attack").set_index("attack")
    assert rows.loc["Loss", "AUC [95 %]"] == "0.625 [0.550, 0.700]"
    assert rows.loc["Loss", "reading"] == "above chance"
    assert rows.loc["Loss", "TPR at 1 % FPR"] == "0.062 [0.010, 0.100]"
    assert rows.loc["Loss", "TPR at 0.1 % FPR"] == "too few"
    assert rows.loc["Loss per compressed byte", "AUC [95 %]"] == "0.375 [0.300, 0.450]"
    assert "below chance" in rows.loc["Loss per compressed byte", "reading"]
    assert "python -m carto_core probe tiny folds" in rows.loc["LiRA, offline", "reading"]
    assert "**100** members against **20**" in words(app)
    assert "7 empty" in words(app)


# The detectors


def with_quality(run, page="map"):
    app = opened(page, run=run.run_id)
    app.session_state["quality_open"] = True
    return sound(app.run())


def choose(app, label, value):
    return sound(labelled(app.get("button_group"), label).set_value(value).run())


def test_every_score_is_judged_and_what_was_not_run_says_how(run):
    app = with_quality(run)

    rows = frame(app, "average precision").set_index("score")
    assert len(rows) == len(light.SCORES)
    quality = light.quality(run)["consolidation"]
    assert rows.loc["Consolidation", "AUC [95 %]"].startswith(f"{quality.auc.value:.2f} [")
    assert rows.loc["Consolidation", "reading"] == quality.note
    assert "too few" in rows.loc["Consolidation", "reading"]
    assert rows.loc["Min-K%", "reading"] == "not run; python -m carto_core probe tiny passes"
    assert "Length (baseline)" in rows.index


def test_a_run_with_a_twin_is_judged_by_what_it_gives_back(probed):
    app = with_quality(probed)

    assert "**Consolidation** tells extracted samples" in words(app)
    options = labelled(app.get("button_group"), "Truth").options
    assert [o.content if hasattr(o, "content") else o for o in options] == [label.title for label in LABELS.values()]
    assert light.recommended(probed).reason in words(app)


@pytest.mark.parametrize("label", list(LABELS))
def test_every_truth_can_be_chosen(probed, label):
    app = choose(with_quality(probed), "Truth", label)

    expected = light.quality(probed, label=label)["held_out_gap"].auc.value
    rows = frame(app, "average precision").set_index("score")
    assert rows.loc["Held-out gap", "AUC [95 %]"].startswith(f"{expected:.2f} [")


@pytest.mark.parametrize("part", ["once", "natural", "kind words", "repeats 8"])
def test_every_part_can_be_chosen_and_an_empty_one_says_so(probed, part):
    app = choose(with_quality(probed), "Part", part)

    expected = light.quality(probed, part=part)["held_out_gap"]
    rows = frame(app, "average precision").set_index("score")
    if expected.is_known:
        assert rows.loc["Held-out gap", "AUC [95 %]"].startswith(f"{expected.auc.value:.2f} [")
    else:
        assert "Nothing to compare" in words(app)


def test_the_report_half_of_the_detectors_is_hidden_until_somebody_asks(probed):
    app = with_quality(probed)
    assert len(labelled(app.get("button_group"), "Half").options) == 1

    update_manifest(probed.files, report_seen=True)
    choose(sound(app.run()), "Half", "report")

    expected = light.quality(probed, "report")["held_out_gap"].auc.value
    rows = frame(app, "average precision").set_index("score")
    assert rows.loc["Held-out gap", "AUC [95 %]"].startswith(f"{expected:.2f} [")


def test_fold_models_show_rank_correlations_and_their_ceiling(probed):
    app = with_quality(probed)

    assert "noise ceiling 0.87 in loss, or 0.82 in token accuracy" in words(app)
    rows = frame(app, "Spearman, in loss").set_index("score")
    assert rows.loc["Held-out gap", "Spearman, in loss"].startswith("+")
    assert rows.loc["Held-out gap", "in accuracy"] == rows.loc["Held-out gap", "Spearman, in loss"], "tanh keeps ranks"


def test_the_chart_of_the_detectors_is_sorted_and_names_the_best(probed):
    app = with_quality(probed)

    (found,) = [c.proto for c in app.get("plotly_chart") if "AUC of" in c.proto.alt]
    known = {n: q.auc.value for n, q in light.quality(probed).items() if q.is_known}
    best = light.SCORES[max(known, key=known.get)].title
    ticks = json.loads(found.spec)["layout"]["yaxis"]["ticktext"]
    assert ticks[-1] == best
    assert f"the highest is {best}" in found.alt


def test_the_scores_are_judged_before_an_intervention_is_offered(run):
    app = opened("intervene", run="tiny")

    said = [str(element.value) for element in (*app.markdown, *app.subheader)]
    assert any("**Consolidation** tells inserted samples" in text for text in said)


def test_a_button_runs_the_missing_probes_as_a_job_and_says_first_what_they_cost(run, monkeypatch):
    started = []
    monkeypatch.setattr(jobs, "launch", lambda arguments, **facts: started.append((arguments, facts)))
    app = with_quality(run)
    costs = frame(app, "takes").set_index("probe")
    assert costs.loc["Near duplicates", "takes"] == "seconds"
    assert costs.loc["Fold models", "state"] == "not run"
    sound(labelled(app.multiselect, "Probes").set_value(["twin", "folds"]).run())
    sound(labelled(app.number_input, "Fold models").set_value(4).run())

    press(app, "Run 2 probes (")

    ((arguments, facts),) = started
    assert arguments == ["probe", str(run.files.path), "twin", "folds", "--models", "4"]
    assert (facts["kind"], facts["result"]) == ("probe", run.files.probes)


def test_a_probe_under_way_is_watched_and_can_be_cancelled(run, runs_root, sleeper):
    probes = run.files.probes
    job = registered(runs_root, run, sleeper, kind="probe", result=probes, progress=probes / "progress.jsonl")
    append_progress(Path(job.progress), stage="training fold models", done=1, total=4, rate=0.5, eta_s=6.0)
    app = with_quality(run)
    assert any("training fold models" in str(p.proto.text) for p in app.get("progress"))

    sound(button(app, "Cancel").click().run())
    sleeper.wait(timeout=10)

    assert jobs.state_of(job) == "cancelled"


def test_a_star_says_which_kind_of_canary_it_is(run):
    spec = json.loads(chart(opened("map", run="tiny")).proto.spec)

    said = next(t for t in spec["data"] if t.get("customdata"))["customdata"]
    assert any("planted canary" in str(text) and ", template" in str(text) for text in said)


def test_a_rescore_can_leave_the_axis_to_the_recommendation(probed):
    app = opened("map", run="probed")
    labelled(app.radio, "Memorization axis of the run").set_value("recommended")
    labelled(app.number_input, "Hysteresis").set_value(0.25)

    press(app, "Rescore")

    saved = light.score_config(probed)
    assert (saved.y, saved.hysteresis) == (None, 0.25)
    assert labelled(app.selectbox, "Memorization axis (y)").value == light.recommended(probed).score


# Whom a plan hits


def test_a_plan_says_what_it_takes_from_every_group(run):
    app = opened("map", run="tiny")
    labelled(app.number_input, "Top share").set_value(20.0)
    turned(press(app, "Choose the top"), "intervene")

    rows = frame(app, "groups by")
    table = light.load_table(run)
    chosen = light.select(run, {"type": "top", "by": "consolidation", "q": 0.2}).sample_ids
    mine = (table.source == "quotes") & ~table.is_canary
    row = rows[(rows["groups by"] == "source") & (rows["group"] == "quotes")].iloc[0]
    assert row["rows"] == mine.sum()
    assert row["changed"] == mine[chosen].sum()
    assert set(rows["groups by"]) == {"source", "length", "year", "author"}
    assert "1990" in set(rows["group"])


def test_a_group_that_would_nearly_vanish_is_flagged_and_can_be_protected(run):
    app = opened("map", run="tiny")
    sound(labelled(app.multiselect, "Sources").set_value(["quotes"]).run())
    sound(labelled(app.checkbox, "Restrict").check().run())
    turned(app, "intervene")
    assert any("groups would go" in w.value for w in app.warning)
    assert "source quotes" in words(app)
    before = int(labelled(app.metric, "Samples changed").value)

    sound(labelled(app.toggle, "Protect groups").set_value(True).run())

    assert int(labelled(app.metric, "Samples changed").value) < before
    assert "Quotas let" in words(app)


def test_near_copies_that_would_remain_are_listed(probed):
    app = opened("map", run="probed")
    sound(labelled(app.text_input, "Search").set_value(probed.texts([50])[0]).run())
    sound(labelled(app.checkbox, "Restrict").check().run())

    turned(app, "intervene")

    left = frame(app, "remaining text")
    assert light.load_table(probed).key[51] in set(left["key"])
    assert any("near copies would remain" in w.value for w in app.warning)


def test_unknown_near_copies_say_what_to_run(run):
    assert "python -m carto_core probe tiny near_duplicates" in words(with_hotspots(run))


# The evidence


def arm_facts(seed, k):
    counts = {"k": k, "n": 20}
    return {"seed": seed, "extraction": {"report": counts}, "natural_extraction": counts, "ppl_nats": 3.0}


def effect_facts(metric, against, low, high):
    middle = (low + high) / 2
    percents = {"estimate_percent": 1.5, "low_percent": -0.5, "high_percent": 3.5} if metric == "ppl_nats" else {}
    return {"metric": metric, "against": against, "estimate": middle, "low": low, "high": high, "p": 0.25, **percents}


def table_line(policy, score, low, high):
    arms = {a: [arm_facts(s, k) for s in (0, 1, 2)] for a, k in (("plan", 5), ("control", 10), ("baseline", 20))}
    effects = [effect_facts("extraction.report", a, low, high) for a in ("control", "baseline")]
    effects += [effect_facts("ppl_nats", a, -0.01, 0.03) for a in ("control", "baseline")]
    facts = {"policy": policy, "score": score, "share": 0.10, "equal": "steps", "num_affected": 123, "seeds": [0, 1, 2]}
    facts |= {"num_canary_rows": 45, "num_recited_rows": 100}
    return facts | {"arms": arms, "effects": effects}


def write_evidence(**files):
    for name, corpora in files.items():
        write_json(evidence.RESULTS / f"{name}.json", {"version": 1, "corpora": corpora})


def test_without_results_the_evidence_says_what_makes_them(runs_root):
    said = words(opened("evidence"))

    assert "python -m benchmarks.paper_table" in said
    assert "python -m benchmarks.detectors" in said
    assert "more than 40 % less canary extraction" in said


def test_measured_effects_stand_beside_the_papers_claims(runs_root):
    lines = [
        table_line("recommended", "min_k", -0.5, -0.1),
        table_line("memorization", "memorization", -0.2, 0.2),
        table_line("oracle", "", 0.1, 0.3),
    ]
    facts = {"num_samples": 1000, "device": "cpu", "lines": lines, "recommended": {"reason": "Because it does."}}
    write_evidence(paper_table={"demo": facts})

    app = opened("evidence")

    said = words(app)
    assert "lower extraction more than the random control does: **recommended score**." in said
    assert "Not shown to differ from the control: **memorization, the paper's literal score**." in said
    assert "Shown to raise it against the control: **an oracle that knows the secrets**." in said
    assert "recommended (Min-K%) 10%: extraction **-75%** against unchanged" in said
    assert "+1.5 % [-0.5, +3.5]" in said
    assert "of what the oracle takes away" not in said, "this one takes nothing away"
    assert "3 seeds" in said
    row = frame(app, "chosen by").iloc[0]
    assert (row["extraction: plan"], row["control"], row["unchanged"]) == ("0.25", "0.50", "1.00")
    assert (row["plan - control [95 %]"], row["p"]) == ("-0.30 [-0.50, -0.10]", "0.250")
    (found,) = app.get("plotly_chart")
    assert "on demo, 3 lines" in found.proto.alt


def test_a_plan_stands_beside_the_oracle_of_its_share(runs_root):
    lines = [table_line("recommended", "min_k", -0.2, -0.1), table_line("oracle", "", -0.4, -0.2)]
    other = table_line("oracle", "", -0.9, -0.8) | {"share": 0.05}
    write_evidence(paper_table={"demo": {"num_samples": 10, "device": "cpu", "lines": [other, *lines]}})

    said = words(opened("evidence"))

    assert "recommended (Min-K%) 10%: **50%** of what the oracle takes away" in said
    assert "Of its 123 rows a twin model recites 100; 45 are canary copies" in said


def test_corpora_stand_beside_each_other_and_one_is_told_in_detail(runs_root):
    ours, theirs = table_line("recommended", "min_k", -0.5, -0.1), table_line("memorization", "memorization", -0.2, 0.2)
    fifth, equal_epochs = theirs | {"share": 0.05}, ours | {"equal": "epochs"}
    write_evidence(
        paper_table={
            "demo": {"num_samples": 1000, "device": "cpu", "lines": [ours, theirs, equal_epochs]},
            "mail": {"num_samples": 2000, "device": "cpu", "lines": [ours, fifth]},
        }
    )

    app = opened("evidence")

    (found,) = app.get("plotly_chart")
    assert "on demo, mail, 3 lines" in found.proto.alt
    assert "does: **recommended score** (demo, mail)." in words(app)
    assert "1,000 samples" in words(app)
    choose(app, "Corpus in detail", "mail")
    assert "2,000 samples" in words(app)
    choose(app, "What is cut", "shares")
    assert "5%" in str(labelled(app.get("button_group"), "What is cut").options)
    assert (
        "on mail, 1 lines; the lowest is memorization, the paper's literal score 5%"
        in app.get("plotly_chart")[0].proto.alt
    )
    choose(app, "What is cut", "epochs")
    assert set(frame(app, "chosen by")["equal"]) == {"epochs"}


def test_half_weights_stand_beside_with_membership(runs_root):
    line = table_line("half_hotspots", "min_k", -0.5, -0.1) | {"share": None}
    for arm, auc in (("plan", 0.512), ("control", 0.534), ("baseline", 0.534)):
        for facts in line["arms"][arm]:
            facts["membership_auc"] = auc
    line["effects"].append(effect_facts("membership_auc", "control", -0.03, -0.01))
    facts = {"num_samples": 1000, "device": "cpu", "lines": [line], "config": base_config("demo", chars=1).to_dict()}
    write_evidence(half_weight={"demo": facts})

    app = opened("evidence")

    row = frame(app, "chosen by").iloc[0]
    assert (row["chosen by"], row["rows changed"]) == ("hotspots by the recommended score", "123")
    assert (row["membership AUC: plan"], row["control (AUC)"]) == ("0.512", "0.534")
    assert row["plan - control (AUC) [95 %]"] == "-0.020 [-0.030, -0.010]"
    assert "LSTM language model, 1 x 128; 1,000 samples" in words(app)
    assert "3 seeds a line, with which p is at least 0.250." in words(app)
    assert "python -m benchmarks.paper_table --experiments 1" in words(app), "the other experiment is still to be made"


def test_unknown_effects_are_said_to_be_unknown(runs_root):
    line = table_line("recommended", "min_k", -0.5, -0.1)
    line["effects"][0] |= dict.fromkeys(("estimate", "low", "high", "p"))
    write_evidence(paper_table={"demo": {"num_samples": 10, "device": "cpu", "lines": [line]}})

    app = opened("evidence")

    assert frame(app, "chosen by").iloc[0]["plan - control [95 %]"] == "unknown"


def test_detectors_are_compared_over_corpora(probed):
    update_manifest(probed.files, report_seen=True)
    folds = light.fold_facts(probed)
    facts = {"scores": light.describe_scores(probed), "folds": folds, "recommended": {"reason": "Because it does."}}
    facts["scores"]["rises"]["self_influence"] = {"among_all": {"value": 0.25, "low": 0.1, "high": 0.4}}
    write_evidence(detectors={"demo": facts, "mail": facts | {"scores": {}}})

    app = opened("evidence")

    truths = labelled(app.get("button_group"), "Against").options
    tables = [choose(app, "Against", truth).dataframe[0].value.set_index("score") for truth in truths]
    auc, spearman, _, influence = tables
    expected = light.quality(probed, "report", label="extracted")["held_out_gap"].auc.value
    assert auc.loc["Held-out gap", "demo"].startswith(f"{expected:.2f} [")
    assert auc.loc["Held-out gap", "mail"] == "–"
    assert spearman.loc["Held-out gap", "demo"].startswith("+")
    assert influence.loc["Rises above own best", "demo"] == "+0.25 [+0.10, +0.40]"
    assert "noise ceiling 0.87" in words(app)


def test_damaged_results_are_one_sentence(runs_root):
    evidence.RESULTS.mkdir()
    (evidence.RESULTS / "paper_table.json").write_text("{")

    app = opened("evidence")

    assert "python -m benchmarks.paper_table" in as_read(app.error[0].value)


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
