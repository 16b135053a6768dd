"""Read a user's corpus from JSONL, Parquet, CSV or plain text into rows with stable keys.

Columns other than key, text and source travel along as `meta`. Nothing is cut, cleaned or reordered.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from carto_core.config import CorpusConfig
from carto_core.corpus.catalog import CATALOG, prepared_file
from carto_core.errors import CorpusError

TEXT_SUFFIXES = (".txt", ".text", ".md")


@dataclass(frozen=True, slots=True)
class Row:
    """One sample as the user has it.

    Attributes:
        key: unique and stable; the user's own, or `{file}/{row}` with row counted from 0.
        text: never empty.
        source: the `source` column where there is one, else the file's stem.
        meta: the user's other columns, JSON-ready.
    """

    key: str
    text: str
    source: str
    meta: dict[str, Any]


def read_corpus(config: CorpusConfig) -> list[Row]:
    """Return all rows of the corpus, in the order of its files.

    Args:
        config: `path` is a file, a folder of files (read in order of name), or a name in `CATALOG`.

    Raises:
        CorpusError: the path or a column is missing, a named corpus is not fetched, a line cannot be parsed, a text is not a string, keys repeat,
            or no row holds text.
    """
    rows = [row for path in _files_of(config.path) for row in _read_file(path, config)]
    if not rows:
        raise CorpusError(f"{config.path} holds no text; a corpus needs at least one non-empty row")
    _require_unique_keys(rows, config)
    return rows


def corpus_sha256(rows: list[Row]) -> str:
    """Return the corpus's fingerprint: SHA-256 over its sorted (key, text) pairs, one JSON array a line (UTF-8)."""
    digest = hashlib.sha256()
    for key, text in sorted((row.key, row.text) for row in rows):
        digest.update(json.dumps([key, text], ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def _files_of(path: str) -> list[Path]:
    if path in CATALOG:
        return [prepared_file(path)]
    root = Path(path)
    if root.is_dir():
        files = sorted(p for p in root.iterdir() if p.suffix.lower() in _READERS)
        if not files:
            raise CorpusError(f"{path} is a folder without any {', '.join(_READERS)} file")
        return files
    if not root.is_file():
        raise CorpusError(f"no corpus at {path}: there is no such file or folder")
    return [root]


def _read_file(path: Path, config: CorpusConfig) -> Iterator[Row]:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise CorpusError(
            f"{path.name}: cannot read {path.suffix or 'a file without suffix'}; give {', '.join(_READERS)}"
        )
    try:
        for number, record in enumerate(reader(path, config)):
            row = _row_of(record, number=number, path=path, config=config)
            if row.text.strip():
                yield row
    except (UnicodeDecodeError, pa.ArrowInvalid, csv.Error) as error:
        raise CorpusError(f"{path.name} cannot be read as {path.suffix}: {error}") from None


def _row_of(record: dict[str, Any], *, number: int, path: Path, config: CorpusConfig) -> Row:
    where = f"{path.name}, row {number}"
    text = _column(record, config.text_column, where=where, flag="--text-column")
    if not isinstance(text, str):
        raise CorpusError(f"{where}: column {config.text_column!r} holds {type(text).__name__}, not text")
    key_column = config.key_column or "key"
    if config.key_column or record.get("key") is not None:
        key = str(_column(record, key_column, where=where, flag="--key-column"))
    else:
        key = f"{path.name}/{number}"
    taken = {config.text_column, key_column, "source", "meta"}
    nested = record.get("meta")
    meta = dict(nested) if isinstance(nested, dict) else {} if nested is None else {"meta": nested}
    meta |= {name: value for name, value in record.items() if name not in taken and value is not None}
    return Row(key=key, text=text, source=str(record.get("source") or path.stem), meta=_json_ready(meta))


def _column(record: dict[str, Any], name: str, *, where: str, flag: str) -> Any:
    value = record.get(name)
    if value is None:
        columns = ", ".join(map(repr, record)) or "none"
        problem = "is empty" if name in record else "is missing"
        raise CorpusError(f"{where}: column {name!r} {problem}; name another with {flag} (columns: {columns})")
    return value


def _json_ready(meta: dict[str, Any]) -> dict[str, Any]:
    """Return `meta` with what JSON cannot hold as text, and not-a-number as null."""
    return orjson.loads(orjson.dumps(meta, default=str, option=orjson.OPT_NON_STR_KEYS)) if meta else {}


def _require_unique_keys(rows: list[Row], config: CorpusConfig) -> None:
    seen: set[str] = set()
    for row in rows:
        if row.key in seen:
            raise CorpusError(
                f"key {row.key!r} stands on more than one row of {config.path}; keys must be unique, "
                "name another column with --key-column"
            )
        seen.add(row.key)


def _read_jsonl(path: Path, config: CorpusConfig) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise CorpusError(f"{path.name}, line {number}: not valid JSON ({error.msg})") from None
            if not isinstance(record, dict):
                raise CorpusError(f"{path.name}, line {number}: a JSON object is wanted, not {type(record).__name__}")
            yield record


def _read_parquet(path: Path, config: CorpusConfig) -> Iterator[dict[str, Any]]:
    for batch in pq.ParquetFile(path).iter_batches(batch_size=10_000):
        yield from batch.to_pylist()


def _read_csv(path: Path, config: CorpusConfig) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(2**31 - 1)
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, record in enumerate(csv.DictReader(file, strict=True)):
            if None in record:
                raise CorpusError(f"{path.name}, row {number}: more fields than the header has columns")
            yield record


def _read_text(path: Path, config: CorpusConfig) -> Iterator[dict[str, Any]]:
    text = path.read_text(encoding="utf-8-sig")
    pieces = text.splitlines() if config.split == "line" else re.split(r"\n[ \t]*\n+", text)
    for piece in pieces:
        yield {config.text_column: piece.strip("\n")}


_READERS: dict[str, Callable[[Path, CorpusConfig], Iterator[dict[str, Any]]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".parquet": _read_parquet,
    ".csv": _read_csv,
} | dict.fromkeys(TEXT_SUFFIXES, _read_text)
