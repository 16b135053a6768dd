"""Bad input through `import`: files of losses that are damaged, ambiguous, doubled, or hold what is no loss."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq

from tests.bad_input.cases import TRAJECTORIES, Case

HEAD = "key,epoch,loss\n"
DYNAMICS = '{"guid": 1, "logits_epoch_0": %s, "gold": %s}\n'


def _parquet(columns):
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def _bad(name, content, says, *options, suffix="csv"):
    def make(place):
        path = place.write(f"log.{suffix}", content() if callable(content) else content)
        return ["import", path, *(options or ("--yes",)), "--out", place.root / "theirs"]

    return Case(TRAJECTORIES, name, make, says)


def _at(name, where, says):
    return Case(TRAJECTORIES, name, lambda place: ["import", where, "--yes", "--out", place.root / "theirs"], says)


def _lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


CASES = [
    _bad("an empty file", "", ("no column of snapshots", "columns: none")),
    _bad("a header alone", HEAD, ("holds no loss",)),
    _bad("losses that are all empty", HEAD + "a,1,\nb,1,  \n", ("holds no loss",)),
    _bad("losses that are all NaN", HEAD + "a,1,nan\n", ("holds no loss", "finite")),
    _bad("a word for a loss", HEAD + "a,1,2.5\nb,1,high\n", ("log.csv, row 1", "'loss'", "'high'", "no number")),
    _bad("a loss of underscores", HEAD + "a,1,1_000\n", ("'1_000'", "no number")),
    _bad("a loss of true", _lines({"key": 1, "epoch": 1, "loss": True}), ("row 0", "bool", "number"), suffix="jsonl"),
    _bad("a list for a loss", _lines({"key": 1, "epoch": 1, "loss": [1]}), ("row 0", "list"), suffix="jsonl"),
    _bad("log-probabilities for losses", HEAD + "a,1,-2\nb,1,-0.5\n", ("log-probabilities", "negatives")),
    _bad("no snapshot on a row", HEAD + "a,,1\n", ("row 0", "'epoch'", "snapshot's number")),
    _bad("a snapshot before the first", HEAD + "a,-1,1\n", ("row 0", "0 or more")),
    _bad("an infinite snapshot", HEAD + "a,inf,1\n", ("row 0", "snapshot's number")),
    _bad("a word for a snapshot", HEAD + "a,last,1\n", ("row 0", "'epoch'", "'last'")),
    _bad("no key on a row", HEAD + "a,1,1\n,1,2\n", ("row 1", "'key'", "empty")),
    _bad("a key of blanks", HEAD + "  ,1,1\n", ("row 0", "'key'", "empty")),
    _bad("a key of 2,000 letters", HEAD + "x" * 2000 + ",1,1\n", ("row 0", "2,000", "1,000")),
    _bad("a list for a key", _lines({"key": [1], "epoch": 1, "loss": 1}), ("row 0", "list"), suffix="jsonl"),
    _bad("half a surrogate pair in a key", '{"key": "\\ud800", "epoch": 1, "loss": 1}\n', ("surrogate",), suffix="jsonl"),
    _bad("a key twice at a snapshot", HEAD + "a,1,1\na,1,2\n", ("'a' has 2 losses at snapshot 1", "--during")),
    _bad("half a token", "key,epoch,loss,tokens\na,1,1,1.5\n", ("row 0", "'tokens'", "0 or more")),
    _bad("no tokens on a row", "key,epoch,loss,tokens\na,1,1,\n", ("row 0", "'tokens'")),
    _bad("tokens beyond 32 bits", "key,epoch,loss,tokens\na,1,1,5000000000\n", ("row 0", "'tokens'")),
    _bad("tokens that are all 0", "key,epoch,loss,tokens\na,1,1,0\n", ("holds no loss",)),
    _bad("a field too many", HEAD + "a,1,1,1\n", ("log.csv cannot be read", "Expected 3 columns")),
    _bad("a field too few", HEAD + "a,1\n", ("log.csv cannot be read", "Expected 3 columns")),
    _bad("a column twice", "key,epoch,loss,loss\na,1,1,2\n", ("'loss' stands twice",)),
    _bad("bytes that are no UTF-8", b"key,epoch,loss\n\xff,1,1\n", ("log.csv",)),
    _bad("JSONL cut in the middle", '{"key": 1, "epoch": 1, "loss": 1}\n{"key"', ("line 2", "not valid JSON"), suffix="jsonl"),
    _bad("a text file called Parquet", HEAD, ("cannot be read as .parquet",), suffix="parquet"),
    _bad("Parquet of times", lambda: _parquet({"key": ["a"], "epoch": [1], "loss": pa.array([1], pa.timestamp("s"))}), ("row 0", "number is wanted"), suffix="parquet"),
    _bad("Parquet of true", lambda: _parquet({"key": ["a"], "epoch": [1], "loss": [True]}), ("row 0", "bool"), suffix="parquet"),
    _bad("names that leave the key open", "id,uid,epoch,loss\na,b,1,1\n", ("'id' or 'uid'", "--key-column")),
    _bad("names that leave the losses open", "id,loss_0,loss_1,nll_0,nll_1\na,1,1,1,1\n", ("--wide",)),
    _bad("names that say nothing", "a,b,c\n1,2,3\n", ("--snapshot-column", "--wide"), suffix="csv"),
    _bad("a guess that nobody confirms", HEAD + "a,1,1\n", ("--yes", "key key"), "--json"),
    _bad("a column that is not there", HEAD + "a,1,1\n", ("--loss-column", "'nll'", "'epoch'"), "--loss-column", "nll"),
    _bad("a pattern that fits nothing", HEAD + "a,1,1\n", ("--wide", "'x*'"), "--wide", "x*", "--yes"),
    _bad("a gold label that is none", DYNAMICS % ("[1, 2]", 2), ("row 0", "'gold'", "0 to 1", "'2'"), suffix="jsonl"),
    _bad("a gold label of words", DYNAMICS % ("[1, 2]", '"yes"'), ("row 0", "'gold'", "'yes'"), suffix="jsonl"),
    _bad("one logit", DYNAMICS % ("[1]", 0), ("row 0", "two or more logits"), suffix="jsonl"),
    _bad("a number for logits", DYNAMICS % ("3.5", 0), ("row 0", "two or more logits"), suffix="jsonl"),
    _bad("logits of words", DYNAMICS % ('["a", "b"]', 0), ("row 0", "'a'", "no number"), suffix="jsonl"),
    _bad("logits that are all NaN", DYNAMICS % ("[NaN, 1]", 0), ("holds no loss",), suffix="jsonl"),
    _bad("a kind of file that is not read", b"PK", ("cannot read .npz", ".jsonl"), suffix="npz"),
    _bad("a corpus of other keys", HEAD + "a,1,1\n", ("no key of the corpus", "--corpus-key-column"), "--yes", "--corpus", "data/demo/contact-heldout.jsonl"),
    _at("losses that are not there", "nowhere.csv", ("nothing to import at", "no such file")),
    _at("a path of 5,000 letters", "x" * 5000, ("nothing to import at",)),
    _at("a path with NUL", "a\0b", ("nothing to import at",)),
    Case(TRAJECTORIES, "an empty folder", lambda place: _empty(place), ("folder without any",)),
    Case(TRAJECTORIES, "an import over a run", lambda place: _over(place), ("exists already", "--out")),
]  # fmt: skip


def _empty(place):
    (place.root / "folder").mkdir()
    return ["import", place.root / "folder", "--yes", "--out", place.root / "theirs"]


def _over(place):
    return ["import", place.write("log.csv", HEAD + "a,1,1\n"), "--yes", "--out", place.runs / "good"]
