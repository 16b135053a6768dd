"""Connections are kept ready, files are not held: what is read is always what lies there now."""

import contextlib
import multiprocessing
import os
import queue
import signal
import subprocess
import sys
import threading

import duckdb
import pytest

from carto_core.store import connections, reader
from carto_core.store.connections import attached, heeding_ctrl_c
from tests.tiny import make_run


def database(path, number):
    path.unlink(missing_ok=True)
    with duckdb.connect(str(path)) as con:
        con.execute("create table t as select ? as number", [number])
    return path


def number_in(path):
    with attached(path) as con:
        return con.execute("select number from t").fetchone()[0]


@pytest.fixture(autouse=True)
def _ready_ones(monkeypatch):
    monkeypatch.setattr(connections, "_ready", queue.LifoQueue(connections.KEPT))


def test_a_replaced_file_is_read_anew_even_while_the_old_one_is_still_being_read(tmp_path):
    path = database(tmp_path / "it's one.duckdb", 1)
    with attached(path) as con:
        database(tmp_path / "new", 2).replace(path)

        assert number_in(path) == 2
        assert con.execute("select number from t").fetchone() == (1,)

    assert [number_in(path) for _ in range(3)] == [2, 2, 2]


def test_a_file_is_let_go_after_it_was_read(tmp_path):
    path = database(tmp_path / "a.duckdb", 1)
    number_in(path)
    writing = "import duckdb, sys; duckdb.connect(sys.argv[1]).execute('insert into t values (2)')"

    done = subprocess.run([sys.executable, "-c", writing, str(path)], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_no_table_of_a_file_is_found_in_the_next(tmp_path):
    first, second = database(tmp_path / "a.duckdb", 1), database(tmp_path / "b.duckdb", 2)
    with duckdb.connect(str(second)) as con:
        con.execute("create table only_here as select 1")
    with attached(second) as con:
        con.register("given", con.execute("select 1 as x").df())

    for name in ("only_here", "given"):
        with pytest.raises(duckdb.CatalogException), attached(first) as con:
            con.table(name)


def test_what_is_attached_cannot_be_changed(tmp_path):
    with pytest.raises(duckdb.Error, match="read-only"), attached(database(tmp_path / "a.duckdb", 1)) as con:
        con.execute("insert into t values (2)")


def test_one_is_used_again_and_one_that_failed_is_not(tmp_path):
    path = database(tmp_path / "a.duckdb", 1)
    number_in(path)
    (ready,) = connections._ready.queue
    number_in(path)
    assert connections._ready.queue == [ready]

    with pytest.raises(duckdb.IOException), attached(tmp_path / "missing.duckdb"):
        pass
    assert connections._ready.empty()
    assert number_in(path) == 1


def test_threads_at_the_same_time_each_read_their_own_file_and_few_connections_stay(tmp_path):
    paths = [database(tmp_path / f"{i}.duckdb", i) for i in range(12)]
    all_here, found = threading.Barrier(len(paths)), {}

    def read(path):
        with attached(path) as con:
            all_here.wait(30)
            found[int(path.stem)] = con.execute("select number from t").fetchone()[0]

    threads = [threading.Thread(target=read, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == {i: i for i in range(12)}
    assert connections._ready.qsize() == connections.KEPT


def number_and_ready_in(path):
    return connections._ready.qsize(), number_in(path)


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_reads_with_a_connection_of_its_own(tmp_path):
    path = database(tmp_path / "a.duckdb", 7)
    number_in(path)
    context = multiprocessing.get_context("fork")
    with context.Pool(1) as pool:
        assert pool.apply_async(number_and_ready_in, (path,)).get(30) == (0, 7)
    assert connections._ready.qsize() == 1


@pytest.fixture
def _ctrl_c():
    """What a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c")
def test_ctrl_c_within_a_query_is_ctrl_c():
    """On one thread, for where another has the query's only task DuckDB looks for signals when that is done."""
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()

    with pytest.raises(KeyboardInterrupt), heeding_ctrl_c(), duckdb.connect(config={"threads": 1}) as con:
        con.execute("select max(hash(range)) from range(100000000000)")


def test_a_run_that_is_read_heeds_ctrl_c(tmp_path, monkeypatch):
    """As DuckDB words it."""
    run = make_run(tmp_path / "a")
    monkeypatch.setattr(reader, "attached", interrupted)

    with pytest.raises(KeyboardInterrupt):
        run.query("select 1")


@contextlib.contextmanager
def interrupted(_):
    raise RuntimeError("Query interrupted")
    yield
