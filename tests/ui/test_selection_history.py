"""Selections that are combined, undone, saved and loaded on the map; plans that are listed and looked at again."""

import json

import numpy as np
import pytest

from carto_core.config import ScoreConfig
from carto_core.preview.effects import effects_of
from carto_core.quadrants import QUADRANTS
from carto_core.rules import combine
from carto_core.selection import inside, simplify_polygon
from carto_core.store.rundir import write_json
from carto_core.ui import state
from carto_core.ui.history import MAX_STEPS, History
from carto_core.ui.shortcuts import SHORTCUTS
from carto_core.ui.state import View
from carto_core.workflows import light, lineage, saved
from tests import tiny
from tests.ui import test_pages as pages
from tests.ui.test_pages import (
    actions,
    address_of,
    as_read,
    button,
    chart,
    drag,
    labelled,
    opened,
    press,
    sound,
    status,
    turned,
    words,
)

run, runs_root = pages.run, pages.runs_root  # fixtures
LEFT = simplify_polygon([[1.6, 0.1], [3.6, 0.1], [3.6, 1.6], [1.6, 1.6]])
RIGHT = simplify_polygon([[2.6, 0.1], [5.2, 0.1], [5.2, 1.6], [2.6, 1.6]])
OTHER = simplify_polygon([[2.0, 0.2], [3.0, 0.2], [3.0, 1.2]])


def members(run, *polygons):
    table = light.load_table(run)
    return set(
        np.flatnonzero(inside(table.scores["difficulty"], table.scores["consolidation"], list(polygons))).tolist()
    )


def in_mode(app, name):
    control = next(g for g in app.get("button_group") if "Subtract" in str(g.options))
    return sound(control.set_value(name).run())


def count(app):
    said = status(app)
    return 0 if "Nothing selected" in said else int(said.split(": ")[1].split(" of ")[0].replace(",", ""))


def outlines(app):
    return len(json.loads(chart(app).proto.spec)["layout"].get("selections", []))


def rule_of(app):
    return app.session_state["carto_view"].selection_rule()


def polygon(*polygons):
    return {"type": "polygon", "x": "difficulty", "y": "consolidation", "polygons": list(polygons)}


# The next selection and the present one


@pytest.mark.parametrize("op", ["subtract", "intersect"])
def test_a_lasso_is_combined_with_the_present_selection(run, op):
    app = drag(opened("map", run="tiny"), lasso=[LEFT])
    in_mode(app, op)

    drag(app, lasso=[RIGHT])

    one, two = members(run, LEFT), members(run, RIGHT)
    expected = {"subtract": one - two, "intersect": one & two}[op]
    assert 0 < len(expected) < len(one)
    assert count(app) == len(expected)
    assert rule_of(app) == combine(op, polygon(LEFT), polygon(RIGHT))
    assert f"{op.replace('intersect', 'intersected with').replace('subtract', 'minus')} an outline" in words(app)


def test_an_added_lasso_stays_an_outline_beside_the_first(run):
    app = in_mode(drag(opened("map", run="tiny"), lasso=[LEFT]), "add")

    drag(app, lasso=[RIGHT])

    assert rule_of(app) == polygon(LEFT, RIGHT)
    assert count(app) == len(members(run, LEFT) | members(run, RIGHT))
    assert outlines(app) == 2


def test_with_shift_the_old_outlines_are_not_subtracted_from_themselves(run):
    app = in_mode(drag(opened("map", run="tiny"), lasso=[LEFT]), "subtract")

    drag(app, lasso=[LEFT, RIGHT])

    assert count(app) == len(members(run, LEFT) - members(run, RIGHT)) > 0


def test_a_third_lasso_goes_on_from_the_combination(run):
    app = in_mode(drag(opened("map", run="tiny"), lasso=[LEFT]), "subtract")
    drag(app, lasso=[RIGHT])
    in_mode(app, "add")

    drag(app, lasso=[OTHER])

    assert count(app) == len((members(run, LEFT) - members(run, RIGHT)) | members(run, OTHER))


@pytest.mark.parametrize("mode", ["add", "subtract", "intersect"])
def test_where_nothing_is_selected_any_mode_takes_the_selection_as_it_is(run, mode):
    app = drag(in_mode(opened("map", run="tiny"), mode), lasso=[LEFT])

    assert rule_of(app) == polygon(LEFT)
    assert count(app) == len(members(run, LEFT))


@pytest.mark.parametrize("mode", ["replace", "add", "subtract", "intersect"])
def test_a_double_click_clears_in_every_mode(run, mode):
    app = in_mode(drag(opened("map", run="tiny"), lasso=[LEFT]), mode)

    drag(app)

    assert "Nothing selected" in status(app)


@pytest.mark.parametrize("mode", ["add", "subtract", "intersect"])
def test_a_click_that_was_no_drag_leaves_a_combination_as_it_was(run, mode):
    app = in_mode(drag(opened("map", run="tiny"), lasso=[LEFT]), mode)

    drag(app, lasso=[[[2.0, 0.5]]])

    assert rule_of(app) == polygon(LEFT)
    assert outlines(app) == 1


def test_quadrants_tops_and_ranges_are_combined_too(run):
    app = press(opened("map", run="tiny"), QUADRANTS["hotspot-memorized"].title)
    hot = rule_of(app)
    in_mode(app, "subtract")
    labelled(app.number_input, "Top share").set_value(5.0)

    press(app, "Choose the top")

    top = {"type": "top", "by": "consolidation", "q": 0.05}
    assert rule_of(app) == combine("subtract", hot, top)
    assert count(app) == len(light.select(run, combine("subtract", hot, top)).sample_ids) > 0


def test_the_hits_alone_are_what_a_lasso_is_subtracted_from(run):
    app = opened("map", run="tiny")
    sound(labelled(app.text_input, "Search").set_value("river").run())
    sound(labelled(app.checkbox, "Restrict").check().run())
    in_mode(app, "subtract")

    drag(app, lasso=[LEFT])

    assert count(app) == len(set(light.search(run, "river").tolist()) - members(run, LEFT)) > 0


def test_copies_and_hits_go_on_to_hold_for_the_combination(run):
    app = drag(opened("map", run="tiny"), lasso=[LEFT])
    sound(labelled(app.checkbox, "All copies").check().run())
    in_mode(app, "subtract")

    drag(app, lasso=[RIGHT])

    expected = {"type": "duplicates_of", "rule": combine("subtract", polygon(LEFT), polygon(RIGHT))}
    assert rule_of(app) == expected


def test_a_combination_that_would_be_too_deep_leaves_the_selection_and_says_so(run):
    app = drag(opened("map", run="tiny"), lasso=[LEFT])
    for turn in range(20):
        in_mode(app, ("subtract", "intersect")[turn % 2])
        drag(app, lasso=[OTHER if turn % 2 else RIGHT])
        if any("levels deep" in w.value for w in app.warning):
            break

    assert turn == 17
    assert "stays as it was" in as_read(app.warning[0].value)
    assert rule_of(app)["type"] == "combined"
    assert not app.error


def test_a_link_restores_a_combination(run):
    app = in_mode(drag(opened("map", run="tiny"), lasso=[LEFT]), "subtract")
    drag(app, lasso=[RIGHT])

    other = opened("map", **address_of(app))

    assert rule_of(other) == rule_of(app)
    assert count(other) == count(app) > 0
    assert button(other, "Undo").disabled


def test_a_combination_becomes_a_plan_and_its_rule_stands_in_the_manifest(run, tmp_path):
    app = in_mode(drag(opened("map", run="tiny"), lasso=[LEFT]), "subtract")
    drag(app, lasso=[RIGHT])
    number = count(app)

    turned(app, "intervene")

    assert labelled(app.metric, "Samples changed").value == f"{number:,}"
    (plan_dir,) = run.files.plans.iterdir()
    path = light.export(run, plan_dir, file_format="jsonl", out=tmp_path / "list.jsonl")
    manifest = json.loads(path.with_name("list.jsonl.manifest.json").read_text())
    assert manifest["rule"] == combine("subtract", polygon(LEFT), polygon(RIGHT))
    assert light.select(run, manifest["rule"]).sample_ids.size == manifest["num_rows"] == number


def test_a_selection_too_long_for_a_link_stays_out_of_it_and_is_told(run, monkeypatch):
    app = drag(opened("map", run="tiny"), lasso=[LEFT])
    monkeypatch.setattr(state, "MAX_LINK", 60)

    sound(labelled(app.text_input, "Search").set_value("a").run())

    assert "too long for a link" in words(app)
    assert rule_of(app) == polygon(LEFT)
    other = opened("map", **address_of(app))
    assert "Nothing selected" in status(other)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"region":' * 5000 + "1" + "}" * 5000])
def test_a_link_nested_without_end_is_no_crash(run, text):
    import base64
    import zlib

    packed = base64.urlsafe_b64encode(zlib.compress(text.encode())).decode().rstrip("=")

    app = opened("map", run="tiny", view=packed)

    assert "could not be read" in words(app)


# Undo and redo


def test_steps_are_undone_and_redone_and_described(run):
    app = opened("map", run="tiny")
    assert button(app, "Undo").disabled
    assert button(app, "Redo").disabled
    drag(app, lasso=[LEFT])
    assert button(app, "Undo").proto.help == "Back to: nothing selected"
    press(app, QUADRANTS["stable-easy"].title)
    assert button(app, "Undo").proto.help == "Back to: an outline on Difficulty and Consolidation"

    press(app, "Undo")
    assert rule_of(app) == polygon(LEFT)
    assert outlines(app) == 1
    assert button(app, "Redo").proto.help == r"Forward to: quadrant Stable\-Easy"
    press(app, "Undo")
    assert "Nothing selected" in status(app)
    assert button(app, "Undo").disabled
    press(app, "Redo")
    press(app, "Redo")

    assert rule_of(app)["name"] == "stable-easy"
    assert button(app, "Redo").disabled


def test_a_new_step_forgets_what_had_been_undone(run):
    app = drag(opened("map", run="tiny"), lasso=[LEFT])
    press(app, QUADRANTS["stable-easy"].title)
    press(app, "Undo")

    drag(app, lasso=[RIGHT])

    assert button(app, "Redo").disabled
    press(app, "Undo")
    assert rule_of(app) == polygon(LEFT)


def test_clearing_by_button_or_double_click_can_be_undone(run):
    app = drag(opened("map", run="tiny"), lasso=[LEFT])
    sound(labelled(app.checkbox, "All copies").check().run())
    kept = rule_of(app)

    drag(app)
    assert "Nothing selected" in status(app)
    press(app, "Undo")
    assert rule_of(app) == kept
    press(app, "Clear selection")
    assert "Nothing selected" in status(app)
    press(app, "Undo")

    assert rule_of(app) == kept
    assert labelled(app.checkbox, "All copies").value is True


def test_an_undone_change_of_axis_brings_the_outlines_and_their_axes_back(run):
    app = drag(opened("map", run="tiny"), lasso=[LEFT])
    sound(labelled(app.selectbox, "Across").set_value("lt_iqr").run())
    assert "Nothing selected" in status(app)

    press(app, "Undo")

    assert labelled(app.selectbox, "Across").value == "difficulty"
    assert count(app) == len(members(run, LEFT))


def test_undo_leaves_search_and_colour_alone_unless_the_selection_rests_on_them(run):
    app = opened("map", run="tiny")
    drag(app, lasso=[LEFT])
    sound(labelled(app.text_input, "Search").set_value("river").run())
    sound(labelled(app.selectbox, "Colour").set_value("source").run())
    press(app, "Undo")
    assert labelled(app.text_input, "Search").value == "river"
    assert labelled(app.selectbox, "Colour").value == "source"
    press(app, "Redo")

    sound(labelled(app.checkbox, "Restrict").check().run())
    restricted = count(app)
    sound(labelled(app.text_input, "Search").set_value("stone").run())
    press(app, "Undo")

    assert labelled(app.text_input, "Search").value == "river"
    assert count(app) == restricted


def test_looking_around_is_no_step(run):
    app = drag(opened("map", run="tiny"), lasso=[LEFT])
    sound(labelled(app.text_input, "Search").set_value("river").run())
    sound(labelled(app.slider, "Cut of Difficulty").set_value(60.0).run())
    press(app, "Zoom to selection")
    turned(app, "samples")
    turned(app, "map")

    press(app, "Undo")

    assert "Nothing selected" in status(app)
    assert button(app, "Undo").disabled


def test_another_run_begins_a_history_of_its_own(run, runs_root):
    tiny.make_run(runs_root / "second", num_samples=150, seed=1)
    app = drag(opened("map", run="tiny"), lasso=[LEFT])

    sound(labelled(app.selectbox, "Run").set_value("second").run())

    assert button(app, "Undo").disabled


def test_the_corpus_own_words_are_no_markup_in_a_tooltip(run):
    app = opened("map", run="tiny")
    sound(labelled(app.text_input, "Search").set_value("**a** [b](http://c) <script>").run())
    sound(labelled(app.checkbox, "Restrict").check().run())
    press(app, QUADRANTS["stable-easy"].title)

    said = button(app, "Undo").proto.help

    assert r"\*\*a\*\* \[b\]\(http\://c\) \<script\>" in said


def test_a_history_keeps_fifty_steps_and_goes_no_further():
    history = History(("start",))
    for step in range(60):
        history = history.stepped(step)

    assert (MAX_STEPS, len(history.states), history.states[0]) == (50, 51, 9)
    assert history.moved(-1).next == 59
    assert history.moved(-1000).previous is None
    assert history.moved(-1000).states[history.moved(-1000).place] == 9
    assert history.moved(5) == history
    assert history.moved(-2).stepped("new").states[-2:] == (57, "new")


# Saved selections


def saving(app, name):
    labelled(app.text_input, "Save this selection as").set_value(name)
    return press(app, "Save")


def test_a_selection_is_saved_and_loaded_in_another_session(run):
    app = in_mode(drag(opened("map", run="tiny"), lasso=[LEFT]), "subtract")
    drag(app, lasso=[RIGHT])
    saving(app, "left of it")
    assert [s.name for s in saved.list_saved(run)] == ["left of it"]

    other = press(opened("map", run="tiny"), "Load")

    assert rule_of(other) == rule_of(app)
    assert count(other) == count(app)
    assert not button(other, "Undo").disabled


def test_saved_outlines_come_back_as_outlines_on_their_axes(run):
    app = drag(opened("map", run="tiny"), lasso=[LEFT, OTHER])
    saving(app, "two")
    press(app, "Clear selection")
    sound(labelled(app.selectbox, "Across").set_value("lt_iqr").run())

    press(app, "Load")

    assert labelled(app.selectbox, "Across").value == "difficulty"
    assert outlines(app) == 2
    assert count(app) == len(members(run, LEFT, OTHER))


def test_a_loaded_selection_is_combined_in_the_mode_that_is_set(run):
    app = saving(drag(opened("map", run="tiny"), lasso=[RIGHT]), "right")
    drag(app, lasso=[LEFT])
    in_mode(app, "intersect")

    press(app, "Load")

    assert count(app) == len(members(run, LEFT) & members(run, RIGHT))


def test_a_selection_with_hits_and_copies_is_loaded_whole(run):
    app = drag(opened("map", run="tiny"), lasso=[LEFT])
    sound(labelled(app.text_input, "Search").set_value("river").run())
    sound(labelled(app.checkbox, "Restrict").check().run())
    sound(labelled(app.checkbox, "All copies").check().run())
    number = count(app)
    kept = rule_of(app)
    saving(app, "river")
    other = opened("map", run="tiny")
    sound(labelled(other.text_input, "Search").set_value("stone").run())
    sound(labelled(other.checkbox, "Restrict").check().run())

    press(other, "Load")

    assert rule_of(other) == kept
    assert count(other) == number > 0
    assert labelled(other.checkbox, "Restrict").value is False


def test_saving_over_a_name_or_under_none_is_one_sentence(run):
    app = saving(drag(opened("map", run="tiny"), lasso=[LEFT]), "mine")

    saving(app, "mine")
    assert "already" in as_read(app.error[0].value)
    saving(app, "../mine")
    assert "cannot be a name" in as_read(app.error[0].value)
    saving(app, "")
    assert "at least one character" in as_read(app.error[0].value)

    assert [s.name for s in saved.list_saved(run)] == ["mine"]


def test_a_saved_selection_is_renamed_and_deleted(run):
    app = saving(drag(opened("map", run="tiny"), lasso=[LEFT]), "mine")
    sound(labelled(app.text_input, "New name").set_value("yours").run())
    press(app, "Rename")
    assert [s.name for s in saved.list_saved(run)] == ["yours"]

    press(app, "Delete it")

    assert saved.list_saved(run) == []
    assert count(app) == len(members(run, LEFT))


def test_nothing_selected_cannot_be_saved(run):
    app = opened("map", run="tiny")

    assert button(app, "Save").disabled


def test_a_saved_selection_whose_rule_now_means_others_is_loaded_by_its_keys(run):
    rule = {"type": "top", "by": "memorization", "q": 0.1}
    kept = light.select(run, rule)
    saved.save_selection(run, kept, "forgotten")
    light.score(run, ScoreConfig(x="difficulty", y="consolidation", eps_mode="absolute", eps=0.7))

    app = press(opened("map", run="tiny"), "Load")

    assert "have changed since forgotten was saved" in as_read(app.warning[0].value)
    keys = light.load_table(run).key[kept.sample_ids].tolist()
    assert rule_of(app) == {"type": "keys", "keys": keys}


def test_a_damaged_saved_selection_is_listed_and_cannot_be_loaded(run):
    run.files.selections.mkdir()
    (run.files.selections / "bad.json").write_text("{")

    app = opened("map", run="tiny")

    assert "damaged" in words(app)
    assert button(app, "Load").disabled


# Plans


def with_plan(run):
    app = press(opened("map", run="tiny"), QUADRANTS["hotspot-memorized"].title)
    return turned(app, "intervene")


def plan_rows(app):
    return next(d for d in app.dataframe if "used by" in d.value.columns)


def slider_positions(app, *positions):
    sound(actions(app).set_value("reweight").run())
    for position in positions:
        sound(labelled(app.slider, "Loss weight").set_value(position).run())
    return app


def tick(app, row):
    """Send what the browser sends after a row is ticked, so that the callback fires."""
    states = app._tree.get_widget_states()
    state = states.widgets.add()
    state.id = plan_rows(app).proto.id
    state.string_value = json.dumps({"selection": {"rows": [row], "columns": [], "cells": []}})
    return sound(app._run(states))


def test_slider_positions_are_not_listed_and_a_named_plan_is(run):
    app = slider_positions(with_plan(run), 0.1, 0.2)
    labelled(app.text_input, "Name of this plan").set_value("a fifth")
    press(app, "Name it")
    slider_positions(app, 0.3, 0.4)

    frame = plan_rows(app).value

    assert len(list(run.files.plans.iterdir())) >= 4
    assert sorted(frame["name"]) == ["", "a fifth"]
    assert frame["rule"].tolist() == ["quadrant Hotspot-Memorized"] * 2
    assert sum("(shown)" in plan for plan in frame["plan"]) == 1


def test_an_earlier_plan_is_looked_at_again_and_left_again(run):
    app = slider_positions(with_plan(run), 0.2)
    labelled(app.text_input, "Name of this plan").set_value("a fifth")
    press(app, "Name it")
    named = lineage.list_plans(run)[0]
    write_json(
        run.files.previews / named.folder.name / "measure.json", {"arms": pages.ARMS, "effects": effects_of(pages.ARMS)}
    )
    user = tiny.make_run(run.files.path.parent / "cleaned", num_samples=150, seed=1)
    tiny.as_retrain(user, "tiny", named.plan_sha256)
    sound(actions(app).set_value("prune").run())
    row = plan_rows(app).value["name"].tolist().index("a fifth")
    assert plan_rows(app).value.loc[row, ["measured", "used by"]].tolist() == ["yes", "cleaned"]
    files = {path: path.read_bytes() for path in named.folder.glob("plan.*")}

    tick(app, row)

    assert "An earlier plan" in words(app)
    assert "**a fifth** · reweight: quadrant Hotspot" in words(app).replace("\\", "")
    assert "more than a random choice of its size" in words(app)
    press(app, "Back to the present selection")
    assert "An earlier plan" not in words(app)
    assert {path: path.read_bytes() for path in named.folder.glob("plan.*")} == files


def test_another_selection_leaves_the_earlier_plan(run):
    app = with_plan(run)
    tick(app, 0)
    assert "An earlier plan" in words(app)
    turned(app, "map")

    press(app, QUADRANTS["stable-easy"].title)
    turned(app, "intervene")

    assert "An earlier plan" not in words(app)


def test_plans_are_listed_where_nothing_is_selected(run):
    table = light.load_table(run)
    light.save_plan(
        run, light.plan_action(run, light.select(run, {"type": "keys", "keys": [table.key[3]]}), action="prune")
    )

    app = opened("intervene", run="tiny")

    assert plan_rows(app).value["rule"].tolist() == ["1 listed samples"]
    assert "Choose samples on the Map first" in words(app)


def test_a_run_without_plans_says_what_makes_one_stay(run):
    assert "None yet. A plan stays here once" in words(opened("intervene", run="tiny"))


def test_a_name_that_is_taken_or_no_name_is_one_sentence(run):
    app = slider_positions(with_plan(run), 0.2)
    labelled(app.text_input, "Name of this plan").set_value("mine")
    press(app, "Name it")
    slider_positions(app, 0.3)
    labelled(app.text_input, "Name of this plan").set_value("mine")

    press(app, "Name it")

    assert "another plan" in as_read(app.error[0].value)


def test_downloading_the_list_is_noted(run):
    app = with_plan(run)
    assert plan_rows(app).value["exported"].tolist() == ["no"]
    (plan_dir,) = run.files.plans.iterdir()

    lineage.note_export(plan_dir)
    sound(app.run())

    assert plan_rows(app).value["exported"].tolist() != ["no"]


# Keys


def test_the_sheet_lists_every_key(run):
    app = opened("map", run="tiny")

    sound(button(app, "? Shortcuts").click().run())

    sheet = app.table[0].value
    assert {s.does for s in SHORTCUTS.values()} <= set(sheet["does"])


def test_keys_press_the_buttons_they_are_written_on(run):
    app = drag(opened("map", run="tiny"), lasso=[LEFT])

    keys = {b.label: b.proto.shortcut for b in app.button if b.proto.shortcut}

    assert keys["Undo"].lower() == "z"
    assert keys["Redo"].lower() == "shift+z"
    assert keys["Clear selection"].lower() == "x"
    assert len({s.keys for s in SHORTCUTS.values()}) == len(SHORTCUTS)


def test_the_next_and_the_previous_sample_are_read(run):
    app = opened("samples", run="tiny")
    table = pages.rows(app)
    keys = table.value["key"].tolist()
    app.session_state[table.key] = {"selection": {"rows": [0], "columns": [], "cells": []}}
    sound(app.run())
    assert button(app, "Previous sample").disabled

    press(app, "Next sample")
    press(app, "Next sample")
    press(app, "Previous sample")

    assert f"key: {keys[1]}" in words(app)


def test_an_empty_view_has_no_selection():
    assert View().chosen_rule() is None
    assert View(restrict=True).selection_rule() is None
