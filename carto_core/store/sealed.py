"""Make and replace the sealed `trajectory.duckdb` of a run.

The file is never written in place: a reader that has it open keeps its old copy, the next one sees the new.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from carto_core.store import schema
from carto_core.store.connections import heeding_ctrl_c
from carto_core.store.reader import Run
from carto_core.store.records import KINDS, records_of
from carto_core.store.rundir import RunDir, replacing, update_manifest
from carto_core.store.writer import PartWriter, write_table
from carto_core.types import Snapshot


def seal(run: RunDir, meta: Mapping[str, str | None]) -> None:
    """Turn the parts of a finished run into `trajectory.duckdb`, then remove the parts.

    Tables: samples, validation, canaries, snapshots, losses, meta, and `trajectories` (one list of `after` losses
    a sample, in snapshot order, NULL where not seen: the reading pane's copy; `losses` stays the truth).

    Args:
        run: a run whose snapshots are all taken.
        meta: rows of the `meta` table; None becomes NULL.
    """
    live = Run(run)
    snapshots = live.snapshots()
    with replacing(run.database) as temporary, writing_database(temporary) as con:
        for name in ("samples", "validation", "canaries"):
            con.read_parquet(str(run.table(name))).create(name)
        con.execute("alter table samples alter meta type JSON")
        rows = pa.Table.from_pandas(snapshots, schema=schema.SNAPSHOTS, preserve_index=False)  # noqa: F841 (scanned by name)
        con.execute("create table snapshots as select * from rows")
        con.execute("create table losses(sample_id INTEGER, snapshot SMALLINT, loss FLOAT)")
        for path in live.part_paths():
            con.execute("insert into losses select sample_id, snapshot, loss from read_parquet(?)", [str(path)])
        _create_trajectories(con, live)
        con.execute("create table meta(key VARCHAR, value VARCHAR)")
        _put_meta(con, meta)
    drop_parts(run)


def settle(run: RunDir) -> None:
    """Turn what the ranks of a foreign training loop wrote into samples and parts, as the engine writes them.

    A run that has no records is left alone, so that a settling that was killed can be done again.
    """
    live = Run(run)
    if not live.has_records:
        return
    samples = pa.Table.from_pandas(live.samples(), schema=schema.SAMPLES, preserve_index=False)
    num_tokens = samples["num_tokens"].to_numpy().astype(np.int32)
    shutil.rmtree(run.parts, ignore_errors=True)  # of a settling that was killed
    writer = PartWriter(run)
    for kind in KINDS:
        snapshots = live.snapshots(kind).to_dict("records")
        for snapshot, losses in zip(snapshots, live.trajectories(kind), strict=True):
            writer.record(Snapshot(**snapshot), losses, num_tokens)
    write_table(samples, run.table("samples"))
    manifest = live.manifest
    left_out = records_of(run, manifest).left_out
    update_manifest(run, origin=manifest["origin"] | {"left_out": left_out})
    shutil.rmtree(run.records)


def drop_parts(run: RunDir) -> None:
    """Remove the parts of a sealed run, which stand in its database now; also those that a killed `seal` left."""
    shutil.rmtree(run.parts, ignore_errors=True)


def replace_samples(run: RunDir, samples: pa.Table, meta: Mapping[str, str | None]) -> None:
    """Replace the `samples` table and some rows of `meta`, and write the twin `samples.parquet`; scores are then of the old.

    Args:
        run: a sealed run.
        samples: `schema.SAMPLES`, ids as they were.
        meta: rows to put in place of those with the same key.
    """
    with _changing(run, meta) as con:
        con.register("new_samples", samples)
        con.execute("create or replace table samples as select * from new_samples")
        con.execute("alter table samples alter meta type JSON")
    write_table(samples, run.table("samples"))


def replace_scores(run: RunDir, scores: pa.Table, meta: Mapping[str, str | None]) -> None:
    """Replace the `scores` table and some rows of `meta`, and write the twin `scores.parquet`.

    Args:
        run: a sealed run.
        scores: sample_id, one FLOAT column a score, quadrant.
        meta: rows to put in place of those with the same key.
    """
    with _changing(run, meta) as con:
        con.register("new_scores", scores)  # a name of its own: `scores` would find the table that is there already
        con.execute("create or replace table scores as select * from new_scores")
    write_table(scores, run.table("scores"))


@contextmanager
def _changing(run: RunDir, meta: Mapping[str, str | None]) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection to a copy of the sealed file, which takes its place once it is changed."""
    with replacing(run.database) as temporary:
        shutil.copyfile(run.database, temporary)
        with writing_database(temporary) as con:
            yield con
            _put_meta(con, meta)


@contextmanager
def writing_database(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection to a database under its temporary name, and leave all of it in that one file.

    To close a connection writes the log into the file, and says nothing if that fails: a full disk would go unnoticed, and
    the file take its final name without its rows. So it is done here, where it can be heard.
    """
    try:
        with heeding_ctrl_c(), duckdb.connect(str(path)) as con:
            yield con
            con.execute("force checkpoint")
    except (duckdb.IOException, duckdb.FatalException) as error:
        raise OSError(str(error)) from error


def _create_trajectories(con: duckdb.DuckDBPyConnection, live: Run) -> None:
    losses = live.trajectories("after")
    num_snapshots, num_samples = losses.shape
    values = np.ascontiguousarray(losses.T).ravel()
    lists = pa.LargeListArray.from_arrays(  # their places outgrow 32 bits with 90 million samples of 24 snapshots
        pa.array(np.arange(num_samples + 1, dtype=np.int64) * num_snapshots),
        pa.array(values, mask=np.isnan(values), type=pa.float32()),
    )
    rows = pa.table({"sample_id": np.arange(num_samples, dtype=np.int32), "losses": lists})  # noqa: F841 (scanned by name)
    con.execute("create table trajectories as select * from rows")


def _put_meta(con: duckdb.DuckDBPyConnection, meta: Mapping[str, str | None]) -> None:
    rows = pa.table({"key": list(meta), "value": pa.array(list(meta.values()), pa.string())})  # noqa: F841 (scanned by name)
    con.execute("delete from meta where key in (select key from rows)")
    con.execute("insert into meta select * from rows")
