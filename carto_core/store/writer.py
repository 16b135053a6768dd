"""Write what a live run sees: one Parquet part per snapshot and rank, and the manifest of complete snapshots.

Needs pyarrow only, so that the engine can log on a machine without duckdb.
"""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from carto_core.store import schema
from carto_core.store.rundir import RunDir, replacing, write_json
from carto_core.store.shapes import COUNT, SECONDS, Kind, among, read_json
from carto_core.types import Float32, Int32, Snapshot

SNAPSHOT = {
    "snapshot": Kind("a number from 0 to 32767", lambda value: COUNT.fits(value) and value < 2**15),
    "step": COUNT,
    "epoch": SECONDS,
    "kind": among("after", "during"),
    "wall_s": SECONDS,
}


class PartWriter:
    """A `Recorder` that writes parts. A snapshot counts only once the manifest names it, and from then on.

    A resumed run takes those past its checkpoint again, to the same losses; until then the old ones stand.

    Args:
        run: the run directory.
        rank: which process this is, in a run of several.
    """

    def __init__(self, run: RunDir, *, rank: int = 0) -> None:
        self.run = run
        self.rank = rank
        self.snapshots = read_part_manifest(run)

    def record(self, snapshot: Snapshot, losses: Float32, num_tokens: Int32) -> None:
        """Write one snapshot; samples that were not seen (NaN) get no row."""
        seen = np.flatnonzero(~np.isnan(losses)).astype(np.int32)
        table = pa.table(
            {
                "sample_id": seen,
                "snapshot": np.full(len(seen), snapshot.snapshot, np.int16),
                "loss": losses[seen].astype(np.float32),
                "num_tokens": num_tokens[seen].astype(np.int32),
            },
            schema=schema.PART,
        )
        write_table(table, self.run.parts / part_name(snapshot.snapshot, self.rank))
        self.snapshots = [s for s in self.snapshots if s.snapshot != snapshot.snapshot] + [snapshot]
        write_json(self.run.parts / "snapshots.json", [s._asdict() for s in self.snapshots])


def part_name(snapshot: int, rank: int) -> str:
    """Return the file name of one part."""
    return f"{snapshot:05d}-rank{rank:04d}.parquet"


def read_part_manifest(run: RunDir) -> list[Snapshot]:
    """Return the complete snapshots of a live run, in order; none before the first.

    Raises:
        RunCorrupt: `snapshots.json` is damaged.
    """
    path = run.parts / "snapshots.json"
    if not path.is_file():
        return []
    rows = read_json(path, [SNAPSHOT], cure="resume the run, or remove the file to train it from the beginning")
    return sorted((Snapshot(**{name: row[name] for name in SNAPSHOT}) for row in rows), key=lambda s: s.snapshot)


def write_table(table: pa.Table, path) -> None:
    """Write a table as Parquet (zstd), replacing `path` whole."""
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def table_bytes(table: pa.Table) -> bytes:
    """Return a table as the bytes of a Parquet file (zstd)."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
