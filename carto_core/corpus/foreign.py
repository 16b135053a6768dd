"""The corpus of a training that is not ours, as the contract's tables: no split, no tokenizer, nothing planted by us."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from carto_core.config import CorpusConfig
from carto_core.corpus.canaries import canaries_table
from carto_core.corpus.identity import duplicate_groups
from carto_core.corpus.reading import Row, read_corpus, rows_of
from carto_core.errors import CorpusError
from carto_core.types import Int32

GROUP = "group"  # the column of a corpus that says which rows are one
CANARY = "canary_id"  # the one that says whose copy a row is


def foreign_rows(
    corpus: str | Path | Iterable[Mapping[str, Any]], *, text_column: str = "text", key_column: str | None = None
) -> list[Row]:
    """Return the rows of a corpus that somebody else trains on: its path, or the rows themselves.

    Rows that name no key (column `key`, or the one given) are known by their number, counted from 0: that is what a loop
    over a map-style data set has at hand.

    Args:
        corpus: what `read_corpus` reads, or one mapping a row (a data set of Hugging Face, a list of dicts, ...).
        text_column: column that holds the text.
        key_column: column that holds the key.

    Raises:
        CorpusError: see `read_corpus`.
    """
    path = str(corpus) if isinstance(corpus, str | Path) else "corpus"
    config = CorpusConfig(path=path, text_column=text_column, key_column=key_column)
    if isinstance(corpus, str | Path):
        return read_corpus(config)
    rows = iter(corpus)
    first = next(rows, None)
    if first is None:
        return []
    every = chain([first], rows)
    if key_column is None and "key" not in first:
        every = ({**row, "key": str(number)} for number, row in enumerate(every))
    return rows_of(every, config)


def foreign_tables(rows: Sequence[Row], canaries: pa.Table | None = None) -> dict[str, pa.Table]:
    """Return the tables `samples`, `validation` (empty) and `canaries` of such rows; tokens are not counted yet (0).

    Args:
        rows: the corpus; where there are canaries, the column `canary_id` says whose copy a row is.
        canaries: see `read_canaries`; None where none were planted.

    Raises:
        CorpusError: a row names a canary that there is not.
    """
    known = canaries_table([]) if canaries is None else canaries
    return {
        "samples": pa.table(
            {
                "sample_id": np.arange(len(rows), dtype=np.int32),
                "key": pa.array([row.key for row in rows], pa.string()),
                "text": pa.array([row.text for row in rows], pa.string()),
                "source": pa.array([row.source for row in rows], pa.string()),
                "group_id": foreign_groups(rows),
                "num_tokens": np.zeros(len(rows), np.int32),
                "canary_id": pa.array(_canary_ids(rows, known), pa.int32()),
                "meta": pa.array([meta_text(row) for row in rows], pa.string()),
            }
        ),
        "validation": pa.table(
            {
                "key": pa.array([], pa.string()),
                "text": pa.array([], pa.string()),
                "num_tokens": pa.array([], pa.int32()),
            }
        ),
        "canaries": known,
    }


def read_canaries(path: str | Path) -> pa.Table:
    """Return the contract's table of canaries, as `plant` wrote it.

    Raises:
        CorpusError: it cannot be read, or has other columns.
    """
    try:
        table = pq.read_table(path)
        return table.select(canaries_table([]).schema.names).cast(canaries_table([]).schema)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        said = str(error).splitlines()[0]
        raise CorpusError(
            f"{path} is no table of canaries: {said}; make one with: python -m carto_core plant"
        ) from None


def meta_text(row: Row) -> str:
    """Return the other columns of a row as `samples.meta` keeps them."""
    kept = {name: value for name, value in row.meta.items() if name not in (GROUP, CANARY)}
    return json.dumps(kept, ensure_ascii=False)


def _canary_ids(rows: Sequence[Row], canaries: pa.Table) -> list[int | None]:
    """Return whose copy each row is; None everywhere where no canaries are known."""
    inserted = {c["canary_id"] for c in canaries.to_pylist() if c["inserted"]}
    if not inserted:
        return [None] * len(rows)
    ids = [row.meta.get(CANARY) for row in rows]
    for row, canary_id in zip(rows, ids, strict=True):
        if canary_id is not None and canary_id not in inserted:
            raise CorpusError(
                f"row {row.key!r} is a copy of canary {canary_id!r}, which the table of canaries does not have as "
                "inserted; give the two files that one `plant` wrote"
            )
    return ids


def foreign_groups(rows: Sequence[Row]) -> Int32:
    """Return int32[N]: rows share a group by their column `group` where they have one, else by an equal text.

    A row without text is a group of its own.
    """
    return duplicate_groups([_group_name(row) for row in rows])


def _group_name(row: Row) -> str:
    if row.meta.get(GROUP) is not None:
        return f"group {row.meta[GROUP]}"
    return f"text {row.text}" if row.text else f"key {row.key}"
