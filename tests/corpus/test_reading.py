import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from carto_core.config import CorpusConfig
from carto_core.corpus.reading import corpus_sha256, read_corpus
from carto_core.errors import CorpusError


def read(path, **settings):
    return read_corpus(CorpusConfig(path=str(path), **settings))


def test_the_four_formats_give_the_same_rows(tmp_path):
    texts = ["first, with a comma", 'second "quoted"', "third line"]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text('text\n"first, with a comma"\n"second ""quoted"""\nthird line\n')
    (tmp_path / "a.txt").write_text("\n".join(texts) + "\n")

    for suffix in ("jsonl", "parquet", "csv", "txt"):
        rows = read(tmp_path / f"a.{suffix}")
        assert [(r.key, r.text, r.source) for r in rows] == [(f"a.{suffix}/{i}", t, "a") for i, t in enumerate(texts)]


def test_key_and_source_columns_are_used_and_the_rest_is_meta(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"key": "x", "text": "hello", "source": "s", "year": 1999, "meta": {"a": 1}})
    )

    (row,) = read(tmp_path / "a.jsonl")

    assert (row.key, row.source, row.meta) == ("x", "s", {"a": 1, "year": 1999})


def test_not_a_number_in_meta_is_unknown(tmp_path):
    pq.write_table(pa.table({"text": ["a b"], "score": [float("nan")]}), tmp_path / "a.parquet")

    assert read(tmp_path / "a.parquet")[0].meta == {"score": None}


def test_a_paragraph_split_keeps_lines_together(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n\n\nthree\n")

    assert [r.text for r in read(tmp_path / "a.txt", split="paragraph")] == ["one\ntwo", "three"]


@pytest.mark.parametrize(
    ("content", "name", "settings", "said"),
    [
        ("", "a.jsonl", {}, "holds no text"),
        ('{"text": "a"}\n{oops', "a.jsonl", {}, "a.jsonl, line 2: not valid JSON"),
        ('{"body": "a"}', "a.jsonl", {}, "column 'text' is missing; name another with --text-column"),
        ('{"text": 3}', "a.jsonl", {}, "holds int, not text"),
        ('{"key": "k", "text": "a"}\n{"key": "k", "text": "b"}', "a.jsonl", {}, "'k' stands on more than one row"),
        ("a,text\n1,2,3\n", "a.csv", {}, "more fields than the header"),
        ("hello", "a.docx", {}, "cannot read .docx"),
        ("not parquet at all", "a.parquet", {}, "cannot be read as .parquet"),
    ],
)
def test_bad_input_gets_one_clear_sentence(tmp_path, content, name, settings, said):
    (tmp_path / name).write_text(content)

    with pytest.raises(CorpusError) as raised:
        read(tmp_path / name, **settings)

    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CorpusError, match=r"no corpus at .*nowhere\.jsonl"):
        read(tmp_path / "nowhere.jsonl")


def test_the_fingerprint_does_not_depend_on_order_but_on_every_character(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"key": "1", "text": "a"}\n{"key": "2", "text": "b"}')
    (tmp_path / "b.jsonl").write_text('{"key": "2", "text": "b"}\n{"key": "1", "text": "a"}')
    (tmp_path / "c.jsonl").write_text('{"key": "1", "text": "a"}\n{"key": "2", "text": "c"}')
    one, two, three = (corpus_sha256(read(tmp_path / f"{name}.jsonl")) for name in "abc")

    assert one == two != three
