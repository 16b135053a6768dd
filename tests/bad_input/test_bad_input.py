"""Every kind of bad input: one plain sentence that says what, where and what to do; nothing changed, nothing lost."""

import csv
import json
import shutil
import subprocess
import sys

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from carto_core import jobs
from carto_core.errors import ConfigError, CorpusError, RunCorrupt, RunNotFound
from carto_core.store.rundir import find_run, list_runs, readable_runs, write_json
from carto_core.store.writer import read_part_manifest
from tests.bad_input import corpora, table
from tests.bad_input.cases import Place, carto, problems


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return Place.at(tmp_path_factory.mktemp("template"))


@pytest.mark.parametrize("case", table.CASES, ids=lambda case: f"{case.door}: {case.name}")
def test_it_ends_in_one_plain_sentence_and_leaves_all_as_it_was(case, template, tmp_path):
    place = Place.at(tmp_path, template)

    found = problems(case, place)

    assert found == []


def test_the_table_holds_a_hundred_kinds_and_names_each_once():
    names = [(case.door, case.name) for case in table.CASES]

    assert len(names) == len(set(names)) >= 100


@pytest.mark.parametrize("texts", corpora.ODD.values(), ids=corpora.ODD)
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_odd_but_legal_texts_come_out_as_they_went_in(texts, suffix, tmp_path):
    path = tmp_path / f"odd.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.table({"text": texts}), path)
    elif suffix == "csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["text"], *([text] for text in texts)])
    else:
        path.write_text(corpora.lines(*({"text": text} for text in texts)))

    rows = corpora.read(path)

    assert [row.text for row in rows] == texts
    assert [row.key for row in rows] == [f"odd.{suffix}/{i}" for i in range(len(texts))]


def test_a_setting_raises_and_lowers_how_large_a_corpus_and_a_text_may_be(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    path.write_text(corpora.lines(*corpora.GOOD))

    monkeypatch.setenv("CARTO_MAX_TEXT_CHARS", "20")
    with pytest.raises(CorpusError, match="more than 20"):
        corpora.read(path)
    monkeypatch.setenv("CARTO_MAX_TEXT_CHARS", "40")
    assert len(corpora.read(path)) == 40
    monkeypatch.setenv("CARTO_MAX_CORPUS_GB", "1e-6")
    with pytest.raises(CorpusError, match="at most 1,000 are read"):
        corpora.read(path)
    monkeypatch.setenv("CARTO_MAX_CORPUS_GB", "plenty")
    with pytest.raises(ConfigError, match="CARTO_MAX_CORPUS_GB must be a number above 0, got 'plenty'"):
        corpora.read(path)


def test_a_database_that_another_process_writes_is_said_to_be(template, tmp_path):
    place = Place.at(tmp_path, template)
    hold = "import duckdb, sys; con = duckdb.connect(sys.argv[1]); print('held', flush=True); input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(place.good.files.database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )

    try:
        holder.stdout.readline()
        code, out, err = carto(place, "compare", "good", "good", "--json")
    finally:
        holder.communicate(b"\n")

    assert code == 2
    assert "held open for writing by another process; end that process" in err
    assert set(json.loads(out)) == {"error", "message"}
    assert place.call("compare", "good", "good")["run_a"] == "good"


def test_a_table_that_a_file_lacks_is_not_found_among_the_programs_own_variables(template, tmp_path):
    place = Place.at(tmp_path, template)
    with duckdb.connect(str(place.good.files.database)) as con:
        con.execute("drop table losses")

    with pytest.raises(RunCorrupt, match="losses does not exist"):
        place.good.trajectories()


@pytest.mark.parametrize(
    "content",
    ["[", "{}", '[{"snapshot": 40000, "step": 1, "epoch": 1.0, "kind": "after", "wall_s": 0}]', '[{"step": 1}]'],
)
def test_a_damaged_list_of_snapshots_is_said_to_be(content, template, tmp_path):
    place = Place.at(tmp_path, template)
    place.write("runs/good/parts/snapshots.json", content)

    with pytest.raises(RunCorrupt, match=r"snapshots\.json cannot be read"):
        read_part_manifest(place.good.files)


@pytest.mark.parametrize(
    "change", [{"pid": "1"}, {"pid": 10**12}, {"folder": "/etc"}, {"command": 3}, {"created": None}]
)
def test_a_job_that_cannot_be_is_passed_over(change, tmp_path, monkeypatch):
    monkeypatch.setenv("CARTO_RUNS", str(tmp_path))
    folder = tmp_path / ".jobs" / "20260101-000000-abcdef"
    fields = dict.fromkeys(("kind", "run_id", "created", "progress", "result"), "x")
    fields |= {"job_id": folder.name, "command": [], "pid": 5, "pid_start": 1.0, "folder": str(folder)}
    write_json(folder / "job.json", fields | change)

    assert jobs.list_jobs() == []


def test_a_run_outside_is_reached_by_its_own_path_and_never_by_an_id_or_a_link(template, tmp_path):
    place = Place.at(tmp_path, template)
    outside = shutil.copytree(place.runs / "good", tmp_path / "outside")
    (place.runs / "linked").symlink_to(outside)

    assert find_run(outside).path == outside
    for name in ("linked", "../outside", ".", "..", ""):
        with pytest.raises(RunNotFound):
            find_run(name, place.runs)
    assert [run.run_id for run in list_runs(place.runs)] == ["good"]
    assert "is a link" in readable_runs(place.runs)[1]["linked"]
