"""Tables of a run, named once. The public description is docs/data-contract.md."""

from __future__ import annotations

import pyarrow as pa

from carto_core.errors import UnknownNameError

SAMPLES = pa.schema(
    [
        ("sample_id", pa.int32()),
        ("key", pa.string()),
        ("text", pa.string()),
        ("source", pa.string()),
        ("group_id", pa.int32()),
        ("num_tokens", pa.int32()),
        ("canary_id", pa.int32()),
        ("meta", pa.string()),
    ]
)
VALIDATION = pa.schema([("key", pa.string()), ("text", pa.string()), ("num_tokens", pa.int32())])
CANARIES = pa.schema(
    [
        ("canary_id", pa.int32()),
        ("kind", pa.string()),
        ("prefix", pa.string()),
        ("secret", pa.string()),
        ("repeats", pa.int32()),
        ("role", pa.string()),
        ("inserted", pa.bool_()),
        ("log2_space", pa.float64()),
    ]
)
PART = pa.schema(
    [
        ("sample_id", pa.int32()),
        ("snapshot", pa.int16()),
        ("loss", pa.float32()),
        ("num_tokens", pa.int32()),
    ]
)
SNAPSHOTS = pa.schema(
    [
        ("snapshot", pa.int16()),
        ("step", pa.int64()),
        ("epoch", pa.float64()),
        ("kind", pa.string()),
        ("wall_s", pa.float64()),
    ]
)
PLAN = pa.schema(
    [
        ("sample_id", pa.int32()),
        ("key", pa.string()),
        ("repeat", pa.int32()),
        ("weight", pa.float32()),
        ("reason", pa.string()),
    ]
)


def listed_columns(names: str) -> str:
    """Return a list of columns of `samples` as SQL, each looked up and quoted; `*` stays.

    Args:
        names: with commas between.

    Raises:
        UnknownNameError: there is no such column.
    """
    if names == "*":
        return names
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in SAMPLES.names:
            raise UnknownNameError.of("column", name, SAMPLES.names)
    return ", ".join(f'"{name}"' for name in wanted)
