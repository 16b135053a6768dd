"""Formats that are one file of keys: what each affected sample is to become, or which are to go."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from carto_core.errors import PlanError
from carto_core.export.outgoing import Outgoing, json_line, plain

# A cell that a spreadsheet would execute; with apostrophes before it, so that taking one away gives each cell back.
EXECUTED = re.compile("'*[=+\\-@\t\r\n＝＋－＠]")


def write_csv(outgoing: Outgoing, path: Path) -> int:
    """Write CSV with every text cell that a spreadsheet would execute made harmless by a leading apostrophe."""
    harmless = outgoing.rows.copy()
    for name in ("key", "reason"):
        harmless[name] = [f"'{v}" if EXECUTED.match(str(v)) else v for v in outgoing.rows[name]]
    harmless.to_csv(path, index=False, lineterminator="\r\n")  # so that a lone CR in a cell is quoted
    return len(harmless)


def write_jsonl(outgoing: Outgoing, path: Path) -> int:
    """Write one JSON object a row; a float32 as the shortest decimal that gives it back."""
    return _write_lines(outgoing.rows, path)


def write_parquet(outgoing: Outgoing, path: Path) -> int:
    """Write all columns of the affected rows."""
    return _write_table(outgoing.rows, path)


def write_keys(outgoing: Outgoing, path: Path) -> int:
    """Write one dropped key a line, and after a tab the reason.

    Raises:
        PlanError: a key holds a tab or what some reader takes for the end of a line.
    """
    for key in outgoing.dropped["id"]:
        if "\t" in key or key.splitlines() != [key]:
            raise PlanError(
                f"the key {key!r} holds a tab or a line break, so it cannot stand on a line of a plain list; take jsonl"
            )
    pairs = zip(outgoing.dropped["id"], outgoing.dropped["reason"], strict=True)
    lines = [f"{key}\t{' '.join(reason.split())}\n" for key, reason in pairs]
    path.write_text("".join(lines), encoding="utf-8", newline="\n")
    return len(lines)


def write_huggingface(outgoing: Outgoing, path: Path) -> int:
    """Write `id, action, repeat, weight, reason` of the affected rows as Parquet."""
    rows = outgoing.rows.rename(columns={"key": "id"})
    return _write_table(rows.loc[:, ["id", "action", "repeat", "weight", "reason"]], path)


def write_sampler(outgoing: Outgoing, path: Path) -> int:
    """Write `id, repeat, weight` of every one of the user's rows, in the order of the corpus, as Parquet."""
    own = outgoing.own
    columns = {"id": outgoing.table.key[own], "repeat": outgoing.plan.repeats[own].astype(np.float64)}
    return _write_table(pd.DataFrame(columns | {"weight": outgoing.plan.weights[own]}), path)


def write_datatrove(outgoing: Outgoing, path: Path) -> int:
    """Write `id, reason` of the dropped rows as JSONL."""
    return _write_lines(outgoing.dropped, path)


def write_nemo(outgoing: Outgoing, path: Path) -> int:
    """Write `id, reason` of the dropped rows as Parquet, sorted: the tool reads ranges of ids."""
    return _write_table(outgoing.dropped.sort_values("id", ignore_index=True), path)


def _write_lines(rows: pd.DataFrame, path: Path) -> int:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json_line({k: plain(v) for k, v in row.items()}) for row in rows.to_dict("records"))
    return len(rows)


def _write_table(rows: pd.DataFrame, path: Path) -> int:
    table = pa.Table.from_pandas(rows, preserve_index=False)
    texts = [name for name in ("id", "key", "reason") if name in rows]  # a table without rows would have no type
    schema = pa.schema([field.with_type(pa.string()) if field.name in texts else field for field in table.schema])
    pq.write_table(table.cast(schema), path)
    return len(rows)
