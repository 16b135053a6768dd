import csv
import dataclasses
import gzip
import hashlib
import itertools
import json
import re
from collections import Counter
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from benchmarks.round_trips import BREAKING, HOSTILE, case_of
from carto_core.errors import DiskError, PlanError
from carto_core.export import EXPORTS, export_plan, manifest_of, mixtures
from carto_core.export import dolma as dolma_folder
from carto_core.types import Plan
from carto_core.workflows import light
from carto_core.workflows.light import load_table
from tests.tiny import make_run

DOCS = Path(__file__).parents[1] / "docs" / "export-formats.md"
FOLDERS = [name for name, form in EXPORTS.items() if form.is_folder]
DROPS = ["keys", "dolma", "datatrove", "nemo"]


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A plan that prunes, up-samples and down-weights rows of hostile keys, canaries, and rows without scores. Read only."""
    return case_of(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def one_line(tmp_path_factory):
    """The same with keys that stand on one line."""
    return case_of(tmp_path_factory.mktemp("one-line"), breaking=False)


def export(case, name, out):
    return export_plan(case.outgoing, case.facts, file_format=name, out=out)


def lines(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def content_of(path):
    if path.suffix == ".parquet":
        return str(pq.read_table(path).to_pydict())
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return content.decode("utf-8", "replace")


def pruned(case, *, own=True):
    plan, table = case.outgoing.plan, case.outgoing.table
    return {table.key[i] for i in np.flatnonzero(plan.repeats == 0) if not (own and table.is_canary[i])}


def saved(run, repeats, weights):
    table = load_table(run)
    plan = Plan(
        np.array(repeats, np.int32),
        np.array(weights, np.float32),
        [""] * len(table),
        {"type": "keys", "keys": []},
        "policy",
    )
    return light.save_plan(run, plan)


@pytest.mark.parametrize("form", EXPORTS.values(), ids=EXPORTS)
def test_a_format_says_for_whom_it_is_what_it_writes_and_how_it_is_applied(form):
    words = (form.name, form.title, form.reader, form.writes, form.how, form.out, form.program)

    assert all(words)
    assert form.how.endswith(".")
    assert "EXPORTED" not in form.applied(form.out)


@pytest.mark.parametrize("name", EXPORTS)
def test_the_same_plan_gives_the_same_bytes_and_the_manifest_has_their_sum(name, one_line, tmp_path):
    first, second = (export(one_line, name, tmp_path / place / EXPORTS[name].out) for place in ("a", "b"))

    about, again = (json.loads(manifest_of(path).read_text()) for path in (first, second))
    if EXPORTS[name].is_folder:
        found = {
            p.relative_to(first).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in first.rglob("*")
            if p.is_file()
        }
        del found["manifest.json"]
        assert about["files"] == found
        text = "".join(f"{found[path]}  {path}\n" for path in sorted(found))
        assert about["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    else:
        assert about["sha256"] == hashlib.sha256(first.read_bytes()).hexdigest()
    assert about["format"] == name
    assert about["sha256"] == again["sha256"]


def test_a_plain_list_holds_each_dropped_key_and_why_on_a_line(one_line, tmp_path):
    path = export(one_line, "keys", tmp_path / "dropped.txt")

    with path.open(encoding="utf-8", newline="\n") as file:
        rows = dict(line.removesuffix("\n").split("\t") for line in file)
    assert set(rows) == pruned(one_line, own=False)
    assert set(rows.values()) == {'round trip, "made up"'}


@pytest.mark.parametrize("key", BREAKING)
def test_a_key_that_breaks_a_line_is_refused_by_the_plain_list_alone(key, tmp_path):
    run = make_run(tmp_path / "run")
    with duckdb.connect(str(run.files.database)) as con:
        con.execute("update samples set key = ? where sample_id = 7", [key])
    plan_dir = saved(run, [0 if i == 7 else 1 for i in range(200)], [0 if i == 7 else 1 for i in range(200)])

    with pytest.raises(PlanError, match="cannot stand on a line of a plain list; take jsonl"):
        light.export(run, plan_dir, file_format="keys", out=tmp_path / "dropped.txt")
    path = light.export(run, plan_dir, file_format="datatrove", out=tmp_path / "datatrove.jsonl")

    assert not (tmp_path / "dropped.txt").exists()
    assert [row["id"] for row in lines(path)] == [key]


@pytest.mark.parametrize("name", DROPS)
def test_what_a_list_of_drops_does_not_carry_is_said(name, one_line, tmp_path):
    plan, table = one_line.outgoing.plan, one_line.outgoing.table
    more, otherwise = int((plan.repeats > 1).sum()), int(((plan.weights != 1) & (plan.repeats > 0)).sum())

    path = export(one_line, name, tmp_path / EXPORTS[name].out)

    (note,) = json.loads(manifest_of(path).read_text())["notes"]
    assert note == (
        f"It says only what is to go; not carried: {more} that are drawn more than once and {otherwise} of another weight."
    )
    assert len(table) == 200


@pytest.mark.parametrize("name", DROPS)
def test_a_plan_that_drops_nothing_has_no_list_of_drops(name, tmp_path):
    run = make_run(tmp_path / "run")
    plan_dir = saved(run, [2] + [1] * 199, [1] * 200)

    with pytest.raises(PlanError, match="the plan drops nothing, and this format says only what is to go; choose csv"):
        light.export(run, plan_dir, file_format=name, out=tmp_path / "out")

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [name for name in EXPORTS if name not in (*FOLDERS, "sampler")])
@pytest.mark.parametrize("without", [False, True])
def test_a_list_names_planted_keys_unless_they_are_left_out(name, without, one_line, tmp_path):
    outgoing = dataclasses.replace(one_line.outgoing, without_canaries=without)

    path = export_plan(outgoing, one_line.facts, file_format=name, out=tmp_path / EXPORTS[name].out)

    assert ("canary/" in content_of(path)) is not without


@pytest.mark.parametrize("name", [*FOLDERS, "sampler"])
def test_what_holds_the_corpus_or_follows_it_never_has_planted_keys(name, case, tmp_path):
    path = export(case, name, tmp_path / EXPORTS[name].out)

    files = [file for file in path.rglob("*.*") if file.name != "manifest.json"] if path.is_dir() else [path]
    assert not any("canary/" in content_of(file) for file in files)


def test_a_table_for_a_sampler_has_every_row_of_the_corpus_in_its_order(case, tmp_path):
    rows = pd.read_parquet(export(case, "sampler", tmp_path / "sampler.parquet"))

    own = ~case.outgoing.table.is_canary
    assert list(rows.columns) == ["id", "repeat", "weight"]
    assert rows["id"].tolist() == case.keys
    assert rows["repeat"].tolist() == case.outgoing.plan.repeats[own].tolist()
    assert rows["weight"].to_numpy(np.float32).tolist() == case.outgoing.plan.weights[own].tolist()


def test_ids_to_remove_are_texts_in_order_also_where_there_are_none(case, tmp_path):
    run = make_run(tmp_path / "run")
    planted = load_table(run).is_canary
    only_canaries = saved(run, np.where(planted, 0, 1), np.where(planted, 0, 1))

    filled = pq.read_table(export(case, "nemo", tmp_path / "nemo.parquet"))
    empty = pq.read_table(
        light.export(run, only_canaries, file_format="nemo", out=tmp_path / "empty.parquet", without_canaries=True)
    )

    assert filled["id"].to_pylist() == sorted(pruned(case, own=False))
    assert (empty.num_rows, empty.schema.field("id").type) == (0, filled.schema.field("id").type)


def test_dolma_attributes_have_the_files_rows_and_order_of_the_documents(case, tmp_path, monkeypatch):
    monkeypatch.setattr(dolma_folder, "SHARD_ROWS", 60)
    corpus = export(case, "dolma", tmp_path / "dolma") / "corpus"

    shards = {place: sorted((corpus / place).glob("*")) for place in ("documents", "attributes/carto")}
    documents, attributes = (
        [json.loads(line) for path in paths for line in gzip.decompress(path.read_bytes()).splitlines()]
        for paths in shards.values()
    )
    assert [path.name for path in shards["documents"]] == ["00000.jsonl.gz", "00001.jsonl.gz", "00002.jsonl.gz"]
    assert [path.name for path in shards["documents"]] == [path.name for path in shards["attributes/carto"]]
    assert {path.read_bytes()[4:8] for paths in shards.values() for path in paths} == {bytes(4)}  # no time of writing
    assert [(row["id"], row["text"]) for row in documents] == [(row["id"], row["text"]) for row in case.rows]
    assert [(row["id"], row["source"]) for row in attributes] == [(row["id"], row["source"]) for row in documents]
    dropped = {row["id"] for row in attributes if row["attributes"]["carto__drop"]}
    assert dropped == pruned(case)


def test_a_dolma_attribute_spans_the_text_and_what_is_unknown_has_none(case, tmp_path):
    corpus = export(case, "dolma", tmp_path / "dolma") / "corpus"
    rows = [
        json.loads(line)
        for line in gzip.decompress((corpus / "attributes/carto/00000.jsonl.gz").read_bytes()).splitlines()
    ]

    scores, plan = case.outgoing.scores, case.outgoing.plan
    for i, row in enumerate(rows):
        found = {name.removeprefix("carto__"): spans for name, spans in row["attributes"].items()}
        length = len(case.rows[i]["text"])
        assert found["repeat"] == [[0, length, plan.repeats[i]]]
        assert found["weight"] == [[0, length, plan.weights[i]]]
        for name in ("difficulty", "memorization"):
            value = scores[name].iloc[i]
            assert found[name] == ([] if np.isnan(value) else [[0, length, float(str(value))]])
    assert [rows[i]["attributes"]["carto__difficulty"] for i in (2, 3, 50)] == [[], [], []]


def test_a_mixture_writes_each_kept_row_as_often_as_it_is_drawn_by_quadrant(case, tmp_path):
    folder = export(case, "megatron", tmp_path / "megatron")

    shards = {path.stem: lines(path) for path in folder.glob("*.jsonl")}
    quadrant = dict(zip(case.keys, case.outgoing.scores["quadrant"].fillna("unknown"), strict=False))
    assert Counter(row["id"] for rows in shards.values() for row in rows) == case.repeats
    for name, rows in shards.items():
        assert {quadrant[row["id"]] for row in rows} == {name}
    assert "unknown" in shards


def test_a_blend_weighs_a_quadrant_by_the_tokens_and_loss_weights_of_its_rows(case, tmp_path):
    folder = export(case, "megatron", tmp_path / "megatron")

    table, plan = case.outgoing.table, case.outgoing.plan
    place = {key: i for i, key in enumerate(table.key)}
    mass = {
        path.stem: sum(
            table.num_tokens[place[row["id"]]] * float(plan.weights[place[row["id"]]]) for row in lines(path)
        )
        for path in folder.glob("*.jsonl")
    }
    pairs = [line.split(" ") for line in (folder / "blend.txt").read_text().splitlines()]
    shares = {name.removesuffix("_text_document"): float(share) for share, name in pairs}
    assert shares == pytest.approx({name: value / sum(mass.values()) for name, value in mass.items()}, rel=1e-12)


def test_streams_draw_as_many_rows_as_the_loss_weights_add_up_to(case, tmp_path):
    folder = export(case, "mosaicml", tmp_path / "mosaicml")

    streams = json.loads((folder / "streams.json").read_text())["streams"]
    expected = {s.name: max(1, round(float(s.weights.sum()))) for s in mixtures.sources(case.outgoing)}
    assert {name: stream["choose"] for name, stream in streams.items()} == expected
    assert sum(expected.values()) == pytest.approx(
        sum(times * case.weights[key] for key, times in case.repeats.items()), abs=len(expected)
    )


@pytest.mark.parametrize("name", ["megatron", "mosaicml"])
def test_a_mixture_says_which_weights_it_folds_into_a_mean(name, case, tmp_path):
    path = export(case, name, tmp_path / name)

    notes = json.loads(manifest_of(path).read_text())["notes"]
    uneven = [source for source in mixtures.sources(case.outgoing) if source.is_uneven]
    assert uneven
    for note, source in zip(notes, uneven, strict=True):
        assert note == (
            f"{source.name}: its rows weigh from {source.weights.min():.3g} to {source.weights.max():.3g}; a mixture weighs "
            f"sources, not samples, so all of them are drawn as if they weighed {source.weights.mean():.3g}, their mean."
        )


def test_a_source_whose_weights_are_all_0_is_left_out_and_said(tmp_path):
    run = make_run(tmp_path / "run")
    hot = (run.scores()["quadrant"] == "hotspot-memorized").to_numpy() & ~load_table(run).is_canary

    path = light.export(
        run, saved(run, [1] * 200, np.where(hot, 0, 1)), file_format="megatron", out=tmp_path / "megatron"
    )

    about = json.loads(manifest_of(path).read_text())
    assert hot.any()
    assert "hotspot-memorized" not in (path / "blend.txt").read_text()
    assert not (path / "hotspot-memorized.jsonl").exists()
    assert about["notes"] == [f"{hot.sum()} rows are left out with their source, whose weights are all 0."]


def test_a_mixture_of_nothing_is_refused(tmp_path):
    run = make_run(tmp_path / "run")
    planted = load_table(run).is_canary

    plan_dir = saved(run, planted.astype(int), planted.astype(int))

    with pytest.raises(PlanError, match="leaves nothing of the corpus to train on"):
        light.export(run, plan_dir, file_format="mosaicml", out=tmp_path / "mosaicml")


def test_a_stream_begins_a_new_shard_before_the_old_one_is_too_large(case, tmp_path, monkeypatch):
    monkeypatch.setattr(mixtures, "SHARD_BYTES", 2000)
    folder = export(case, "mosaicml", tmp_path / "mosaicml") / "stable-easy"

    shards = json.loads((folder / "index.json").read_text())["shards"]
    contents = [(folder / shard["raw_data"]["basename"]).read_bytes() for shard in shards]
    assert len(shards) > 2
    assert max(map(len, contents)) <= 2000
    for shard, content in zip(shards, contents, strict=True):
        offsets = np.frombuffer(
            (folder / shard["raw_meta"]["basename"]).read_bytes()[4 : 4 * shard["samples"] + 8], "<u4"
        )
        cut = [content[a:b] for a, b in itertools.pairwise(offsets)]
        assert b"".join(cut) == content
        assert [line.count(b"\n") for line in cut] == [1] * shard["samples"]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_written_again_over_an_earlier_export_but_over_nothing_else(name, case, tmp_path):
    out = tmp_path / "out"
    export(case, name, out)
    export(case, name, out)
    (out / "mine.txt").write_text("not yours")

    with pytest.raises(PlanError, match="is not, or not only, an earlier export; choose another --out"):
        export(case, name, out)

    assert (out / "mine.txt").read_text() == "not yours"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize("manifest", [None, "{", "[]", '{"files": 3}', '{"files": {"b": ""}}'])
def test_a_folder_of_somebody_elses_is_never_replaced(manifest, case, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_text("mine")
    if manifest is not None:
        (tmp_path / "out" / "manifest.json").write_text(manifest)

    with pytest.raises(PlanError, match="is there and is not, or not only, an earlier export"):
        export(case, "dolma", tmp_path / "out")

    assert (tmp_path / "out" / "a").read_text() == "mine"


def test_a_file_is_no_place_for_a_folder_nor_a_folder_for_a_file(case, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()

    with pytest.raises(PlanError, match="is there"):
        export(case, "dolma", tmp_path / "file")
    with pytest.raises(DiskError):
        export(case, "jsonl", tmp_path / "folder")

    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_whole_or_not_there(name, case, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("carto_core.export.write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        export(case, name, tmp_path / name)

    assert list(tmp_path.iterdir()) == []


def test_a_csv_key_gives_itself_back_whatever_apostrophes_it_begins_with(case, tmp_path):
    with export(case, "csv", tmp_path / "list.csv").open(newline="", encoding="utf-8") as file:
        cells = [row["key"] for row in csv.DictReader(file)]

    back = [re.sub("^'('*[=+\\-@\t\r\n＝＋－＠])", r"\1", cell) for cell in cells]
    assert back == case.outgoing.rows["key"].tolist()
    assert not any(re.match("[=+\\-@\t\r\n＝＋－＠]", cell) for cell in cells)
    assert {"'=2+3", "=2+3"} <= set(HOSTILE)


@pytest.mark.parametrize("form", EXPORTS.values(), ids=EXPORTS)
def test_the_documentation_prints_the_words_and_the_program_of_each_format(form):
    section = DOCS.read_text("utf-8").split(f"\n## {form.name}\n")[1].split("\n## ")[0]

    assert f"```{form.language}\n{form.applied(form.out)}```" in section
    assert section.strip().startswith(f"For {form.reader}. {form.how}")
    assert f"| {form.writes} |" in DOCS.read_text("utf-8")
