"""How large a corpus and one text may be, so that a file that unfolds is refused before it has taken all memory.

Both limits are settings of the machine, not of a run, and can be raised: `CARTO_MAX_CORPUS_GB`, `CARTO_MAX_TEXT_CHARS`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from carto_core.errors import ConfigError, CorpusError

DEFAULT_CORPUS_GB = 2.0
DEFAULT_TEXT_CHARS = 10_000_000
BATCH_ROWS = 10_000
SLICE_BYTES = 2**26  # of text that is unfolded at a time
ROW_BYTES = 100  # at least what a row takes in memory, however little it holds


def max_corpus_bytes() -> int:
    """Return how many bytes of text and numbers a corpus may have, uncompressed: `CARTO_MAX_CORPUS_GB`, by default 2."""
    return int(_setting("CARTO_MAX_CORPUS_GB", DEFAULT_CORPUS_GB) * 1e9)


def max_text_chars() -> int:
    """Return how many characters one text may have: `CARTO_MAX_TEXT_CHARS`, by default 10 million."""
    return int(_setting("CARTO_MAX_TEXT_CHARS", DEFAULT_TEXT_CHARS))


def too_long(where: str, num_chars: int) -> str:
    """Return what to say of a text that is longer than `max_text_chars`."""
    return (
        f"{where}: the text has {num_chars:,} characters, more than {max_text_chars():,}; cut it, or raise the limit with "
        "the environment variable CARTO_MAX_TEXT_CHARS"
    )


class Budget:
    """What is left of `max_corpus_bytes` while the files of a corpus are read."""

    def __init__(self) -> None:
        self.limit = max_corpus_bytes()
        self.spent = 0

    def spend(self, path: Path, num_bytes: int) -> None:
        """Note so many bytes more.

        Raises:
            CorpusError: the corpus is larger than allowed.
        """
        self.spent += num_bytes
        if self.spent > self.limit:
            raise CorpusError(
                f"{path.name}: with this file the corpus has {self.spent:,} bytes or more, and at most {self.limit:,} are "
                "read; take a part of it, or raise the limit with the environment variable CARTO_MAX_CORPUS_GB"
            )

    def spend_file(self, path: Path) -> None:
        """Note a file that is as large in memory as on disk; see `spend`."""
        self.spend(path, path.stat().st_size)

    def spend_parquet(self, path: Path, file: pq.ParquetFile) -> None:
        """Note what a Parquet file unfolds to: by its footer, then by its texts, none of which is unfolded for that.

        Args:
            path: of the file.
            file: opened so that texts are read as dictionaries.

        Raises:
            CorpusError: the corpus is larger than allowed.
        """
        metadata, before = file.metadata, self.spent
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        self.spend(path, max(sum(group.total_byte_size for group in groups), ROW_BYTES * metadata.num_rows))
        self.spent = before
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            self.spend_batch(path, batch)

    def spend_batch(self, path: Path, batch: pa.RecordBatch) -> None:
        """Note what a batch unfolds to; see `spend`."""
        self.spend(path, int(_row_bytes(batch).sum()))


def slices(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a batch in slices that are small once unfolded."""
    ends = np.flatnonzero(np.diff(np.cumsum(_row_bytes(batch)) // SLICE_BYTES)) + 1
    for start, stop in zip([0, *ends], [*ends, batch.num_rows], strict=True):
        yield batch.slice(start, stop - start)


def _row_bytes(batch: pa.RecordBatch) -> np.ndarray:
    """Return int64[rows]: about how many bytes each row takes once it is unfolded."""
    size = np.full(batch.num_rows, ROW_BYTES, np.int64)
    for column in batch.columns:
        size += _unfolded(column)
    return size


def _unfolded(column: pa.Array) -> np.ndarray:
    """Return int64[rows]: about how many bytes each value takes once texts that repeat are written out."""
    if pa.types.is_dictionary(column.type):
        lengths = pc.fill_null(pc.take(pc.call_function("binary_length", [column.dictionary]), column.indices), 0)
        return lengths.to_numpy(zero_copy_only=False).astype(np.int64)
    if pa.types.is_struct(column.type):
        return sum((_unfolded(part) for part in column.flatten()), np.zeros(len(column), np.int64))
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or pa.types.is_map(column.type):
        parts = (column.keys, column.items) if pa.types.is_map(column.type) else (column.values,)
        ends = np.concatenate([[0], np.cumsum(sum(_unfolded(part) for part in parts))])
        offsets = column.offsets.to_numpy()
        return ends[offsets[1:]] - ends[offsets[:-1]] + 8
    return np.full(len(column), math.ceil(column.nbytes / max(len(column), 1)), np.int64)


def _setting(name: str, default: float) -> float:
    text = os.environ.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ConfigError(f"the environment variable {name} must be a number above 0, got {text!r}")
    return value
