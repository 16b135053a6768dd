"""Each format, exported and applied with the real tool; what is not installed is skipped, unless `make round-trips` asked for it."""

import contextlib
import gzip
import importlib
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.round_trips import (
    HEAD,
    RESULTS,
    TOOLS,
    Trip,
    case_of,
    find_streaming,
    is_installed,
    line_of,
    make_trip,
    quiet,
    run_program,
)
from carto_core.export import EXPORTS, export_plan
from carto_core.export.mixtures import SHARD_BYTES, sources


def require(name):
    if not is_installed(name) and os.environ.get("CARTO_ROUND_TRIPS") != "required":
        pytest.skip(f"{TOOLS[name].package} is not installed")


def exported(name, folder, **kwargs):
    case = case_of(folder, **kwargs)
    export_plan(case.outgoing, case.facts, file_format=name, out=folder / EXPORTS[name].out)
    return case


def test_every_format_has_a_tool_that_applies_it():
    assert list(TOOLS) == list(EXPORTS)


@pytest.mark.parametrize("name", EXPORTS)
def test_the_tool_keeps_exactly_the_plans_keys_each_as_often_as_it_can_say(name, tmp_path):
    require(name)

    trip = make_trip(name, tmp_path)

    assert (trip.kept, trip.draws) == (trip.expected, trip.expected_draws)
    assert trip.result == "exactly the plan's"
    assert 0 < trip.kept < 140


@pytest.mark.parametrize("name", ["megatron", "mosaicml"])
def test_a_mixture_draws_of_each_source_what_the_loss_weights_of_its_rows_add_up_to(name, tmp_path, monkeypatch):
    require(name)
    monkeypatch.chdir(tmp_path)
    case = exported(name, tmp_path)

    with quiet():
        drawn = TOOLS[name].apply(case, EXPORTS[name]).drawn

    assert set(drawn) <= set(case.repeats)
    tokens = dict(zip(case.outgoing.table.key, case.outgoing.table.num_tokens, strict=True))
    size = tokens.get if name == "megatron" else lambda key: 1
    source_of = {case.outgoing.table.key[i]: source for source in sources(case.outgoing) for i in source.sample_ids}
    mass, expected = Counter(), Counter()
    for key, times in drawn.items():
        mass[source_of[key].name] += times * size(key)
    for key, times in case.repeats.items():
        expected[source_of[key].name] += times * size(key) * case.weights[key]
    # Megatron is asked for an epoch of the kept rows' tokens, MosaicML draws as many rows as there is weight.
    scale = sum(mass.values()) / sum(expected.values()) if name == "megatron" else 1
    assert {source: mass[source] for source in expected} == pytest.approx(
        {source: value * scale for source, value in expected.items()}, abs=1.01
    )


def test_the_mixer_refuses_attributes_that_are_out_of_order(tmp_path, monkeypatch):
    require("dolma")
    monkeypatch.chdir(tmp_path)
    exported("dolma", tmp_path)
    path = tmp_path / "dolma/corpus/attributes/carto/00000.jsonl.gz"
    first, *rest = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    path.write_bytes(gzip.compress(b"".join([*rest, first])))

    with pytest.raises(RuntimeError, match="Failed with 1 errors"):
        run_program(EXPORTS["dolma"])


def test_a_stream_is_what_the_librarys_own_writer_makes_of_the_same_rows(tmp_path):
    require("mosaicml")
    find_streaming()
    case = exported("mosaicml", tmp_path)
    rows = {row["id"]: row for row in case.rows}

    with quiet():
        writer = importlib.import_module("streaming.base").JSONWriter
        for source in sources(case.outgoing):
            columns = {"id": "str", "text": "str"}
            with writer(out=str(tmp_path / "theirs" / source.name), columns=columns, size_limit=SHARD_BYTES) as out:
                for i in source.sample_ids:
                    out.write(rows[case.outgoing.table.key[i]])

    for path in (tmp_path / "theirs").rglob("*.*"):
        ours = tmp_path / "mosaicml" / path.relative_to(tmp_path / "theirs")
        assert ours.read_bytes() == path.read_bytes(), path.name
    assert len(list((tmp_path / "theirs").rglob("index.json"))) == len(sources(case.outgoing))


def test_rows_can_be_filtered_in_place_of_selected(tmp_path):
    require("huggingface")
    case = exported("huggingface", tmp_path)

    with contextlib.chdir(tmp_path), quiet():
        datasets = importlib.import_module("datasets")
        names = run_program(EXPORTS["huggingface"], dataset=datasets.Dataset.from_list(case.rows))
        changes, same = names["changes"], names["same"]
        kept = datasets.Dataset.from_list(case.rows).filter(lambda row: changes.get(row["id"], same)["repeat"] > 0)

    assert set(kept["id"]) == set(case.repeats)


def test_the_results_that_are_kept_are_of_every_format_and_exact():
    trips = json.loads(RESULTS.read_text())["trips"]

    assert [trip["format"] for trip in trips] == list(EXPORTS)
    assert {trip["result"] for trip in trips} == {"exactly the plan's"}


def test_the_readme_prints_the_results_that_are_kept():
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")

    assert HEAD in readme
    for trip in json.loads(RESULTS.read_text())["trips"]:
        assert line_of(Trip(**trip)) in readme
