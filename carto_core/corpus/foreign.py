"""The corpus of a training that is not ours, as the contract's tables: no split, no tokenizer, nothing planted by us."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from carto_core.config import CANARY_KINDS, CorpusConfig
from carto_core.corpus.canaries import Canary, canary_table
from carto_core.corpus.identity import duplicate_groups
from carto_core.corpus.reading import Row, read_corpus, rows_of
from carto_core.errors import CorpusError
from carto_core.types import ROLES, Int32

_COPY = re.compile(r"(?:planted/)?canary/(\d{4,9})/copy-\d+")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


_CANARY: dict[str, Callable[[Any], bool]] = {
    "canary_id": _is_count,
    "kind": lambda value: value in CANARY_KINDS,
    "prefix": _is_text,
    "secret": _is_text,
    "repeats": _is_count,
    "role": lambda value: value in ROLES,
    "log2_space": lambda value: isinstance(value, float) and 0 <= value < math.inf,
}


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


def foreign_tables(rows: Sequence[Row], canaries: Sequence[Canary] = ()) -> dict[str, pa.Table]:
    """Return the tables `samples`, `validation` (empty) and `canaries` of such rows: tokens are not counted yet (0)."""
    nothing = pa.array([], pa.string())
    return {
        "samples": pa.table(
            {
                "sample_id": np.arange(len(rows), dtype=np.int32),
                "key": pa.array([row.key for row in rows], pa.string()),
                "text": pa.array([row.text for row in rows], pa.string()),
                "source": pa.array([row.source for row in rows], pa.string()),
                "group_id": foreign_groups(rows),
                "num_tokens": np.zeros(len(rows), np.int32),
                "canary_id": pa.array(planted_as(rows, canaries), pa.int32()),
                "meta": pa.array([json.dumps(row.meta, ensure_ascii=False) for row in rows], pa.string()),
            }
        ),
        "validation": pa.table({"key": nothing, "text": nothing, "num_tokens": pa.array([], pa.int32())}),
        "canaries": canary_table(canaries),
    }


def foreign_canaries(path: str | Path) -> list[Canary]:
    """Return the canaries of a run's `canaries.parquet`, which somebody else may have trained on since.

    Raises:
        CorpusError: the file cannot be read, or is no table of canaries.
    """
    columns = ("canary_id", "kind", "prefix", "secret", "repeats", "role", "log2_space")
    try:
        rows = pq.read_table(path, columns=list(columns)).to_pylist()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise CorpusError(
            f"{path} cannot be read as a table of canaries: {' '.join(str(error).split())[:200]}"
        ) from None
    for number, row in enumerate(rows):
        if problem := next((name for name in columns if not _CANARY[name](row.get(name))), None):
            raise CorpusError(
                f"{path}, row {number}: {problem} cannot be {row.get(problem)!r}; give a run's canaries.parquet"
            )
    if len({row["canary_id"] for row in rows}) < len(rows):
        raise CorpusError(f"{path}: a canary_id stands twice; give a run's canaries.parquet")
    return [Canary(**{name: row[name] for name in columns}) for row in rows]


def planted_as(rows: Sequence[Row], canaries: Sequence[Canary]) -> list[int | None]:
    """Return which canary each row is a copy of, by its text, or by its key where that is one that we give to copies."""
    by_text = {canary.text: canary.canary_id for canary in canaries if canary.inserted}
    secrets = {canary.canary_id: canary.secret for canary in canaries if canary.inserted}
    found: list[int | None] = []
    for row in rows:
        copy = _COPY.fullmatch(row.key) if canaries else None
        named = int(copy[1]) if copy else -1
        holds = named in secrets and secrets[named] in row.text
        found.append(by_text.get(row.text, named if holds else None))
    return found


def foreign_groups(rows: Sequence[Row]) -> Int32:
    """Return int32[N]: rows of equal texts share a group, as in a run of our own; a row without text is a group of its own."""
    return duplicate_groups([f"text {row.text}" if row.text else f"key {row.key}" for row in rows])
