import json
import os
import time

import pytest

from carto_core.errors import DiskError, PlanError
from carto_core.export import read_plan
from carto_core.store.rundir import update_manifest, write_json
from carto_core.workflows import light, lineage
from tests.tiny import as_retrain, make_run

HOT = {"type": "top", "by": "consolidation", "q": 0.1}


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def plan_of(run, factor=0.5):
    return light.plan_action(run, light.select(run, HOT), action="reweight", factor=factor)


def draft(run, factor=0.5):
    return lineage.save_draft(run, plan_of(run, factor), light.load_table(run))


def aged(folder, seconds=2 * lineage.DRAFT_AGE_S):
    then = time.time() - seconds
    os.utime(folder / "draft", (then, then))
    return folder


def listed(run, **kwargs):
    return [record.folder for record in lineage.list_plans(run, **kwargs)]


def digest_of(folder):
    return json.loads((folder / "plan.json").read_text())["plan_sha256"]


def test_a_plan_never_changes_once_it_is_made(run):
    folder = light.save_plan(run, plan_of(run))
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    update_manifest(run.files, report_seen=True)
    keys = light.load_table(run).key[light.select(run, HOT).sample_ids].tolist()
    other_words = light.plan_action(run, light.select(run, {"type": "keys", "keys": keys}), action="reweight")

    again = light.save_plan(run, other_words)

    assert again == folder
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()} == before


@pytest.mark.parametrize("damage", ["plan.json", "plan.parquet"])
def test_a_damaged_plan_is_made_anew(run, damage):
    folder = light.save_plan(run, plan_of(run))
    (folder / damage).write_text("{")

    light.save_plan(run, plan_of(run))

    assert read_plan(folder, light.load_table(run))[0].rule == HOT


def test_a_plan_whose_rows_were_changed_is_made_anew(run):
    folder = light.save_plan(run, plan_of(run))
    other = light.save_plan(run, plan_of(run, 0.25))
    (folder / "plan.parquet").write_bytes((other / "plan.parquet").read_bytes())

    light.save_plan(run, plan_of(run))

    assert read_plan(folder, light.load_table(run))[0].weights.min() == 0.5


def test_a_draft_is_listed_only_while_it_is_shown(run):
    folder = draft(run)

    assert listed(run) == []
    assert listed(run, present=folder) == [folder]


def test_what_was_done_with_a_plan_is_told(run):
    folder = draft(run)
    lineage.name_plan(run, folder, " halve the hot ")
    lineage.note_export(folder)
    write_json(run.files.previews / folder.name / "measure.json", {})
    user = make_run(run.files.path.parent / "after", seed=1)
    as_retrain(user, run.run_id, digest_of(folder))
    stranger = make_run(run.files.path.parent / "stranger", seed=2)
    as_retrain(stranger, "another", digest_of(folder))
    (run.files.path.parent / "broken").mkdir()
    (run.files.path.parent / "broken" / "run.json").write_text("{")

    (record,) = lineage.list_plans(run)

    facts = json.loads((folder / "plan.json").read_text())
    assert (record.name, record.words, record.action) == ("halve the hot", "top 10 % by Consolidation", "reweight")
    assert (record.rule, record.created, record.num_rows) == (HOT, facts["created"], facts["num_affected"])
    assert record.plan_sha256 == facts["plan_sha256"]
    assert (record.is_measured, bool(record.exported), record.used_by) == (True, True, ("after",))
    assert "name" not in facts
    assert lineage.find_plan(run, record.plan_sha256) == record
    assert lineage.find_plan(run, "0" * 64) is None


@pytest.mark.parametrize("use", ["name", "export", "preview", "run", "command line"])
def test_a_plan_that_somebody_used_stays_and_is_listed(run, use):
    folder = aged(draft(run))
    if use == "name":
        lineage.name_plan(run, folder, "mine")
    elif use == "export":
        lineage.note_export(folder)
    elif use == "preview":
        (run.files.previews / folder.name).mkdir(parents=True)
    elif use == "run":
        user = make_run(run.files.path.parent / "after", seed=1)
        as_retrain(user, run.run_id, digest_of(folder))
    else:
        light.save_plan(run, plan_of(run))

    draft(run, 0.25)

    assert folder.is_dir()
    assert listed(run) == [folder]


def test_old_drafts_go_when_another_is_made_and_young_ones_stay(run):
    old, young = aged(draft(run, 0.1)), draft(run, 0.2)

    present = draft(run, 0.3)

    assert set(run.files.plans.iterdir()) == {young, present}
    assert not old.exists()


def test_the_plan_in_view_is_no_old_draft(run):
    folder = aged(draft(run))

    assert draft(run) == folder
    assert lineage.drop_drafts(run, keep=run.files.plans / "another") == []
    assert lineage.drop_drafts(run, keep=folder, age_s=0.0) == []
    assert lineage.drop_drafts(run, keep=run.files.plans / "another", age_s=0.0) == [folder]


def test_a_draft_that_cannot_be_read_is_left_alone_and_not_listed(run):
    folder = aged(draft(run))
    (folder / "plan.json").write_text("{")

    assert listed(run, present=folder) == []
    assert lineage.drop_drafts(run, keep=run.files.plans / "another") == []


def test_a_list_taken_from_a_run_that_cannot_be_written_is_taken_and_not_noted(run, tmp_path, monkeypatch):
    folder = light.save_plan(run, plan_of(run))

    def refuse(*_):
        raise DiskError("cannot write about.json: Read-only file system")

    monkeypatch.setattr(lineage, "write_json", refuse)

    lineage.note_export(folder)

    assert lineage.find_plan(run, digest_of(folder)).exported == ""


def test_a_name_is_taken_away_by_an_empty_one_and_no_two_plans_share_one(run):
    first, second = draft(run, 0.1), draft(run, 0.2)
    lineage.name_plan(run, first, "mine")
    with pytest.raises(PlanError, match="another plan of run run is named 'mine'"):
        lineage.name_plan(run, second, "mine")
    with pytest.raises(PlanError, match="cannot be a name"):
        lineage.name_plan(run, second, "../mine")

    lineage.name_plan(run, first, "mine")
    lineage.name_plan(run, first, " ")
    lineage.name_plan(run, second, "mine")

    assert listed(run) == [second]


def test_the_newest_plan_comes_first(run):
    folders = [light.save_plan(run, plan_of(run, factor)) for factor in (0.1, 0.2, 0.3)]
    for folder, created in zip(folders, ("2026-01-02", "2026-01-03", "2026-01-01"), strict=True):
        facts = json.loads((folder / "plan.json").read_text())
        write_json(folder / "plan.json", facts | {"created": created})

    assert listed(run) == [folders[1], folders[0], folders[2]]
