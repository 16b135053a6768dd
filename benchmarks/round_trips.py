"""Does what a plan leaves in do what the plan says? Every format is exported, applied with the real tool, and counted.

    python -m benchmarks.round_trips [--formats dolma megatron ...]

What is run is the program that the page shows and docs/export-formats.md prints, on a made-up run whose keys hold what breaks
files: quotes, commas, line breaks, formulas, other scripts. The plan drops, up-samples and down-weights, also planted canaries and rows
whose scores are unknown. Counted is how often an epoch of the tool's own draws each key. `make round-trips` installs the tools of
requirements-round-trips.txt; what is not installed is said to be missing. Results in docs/results/round_trips.json.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import importlib.metadata
import importlib.util
import io
import itertools
import json
import os
import subprocess
import sys
import tempfile
import types
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from carto_core.export import EXPORTS, Format, Outgoing, export_plan, read_plan, write_plan
from carto_core.store.reader import Run
from carto_core.store.rundir import now, write_json
from carto_core.types import Plan
from carto_core.workflows.light import load_table
from tests.tiny import make_run

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "round_trips.json"
EPOCHS = 60  # of drawing with replacement: a row that is drawn once an epoch is then missed with a chance of e^-60
HOSTILE = (
    '"quoted", with commas',
    "=2+3",
    "'=2+3",
    "@SUM(A1)",
    "＝ＳＵＭ",
    "back\\slash\\n",
    "  spaces around  ",
    "Ωmega/日本語/🙂",
    "e\u0301 and \u00e9",
    "../../etc/passwd",
    "<script>alert(1)</script>",
    "NaN",
    "007",
    "$.attributes[?(@.x)]",
    "\ufeffmark",
    "nul\x00",
    "{'a': 1}",
)
REASON = 'round trip,\n"made up"'
BREAKING = ("line\nbreak", "return\rkey", "tab\tkey", "line\u2028separator", "next\x85line")


@dataclass(frozen=True)
class Case:
    """A run, a plan of it that was stored, and the rows as the user has them."""

    outgoing: Outgoing
    facts: dict[str, Any]
    rows: list[dict[str, Any]]

    @property
    def keys(self) -> list[str]:
        """Of the rows."""
        return [row["id"] for row in self.rows]

    @property
    def repeats(self) -> Counter[str]:
        """How often the plan draws each of the user's rows in an epoch; none that it drops."""
        own, plan = self.outgoing.own, self.outgoing.plan
        return Counter({self.outgoing.table.key[i]: int(plan.repeats[i]) for i in own if plan.repeats[i]})

    @property
    def weights(self) -> dict[str, float]:
        """The loss weight of each of the user's rows that the plan keeps."""
        own, plan = self.outgoing.own, self.outgoing.plan
        return {self.outgoing.table.key[i]: float(plan.weights[i]) for i in own if plan.repeats[i]}


@dataclass(frozen=True)
class Found:
    """What the tool made of it: how often it draws each key in an epoch, and the weights that came along."""

    drawn: Counter[str]
    weights: dict[str, float] | None = None


@dataclass(frozen=True)
class Trip:
    """One line of the table."""

    format: str
    tool: str
    version: str
    by: str
    kept: int
    expected: int
    draws: int
    expected_draws: int
    result: str


def hostile_run(path: Path, *, breaking: bool = True) -> Run:
    """Return a run of 200 samples, 60 of them planted, whose first keys are hostile and whose scores are unknown for three."""
    run = make_run(path)
    names = [*HOSTILE, *(BREAKING if breaking else ())]
    with duckdb.connect(str(run.files.database)) as con:
        for sample_id, key in enumerate(names, start=1):
            con.execute("update samples set key = ? where sample_id = ?", [key, sample_id])
        con.execute(
            "update scores set difficulty = null, memorization = null, quadrant = null where sample_id in (2, 3, 50)"
        )
    return run


def case_of(folder: Path, *, breaking: bool = True, weighted: bool = True) -> Case:
    """Return a run and a plan that prunes, up-samples and, if asked, down-weights hostile keys and others, seeded."""
    run = hostile_run(folder / "run", breaking=breaking)
    table = load_table(run)
    rng = np.random.default_rng(0)
    repeats, weights = np.ones(len(table), np.int32), np.ones(len(table), np.float32)
    repeats[rng.permutation(len(table))[:80]] = rng.choice([0, 0, 2, 3], 80)
    if weighted:
        weights[rng.permutation(len(table))[:50]] = rng.choice(np.float32([0.25, 0.5]), 50)
    weights[repeats == 0] = 0
    reason = ["" if r == 1 and w == 1 else REASON for r, w in zip(repeats, weights, strict=True)]
    plan = Plan(repeats, weights, reason, {"type": "keys", "keys": table.key.tolist()}, "policy")
    stored, facts = read_plan(write_plan(run, plan, table), table)
    outgoing = Outgoing(run, stored, table)
    return Case(outgoing, facts, [{"id": row["key"], "text": row["text"]} for row in outgoing.documents()])


def run_program(form: Format, **given: Any) -> dict[str, Any]:
    """Run the program that a user copies, in this folder, and return the names that it leaves."""
    if form.language == "bash":
        folders = [Path(place) / "bin" for place in sys.path if place]
        path = os.pathsep.join([*map(str, folders), os.environ["PATH"]])
        environment = os.environ | {"PATH": path, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(
            ["bash", "-ec", form.applied(form.out)], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{form.name}: {done.stderr[-2000:]}")
        return given
    exec(compile(form.applied(form.out), form.name, "exec"), given)
    return given


def _rows(case: Case, form: Format) -> Found:
    left = run_program(form, rows=case.rows)["rows"]
    weights = {row["id"]: row["weight"] for row in left} if all("weight" in row for row in left) else None
    return Found(Counter(row["id"] for row in left), weights)


def _sampled(case: Case, form: Format) -> Found:
    """Draw many epochs: what is never drawn counts as none, the rest by its chance."""
    import torch

    torch.manual_seed(0)
    names = run_program(form, keys=case.keys, dataset=case.keys)
    sampler, weight = names["sampler"], names["weight"]
    chances = sampler.weights / sampler.weights.sum() * sampler.num_samples
    seen = set(itertools.chain.from_iterable(sampler for _ in range(EPOCHS)))
    drawn = {
        key: round(float(chance), 9)
        for i, (key, chance) in enumerate(zip(case.keys, chances, strict=True))
        if i in seen
    }
    loaded = {key for batch in names["loader"] for key in batch}
    assert loaded <= set(drawn), "the loader drew what the sampler does not"
    return Found(Counter(drawn), {key: float(weight[key]) for key in drawn})


def _huggingface(case: Case, form: Format) -> Found:
    from datasets import Dataset

    left = run_program(form, dataset=Dataset.from_list(case.rows))["dataset"]
    return Found(Counter(left["id"]), dict(zip(left["id"], left["weight"], strict=True)))


def _lines(pattern: str) -> list[dict[str, Any]]:
    lines = [line for path in Path().glob(pattern) for line in gzip.decompress(path.read_bytes()).splitlines()]
    return [json.loads(line) for line in lines]


def _ids(pattern: str) -> Counter[str]:
    return Counter(row["id"] for row in _lines(pattern))


def _dolma(_: Case, form: Format) -> Found:
    run_program(form)
    return Found(_ids(f"{form.out}/mixed/*.gz"))


def _datatrove(case: Case, form: Format) -> Found:
    Path("corpus").mkdir()
    Path("corpus/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in case.rows), encoding="utf-8")
    run_program(form)
    kept, dropped = _ids("kept/*.gz"), _ids("dropped/*.gz")
    assert kept + dropped == Counter(case.keys), "datatrove lost rows, or made some"
    assert {row["metadata"]["filter_reason"] for row in _lines("dropped/*.gz")} == {REASON}, "reasons were lost"
    return Found(kept)


def _nemo(case: Case, form: Format) -> Found:
    from nemo_curator.tasks import DocumentBatch

    batch = DocumentBatch(dataset_name="corpus", data=pd.DataFrame(case.rows))
    return Found(Counter(run_program(form, batch=batch)["kept"].to_pandas()["id"]))


def _megatron(case: Case, form: Format) -> Found:
    """Build what preprocess_data.py would, as many tokens a row as the run counted, and draw one epoch, token by token."""
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig

    table, numbers = case.outgoing.table, itertools.count()
    texts = {row["sample_id"]: row["text"] for row in case.outgoing.documents()}
    tokens_of = {text: int(table.num_tokens[i]) for i, text in texts.items()}
    names = run_program(form, encode=lambda text: [next(numbers)] * tokens_of[text], vocab_size=100_000)
    prefixes = [f"{form.out}/{prefix}" for prefix in names["prefixes"]]
    files = [Path(prefix.removesuffix("_text_document") + ".jsonl") for prefix in prefixes]
    rows = [json.loads(line) for file in files for line in file.read_text("utf-8").split("\n") if line]
    tokens = [tokens_of[row["text"]] for row in rows]
    config = GPTDatasetConfig(
        random_seed=0,
        sequence_length=1,
        blend=(prefixes, names["weights"]),
        split="1,0,0",
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
        add_extra_token_to_sequence=False,
        tokenizer=types.SimpleNamespace(eod=0, pad=0, vocab_size=100_000, unique_identifiers={}),
    )
    blended, *_ = BlendedMegatronDatasetBuilder(GPTDataset, [sum(tokens), 0, 0], lambda: True, config).build()
    epoch = range(sum(tokens))  # the builder adds to each source, for rounding, which comes behind
    seen = Counter(int(blended[i]["tokens"][0]) for i in epoch)
    drawn: Counter[str] = Counter()
    for number, count in seen.items():
        drawn[rows[number]["id"]] += count / tokens[number]
    return Found(drawn)


def _mosaicml(_: Case, form: Format) -> Found:
    base = importlib.import_module("streaming.base")
    sys.modules["streaming"].__dict__.update({name: getattr(base, name) for name in ("Stream", "StreamingDataset")})
    return Found(Counter(row["id"] for row in run_program(form)["dataset"]))


def find_streaming() -> None:
    """Let `streaming` be found without its `__init__`, which imports torchvision for its examples."""
    spec = importlib.util.find_spec("streaming")
    if spec is not None:
        sys.modules.setdefault("streaming", importlib.util.module_from_spec(spec))


@dataclass(frozen=True)
class Tool:
    """Who applies a format.

    Attributes:
        package: of the registry, for its version; empty for Python's own.
        by: what of it.
        module: that must be importable.
        apply: `apply(case, form) -> Found`, in a folder where the export lies.
        only_drops: it does not repeat rows.
        weighs: a plan with loss weights is exact; otherwise the trip is made with one that has none.
    """

    package: str
    by: str
    module: str
    apply: Callable[[Case, Format], Found]
    only_drops: bool = False
    weighs: bool = True


TOOLS = {
    "csv": Tool("", "csv.DictReader", "csv", _rows),
    "jsonl": Tool("", "json", "json", _rows),
    "parquet": Tool("torch", "WeightedRandomSampler, DataLoader", "torch", _sampled),
    "keys": Tool("", "a set of lines", "io", _rows, only_drops=True),
    "huggingface": Tool("datasets", "Dataset.add_column, select", "datasets", _huggingface),
    "sampler": Tool("torch", "WeightedRandomSampler, DataLoader", "torch", _sampled),
    "dolma": Tool("dolma", "dolma mix", "dolma", _dolma, only_drops=True),
    "datatrove": Tool("datatrove", "LambdaFilter, JsonlWriter", "datatrove", _datatrove, only_drops=True),
    "nemo": Tool("nemo-curator", "TextDuplicatesRemovalStage", "nemo_curator", _nemo, only_drops=True),
    "megatron": Tool(
        "megatron-core", "get_blend_from_list, BlendedMegatronDatasetBuilder", "megatron", _megatron, weighs=False
    ),
    "mosaicml": Tool("mosaicml-streaming", "Stream, StreamingDataset", "streaming", _mosaicml, weighs=False),
}


def is_installed(name: str) -> bool:
    """Return whether the tool of a format can be imported."""
    return importlib.util.find_spec(TOOLS[name].module) is not None


def version_of(tool: Tool) -> str:
    """Return the version of the tool's package."""
    return importlib.metadata.version(tool.package) if tool.package else ".".join(map(str, sys.version_info[:3]))


def make_trip(name: str, folder: Path) -> Trip:
    """Export, apply with the real tool, and count."""
    find_streaming()
    form, tool = EXPORTS[name], TOOLS[name]
    case = case_of(folder, breaking=name != "keys", weighted=tool.weighs)
    with contextlib.chdir(folder), quiet():
        export_plan(case.outgoing, case.facts, file_format=name, out=form.out)
        found = tool.apply(case, form)
    expected = Counter(dict.fromkeys(case.repeats, 1)) if tool.only_drops else case.repeats
    right = found.drawn == expected and (found.weights is None or found.weights == case.weights)
    draws = (round(sum(count.values()), 6) for count in (found.drawn, expected))
    kept, wanted = len(found.drawn), len(expected)
    drawn, to_draw = draws
    by = (tool.package or "Python", version_of(tool), tool.by)
    return Trip(name, *by, kept, wanted, drawn, to_draw, "exactly the plan's" if right else "NOT the plan's")


HEAD = """\
| format | tool | applied by | keys kept, of expected | draws an epoch, of expected | result |
| --- | --- | --- | --- | --- | --- |"""


def line_of(trip: Trip) -> str:
    """Return a trip as a line of the table."""
    tool, counts = (
        f"{trip.tool} {trip.version}",
        f"{trip.kept} of {trip.expected} | {trip.draws:g} of {trip.expected_draws}",
    )
    return f"| `{trip.format}` | {tool} | {trip.by} | {counts} | {trip.result} |"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what tools print, and warn of, to themselves."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def main() -> None:
    """Print the table and keep it."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--formats", nargs="+", default=list(EXPORTS), choices=list(EXPORTS))
    trips = []
    print(HEAD)
    for name in parser.parse_args().formats:
        if not is_installed(name):
            print(f"| `{name}` | {TOOLS[name].package} is not installed | | | | not run |")
            continue
        with tempfile.TemporaryDirectory() as folder:
            trip = make_trip(name, Path(folder))
        trips.append(trip)
        print(line_of(trip))
    if len(trips) == len(EXPORTS):
        write_json(RESULTS, {"created": now(), "trips": [asdict(trip) for trip in trips]})
    if any(trip.result != "exactly the plan's" for trip in trips):
        sys.exit(1)


if __name__ == "__main__":
    main()
