"""Probe columns: one number per sample that took extra passes or models, written by a job, read by scores and pages.

One Parquet file a probe, `RUN/probes/NAME.parquet(sample_id, COLUMN ...)`, all samples in order, NULL = unknown.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from carto_core.errors import RunCorrupt
from carto_core.store.rundir import RunDir
from carto_core.store.writer import write_table
from carto_core.types import Float32


def write_probe(run: RunDir, name: str, columns: Mapping[str, Float32]) -> None:
    """Replace the columns of one probe.

    Args:
        run: the run directory.
        name: of the probe.
        columns: float32[N] each, NaN = unknown.
    """
    num_samples = len(next(iter(columns.values())))
    table = {"sample_id": pa.array(np.arange(num_samples, dtype=np.int32))}
    table |= {column: pa.array(values, pa.float32(), from_pandas=True) for column, values in columns.items()}
    write_table(pa.table(table), run.probes / f"{name}.parquet")


def read_probes(run: RunDir, *, num_samples: int) -> dict[str, Float32]:
    """Return the columns of all probes that were run, float32[N] by name, NaN = unknown.

    Raises:
        RunCorrupt: a file cannot be read, or has another number of samples.
    """
    columns: dict[str, Float32] = {}
    for path in sorted(run.probes.glob("*.parquet")):
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise RunCorrupt(f"probe file {path.name} of run {run.run_id} cannot be read: {error}") from None
        if table.num_rows != num_samples:
            raise RunCorrupt(
                f"probe file {path.name} has {table.num_rows} rows, run {run.run_id} {num_samples} samples"
            )
        names = [name for name in table.column_names if name != "sample_id"]
        columns |= {name: table[name].to_numpy().astype(np.float32) for name in names}
    return columns
