"""The corpus of a training that is not ours, as the contract's tables: no split, no tokenizer, nothing planted by us."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from carto_core.config import CorpusConfig
from carto_core.corpus.identity import duplicate_groups
from carto_core.corpus.reading import Row, read_corpus, rows_of
from carto_core.types import Int32

GROUP = "group"  # the column of a corpus that says which rows are one


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


def foreign_tables(rows: Sequence[Row]) -> dict[str, pa.Table]:
    """Return the tables `samples`, `validation` and `canaries` of such rows: tokens are not counted yet (0), the others empty."""
    nothing = pa.array([], pa.string())
    whole = pa.array([], pa.int32())
    return {
        "samples": pa.table(
            {
                "sample_id": np.arange(len(rows), dtype=np.int32),
                "key": pa.array([row.key for row in rows], pa.string()),
                "text": pa.array([row.text for row in rows], pa.string()),
                "source": pa.array([row.source for row in rows], pa.string()),
                "group_id": foreign_groups(rows),
                "num_tokens": np.zeros(len(rows), np.int32),
                "canary_id": pa.nulls(len(rows), pa.int32()),
                "meta": pa.array([json.dumps(row.meta, ensure_ascii=False) for row in rows], pa.string()),
            }
        ),
        "validation": pa.table({"key": nothing, "text": nothing, "num_tokens": whole}),
        "canaries": pa.table(
            {
                "canary_id": whole,
                "kind": nothing,
                "prefix": nothing,
                "secret": nothing,
                "repeats": whole,
                "role": nothing,
                "inserted": pa.array([], pa.bool_()),
                "log2_space": pa.array([], pa.float64()),
            }
        ),
    }


def foreign_groups(rows: Sequence[Row]) -> Int32:
    """Return int32[N]: rows share a group by their column `group` where they have one, else by an equal text.

    A row without text is a group of its own.
    """
    return duplicate_groups([_group_name(row) for row in rows])


def _group_name(row: Row) -> str:
    if row.meta.get(GROUP) is not None:
        return f"group {row.meta[GROUP]}"
    return f"text {row.text}" if row.text else f"key {row.key}"
