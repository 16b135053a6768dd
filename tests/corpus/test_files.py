"""Data sets as they lie on a disk: saved by the installed `datasets`, or as shards in folders below."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from carto_core.config import CorpusConfig
from carto_core.corpus.files import corpus_files, files_read
from carto_core.corpus.foreign import foreign_rows
from carto_core.corpus.reading import read_corpus
from carto_core.errors import CorpusError


def read(path, **settings):
    return read_corpus(CorpusConfig(path=str(path), **settings))


def save_dataset(folder, texts, *, shards=1, **columns):
    """Write what `save_to_disk` writes, without it."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05d}-of-{shards:05d}.arrow" for i in range(shards)]
    table = pa.table({"text": texts, **columns})
    for i, name in enumerate(names):
        part = table.slice(i * len(table) // shards, (i + 1) * len(table) // shards - i * len(table) // shards)
        with pa.ipc.new_stream(folder / name, table.schema) as stream:
            stream.write_table(part, max_chunksize=3)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    return folder


def write_shards(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"text": [f"text {i} of {name}" for i in range(2)]}), path)


def test_what_the_installed_datasets_saved_comes_in_row_by_row(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [{"text": f"text number {i}", "label": i % 2, "tags": ["a"] * i, "id": f"r{i}"} for i in range(11)]
    saved = datasets.Dataset.from_list(rows)
    saved.save_to_disk(tmp_path / "whole", num_shards=3)
    saved.select([4, 1, 9]).save_to_disk(tmp_path / "picked")
    datasets.DatasetDict({"train": saved}).save_to_disk(tmp_path / "one")

    found = read(tmp_path / "whole")

    assert [row.text for row in found] == [row["text"] for row in rows]
    assert [(row.key, row.source) for row in found][:2] == [("whole/0", "whole"), ("whole/1", "whole")]
    assert found[-1].key == "whole/10"
    assert found[3].meta == {"label": 1, "tags": ["a"] * 3, "id": "r3"}
    assert [row.key for row in read(tmp_path / "picked", key_column="id")] == ["r4", "r1", "r9"]
    assert [row.text for row in read(tmp_path / "one")] == [row["text"] for row in rows]
    assert [row.key for row in foreign_rows(tmp_path / "picked", key_column="id")] == ["r4", "r1", "r9"]


def test_a_saved_data_set_is_read_in_the_order_of_its_state_and_without_that_package(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    folder = save_dataset(tmp_path / "mine", [f"t{i}" for i in range(8)], shards=2)
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps({"_data_files": state["_data_files"][::-1]}))

    assert [row.text for row in read(folder)] == [*(f"t{i}" for i in range(4, 8)), *(f"t{i}" for i in range(4))]
    assert [file.name[:10] for file in files_read(str(folder))] == ["data-00001", "data-00000"]


def test_of_several_splits_one_must_be_named(tmp_path):
    for split in ("train", "test"):
        save_dataset(tmp_path / "dd" / split, [f"{split} {i}" for i in range(2)])
    (tmp_path / "dd" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    write_shards(tmp_path / "hub", "data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet")
    write_shards(tmp_path / "hub", "data/test-00000-of-00001.parquet")

    with pytest.raises(CorpusError, match=r"the splits 'train', 'test'; give one of them: .*dd/train or .*dd/test"):
        read(tmp_path / "dd")
    with pytest.raises(
        CorpusError, match=r"the splits 'test', 'train'; .*hub/data/test-\*.parquet or .*train-\*.parquet"
    ):
        read(tmp_path / "hub")
    assert [row.text for row in read(tmp_path / "dd" / "test")] == ["test 0", "test 1"]
    found = read(tmp_path / "hub" / "data" / "train-*.parquet")
    assert [row.key for row in found] == [f"train-0000{i}-of-00002.parquet/{row}" for i in (0, 1) for row in (0, 1)]
    assert {row.source for row in found} == {"train"}


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("default/train/0000.parquet", "default/test/0000.parquet"), "'test', 'train'"),
        (("data/train.parquet", "data/validation.parquet"), "'train', 'validation'"),
    ],
)
def test_splits_are_known_by_their_folders_and_files_too(names, splits, tmp_path):
    write_shards(tmp_path, *names)

    with pytest.raises(CorpusError, match=splits):
        read(tmp_path)


def test_shards_in_folders_below_are_one_corpus_whose_keys_hold_their_way(tmp_path):
    write_shards(tmp_path, "en/0000.parquet", "fr/0000.parquet", ".cache/x/0000.parquet", "a/b/c/d/too-deep.parquet")
    (tmp_path / "README.md").write_text("# The card of a data set\nis none of its texts\n")

    found = read(tmp_path)

    assert [row.key for row in found] == [
        "en/0000.parquet/0",
        "en/0000.parquet/1",
        "fr/0000.parquet/0",
        "fr/0000.parquet/1",
    ]


def test_a_folder_with_files_of_its_own_is_read_as_before(tmp_path):
    write_shards(tmp_path, "below/0000.parquet")
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "readme.md").write_text("three\n")
    only_text = tmp_path / "only"
    only_text.mkdir()
    (only_text / "a.md").write_text("four\n")

    assert [row.text for row in read(tmp_path)] == ["one", "two", "three"]
    assert [row.text for row in read(only_text)] == ["four"]


def test_texts_that_repeat_in_a_dictionary_come_out_whole_and_are_counted_unfolded(tmp_path, monkeypatch):
    words = pa.array(["x" * 400, "y" * 400]).dictionary_encode()
    folder = save_dataset(tmp_path / "mine", pa.chunked_array([words.take(pa.array([0, 1] * 20))]))

    assert [row.text[0] for row in read(folder)] == ["x", "y"] * 20
    monkeypatch.setenv("CARTO_MAX_CORPUS_GB", "1.6e-5")
    with pytest.raises(CorpusError, match="CARTO_MAX_CORPUS_GB"):
        read(folder)


def test_a_pattern_that_means_nothing_is_told(tmp_path):
    with pytest.raises(CorpusError, match="no corpus at"):
        corpus_files(str(tmp_path / "*.parquet"))


def test_a_whole_data_set_folder_can_be_moved(tmp_path):
    folder = save_dataset(tmp_path / "mine", ["a", "b"])
    before = [(row.key, row.text) for row in read(folder)]
    (tmp_path / "elsewhere").mkdir()

    moved = shutil.move(folder, tmp_path / "elsewhere" / "mine")

    assert [(row.key, row.text) for row in read(moved)] == before
