"""Losses that lie in somebody's files (Parquet, CSV, JSONL) as records: read once, in batches, and sorted on disk.

A cell that is empty or null is a sample that was not seen; NaN and infinity are left out and counted, as in a recording.
"""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv as arrow_csv

from carto_core.corpus.reading import MAX_NAME_CHARS, as_name, json_lines, require_characters
from carto_core.errors import CorpusError, TrajectoryError
from carto_core.store.columns import Layout
from carto_core.store.records import MOST_MOMENTS, RecordWriter, Visits
from carto_core.types import Float64, SnapshotKind

BATCH_ROWS = 65_536
CSV_BLOCK = 2**24  # bytes read at a time; a row must fit
JSON_SUFFIXES = (".jsonl", ".ndjson")
SUFFIXES = (".parquet", ".csv", *JSON_SUFFIXES)
MOST_TOKENS = 2**31 - 1

Values = pa.Array | list[Any]


@dataclass(frozen=True)
class _Batch:
    """Some rows of one file.

    Attributes:
        path: of the file.
        first: number of the first row, counted from 0.
        columns: those that are read and that the file has.
        num_rows: of each.
    """

    path: Path
    first: int
    columns: dict[str, Values]
    num_rows: int

    def where(self, row: int, column: str) -> str:
        """Return the place of a cell, in words."""
        return f"{self.path.name}, row {self.first + row}, column {column!r}"


def trajectory_files(path: str | Path) -> list[Path]:
    """Return a file, or the files of a folder in order of their names' numbers.

    Raises:
        TrajectoryError: there is none that can be read.
    """
    root = Path(path)
    try:
        found = [p for p in root.iterdir() if p.suffix.lower() in SUFFIXES] if root.is_dir() else [root]
        odd = next((file for file in found if not file.is_file()), None)
    except (OSError, ValueError) as error:
        raise TrajectoryError(
            f"nothing to import at {str(path)[:200]!r}: {getattr(error, 'strerror', None) or error}"
        ) from None
    if odd is not None:
        raise TrajectoryError(f"nothing to import at {str(odd)[:200]!r}: there is no such file or folder")
    if unknown := next((file for file in found if file.suffix.lower() not in SUFFIXES), None):
        raise TrajectoryError(
            f"{unknown.name}: cannot read {unknown.suffix or 'a file without suffix'}; give {', '.join(SUFFIXES)}, or a folder"
        )
    if not found:
        raise TrajectoryError(f"{path} is a folder without any {', '.join(SUFFIXES)} file")
    return sorted(found, key=lambda file: [int(part) if part.isdigit() else part for part in _split(file.name)])


def column_names(files: Sequence[Path]) -> list[str]:
    """Return the names of all columns of some files, in order; JSONL is read through for them.

    Raises:
        TrajectoryError: a file cannot be read, or has a column twice.
    """
    names: dict[str, None] = {}
    for path in files:
        with _reading(path):
            names |= dict.fromkeys(_names_in(path))
    return list(names)


def read_points(files: Sequence[Path], layout: Layout, con: duckdb.DuckDBPyConnection) -> None:
    """Fill the new table `points(key, place, loss, num_tokens)` of a database: one row a loss, `place` its snapshot's number.

    Raises:
        TrajectoryError: a file or a cell cannot be read as what it should hold.
    """
    con.execute("create table points(key varchar, place double, loss double, num_tokens integer)")
    for path in files:
        with _reading(path):
            for batch in _batches(path, layout.columns):
                for rows in _points(batch, layout):  # noqa: B007 (scanned by name)
                    con.execute("insert into points select * from rows")


def write_moments(con: duckdb.DuckDBPyConnection, writer: RecordWriter, layout: Layout, kind: SnapshotKind) -> None:
    """Write the table `points` as records, one moment a snapshot, in order of their numbers.

    Where the numbers are steps, `step` is theirs and `epoch` counts the snapshots; else the other way round.

    Raises:
        TrajectoryError: there are no losses, or too many snapshots, or the losses cannot be what they should.
    """
    places = con.execute("select distinct place from points order by place").fetchnumpy()["place"]
    if len(places) > MOST_MOMENTS:
        raise TrajectoryError(
            f"the file has {len(places):,} snapshots, and at most {MOST_MOMENTS:,} are kept; name the column of epochs, or of "
            "fewer steps, with --snapshot-column"
        )
    _require_losses(con, kind)
    for number, place in enumerate(places.tolist()):
        rows = con.execute(
            "select key, loss, num_tokens from points where place = ? order by rowid", [place]
        ).fetchnumpy()
        with np.errstate(over="ignore"):  # beyond float32 is infinite, and left out as that
            losses = rows["loss"].astype(np.float32)
        visits = Visits(rows["key"].tolist(), [losses], [np.asarray(rows["num_tokens"], np.int32)])
        step, epoch = (int(place), number + 1.0) if layout.counts_steps else (number, place)
        writer.write({kind: visits}, step=step, epoch=epoch, wall_s=0.0)


def _require_losses(con: duckdb.DuckDBPyConnection, kind: SnapshotKind) -> None:
    """Raise TrajectoryError where no loss is one, a sample has two under the same weights, or all are log-probabilities."""
    con.execute("create view usable as select * from points where isfinite(try_cast(loss as float)) and num_tokens > 0")
    if not con.execute("select 1 from usable limit 1").fetchone():
        raise TrajectoryError("the file holds no loss: it has no row, or none with a finite loss of one token or more")
    twice = con.execute(
        "select key, place, count(*) from points group by key, place having count(*) > 1 order by place, key limit 1"
    ).fetchone()
    if twice is not None and kind == "after":
        raise TrajectoryError(
            f"key {twice[0]!r} has {twice[2]} losses at snapshot {twice[1]:g}, and a sweep gives each sample one; name other "
            "columns with --key-column or --snapshot-column, or say --during, which averages visits by their tokens"
        )
    log_p = con.execute("select max(loss) <= 0 and min(loss) < 0 from usable").fetchone()
    if log_p is not None and log_p[0]:
        raise TrajectoryError(
            "no loss is above 0 and some are below: these look like log-probabilities; import their negatives"
        )


def _split(name: str) -> list[str]:
    return re.split(r"(\d+)", name)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Say in one sentence why a file cannot be read."""
    try:
        yield
    except CorpusError as error:
        raise TrajectoryError(str(error)) from None
    except UnicodeDecodeError as error:
        raise TrajectoryError(f"{path.name} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except (pa.ArrowException, csv.Error, OSError, OverflowError) as error:
        said = " ".join(str(error).split())
        raise TrajectoryError(f"{path.name} cannot be read as {path.suffix}: {said[:300]}") from None


def _names_in(path: Path) -> list[str]:
    if path.suffix.lower() in JSON_SUFFIXES:
        return list(dict.fromkeys(name for record in json_lines(path) for name in record))
    if path.suffix.lower() == ".parquet":
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
    else:
        with path.open(encoding="utf-8-sig", newline="") as file:
            names = next(csv.reader(file, strict=True), [])
    if twice := next((name for name, count in Counter(names).items() if count > 1), None):
        raise TrajectoryError(f"{path.name}: the column {twice!a} stands twice; name each column once")
    return names


def _batches(path: Path, wanted: Sequence[str]) -> Iterator[_Batch]:
    """Yield the wanted columns of a file, those of them that it has."""
    first = 0
    for columns in _columns(path, wanted):
        num_rows = len(next(iter(columns.values()), []))
        yield _Batch(path, first, columns, num_rows)
        first += num_rows


def _columns(path: Path, wanted: Sequence[str]) -> Iterator[dict[str, Values]]:
    if path.suffix.lower() in JSON_SUFFIXES:
        records = json_lines(path)
        while rows := list(islice(records, BATCH_ROWS)):
            yield {name: [row.get(name) for row in rows] for name in wanted}
        return
    there = [name for name in _names_in(path) if name in wanted]
    if path.suffix.lower() == ".parquet":
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=there):
                yield dict(zip(batch.schema.names, batch.columns, strict=True))
        return
    if not there:
        return
    # Everything as text: a key of digits stays as it is written.
    convert = arrow_csv.ConvertOptions(column_types=dict.fromkeys(there, pa.string()), include_columns=there)
    how = arrow_csv.ReadOptions(block_size=CSV_BLOCK)
    with arrow_csv.open_csv(path, how, arrow_csv.ParseOptions(newlines_in_values=True), convert) as batches:
        for batch in batches:
            yield dict(zip(batch.schema.names, batch.columns, strict=True))


def _points(batch: _Batch, layout: Layout) -> Iterator[pa.Table]:
    needed = [name for name in layout.columns if name not in layout.series]
    if missing := next((name for name in needed if name not in batch.columns), None):
        raise TrajectoryError(f"{batch.path.name} has no column {missing!r}, which the other files have")
    keys, tokens = _keys(batch, layout.key), _tokens(batch, layout.tokens)
    if layout.form == "long":
        assert layout.snapshot is not None
        assert layout.loss is not None
        yield _seen(keys, _places(batch, layout.snapshot), _numbers(batch, layout.loss), tokens)
    for name, number in layout.series.items():
        if name in batch.columns:
            losses = _numbers(batch, name) if layout.gold is None else _cross_entropies(batch, name, layout.gold)
            yield _seen(keys, pa.array(np.full(batch.num_rows, number)), losses, tokens)


def _seen(keys: pa.Array, places: pa.Array, losses: pa.Array, tokens: pa.Array) -> pa.Table:
    table = pa.table({"key": keys, "place": places, "loss": losses, "num_tokens": tokens})
    return table.filter(losses.is_valid())


def _keys(batch: _Batch, column: str) -> pa.Array:
    """Return the keys as text, a number as it is written; refused are those that no corpus could have."""
    values = batch.columns[column]
    if not isinstance(values, list):
        kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
        if pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
            texts = values.cast(kind).cast(pa.string())
            if not texts.null_count and _are_names(texts):
                return texts
        values = values.to_pylist()
    return pa.array([_key(value, batch.where(row, column)) for row, value in enumerate(values)], pa.string())


def _are_names(texts: pa.Array) -> bool:
    inside = pc.call_function("utf8_length", [_trimmed(texts)]).to_numpy(zero_copy_only=False)
    whole = pc.call_function("utf8_length", [texts]).to_numpy(zero_copy_only=False)
    return bool((inside > 0).all() and (whole <= MAX_NAME_CHARS).all())


def _trimmed(texts: pa.Array) -> pa.Array:
    return pc.call_function("utf8_trim_whitespace", [texts])


def _key(value: Any, where: str) -> str:
    if value is None:
        raise TrajectoryError(f"{where} is empty; every row needs a key")
    key = as_name(value, where)
    require_characters(key, where)
    return key


def _places(batch: _Batch, column: str) -> pa.Array:
    places = _numbers(batch, column)
    found = places.to_numpy(zero_copy_only=False)  # null becomes NaN
    bad = np.flatnonzero(~(np.isfinite(found) & (found >= 0) & (found < 2**53)))
    if len(bad):
        raise TrajectoryError(f"{batch.where(int(bad[0]), column)} must hold a snapshot's number, 0 or more")
    return places


def _tokens(batch: _Batch, column: str | None) -> pa.Array:
    if column is None:
        return pa.array(np.ones(batch.num_rows, np.int32))
    found = _numbers(batch, column).to_numpy(zero_copy_only=False)
    bad = np.flatnonzero(~((found >= 0) & (found <= MOST_TOKENS) & (np.floor(found) == found)))
    if len(bad):
        raise TrajectoryError(f"{batch.where(int(bad[0]), column)} must hold a number of tokens, 0 or more")
    return pa.array(found.astype(np.int32))


def _numbers(batch: _Batch, column: str) -> pa.Array:
    """Return float64 numbers; an empty cell is null."""
    values = batch.columns[column]
    if not isinstance(values, list):
        if pa.types.is_floating(values.type) or pa.types.is_integer(values.type):
            return values.cast(pa.float64(), safe=False)
        if pa.types.is_string(values.type):
            trimmed = _trimmed(values)
            blank = pc.call_function("equal", [trimmed, pa.scalar("")])
            with suppress(pa.ArrowInvalid):  # some cell is no number: which one is found below
                return pc.call_function("if_else", [blank, pa.scalar(None, pa.string()), trimmed]).cast(pa.float64())
        values = values.to_pylist()
    return pa.array([_number(value, batch.where(row, column)) for row, value in enumerate(values)], pa.float64())


def _number(value: Any, where: str) -> float | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise TrajectoryError(f"{where} holds {type(value).__name__}; a number is wanted")
    try:
        return float(str(value).replace("_", "no number"))  # Python alone would read 1_000
    except ValueError:
        raise TrajectoryError(f"{where} holds {str(value)[:40]!r}, which is no number") from None


def _cross_entropies(batch: _Batch, column: str, gold: str) -> pa.Array:
    """Return float64 -log softmax(logits)[gold], in nats; null where a row has no logits."""
    labels, rows = batch.columns[gold], batch.columns[column]
    labels = labels if isinstance(labels, list) else labels.to_pylist()
    rows = rows if isinstance(rows, list) else rows.to_pylist()
    found = [
        None
        if logits is None
        else _cross_entropy(_logits(logits, batch.where(row, column)), label, batch.where(row, gold))
        for row, (logits, label) in enumerate(zip(rows, labels, strict=True))
    ]
    return pa.array(found, pa.float64())


def _logits(value: Any, where: str) -> Float64:
    if not isinstance(value, list) or len(value) < 2:
        raise TrajectoryError(f"{where} must hold a list of two or more logits")
    numbers = [_number(part, where) for part in value]
    return np.array([math.nan if number is None else number for number in numbers])


def _cross_entropy(logits: Float64, label: Any, where: str) -> float:
    if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < len(logits):
        raise TrajectoryError(f"{where} must hold a label from 0 to {len(logits) - 1}, got {str(label)[:40]!r}")
    if not np.isfinite(logits).all():
        return math.nan
    shifted = logits - logits.max()
    return float(np.log(np.exp(shifted).sum()) - shifted[label])
