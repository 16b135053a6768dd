"""Bad input through the readers of a corpus: files that are damaged, odd, foreign, gigantic, or unfold to be."""

import io
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq

from carto_core.config import CorpusConfig
from carto_core.corpus.reading import read_corpus
from tests.bad_input.cases import CORPUS, Case

GOOD = [{"text": f"text number {i} is here and there"} for i in range(40)]
BIDI, COMBINED, EMOJI = "\u202eשלום عليكم\u202c", "Zalgo z\u0301\u0327\u0334\u0358", "👩‍👩‍👧‍👦 🏳️‍🌈 \U000e0041"
MARKUP = "<script>alert(1)</script> **bold** $x^2$ [a](javascript:alert(2)) :smile: {{7*7}} \\input{x}"


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def parquet(columns, **how):
    file = io.BytesIO()
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    pq.write_table(table, file, **how)
    return file.getvalue()


def _bad(name, content, says, *options, suffix="jsonl", file="corpus"):
    def make(place):
        path = place.write(f"{file}.{suffix}", content() if callable(content) else content)
        return ["train", "--corpus", path, "--canaries", "none", *options, "--out", place.root / "new"]

    return Case(CORPUS, name, make, says)


def _folder(name, fill, says):
    def make(place):
        folder = place.root / "folder"
        folder.mkdir()
        fill(folder)
        return ["train", "--corpus", folder, "--canaries", "none", "--out", place.root / "new"]

    return Case(CORPUS, name, make, says)


def _nested(depth):
    return f'{{"text": "a", "m": {"[" * depth}{"]" * depth}}}\n'


def _unfolding():
    """A Parquet file of less than 100 kB that says 3,000,000 times the same 1,000 characters."""
    same = pa.DictionaryArray.from_arrays(pa.array([0] * 3_000_000, pa.int32()), pa.array(["x" * 1000]))
    return parquet({"text": same}, compression="zstd")


def _unfolding_inside():
    """The same inside lists, where a reader would unfold it at once."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 3_000_000, pa.int32()), pa.array(["x" * 1000]))
    lists = pa.ListArray.from_arrays(pa.array(range(0, 3_000_001, 1000), pa.int32()), texts)
    return parquet({"text": [f"text {i}" for i in range(3000)], "m": lists}, compression="zstd")


def _flipped():
    whole = parquet({"text": [row["text"] for row in GOOD]})
    return whole[:30] + bytes(60) + whole[90:]


ARROW = "data-0.arrow"
TWICE = pa.Table.from_arrays([pa.array(["a"])] * 2, names=["text", "text"])
VIEWS = pa.table({"text": pa.array(["a", "b"], pa.string_view())})
NESTED_VIEWS = pa.table({"text": ["a", "b"], "m": pa.array([["a"], ["b"]], pa.list_(pa.string_view()))})


def _saved(name, spoil, says):
    """A data set as `save_to_disk` writes it, then spoilt."""

    def fill(folder):
        _stream(folder, {"text": [row["text"] for row in GOOD]})
        _state(folder, ARROW)
        spoil(folder)

    return _folder(name, fill, says)


def _stream(folder, columns, compression=None):
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    with pa.ipc.new_stream(
        folder / ARROW, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)
    ) as stream:
        stream.write_table(table)


def _state(folder, filename, picks=()):
    state = {"_data_files": [{"filename": filename}], "_indices_data_files": list(picks)}
    (folder / "state.json").write_text(json.dumps(state))


def _splits(folder, names):
    (folder / "state.json").unlink()
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": names}))


def _cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def _climbing(folder):
    """Offsets of three texts, the last of which ends far behind the texts' bytes."""
    _stream(folder, {"text": ["a", "b", "c"]})
    whole, offsets = (folder / ARROW).read_bytes(), b"".join(n.to_bytes(4, "little") for n in (1, 2, 3))
    assert whole.count(offsets) == 1
    (folder / ARROW).write_bytes(whole.replace(offsets, offsets[:8] + (10**6).to_bytes(4, "little")))


def _dictionary():
    same = pa.DictionaryArray.from_arrays(pa.array([0] * 3_000_000, pa.int32()), pa.array(["x" * 1000]))
    return pa.table({"text": same})


ODD = {  # read as they are: keys and texts must come out unchanged
    "emoji, right-to-left and combining text": [EMOJI, BIDI, COMBINED],
    "NUL and other control characters in a text": ["a\0b", "bell \a", "escape \x1b[31m"],
    "HTML, Markdown, LaTeX and script in a text": [MARKUP, "</textarea><svg onload=alert(1)>", "$$\\int$$"],
    "a text of a million characters": ["word " * 200_000, "x" * 1_000_000],
    "line separators that are no newlines": ["a\u2028b", "a\x0cb", "a\x85b"],
    "texts that are all alike but one": ["same"] * 20 + ["other"],
    "two samples, fewer than a batch": ["one", "two"],
}

CASES = [
    _bad("an empty file", "", ("holds no text",)),
    _bad("only blank lines", "\n \n\n", ("holds no text",)),
    _bad("only empty texts", lines({"text": ""}, {"text": "  "}), ("holds no text",)),
    _bad("one sample", lines({"text": "alone"}), ("at least 2 distinct samples",)),
    _bad("samples that are all alike", lines(*[{"text": "same"}] * 50), ("at least 2 distinct samples",)),
    _bad("a line cut in the middle", lines(*GOOD)[:-9], ("line 40", "not valid JSON")),
    _bad("a list for a row", "[1, 2]\n", ("line 1", "JSON object", "list")),
    _bad("null for a row", "null\n", ("line 1", "JSON object")),
    _bad("rows nested 100,000 deep", "[" * 100_000, ("line 1", "nested too deeply")),
    _bad("a column nested 300 deep", _nested(300) + lines(*GOOD), ("row 0", "'m'", "cannot be kept")),
    _bad("a number of 5,000 digits", '{"text": "a", "m": ' + "9" * 5000 + "}\n", ("line 1", "not valid JSON")),
    _bad(
        "a number beyond 64 bits", '{"text": "a", "m": ' + "9" * 30 + "}\n" + lines(*GOOD), ("'m'", "write it as text")
    ),
    _bad("a name that stands twice in a row", '{"text": "a", "text": "b"}\n' + lines(*GOOD), ("'text'", "twice")),
    _bad("half a surrogate pair in a text", '{"text": "a\\ud800b"}\n' + lines(*GOOD), ("row 0", "surrogate")),
    _bad("half a surrogate pair in a key", '{"text": "a", "key": "\\ud800"}\n' + lines(*GOOD), ("key", "surrogate")),
    _bad(
        "half a surrogate pair in a column", '{"text": "a", "m": "\\udfff"}\n' + lines(*GOOD), ("'m'", "cannot be kept")
    ),
    _bad("bytes that are no UTF-8", b'{"text": "\xff\xfe"}\n', ("not UTF-8", "byte 10")),
    _bad("UTF-16", lines(*GOOD).encode("utf-16"), ("not UTF-8",)),
    _bad("a binary file", lambda: os.urandom(64) + b"\xff" * 64, ("not UTF-8",)),
    _bad("a number for a text", lines({"text": 5}), ("row 0", "'text'", "int, not text")),
    _bad("a nested text", lines({"text": {"de": "ja"}}), ("'text'", "dict, not text")),
    _bad("null for a text", lines({"text": None}), ("'text' is empty", "--text-column")),
    _bad("no column of texts", lines({"body": "a"}), ("'text' is missing", "--text-column", "'body'")),
    _bad("no column of keys", lines(*GOOD), ("'id' is missing", "--key-column"), "--key-column", "id"),
    _bad("a column name of markup", lines({MARKUP: "a"}), ("'text' is missing", "<script>")),
    _bad("keys that repeat", lines({"text": "a", "key": "x"}, {"text": "b", "key": "x"}), ("'x'", "unique")),
    _bad("a key that is a list", lines({"text": "a", "key": [1]}), ("'key'", "list")),
    _bad("an empty key", lines({"text": "a", "key": " "}), ("'key'", "is empty")),
    _bad("true for a key", lines({"text": "a", "key": True}), ("'key'", "bool")),
    _bad("an object for a source", lines({"text": "a", "source": {"a": 1}}), ("'source'", "dict")),
    _bad(
        "a text beyond 10 million characters", lines({"text": "x" * 10_000_001}), ("10,000,001", "CARTO_MAX_TEXT_CHARS")
    ),
    _bad("CSV without a row", "text,key\n", ("holds no text",), suffix="csv"),
    _bad("CSV with a column twice", "text,text\na,b\n", ("'text' stands twice",), suffix="csv"),
    _bad("CSV with a field too many", "text\na,b\n", ("row 0", "more fields"), suffix="csv"),
    _bad("CSV with a field too few", "key,text,m\n1,a\n", ("row 0", "fewer fields"), suffix="csv"),
    _bad("CSV cut inside a quotation", 'text\n"abc\n', ("unexpected end of data",), suffix="csv"),
    _bad("CSV of bytes", b"text\n\xff\n", ("not UTF-8",), suffix="csv"),
    _bad("an empty Parquet file", b"", ("cannot be read as .parquet",), suffix="parquet"),
    _bad("a text file called Parquet", lines(*GOOD), ("cannot be read as .parquet",), suffix="parquet"),
    _bad(
        "Parquet cut in the middle", lambda: parquet({"text": ["a"] * 99})[:200], ("cannot be read",), suffix="parquet"
    ),
    _bad("Parquet with zeros in it", _flipped, ("cannot be read",), suffix="parquet"),
    _bad("Parquet without a column", lambda: parquet({}), ("holds no text",), suffix="parquet"),
    _bad("Parquet of bytes", lambda: parquet({"text": [b"\xff"]}), ("bytes, not text",), suffix="parquet"),
    _bad("Parquet of structs", lambda: parquet({"text": [{"a": "b"}]}), ("dict, not text",), suffix="parquet"),
    _bad(
        "Parquet with a column twice",
        lambda: parquet(pa.Table.from_arrays([pa.array(["a"])] * 2, names=["text", "text"])),
        ("'text' stands twice",),
        suffix="parquet",
    ),
    _bad(
        "Parquet with a time that is none",
        lambda: parquet({"text": ["a"], "m": pa.array([2**62], pa.timestamp("us"))}),
        ("cannot be read", "out of range"),
        suffix="parquet",
    ),
    _bad("a Parquet bomb", _unfolding, ("CARTO_MAX_CORPUS_GB", "2,000,000,000"), suffix="parquet"),
    _bad("a Parquet bomb inside lists", _unfolding_inside, ("CARTO_MAX_CORPUS_GB",), suffix="parquet"),
    _bad(
        "Parquet of 30 million nulls",
        lambda: parquet({"text": pa.nulls(30_000_000, pa.string())}),
        ("CARTO_MAX_CORPUS_GB", "3,000,000,000"),
        suffix="parquet",
    ),
    _bad("a text file of NUL alone", b"\0" * 100 + b"\n", ("at least 2 distinct samples",), suffix="txt"),
    _bad("a kind of file that is not read", b"PK", ("cannot read .xlsx", ".jsonl"), suffix="xlsx"),
    _bad("a file without a suffix", "a", ("cannot read",), suffix="", file="corpus/x"),
    _folder("an empty folder", lambda folder: None, ("folder without any",)),
    _folder("a folder called .jsonl in a folder", lambda folder: (folder / "x.jsonl").mkdir(), ("x.jsonl", "no file")),
    _folder(
        "a link to nowhere in a folder", lambda folder: (folder / "x.csv").symlink_to("gone"), ("x.csv", "no file")
    ),
    _folder(
        "a device that never ends", lambda folder: (folder / "x.txt").symlink_to("/dev/zero"), ("x.txt", "no file")
    ),
    _folder("a pipe that never speaks", lambda folder: os.mkfifo(folder / "x.jsonl"), ("x.jsonl", "no file")),
    _folder("a file whose name is no UTF-8", lambda folder: _named(folder, b"\xff.txt"), ("its key", "surrogate")),
    _saved("a data set whose file is gone", lambda f: (f / ARROW).unlink(), ("'data-0.arrow'", "no such file")),
    _saved("a data set cut in the middle", lambda f: _cut(f / ARROW, 300), ("data set that was saved to disk",)),
    _saved("a data set of zeros", lambda f: (f / ARROW).write_bytes(bytes(999)), ("data set that was saved to disk",)),
    _saved("a data set of bytes for a text", lambda f: _stream(f, {"text": [b"a", b"b"]}), ("bytes, not text",)),
    _saved("a data set with a column twice", lambda f: _stream(f, TWICE), ("'text' stands twice",)),
    _saved("a compressed data set", lambda f: _stream(f, {"text": ["x" * 10**6] * 9}, "zstd"), ("is compressed",)),
    _saved("a data set of views", lambda f: _stream(f, VIEWS), ("'text' is string_view", "plain values")),
    _saved("a data set of views in lists", lambda f: _stream(f, NESTED_VIEWS), ("'m' is list", "plain values")),
    _saved("a data set whose offsets climb out", _climbing, ("data set that was saved to disk",)),
    _saved("a data set that unfolds", lambda f: _stream(f, _dictionary()), ("CARTO_MAX_CORPUS_GB",)),
    _saved("a state that is no JSON", lambda f: (f / "state.json").write_text("{"), ("state.json cannot be read",)),
    _saved("a state of a list", lambda f: (f / "state.json").write_text("[]"), ("state.json must hold",)),
    _saved("a state that climbs out", lambda f: _state(f, "../x.arrow"), ("'../x.arrow'", "no such file")),
    _saved("a state of numbers", lambda f: _state(f, 7), ("names 7",)),
    _saved(
        "a state that picks rows", lambda f: _state(f, ARROW, picks=[{"filename": "i.arrow"}]), ("flatten_indices",)
    ),
    _saved("a data set of no files", lambda f: (f / "state.json").write_text("{}"), ("holds no text",)),
    _saved("splits that are none", lambda f: _splits(f, ["../x"]), ("names no splits",)),
    _saved("a split that is gone", lambda f: _splits(f, ["train"]), ("'train'", "no such data set")),
    Case(CORPUS, "a corpus that is not there", lambda place: _path("nowhere.jsonl", place), ("no corpus at",)),
    Case(CORPUS, "a path of 5,000 letters", lambda place: _path("x" * 5000, place), ("no corpus at",)),
    Case(CORPUS, "a path with NUL", lambda place: _path("a\0b", place), ("no corpus at",)),
]


def _path(name, place):
    return ["train", "--corpus", name, "--out", place.root / "new"]


def _named(folder, name):
    (folder / os.fsdecode(name)).write_bytes(b"one line\nanother line\n")


def read(path, **config):
    return read_corpus(CorpusConfig(path=str(path), **config))
