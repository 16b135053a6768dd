"""Read a run: the one door, whether its losses still lie in parts or in the sealed DuckDB file."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from carto_core.errors import RunCorrupt, RunError, RunNotSealed
from carto_core.store import schema
from carto_core.store.connections import attached, heeding_ctrl_c, unattached
from carto_core.store.recorded import create_views
from carto_core.store.records import records_of
from carto_core.store.rundir import RunDir, find_run, read_manifest, run_status
from carto_core.store.writer import part_name, read_part_manifest
from carto_core.types import Float32, Int32, Snapshot, SnapshotKind


def open_run(run: str | Path, runs_root: str | Path | None = None) -> Run:
    """Return a reader of the run that `run` names (a path, or an id under the runs root).

    Raises:
        RunNotFound: there is no such run.
    """
    return Run(find_run(run, runs_root))


class Run:
    """A run, read only. Cheap to make; every query opens the file and closes it again.

    The file is never held open, because a rescore replaces it: the next query then sees the new one.
    """

    def __init__(self, files: RunDir) -> None:
        self.files = files

    @property
    def run_id(self) -> str:
        """The run's id, which is its directory's name."""
        return self.files.run_id

    @property
    def manifest(self) -> dict[str, Any]:
        """`run.json`, read anew each time."""
        return read_manifest(self.files)

    @property
    def formerly(self) -> tuple[str, ...]:
        """The ids that the run had before it was renamed, newest last; also where its folder was moved by hand."""
        manifest = self.manifest
        ids = dict.fromkeys([*manifest.get("formerly", ()), manifest.get("run_id", self.run_id)])
        return tuple(run_id for run_id in ids if run_id != self.run_id)

    @property
    def status(self) -> str:
        """`running | interrupted | failed | cancelled | complete`."""
        return run_status(self.files)

    @property
    def is_foreign(self) -> bool:
        """Whether another program trained the model: there is no checkpoint, tokenizer or config of ours."""
        return "origin" in self.manifest

    @property
    def has_records(self) -> bool:
        """Whether the losses still lie as a foreign training loop's ranks wrote them."""
        return not self.is_sealed and self.files.records.is_dir()

    @property
    def why_no_model(self) -> str | None:
        """Why the model cannot be asked or trained again, and what can be done instead; None where our engine trained it."""
        if not self.is_foreign:
            return None
        return (
            f"run {self.run_id} holds losses of a model that another program trained ({self.manifest['origin']['by']}): it "
            "cannot be asked, or trained again, from here. Its scores, map, plans and lists work; to see what a plan does, "
            "export its list and train with it in that program"
        )

    def require_model(self) -> None:
        """Raise RunError, with what can be done instead, unless our own engine trained the model."""
        if why := self.why_no_model:
            raise RunError(why)

    @property
    def is_sealed(self) -> bool:
        """Whether training is over and `trajectory.duckdb` exists."""
        return self.files.database.is_file()

    @property
    def version(self) -> tuple[int, int]:
        """A value that changes whenever the sealed file is replaced: what caches should key on."""
        if not self.is_sealed:
            return (0, len(self._live_snapshots()))
        stat = self.files.database.stat()
        return (stat.st_mtime_ns, stat.st_ino)

    @cached_property
    def num_samples(self) -> int:
        """Number of training samples, planted ones included."""
        return int(self.query("select count(*) as n from samples")["n"].iloc[0])

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pd.DataFrame:
        """Return the rows of a query over `samples, validation, canaries, losses` (and, once sealed, all tables)."""
        with self._connect() as con:
            return con.execute(sql, list(parameters)).df()

    def samples(self, columns: str = "*") -> pd.DataFrame:
        """Return `samples` in order of sample_id; `canary_id` is nullable Int32, `meta` a JSON text.

        Raises:
            UnknownNameError: `columns` names one that there is not.
        """
        frame = self.query(f"select {schema.listed_columns(columns)} from samples order by sample_id")
        if "canary_id" in frame:
            frame["canary_id"] = frame["canary_id"].astype("Int32")
        return frame

    def texts(self, sample_ids: Sequence[int] | Int32) -> list[str]:
        """Return the texts of the given samples, in the order given."""
        wanted = pd.DataFrame({"sample_id": np.asarray(sample_ids, np.int32), "place": np.arange(len(sample_ids))})
        with self._connect() as con:
            con.register("wanted", wanted)
            rows = con.execute("select text from wanted join samples using (sample_id) order by place").fetchall()
        return [row[0] for row in rows]

    def drawn(self) -> tuple[Int32, Float32]:
        """Return repeats int32[N] and weights float32[N] that the run trains under: a retrain's plan, else ones.

        Raises:
            RunCorrupt: the run is a retrain and its plan.parquet is gone.
        """
        path = self.files.table("plan")
        if path.is_file():
            return self._plan_of_retrain(path)
        if "parent_run" in self.manifest:
            raise RunCorrupt(f"run {self.run_id} was trained under a plan and has no plan.parquet; copy it back")
        return np.ones(self.num_samples, np.int32), np.ones(self.num_samples, np.float32)

    def validation(self) -> pd.DataFrame:
        """Return `validation(key, text, num_tokens)`."""
        return self.query("select * from validation")

    def canaries(self) -> pd.DataFrame:
        """Return `canaries` in order of canary_id; empty for a run without."""
        return self.query("select * from canaries order by canary_id")

    def snapshots(self, kind: SnapshotKind | None = None) -> pd.DataFrame:
        """Return the complete snapshots in order, of one kind or all."""
        if self.is_sealed:
            frame = self.query("select * from snapshots order by snapshot")
        else:
            columns = ["snapshot", "step", "epoch", "kind", "wall_s"]
            frame = pd.DataFrame(self._live_snapshots(), columns=columns)
        return frame if kind is None else frame.loc[frame["kind"] == kind].reset_index(drop=True)

    def trajectories(self, kind: SnapshotKind = "after", sample_ids: Int32 | None = None) -> Float32:
        """Return the losses of one kind, of all samples or of those given.

        Returns:
            float32[S, n], nats per token, snapshots in order by samples (in order of id, or as given); NaN = not seen.
        """
        snapshots = self.snapshots(kind)["snapshot"].to_numpy()
        if sample_ids is None and not self.has_records:
            return self._all_trajectories(snapshots)
        # Records are reduced anew by every query, so they are asked once, for all snapshots.
        ids = np.arange(self.num_samples, dtype=np.int32) if sample_ids is None else np.asarray(sample_ids, np.int32)
        losses = np.full((len(snapshots), len(ids)), np.nan, np.float32)
        wanted = pd.DataFrame({"sample_id": ids, "place": np.arange(len(ids))})
        with self._connect() as con:
            con.register("wanted", wanted)
            rows = con.execute("select place, snapshot, loss from losses join wanted using (sample_id)").fetchnumpy()
        keep = np.isin(rows["snapshot"], snapshots)
        losses[np.searchsorted(snapshots, rows["snapshot"][keep]), rows["place"][keep]] = rows["loss"][keep]
        return losses

    def scores(self) -> pd.DataFrame:
        """Return `scores` in order of sample_id.

        Raises:
            RunNotSealed: the run is live, or was sealed but not scored.
        """
        self.require_sealed()
        if "scores" not in set(self.query("select table_name from duckdb_tables()")["table_name"]):
            raise RunNotSealed(f"run {self.run_id} has no scores yet; run: python -m carto_core score {self.run_id}")
        return self.query("select * from scores order by sample_id")

    def meta(self) -> dict[str, str | None]:
        """Return the `meta` table as a dict; a NULL value is None."""
        self.require_sealed()
        with self._connect() as con:
            return dict(con.execute("select key, value from meta").fetchall())

    def corpus_files(self) -> list[Path]:
        """Return the files that a training of this run's corpus starts with: the tokenizer and the tables written before.

        Raises:
            RunCorrupt: one is gone.
        """
        files = [self.files.tokenizer, *(self.files.table(name) for name in ("samples", "validation", "canaries"))]
        if missing := [path.name for path in files if not path.is_file()]:
            raise RunCorrupt(f"run {self.run_id} lacks {', '.join(missing)}, written before training; copy them back")
        return files

    def require_sealed(self) -> None:
        """Raise RunNotSealed, with what to do, unless training is over."""
        if not self.is_sealed:
            command = f"seal {self.run_id}" if self.is_foreign else f"train --resume --out {self.files.path}"
            raise RunNotSealed(
                f"run {self.run_id} is {self.status}: it has no trajectory.duckdb yet; wait for it, "
                f"or go on with: python -m carto_core {command}"
            )

    def part_paths(self) -> list[Path]:
        """Return the parts of complete snapshots; a part that the manifest names but is gone is an error.

        Raises:
            RunCorrupt: such a part is missing.
        """
        paths = []
        for snapshot in read_part_manifest(self.files):
            found = sorted(self.files.parts.glob(part_name(snapshot.snapshot, 0).replace("0000.parquet", "*.parquet")))
            if not found:
                raise RunCorrupt(f"{self.files.parts} has no part of snapshot {snapshot.snapshot}")
            paths += found
        return paths

    def _live_snapshots(self) -> list[Snapshot]:
        if self.has_records:
            return records_of(self.files, self.manifest).snapshots
        return read_part_manifest(self.files)

    def _plan_of_retrain(self, path: Path) -> tuple[Int32, Float32]:
        try:
            rows = pq.read_table(path, columns=["repeat", "weight"])
            repeats, weights = rows["repeat"].to_numpy().astype(np.int32), rows["weight"].to_numpy().astype(np.float32)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise RunCorrupt(f"{path} cannot be read: {error}; copy it back") from None
        if len(repeats) != self.num_samples or (repeats < 0).any() or not (weights >= 0).all():
            raise RunCorrupt(f"{path} is not the plan of {self.num_samples:,} samples; copy it back")
        return repeats, weights

    def _all_trajectories(self, snapshots: np.ndarray) -> Float32:
        losses = np.full((len(snapshots), self.num_samples), np.nan, np.float32)
        with self._connect() as con:
            for row, snapshot in enumerate(snapshots):
                found = con.execute(
                    "select sample_id, loss from losses where snapshot = ?", [int(snapshot)]
                ).fetchnumpy()
                self._require_samples(found["sample_id"], f"the losses of snapshot {snapshot}")
                losses[row, found["sample_id"]] = found["loss"]
        return losses

    def _require_samples(self, sample_ids: Any, what: str) -> None:
        """Raise RunCorrupt unless the ids are those of samples, each at most once."""
        known = not np.ma.is_masked(sample_ids) and len(np.unique(sample_ids)) == len(sample_ids)
        if not known or (len(sample_ids) and not 0 <= sample_ids.min() <= sample_ids.max() < self.num_samples):
            raise RunCorrupt(
                f"run {self.run_id}: {what} name samples twice, or others than 0 to {self.num_samples - 1:,}"
            )

    @contextmanager
    def _connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yield a connection with the run's tables, and say in a sentence what is wrong where they cannot be read."""
        try:
            with heeding_ctrl_c(), self._tables() as con:
                yield con
        except duckdb.Error as error:
            said = str(error).strip().splitlines()[0]
            if "lock" in said and self.is_sealed:
                raise RunCorrupt(
                    f"{self.files.database} is held open for writing by another process; end that process, then try again"
                ) from None
            raise RunCorrupt(f"run {self.run_id} in {self.files.path} cannot be read: {said}") from None

    @contextmanager
    def _tables(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yield a connection with the run's tables: the sealed file read only, else views over the parts."""
        if self.is_sealed:
            with attached(self.files.database) as con:
                yield con
            return
        with unattached() as con:
            self._create_live_views(con)
            yield con

    def _create_live_views(self, con: duckdb.DuckDBPyConnection) -> None:
        """Create the tables of a run that is not sealed: over a foreign loop's records, or over the engine's parts."""
        tables = ["validation", "canaries"]
        if self.has_records:
            records = records_of(self.files, self.manifest)
            create_views(con, records, folder=self.files.records, samples=self.files.table("samples"))
        else:
            tables.append("samples")
            paths = [str(path) for path in self.part_paths()]
            losses = con.read_parquet(paths) if paths else con.from_arrow(schema.PART.empty_table())
            losses.create_view("losses")
        for name in tables:
            con.read_parquet(str(self.files.table(name))).create_view(name)


def meta_of(row_meta: str | None) -> dict[str, Any]:
    """Return one sample's `meta` as a dict; absent is empty.

    Raises:
        RunCorrupt: it is no JSON object.
    """
    try:
        found = json.loads(row_meta) if row_meta else {}
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise RunCorrupt(f"a sample's `meta` must be a JSON object, got {reprlib.repr(row_meta)}; copy the run back")
    return found
