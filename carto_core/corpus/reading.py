"""Read a user's corpus from JSONL, Parquet, CSV, plain text or a saved data set into rows with stable keys.

Columns other than key, text and source travel along as `meta`. Nothing is cut, cleaned or reordered: what cannot be kept
as it is, is refused. `limits` says how large a corpus and one text may be.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from carto_core.config import CorpusConfig
from carto_core.corpus.arrow_streams import arrow_batches
from carto_core.corpus.files import TEXT_SUFFIXES, arrow_files, corpus_files, source_name
from carto_core.corpus.limits import BATCH_ROWS, Budget, max_text_chars, slices, too_long
from carto_core.errors import CorpusError

MAX_NAME_CHARS = 1000  # of a key or a source


@dataclass(frozen=True, slots=True)
class Row:
    """One sample as the user has it.

    Attributes:
        key: unique and stable; the user's own, or `{file}/{row}` with row counted from 0; of a data set
            saved to disk the folder's name stands for the file, and rows are counted through all of its files.
        text: never empty.
        source: the `source` column where there is one, else the file's stem, without the number of a shard.
        meta: the user's other columns, JSON-ready.
    """

    key: str
    text: str
    source: str
    meta: dict[str, Any]


def read_corpus(config: CorpusConfig) -> list[Row]:
    """Return all rows of the corpus, in the order of its files.

    Args:
        config: whose `path` is one that `corpus_files` knows.

    Raises:
        CorpusError: the path or a column is missing, a named corpus is not fetched, a file or a line cannot be parsed, a text
            or key is none, keys repeat, something is larger than `limits` allows, or no row holds text.
    """
    budget = Budget()
    files = corpus_files(config.path)
    rows = [row for path, name in files.items() for row in _read_file(path, name, config, budget)]
    if not rows:
        raise CorpusError(f"{config.path} holds no text; a corpus needs at least one non-empty row")
    _require_unique_keys(rows, config)
    return rows


def rows_of(records: Iterable[Mapping[str, Any]], config: CorpusConfig) -> list[Row]:
    """Return rows that a program has at hand, under the same rules as a file's; those without text are left out.

    Args:
        records: one mapping a row, such as a data set of Hugging Face gives.
        config: whose columns hold text and key; its path is what messages call it, and the source of rows that name none.

    Raises:
        CorpusError: see `read_corpus`.
    """
    name = Path(config.path).name
    found = (_row_of(dict(record), number=i, name=name, config=config) for i, record in enumerate(records))
    rows = [row for row in found if row.text.strip()]
    _require_unique_keys(rows, config)
    return rows


def corpus_sha256(rows: list[Row]) -> str:
    """Return the corpus's fingerprint: SHA-256 over its sorted (key, text) pairs, one JSON array a line (UTF-8)."""
    digest = hashlib.sha256()
    for key, text in sorted((row.key, row.text) for row in rows):
        digest.update(json.dumps([key, text], ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def _read_file(path: Path, name: str, config: CorpusConfig, budget: Budget) -> Iterator[Row]:
    reader = _read_dataset if path.is_dir() else _READERS.get(path.suffix.lower())
    if reader is None:
        raise CorpusError(
            f"{path.name}: cannot read {path.suffix or 'a file without suffix'}; give {', '.join(_READERS)}, or a folder"
        )
    try:
        for number, record in enumerate(reader(path, config, budget)):
            row = _row_of(record, number=number, name=name, config=config)
            if row.text.strip():
                yield row
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{path.name} is not UTF-8 text: {error.reason} (byte {error.start}); save it as UTF-8"
        ) from None
    except (pa.ArrowException, csv.Error, OSError, OverflowError) as error:
        form = path.suffix if path.is_file() else "a data set that was saved to disk"
        raise CorpusError(f"{path.name} cannot be read as {form}: {error}") from None


def _row_of(record: dict[str, Any], *, number: int, name: str, config: CorpusConfig) -> Row:
    where = f"{name}, row {number}"
    text = _column(record, config.text_column, where=where, flag="--text-column")
    if not isinstance(text, str):
        raise CorpusError(f"{where}: column {config.text_column!r} holds {type(text).__name__}, not text")
    if len(text) > max_text_chars():
        raise CorpusError(too_long(where, len(text)))
    key_column = config.key_column or "key"
    if config.key_column or record.get("key") is not None:
        key = as_name(_column(record, key_column, where=where, flag="--key-column"), f"{where}: column {key_column!r}")
    else:
        key = f"{name}/{number}"
    named = record.get("source") not in (None, "")
    source = as_name(record["source"], f"{where}: column 'source'") if named else source_name(name)
    taken = {config.text_column, key_column, "source", "meta"}
    nested = record.get("meta")
    meta = dict(nested) if isinstance(nested, dict) else {} if nested is None else {"meta": nested}
    meta |= {name: value for name, value in record.items() if name not in taken and value is not None}
    for value, what in ((text, f"column {config.text_column!r}"), (key, "its key"), (source, "its source")):
        require_characters(value, f"{where}: {what}")
    return Row(key=key, text=text, source=source, meta=_json_ready(meta, where))


def _column(record: dict[str, Any], name: str, *, where: str, flag: str) -> Any:
    value = record.get(name)
    if value is None:
        columns = ", ".join(map(repr, record)) or "none"
        problem = "is empty" if name in record else "is missing"
        raise CorpusError(f"{where}: column {name!r} {problem}; name another with {flag} (columns: {columns})")
    return value


def as_name(value: Any, where: str) -> str:
    """Return a key or source as text; numbers are read as they are written.

    Raises:
        CorpusError: it is neither, or is empty, or too long.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal | UUID | date):
        raise CorpusError(f"{where} holds {type(value).__name__}; a text or a number is wanted")
    if isinstance(value, str) and not value.strip():
        raise CorpusError(f"{where} is empty")
    if len(str(value)) > MAX_NAME_CHARS:
        raise CorpusError(f"{where} has {len(str(value)):,} characters, and a name has at most {MAX_NAME_CHARS:,}")
    return str(value)


def require_characters(text: str, where: str) -> None:
    """Raise CorpusError where a text holds half a surrogate pair, which is no character and no file could hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise CorpusError(
            f"{where} holds {text[error.start]!a} at character {error.start}, half of a surrogate pair and no character; "
            "write the file anew as UTF-8"
        ) from None


def _json_ready(meta: dict[str, Any], where: str) -> dict[str, Any]:
    """Return `meta` with what JSON cannot hold as text, and not-a-number as null."""
    if not meta:
        return {}
    for name, value in meta.items():
        try:
            orjson.dumps({name: value}, default=str, option=orjson.OPT_NON_STR_KEYS)
        except (orjson.JSONEncodeError, RecursionError) as error:
            raise CorpusError(f"{where}: column {name!a} cannot be kept: {error}; write it as text") from None
    return orjson.loads(orjson.dumps(meta, default=str, option=orjson.OPT_NON_STR_KEYS))


def _require_unique_keys(rows: list[Row], config: CorpusConfig) -> None:
    seen: set[str] = set()
    for row in rows:
        if row.key in seen:
            raise CorpusError(
                f"key {row.key!r} stands on more than one row of {config.path}; keys must be unique, "
                "name another column with --key-column"
            )
        seen.add(row.key)


def _read_jsonl(path: Path, config: CorpusConfig, budget: Budget) -> Iterator[dict[str, Any]]:
    budget.spend_file(path)
    yield from json_lines(path)


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file with one JSON object a line; blank lines are passed over.

    Raises:
        CorpusError: a line is no JSON object, or names something twice.
        UnicodeDecodeError, OSError: the file cannot be read.
    """
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line, object_pairs_hook=_each_once)
            except (ValueError, RecursionError) as error:
                said = "nested too deeply" if isinstance(error, RecursionError) else getattr(error, "msg", error)
                raise CorpusError(f"{path.name}, line {number}: not valid JSON ({said})") from None
            if not isinstance(record, dict):
                raise CorpusError(f"{path.name}, line {number}: a JSON object is wanted, not {type(record).__name__}")
            yield record


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise ValueError(f"the name {_twice(name for name, _ in pairs)!a} stands twice in one object")
    return record


def _twice(names: Iterable[str]) -> str | None:
    """Return the first name that stands twice, or None."""
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)


def _read_parquet(path: Path, config: CorpusConfig, budget: Budget) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(path) as plain:
        _require_distinct(path, plain.schema_arrow.names)
        leaves = [plain.schema.column(i).path for i in range(len(plain.schema))]
    # Texts that repeat are stored once: read that way, a small file cannot unfold into more than memory holds.
    with pq.ParquetFile(path, read_dictionary=leaves) as file:
        budget.spend_parquet(path, file)
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            for rows in slices(batch):
                yield from rows.to_pylist()


def _read_dataset(path: Path, config: CorpusConfig, budget: Budget) -> Iterator[dict[str, Any]]:
    for file in arrow_files(path):
        for batch in arrow_batches(file, budget):
            _require_distinct(file, batch.schema.names)
            for rows in slices(batch):
                yield from rows.to_pylist()


def _read_csv(path: Path, config: CorpusConfig, budget: Budget) -> Iterator[dict[str, Any]]:
    budget.spend_file(path)
    csv.field_size_limit(max_text_chars())
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        _require_distinct(path, list(reader.fieldnames or []))
        for number, record in enumerate(reader):
            if None in record:
                raise CorpusError(f"{path.name}, row {number}: more fields than the header has columns")
            if None in record.values():
                raise CorpusError(f"{path.name}, row {number}: fewer fields than the header has columns")
            yield record


def _require_distinct(path: Path, columns: list[str]) -> None:
    if (name := _twice(columns)) is not None:
        raise CorpusError(f"{path.name}: the column {name!a} stands twice; name each column once")


def _read_text(path: Path, config: CorpusConfig, budget: Budget) -> Iterator[dict[str, Any]]:
    budget.spend_file(path)
    text = path.read_text(encoding="utf-8-sig")
    pieces = text.split("\n") if config.split == "line" else re.split(r"\n[ \t]*\n+", text)
    if not pieces[-1]:
        pieces.pop()  # what stands after the last newline
    for piece in pieces:
        yield {config.text_column: piece.strip("\n")}


_READERS: dict[str, Callable[[Path, CorpusConfig, Budget], Iterator[dict[str, Any]]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".parquet": _read_parquet,
    ".csv": _read_csv,
} | dict.fromkeys(TEXT_SUFFIXES, _read_text)
