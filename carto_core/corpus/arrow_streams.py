"""Read Arrow streams that anybody may have written, as `datasets` writes them: never more at once than the file holds.

A stream's texts lie as they are read, so that a file is about as large in memory as on disk. What could make it more is
refused before it is unfolded: compressed buffers, and types whose values may share their bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from carto_core.corpus.limits import Budget
from carto_core.errors import CorpusError

# Fields of the flatbuffers in which Arrow describes a message (format/Message.fbs), by their numbers.
HEADER, DATA_OF_DICTIONARY, COMPRESSION = 2, 1, 3


def arrow_batches(path: Path, budget: Budget) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a stream, each checked.

    Args:
        path: of the file.
        budget: noted what each batch unfolds to.

    Raises:
        CorpusError: it is compressed, has a column whose values may share bytes, or is larger than allowed.
        pa.ArrowException, OSError: it is damaged, or no stream.
    """
    with pa.memory_map(str(path)) as file:
        _require_plain(path, file)
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
        for field in stream.schema:
            if _shares_bytes(field.type):
                raise CorpusError(
                    f"{path.name}: column {field.name!a} is {field.type}, which is not read; write it as plain values"
                )
        for batch in stream:
            batch.validate(full=True)
            budget.spend_batch(path, batch)
            yield batch


def _require_plain(path: Path, file: pa.MemoryMappedFile) -> None:
    """Raise CorpusError where the buffers of a message are compressed; nothing is unfolded to find out."""
    for message in pa.ipc.MessageReader.open_stream(file):
        try:
            compressed = _is_compressed(bytes(message.metadata), message.type)
        except struct.error:
            raise pa.ArrowInvalid("a message's description is damaged") from None
        if compressed:
            raise CorpusError(
                f"{path.name} is compressed, as data sets saved to disk are not; write it anew with save_to_disk"
            )


def _is_compressed(metadata: bytes, kind: str) -> bool:
    if kind not in ("record batch", "dictionary"):
        return False
    header = _table_in(metadata, _table_at(metadata, 0), HEADER)
    if header is not None and kind == "dictionary":
        header = _table_in(metadata, header, DATA_OF_DICTIONARY)
    return header is not None and _table_in(metadata, header, COMPRESSION) is not None


def _table_at(buffer: bytes, place: int) -> int:
    """Return where the table is to which a place points."""
    return place + struct.unpack_from("<I", buffer, place)[0]


def _table_in(buffer: bytes, table: int, field: int) -> int | None:
    """Return where the table is that a field of a table holds; None where it holds none."""
    described = table - struct.unpack_from("<i", buffer, table)[0]
    (size,) = struct.unpack_from("<H", buffer, described)
    if 4 + 2 * field >= size:
        return None
    (offset,) = struct.unpack_from("<H", buffer, described + 4 + 2 * field)
    return _table_at(buffer, table + offset) if offset else None


def _shares_bytes(kind: pa.DataType) -> bool:
    """Return whether values of a type, or of a part of it, may lie over one another in memory."""
    if "view" in str(kind).split("<")[0] or str(kind).startswith("run_end_encoded"):
        return True
    return any(_shares_bytes(kind.field(i).type) for i in range(kind.num_fields))
