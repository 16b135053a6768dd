"""Which files the path of a corpus means: one file, a folder, shards in folders below it, or a data set saved to disk.

A data set that Hugging Face's `datasets` saved (`save_to_disk`) is a folder with a `state.json`, and counts as one file.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path

import orjson

from carto_core.corpus.catalog import CATALOG, prepared_file
from carto_core.errors import CorpusError

TEXT_SUFFIXES = (".txt", ".text", ".md")
SUFFIXES = (".jsonl", ".ndjson", ".parquet", ".csv", *TEXT_SUFFIXES)
SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}")  # the stem of one of several files of one split
SPLIT_NAMES = ("train", "validation", "valid", "dev", "test")
DEEPEST = 3  # folders below the one that is named
STATE, SPLITS = "state.json", "dataset_dict.json"


def corpus_files(path: str) -> dict[Path, str]:
    """Return the files of a corpus in order, each with the name by which keys and messages call it.

    Args:
        path: a named corpus, a file, a folder of files, a pattern such as `data/train-*.parquet`, a folder with shards of
            Parquet below it (`data/train-00000-of-00004.parquet`, as data sets lie on the Hub), or a data set saved to disk.

    Raises:
        CorpusError: there is nothing that can be read, or several splits, of which one must be named.
    """
    if path in CATALOG:
        file = prepared_file(path)
        return {file: file.name}
    root = Path(path)
    try:
        found = _found(root)
        odd = next((name for file, name in found.items() if not (file.is_file() or is_dataset(file))), None)
    except (OSError, ValueError) as error:
        raise CorpusError(f"no corpus at {path[:200]!r}: {getattr(error, 'strerror', None) or error}") from None
    if not found:
        raise CorpusError(f"{path} is a folder without any {', '.join(SUFFIXES)} file")
    if odd is not None and root in found:
        raise CorpusError(f"no corpus at {path}: there is no such file or folder")
    if odd is not None:
        raise CorpusError(f"{odd} in the folder {path} is no file that can be read; take it out of the folder")
    return found


def files_read(path: str) -> list[Path]:
    """Return every single file that is read for a corpus; see `corpus_files`."""
    return [part for file in corpus_files(path) for part in (arrow_files(file) if file.is_dir() else [file])]


def is_dataset(path: Path) -> bool:
    """Return whether a folder is one data set, or one split of several, that `datasets` saved to disk."""
    return (path / STATE).is_file()


def source_name(name: str) -> str:
    """Return what rows of a file come from where they do not say it: its stem, without the number of a shard."""
    stem = Path(name).stem
    found = SHARD.fullmatch(stem)
    return found[1] if found else stem


def arrow_files(dataset: Path) -> list[Path]:
    """Return the Arrow files of a data set saved to disk, in order.

    Raises:
        CorpusError: its `state.json` is damaged, names a file that is not beside it, or picks rows by indices.
    """
    state = _json(dataset / STATE)
    names = [entry.get("filename") if isinstance(entry, dict) else None for entry in _list_in(state, "_data_files")]
    for name in names:
        if not isinstance(name, str) or "\0" in name or Path(name).name != name or not (dataset / name).is_file():
            raise CorpusError(
                f"{dataset.name}: {STATE} names {name!r}, and there is no such file beside it; copy it back"
            )
    if state.get("_indices_data_files"):
        raise CorpusError(
            f"{dataset.name} picks its rows by indices; write it anew with flatten_indices().save_to_disk(...)"
        )
    return [dataset / str(name) for name in names]


def _found(root: Path) -> dict[Path, str]:
    """Return the files that a path means, whether they are there or not; none for a folder without any."""
    if not root.is_dir():
        is_pattern = glob.has_magic(str(root)) and not root.exists()
        return (is_pattern and _matching(root)) or {root: root.name}
    if is_dataset(root):
        return {root: root.name}
    if (root / SPLITS).is_file():
        return _only_split(root)
    beside = {p: p.name for p in sorted(root.iterdir()) if p.suffix.lower() in SUFFIXES}
    if all(p.suffix.lower() == ".md" for p in beside):  # a data set's card is none of its texts
        return _shards_below(root) or beside
    return beside


def _matching(pattern: Path) -> dict[Path, str]:
    """Return the files that a pattern means, named from the last folder that it names in full."""
    fixed = next(parent for parent in pattern.parents if not glob.has_magic(str(parent)))
    found = sorted(fixed.glob(str(pattern.relative_to(fixed))))
    return {p: p.relative_to(fixed).as_posix() for p in found if p.suffix.lower() in SUFFIXES}


def _shards_below(root: Path) -> dict[Path, str]:
    """Return the Parquet files in the folders below one, hidden ones left out."""
    below = sorted(p for depth in range(1, DEEPEST + 1) for p in root.glob("*/" * depth + "*.parquet"))
    named = {p: p.relative_to(root) for p in below}
    found = {p: name.as_posix() for p, name in named.items() if not any(part.startswith(".") for part in name.parts)}
    splits = {split: pattern for split, pattern in map(_split_of, found.values()) if split}
    _require_one_split(root, list(splits), list(splits.values()))
    return found


def _split_of(name: str) -> tuple[str, str]:
    """Return which split a shard is of, by its name or its folder's, and a pattern of such; empty where neither says it."""
    path = Path(name)
    if found := SHARD.fullmatch(path.stem):
        return found[1], f"{path.parent}/{found[1]}-*.parquet"
    if path.stem in SPLIT_NAMES:
        return path.stem, name
    return (path.parent.name, str(path.parent)) if path.parent.name in SPLIT_NAMES else ("", "")


def _only_split(root: Path) -> dict[Path, str]:
    splits = _list_in(_json(root / SPLITS), "splits")
    known = [split for split in splits if isinstance(split, str) and Path(split).name == split and "\0" not in split]
    if len(known) < len(splits) or not known:
        raise CorpusError(f"{root.name}: {SPLITS} names no splits, or some that are no folder's names; copy it back")
    _require_one_split(root, known, known)
    if not is_dataset(root / known[0]):
        raise CorpusError(
            f"{root.name}: {SPLITS} names {known[0]!r}, and there is no such data set in it; copy it back"
        )
    return {root / known[0]: known[0]}


def _require_one_split(root: Path, splits: Sequence[str], paths: Sequence[str]) -> None:
    if len(splits) > 1:
        raise CorpusError(
            f"{root} holds the splits {', '.join(map(repr, splits))}; give one of them: "
            f"{' or '.join(str(root / path) for path in paths)}"
        )


def _json(path: Path) -> dict[str, object]:
    try:
        found = orjson.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CorpusError(f"{path.parent.name}: {path.name} cannot be read: {error}; copy it back") from None
    if not isinstance(found, dict):
        raise CorpusError(f"{path.parent.name}: {path.name} must hold a JSON object; copy it back")
    return found


def _list_in(found: dict[str, object], name: str) -> list[object]:
    value = found.get(name)
    return value if isinstance(value, list) else []
