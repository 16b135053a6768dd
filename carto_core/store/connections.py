"""Connections that read: to a sealed file, and to nothing yet.

Making DuckDB ready takes some 10 ms, attaching a file to one that is ready 1 ms, and a page asks ten times. So those that are ready
are kept; the file itself is let go after each use, because a rescore replaces it.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

# A table that a foreign file lacks must not be found among the variables of whoever asks for it.
STRICT: dict[str, str | bool | int | float | list[str]] = {"python_enable_replacements": False}
KEPT = 4  # beyond these, threads that read at the same time make their own
_ready: queue.LifoQueue[duckdb.DuckDBPyConnection] = queue.LifoQueue(KEPT)
_of_parents: list[queue.LifoQueue[duckdb.DuckDBPyConnection]] = []


@contextmanager
def attached(database: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection whose tables are those of a DuckDB file, which is opened read only and let go afterwards.

    Raises:
        duckdb.Error: the file is missing, torn, no DuckDB file, or held open for writing by another process.
    """
    try:
        ready = _ready.get_nowait()
    except queue.Empty:
        ready = duckdb.connect(config=STRICT)
    try:
        with ready.cursor() as con:
            con.execute("attach ? as run (read_only)", [str(database)])
            con.execute("use run")
            yield con
        ready.execute("detach run")
    except BaseException:
        ready.close()
        raise
    try:
        _ready.put_nowait(ready)
    except queue.Full:
        ready.close()


@contextmanager
def unattached() -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection without any table."""
    with duckdb.connect(config=STRICT) as con:
        yield con


@contextmanager
def heeding_ctrl_c() -> Iterator[None]:
    """Raise KeyboardInterrupt for a Ctrl-C that came within a query: DuckDB makes a RuntimeError of it."""
    try:
        yield
    except RuntimeError as error:
        if str(error) == "Query interrupted":
            raise KeyboardInterrupt from None
        raise


def _leave_to_the_parent() -> None:
    """In a forked child: neither use what the parent has ready, whose threads are not there, nor end it."""
    global _ready
    _of_parents.append(_ready)
    _ready = queue.LifoQueue(KEPT)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_the_parent)
