import csv
import hashlib
import json

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from carto_core import __version__
from carto_core.errors import PlanError
from carto_core.export import COLUMNS, EXPORTS, Outgoing, export_corpus, export_plan, read_plan, write_plan
from carto_core.interventions import deduplicate, make_plan, plan_sha256
from carto_core.selection import resolve
from carto_core.store.rundir import update_manifest
from carto_core.types import Selection
from carto_core.workflows.light import load_table
from tests.tiny import NASTY, make_run

READERS = {
    "csv": lambda path: pd.read_csv(path, keep_default_na=False, dtype={"key": str}),
    "jsonl": lambda path: pd.DataFrame(map(json.loads, path.read_text("utf-8").splitlines())),
    "parquet": pd.read_parquet,
}
FIRST_AND_CANARIES = [0, 1, 2, 198, 199]


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


@pytest.fixture
def table(run):
    return load_table(run)


def plan_for(table, ids, **kwargs):
    selection = Selection({"type": "keys", "keys": table.key[ids].tolist()}, np.array(ids, np.int32), ("a note",))
    return make_plan(selection, table, **kwargs)


def write_list(run, table, out, *, plan=None, file_format="parquet", **kwargs):
    folder = write_plan(run, plan or plan_for(table, FIRST_AND_CANARIES, action="prune"), table)
    stored, facts = read_plan(folder, table)
    return export_plan(Outgoing(run, stored, table, **kwargs), facts, file_format=file_format, out=out)


def test_a_list_never_stands_beside_the_manifest_of_another(run, table, tmp_path, monkeypatch):
    out = tmp_path / "list.parquet"
    write_list(run, table, out)

    def killed(*_):
        raise KeyboardInterrupt

    other = plan_for(table, [7], action="upsample")
    write_plan(run, other, table)
    monkeypatch.setattr("carto_core.export.write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        write_list(run, table, out, plan=other)

    assert pd.read_parquet(out)["sample_id"].tolist() == [7]
    assert [path.name for path in tmp_path.glob("list*")] == ["list.parquet"]


def test_a_plan_comes_back_as_it_was_written(run, table):
    plan = plan_for(table, [3, 5], action="reweight", factor=0.3)

    back, facts = read_plan(write_plan(run, plan, table), table)

    assert back.repeats.tolist() == plan.repeats.tolist()
    assert back.weights.tolist() == plan.weights.tolist()
    assert (back.reason, back.rule, back.action, back.notes) == (plan.reason, plan.rule, plan.action, plan.notes)
    assert facts["num_affected"] == 2


def test_a_plan_directory_is_named_by_its_hash_and_holds_all_samples(run, table):
    plan = plan_for(table, [3], action="upsample")

    folder = write_plan(run, plan, table)

    facts = json.loads((folder / "plan.json").read_text())
    rows = pq.read_table(folder / "plan.parquet")
    assert folder.parent == run.files.plans
    assert plan_sha256(plan, table).startswith(folder.name)
    assert facts["plan_sha256"] == plan_sha256(plan, table)
    assert (facts["run_id"], facts["corpus_sha256"]) == (run.run_id, table.corpus_sha256)
    assert (facts["rule"], facts["action"], facts["report_seen"]) == (plan.rule, "upsample", False)
    assert rows.column_names == ["sample_id", "key", "repeat", "weight", "reason"]
    assert rows.num_rows == len(table)


def test_writing_the_same_plan_twice_gives_the_same_directory(run, table):
    plan = plan_for(table, [3], action="prune")

    assert write_plan(run, plan, table) == write_plan(run, plan, table)
    assert len(list(run.files.plans.iterdir())) == 1


def test_a_plan_made_after_looking_at_report_canaries_says_so(run, table):
    update_manifest(run.files, report_seen=True)

    _, facts = read_plan(write_plan(run, plan_for(table, [3], action="prune"), table), table)

    assert facts["report_seen"] is True


def test_a_plan_whose_rows_were_changed_is_refused(run, table):
    folder = write_plan(run, plan_for(table, [3], action="prune"), table)
    rows = pd.read_parquet(folder / "plan.parquet")
    rows.loc[4, "repeat"] = 0
    rows.to_parquet(folder / "plan.parquet")

    with pytest.raises(PlanError, match="does not match the hash"):
        read_plan(folder, table)


def test_a_plan_of_another_corpus_is_refused(run, table, tmp_path):
    other = load_table(make_run(tmp_path / "other", seed=1))
    folder = write_plan(run, plan_for(table, [3], action="prune"), table)

    with pytest.raises(PlanError, match="made for another run"):
        read_plan(folder, other)


@pytest.mark.parametrize("damage", ["plan.json", "plan.parquet"])
def test_a_plan_directory_that_lacks_a_file_is_refused(damage, run, table):
    folder = write_plan(run, plan_for(table, [3], action="prune"), table)
    (folder / damage).unlink()

    with pytest.raises(PlanError, match=r"cannot be read|not a readable plan directory"):
        read_plan(folder, table)


def test_a_plan_file_that_is_no_json_is_refused(run, table):
    folder = write_plan(run, plan_for(table, [3], action="prune"), table)
    (folder / "plan.json").write_text("{")

    with pytest.raises(PlanError, match=r"plan\.json cannot be read"):
        read_plan(folder, table)


@pytest.mark.parametrize("file_format", READERS)
def test_a_list_holds_the_affected_rows_and_the_contracts_columns(file_format, run, table, tmp_path):
    path = write_list(run, table, tmp_path / "out" / "list", file_format=file_format)

    rows = READERS[file_format](path)

    assert list(rows.columns) == COLUMNS
    assert rows["sample_id"].tolist() == FIRST_AND_CANARIES
    assert rows["key"].tolist()[1:] == table.key[FIRST_AND_CANARIES][1:].tolist()
    assert set(rows["action"]) == {"prune"}
    assert (rows["repeat"].tolist(), rows["weight"].tolist()) == ([0] * 5, [0] * 5)


@pytest.mark.parametrize("file_format", ["parquet", "jsonl"])
def test_a_list_that_is_no_csv_is_exact(file_format, run, table, tmp_path):
    plan = plan_for(table, [0, 5], action="reweight", factor=0.3)
    stored = run.scores().iloc[[0, 5]]

    rows = READERS[file_format](write_list(run, table, tmp_path / "list", plan=plan, file_format=file_format))

    assert rows["key"].tolist() == ["=1+1", table.key[5]]
    assert np.float32(rows["weight"]).tolist() == [np.float32(0.3)] * 2
    for name in ("difficulty", "memorization"):
        np.testing.assert_array_equal(np.float32(rows[name]), stored[name].to_numpy(np.float32))
    assert rows["quadrant"].tolist() == stored["quadrant"].tolist()


@pytest.mark.parametrize("file_format", ["parquet", "jsonl"])
def test_a_users_row_has_no_canary_id_and_a_planted_row_has_its_own(file_format, run, table, tmp_path):
    rows = READERS[file_format](write_list(run, table, tmp_path / "list", file_format=file_format))

    assert rows["canary_id"].isna().tolist() == [True, True, True, False, False]
    assert rows["canary_id"].tolist()[3:] == table.canary_id[[198, 199]].tolist()


@pytest.mark.parametrize(
    "trigger",
    ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"],
)
def test_a_csv_cell_that_a_spreadsheet_would_execute_is_neutralised(trigger, run, table, tmp_path):
    table.key[1] = f"{trigger}cmd|' /C calc'!A0"
    plan = plan_for(table, [1, 5], action="prune")

    path = write_list(run, table, tmp_path / "list.csv", plan=plan, file_format="csv")

    with path.open(newline="", encoding="utf-8") as file:
        keys = [row["key"] for row in csv.DictReader(file)]
    assert keys == [f"'{trigger}cmd|' /C calc'!A0", "tiny/0005"]


def test_a_csv_key_with_separators_stays_one_cell(run, table, tmp_path):
    table.key[1] = 'a,"b"\nc'
    path = write_list(run, table, tmp_path / "list.csv", plan=plan_for(table, [1], action="prune"), file_format="csv")

    with path.open(newline="", encoding="utf-8") as file:
        assert [row["key"] for row in csv.DictReader(file)] == ['a,"b"\nc']


def test_each_row_of_a_policy_names_its_own_action(run, table, tmp_path):
    mixed = plan_for(table, [1], action="prune")
    mixed.repeats[2], mixed.weights[3] = 2, 0.5

    rows = pd.read_parquet(write_list(run, table, tmp_path / "list", plan=mixed))

    assert rows["action"].tolist() == ["prune", "upsample", "reweight"]


@pytest.mark.parametrize("file_format", READERS)
def test_a_list_without_canaries_holds_no_planted_key(file_format, run, table, tmp_path):
    path = write_list(run, table, tmp_path / "list", file_format=file_format, without_canaries=True)

    manifest = json.loads((tmp_path / "list.manifest.json").read_text())
    assert READERS[file_format](path)["sample_id"].tolist() == [0, 1, 2]
    assert manifest["num_rows"] == 3


def test_the_manifest_says_where_a_list_came_from(run, table, tmp_path):
    path = write_list(run, table, tmp_path / "list.parquet")

    manifest = json.loads((tmp_path / "list.parquet.manifest.json").read_text())

    meta = run.meta()
    assert manifest["run_id"] == run.run_id
    assert manifest["corpus_sha256"] == table.corpus_sha256
    assert manifest["plan_sha256"] == plan_sha256(plan_for(table, FIRST_AND_CANARIES, action="prune"), table)
    assert manifest["rule"]["type"] == "keys"
    assert {name: manifest["meta"][name] for name in ("quadrant_x", "quadrant_y", "tau_d", "tau_m")} == {
        name: meta[name] for name in ("quadrant_x", "quadrant_y", "tau_d", "tau_m")
    }
    assert (manifest["seed"], manifest["report_seen"], manifest["carto_version"]) == (0, False, __version__)
    assert manifest["num_rows"] == 5
    assert manifest["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_unknown_format_is_the_users_mistake_and_writes_nothing(run, table, tmp_path):
    with pytest.raises(PlanError, match="unknown format 'xlsx'; choose one of: csv, jsonl, parquet"):
        write_list(run, table, tmp_path / "list.xlsx", file_format="xlsx")

    assert not (tmp_path / "list.xlsx").exists()


def test_the_keys_of_a_polygon_plan_are_those_inside_it_recomputed_from_the_database(run, table, tmp_path):
    middle = np.median(table.scores["difficulty"]), np.median(table.scores["lt_iqr"])
    triangle = [[0.0, 0.0], [2 * float(middle[0]), 0.0], [0.0, 2 * float(middle[1])]]  # half of its own bounding box
    rule = {"type": "polygon", "x": "difficulty", "y": "lt_iqr", "polygons": [triangle]}
    plan = make_plan(resolve(rule, table), table, action="prune")

    keys = set(pd.read_parquet(write_list(run, table, tmp_path / "list", plan=plan))["key"])

    with duckdb.connect(str(run.files.database), read_only=True) as con:
        under_the_line = "x > 0 and y > 0 and x / (2 * ?::double) + y / (2 * ?::double) < 1"
        points = "select key, difficulty::double x, lt_iqr::double y from scores join samples using (sample_id)"
        query = f"select key from ({points}) where {under_the_line}"
        expected = {row[0] for row in con.execute(query, [float(middle[0]), float(middle[1])]).fetchall()}
    assert keys == expected
    assert 0 < len(keys) < len(table)


def test_the_cleaned_corpus_is_the_users_kept_rows_with_repeat_and_weight(run, table, tmp_path):
    plan = plan_for(table, [1], action="prune")
    plan.repeats[2], plan.weights[3] = 4, 0.3

    path = export_corpus(run, plan, table, out=tmp_path / "clean.jsonl")

    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    by_key = {row["key"]: row for row in rows}
    texts = run.texts(np.flatnonzero(~table.is_canary & (plan.repeats > 0)))
    assert [row["text"] for row in rows] == texts
    assert table.key[1] not in by_key
    assert by_key[table.key[2]]["repeat"] == 4
    assert by_key[table.key[3]]["weight"] == 0.3
    assert by_key["=1+1"] == {
        "key": "=1+1",
        "text": NASTY,
        "source": "abstracts",
        "meta": {"year": 1990, "author": "author 0"},
        "repeat": 1,
        "weight": 1.0,
    }


def test_the_cleaned_corpus_after_deduplication_has_each_text_once(run, table, tmp_path):
    path = export_corpus(run, deduplicate(table), table, out=tmp_path / "clean.jsonl")

    texts = [json.loads(line)["text"] for line in path.read_text("utf-8").splitlines()]
    assert len(texts) == len(set(texts))
    assert set(texts) == set(run.texts(np.flatnonzero(~table.is_canary)))


def test_the_program_draws_and_weighs_a_dataset_as_the_list_says(run, table, tmp_path):
    pytest.importorskip("torch")
    plan = plan_for(table, [0, 1], action="prune")
    plan.repeats[2], plan.weights[3] = 3, 0.5
    path = write_list(run, table, tmp_path / "list.parquet", plan=plan)
    names = {"keys": table.key.tolist(), "dataset": list(range(len(table)))}

    exec(compile(EXPORTS["parquet"].applied(str(path)), "program", "exec"), names)

    assert names["repeat"].tolist() == plan.repeats.tolist()
    np.testing.assert_array_equal(names["weight"].to_numpy(np.float32), plan.weights)
    assert len(names["sampler"]) == plan.repeats.sum()


def test_a_plan_written_again_keeps_what_had_been_seen_when_it_was_first_made(run, table):
    plan = plan_for(table, [1, 2], action="prune")
    folder = write_plan(run, plan, table)
    update_manifest(run.files, report_seen=True)

    again = json.loads((write_plan(run, plan, table) / "plan.json").read_text())
    other = json.loads((write_plan(run, plan_for(table, [3], action="prune"), table) / "plan.json").read_text())

    assert again["report_seen"] is False
    assert json.loads((folder / "plan.json").read_text()) == again
    assert other["report_seen"] is True
