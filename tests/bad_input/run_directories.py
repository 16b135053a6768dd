"""Bad input through run directories: half written, foreign, forged, locked, of another version, out of the folder."""

import json
import os
import shutil

import duckdb
import pyarrow.parquet as pq

from tests.bad_input.cases import RUNS, Case
from tests.bad_input.corpora import MARKUP

CLIMBING = "../../../etc/passwd"


def _manifest(name, says, verb=("score", "good"), **changes):
    """`run.json` with some fields changed; a field that is `...` is missing."""

    def make(place):
        place.change(place.runs / "good" / "run.json", **changes)
        return [*verb]

    return Case(RUNS, f"run.json: {name}", make, says)


def _whole(name, content, says):
    def make(place):
        place.write("runs/good/run.json", content)
        return ["score", "good"]

    return Case(RUNS, f"run.json: {name}", make, says)


def _config(name, says, part, **changes):
    def make(place):
        path = place.runs / "good" / "run.json"
        config = json.loads(path.read_text())["config"]
        config[part] |= changes
        place.change(path, config=config)
        return ["score", "good"]

    return Case(RUNS, f"run.json, config: {name}", make, says)


def _database(name, change, says, verb=("score", "good")):
    """A sealed file that somebody changed; a text is a statement of SQL."""

    def make(place):
        path = place.runs / "good" / "trajectory.duckdb"
        if isinstance(change, str):
            with duckdb.connect(str(path)) as con:
                con.execute(change)
        else:
            change(path)
        return [*verb]

    return Case(RUNS, f"trajectory.duckdb: {name}", make, says)


def _files(name, change, says, verb=("score", "good"), right=None):
    def make(place):
        change(place)
        return [place.plan if word == "PLAN" else word for word in verb]

    return Case(RUNS, name, make, says, right)


def _linked_out(place):
    shutil.move(place.runs / "good", place.root / "elsewhere")
    (place.runs / "good").symlink_to(place.root / "elsewhere")


def _copied(name, **changes):
    """Put a second run, changed, beside the good one."""

    def change(place):
        shutil.copytree(place.runs / "good", place.runs / name)
        place.change(place.runs / name / "run.json", **changes)

    return change


def _lists(readable, unreadable):
    def right(place, result):
        return [row["run"] for row in result["runs"]] == readable and sorted(result["unreadable"]) == unreadable

    return right


def _own_inode(path):
    """A file of another kind in its place."""
    path.unlink()
    path.mkdir()


def _short_probe(place):
    path = place.runs / "good" / "probes" / "twin.parquet"
    pq.write_table(pq.read_table(path).slice(0, 100), path)


def _odd_meta(place):
    with duckdb.connect(str(place.runs / "good" / "trajectory.duckdb")) as con:
        con.execute("update samples set meta = '[1]' where sample_id = 3")


CASES = [
    _whole("not JSON", "{", ("run.json cannot be read", "copy run.json back")),
    _whole("empty", "", ("cannot be read",)),
    _whole("bytes", b"\xff\x00\xfe", ("not UTF-8",)),
    _whole("a list", "[]", ("must be an object",)),
    _whole("nested 200,000 deep", '{"a":' * 200_000, ("nested too deeply",)),
    _whole("a number of 5,000 digits", '{"num_samples": ' + "9" * 5000 + "}", ("too many digits",)),
    _whole("a name that stands twice", '{"status": "complete", "status": "failed"}', ("'status' stands twice",)),
    _whole("foreign", {"name": "vite-project", "version": "0.0.1"}, ("version None of the data contract",)),
    _manifest("an older contract", ("version 0", "reads version 1"), contract_version=0),
    _manifest("a newer contract", ("version 2", "reads version 1", "program that made it"), contract_version=2),
    _manifest("no contract", ("version None",), contract_version=...),
    _manifest("a status that is none", ("status must be one of", "'done'"), status="done"),
    _manifest("half written: no config", ("config is missing",), config=...),
    _manifest("more samples than numbers", ("num_samples",), num_samples=10**30),
    _manifest("fewer samples than none", ("num_samples", "-1"), num_samples=-1),
    _manifest("another number of samples", ("num_samples is 119 in run.json and 120",), num_samples=119),
    _manifest("another corpus", ("corpus_sha256 is", "trajectory.duckdb"), corpus_sha256="e" * 64),
    _manifest("a fingerprint that is none", ("corpus_sha256", "64"), corpus_sha256=CLIMBING),
    _manifest("another seed", ("seed is 5 in run.json and 0",), seed=5),
    _manifest("a seed that is none", ("seed",), seed="lucky"),
    _manifest("a parent that climbs out", ("parent_run",), parent_run=CLIMBING),
    _manifest("a parent and no plan", ("plan_sha256 is missing",), parent_run="base"),
    _manifest("scores that are none", ("ScoreConfig", "'all'"), scores={"cut_x": "all"}),
    _manifest("a process id beyond all", ("pid",), status="running", pid=10**12, pid_start=1.0),
    _manifest("a process id of words", ("pid",), status="running", pid="init", pid_start=0.0),
    _manifest("seconds below 0", ("train_s",), train_s=-5),
    _manifest("no device", ("device is missing",), device=...),
    _config("an unknown field", ("EngineConfig", "no field", "turbo"), "engine", turbo=True),
    _config("a width of words", ("ModelConfig.hidden", "'wide'"), "model", hidden="wide"),
    _config("a width beyond all memory", ("--hidden", "65,536"), "model", hidden=10**9),
    _config("true for a number", ("EngineConfig.seed", "True"), "engine", seed=True),
    _config("a path that is a list", ("CorpusConfig.path",), "corpus", path=[CLIMBING]),
    _database("gone, and the parts too", lambda path: path.unlink(), ("no trajectory.duckdb yet",)),
    _database("empty", lambda path: path.write_bytes(b""), ("cannot be read",)),
    _database("foreign", lambda path: path.write_bytes(b"SQLite format 3\0" * 300), ("cannot be read",)),
    _database("cut in the middle", lambda path: path.write_bytes(path.read_bytes()[:9000]), ("cannot be read",)),
    _database("a folder", _own_inode, ("no trajectory.duckdb yet",)),
    _database("without losses", "drop table losses", ("cannot be read", "losses")),
    _database("without meta", "drop table meta", ("cannot be read", "meta")),
    _database(
        "without scores",
        "drop table scores",
        ("no scores yet", "score good"),
        ("compare", "good", "good"),
    ),
    _database(
        "another contract", "update meta set value = '7' where key = 'contract_version'", ("contract_version is 1",)
    ),
    _database(
        "an axis that is none",
        "update meta set value = 'luck' where key = 'quadrant_x'",
        ("axes or cuts",),
        ("compare", "good", "good"),
    ),
    _database(
        "a cut of words",
        "update meta set value = 'far' where key = 'tau_d'",
        ("axes or cuts",),
        ("compare", "good", "good"),
    ),
    _database(
        "fewer scores than samples",
        "delete from scores where sample_id = 7",
        ("no score of some samples",),
        ("compare", "good", "good"),
    ),
    _database("a sample twice", "insert into samples select * from samples limit 1", ("num_samples is 120",)),
    _database(
        "a sample of another number", "update samples set sample_id = 900 where sample_id = 3", ("sample_id is not",)
    ),
    _database("a key twice", "update samples set key = 'tiny/0002' where sample_id = 3", ("'tiny/0002' stands twice",)),
    _database("a key that is null", "update samples set key = null where sample_id = 3", ("is null",)),
    _database(
        "losses of samples that are none",
        "update losses set sample_id = 900 where sample_id = 3",
        ("others than 0 to 119",),
    ),
    _database("losses twice", "insert into losses select * from losses where sample_id = 3", ("twice",)),
    _database(
        "an infinite loss", "update losses set loss = 'inf' where sample_id = 3", ("infinite losses", "'tiny/0003'")
    ),
    _database("no snapshot", "delete from snapshots", ("no snapshot",)),
    _files("a run that is a link out of the folder", _linked_out, ("no run 'good'",)),
    _files(
        "an empty directory for a run",
        lambda place: (place.runs / "void").mkdir(),
        ("no run 'void'",),
        ("score", "void"),
    ),
    _files(
        "a run of a training that nobody does any more",
        _copied("old", status="running", pid=os.getpid(), pid_start=1.0),
        (),
        ("runs",),
        lambda place, result: (
            {r["run"]: r["status"] for r in result["runs"]} == {"old": "interrupted", "good": "complete"}
        ),
    ),
    _files(
        "a run of a newer contract beside a good one",
        _copied("new", contract_version=9),
        (),
        ("runs",),
        _lists(["good"], ["new"]),
    ),
    _files("a broken run beside a good one", _copied("bad", config=MARKUP), (), ("runs",), _lists(["good"], ["bad"])),
    _files(
        "a link out beside a good run",
        lambda place: (place.runs / "out").symlink_to(place.runs / "good"),
        (),
        ("runs",),
        _lists(["good"], ["out"]),
    ),
    _files(
        "a name with markup and line breaks",
        _copied("<b>x<br>\n$x^2$", status="failed"),
        (),
        ("runs",),
        lambda place, result: "<b>x<br>\n$x^2$" in [row["run"] for row in result["runs"]],
    ),
    _files("a probe with another number of samples", _short_probe, ("100 rows", "120 samples")),
    _files(
        "a sample's columns that are no object",
        _odd_meta,
        ("`meta` must be a JSON object",),
        ("export", "good", "PLAN", "--corpus", "--out", "x.jsonl"),
    ),
]
