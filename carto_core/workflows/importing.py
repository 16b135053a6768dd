"""The verb `import`: losses that another program logged into files become a run with scores and a map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

from carto_core.corpus.foreign import foreign_canaries, foreign_rows
from carto_core.corpus.reading import Row
from carto_core.errors import ConfigError, TrajectoryError
from carto_core.store.columns import Layout, Named, guess
from carto_core.store.imported import column_names, read_points, trajectory_files, write_moments
from carto_core.store.records import LocalFolder, RecordWriter, begin_recording
from carto_core.store.rundir import RunDir, making_run
from carto_core.store.sealed import writing_database
from carto_core.workflows.progress import stoppable
from carto_core.workflows.recording import seal_files


def guess_layout(path: str | Path, named: Named) -> Layout:
    """Return which column of a file, or of the files of a folder, holds what.

    Raises:
        TrajectoryError: see `trajectory_files`, `column_names`, `guess`.
    """
    return guess(column_names(trajectory_files(path)), named)


def import_run(
    path: str | Path,
    out: str | Path,
    layout: Layout,
    *,
    during: bool = False,
    corpus: str | Path | None = None,
    text_column: str = "text",
    corpus_key_column: str | None = None,
    canaries: str | Path | None = None,
) -> dict[str, Any]:
    """Make a run of losses that lie in files, sealed and scored.

    Args:
        path: a Parquet, CSV or JSONL file, or a folder of such.
        out: the run directory to make.
        layout: which column holds what; see `guess_layout`.
        during: whether each loss was noted as its sample went by; a key may then have several at a snapshot. Else all
            losses of a snapshot are taken under the same weights.
        corpus: the texts, joined by key; None leaves them empty.
        text_column: of the corpus.
        corpus_key_column: of the corpus; None takes `key`.
        canaries: table of those that were planted in the corpus; None = none.

    Returns:
        `run, num_samples, num_snapshots, columns, notes`.

    Raises:
        TrajectoryError: the files do not hold what the layout says, or no key of the corpus is one of theirs.
        CorpusError: the corpus or the table of canaries cannot be read.
        ConfigError: canaries without a corpus.
        RunExists, DiskError: see `making_run`.
    """
    if canaries is not None and corpus is None:
        raise ConfigError("--canaries needs --corpus, whose rows say which of them are copies")
    planted = [] if canaries is None else foreign_canaries(canaries)
    rows = None
    if corpus is not None:
        rows = foreign_rows(corpus, text_column=text_column, key_column=corpus_key_column)
    kind = layout.kind(during=during)
    with stoppable():
        with making_run(out) as run:
            files = trajectory_files(path)
            by = f"import of {Path(path).name}"
            base = LocalFolder(run.path)
            begin_recording(
                base,
                rows,
                run_id=Path(out).absolute().name,
                origin={"kind": "imported", "by": by, "ranks": 1},
                canaries=planted,
            )
            run.records.mkdir()
            notes = _fill(run, files, layout, rows, kind=kind)
        summary = seal_files(RunDir(Path(out).absolute()))
    return summary | {"columns": layout.to_dict() | {"kind": kind}, "notes": notes + summary["notes"]}


def _fill(run: RunDir, files: list[Path], layout: Layout, rows: list[Row] | None, *, kind: Any) -> list[str]:
    """Write the records of a run, and return what should be known of them, in sentences."""
    database = run.path / "points.duckdb"
    with writing_database(database) as con:
        read_points(files, layout, con)
        if rows is not None:
            _require_known(con, rows)
        write_moments(con, RecordWriter(LocalFolder(run.records)), layout, kind)
        negative = con.execute("select count(*) from points where loss < 0 and isfinite(loss)").fetchone()
    database.unlink()
    if negative and negative[0]:
        return [f"{negative[0]:,} losses are below 0, which no cross entropy of tokens is."]
    return []


def _require_known(con: duckdb.DuckDBPyConnection, rows: list[Row]) -> None:
    keys = {row.key for row in rows}
    found = con.execute("select distinct key from points").fetchnumpy()["key"]
    if len(found) and not any(key in keys for key in found):
        raise TrajectoryError(
            f"no key of the corpus (whose first is {rows[0].key!r}) is one of the losses' ({found[0]!r}); name the columns "
            "with --corpus-key-column and --key-column"
        )
