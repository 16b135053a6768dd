"""What the code must not do: run what it reads, build SQL from what it is given, or call a shell."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from carto_core.errors import CartoError, UnknownNameError
from carto_core.store.schema import listed_columns
from carto_core.ui.shell import CHART, MAP_CHART
from carto_core.workflows import previewing
from tests.tiny import make_run, prepare

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*ROOT.glob("carto_core/**/*.py"), *ROOT.glob("pages/*.py"), *ROOT.glob("benchmarks/*.py")])
SOURCES += [ROOT / "app.py"]
UNSAFE_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "yaml", "telnetlib"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "tempfile.mktemp", "pd.read_pickle"}
# The program texts that an export shows are run as they are shown: nothing of them was read from anywhere.
OWN_WORDS = [("benchmarks/round_trips.py", "exec"), ("benchmarks/round_trips.py", "compile")]
SQL_CALLS = {"execute", "executemany", "query", "sql", "from_query"}
# A statement that a caller gives is passed on by the reader's one door; and `query` of an index is no SQL.
NOT_SQL = {("carto_core/store/reader.py", "sql"), ("carto_core/corpus/near_duplicates.py", "sketch")}


def calls():
    for path in SOURCES:
        name = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield name, node, ast.unparse(node.func)


def keyword(call, name):
    return next((ast.unparse(k.value) for k in call.keywords if k.arg == name), None)


def test_nothing_that_can_run_what_it_reads_is_imported():
    found = [
        (path.name, module)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for module in (
            [a.name for a in node.names] if isinstance(node, ast.Import)
            else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        )
        if module.split(".")[0] in UNSAFE_MODULES
    ]  # fmt: skip

    assert found == []


def test_nothing_that_was_read_is_executed():
    found = [(path, said) for path, _, said in calls() if said in UNSAFE_CALLS or said.endswith(".to_pickle")]
    found = [one for one in found if one not in OWN_WORDS]

    assert found == []


def test_arrays_are_loaded_without_pickle_and_weights_without_torch_load():
    loads = [(path, call) for path, call, said in calls() if said in ("np.load", "numpy.load", "np.memmap")]
    weights = [(path, call) for path, call, said in calls() if said == "torch.load"]

    assert loads
    assert [path for path, call in loads if keyword(call, "allow_pickle") != "False"] == []
    assert [path for path, call in weights if keyword(call, "weights_only") != "True"] == []


def test_no_command_goes_through_a_shell_and_no_archive_leaves_its_folder():
    shells = [path for path, call, _ in calls() if keyword(call, "shell") not in (None, "False")]
    archives = [path for path, call, said in calls() if said.endswith(".extractall") and not keyword(call, "filter")]

    assert shells == []
    assert archives == []


def test_cached_values_stay_in_memory():
    """Streamlit's `cache_data` pickles, and with `persist` reads pickles from disk; what is cached here is shared as it is."""
    assert [path for path, _, said in calls() if said.endswith("cache_data") or "persist" in said] == []


def test_every_chart_takes_its_buttons_from_one_place():
    charts = [(path, keyword(call, "config")) for path, call, said in calls() if said.endswith("plotly_chart")]

    assert len(charts) > 10
    assert {config for _, config in charts} == {"CHART", "MAP_CHART"}
    for config in (CHART, MAP_CHART):
        assert not any(config[name] for name in ("showSendToCloud", "showEditInChartStudio", "displaylogo"))


def test_nothing_can_be_uploaded():
    assert [
        (path, said) for path, _, said in calls() if re.search(r"file_uploader|camera_input|audio_input", said)
    ] == []


def test_every_statement_of_sql_is_written_out():
    """Values go in as parameters; of what is put in, only lists of columns that `listed_columns` has looked up."""
    found = [(p, c.args[0]) for p, c, said in calls() if said.rpartition(".")[2] in SQL_CALLS and c.args]

    assert len(found) > 20
    assert [(path, ast.unparse(statement)) for path, statement in found if not is_written_out(path, statement)] == []


def is_written_out(path, statement):
    if isinstance(statement, ast.Constant):
        return isinstance(statement.value, str)
    if isinstance(statement, ast.JoinedStr):
        put_in = [part.value for part in statement.values if isinstance(part, ast.FormattedValue)]
        return all(isinstance(v, ast.Call) and ast.unparse(v.func) == "schema.listed_columns" for v in put_in)
    return (path, ast.unparse(statement)) in NOT_SQL


@pytest.mark.parametrize("names", ["text; drop table samples", "text, nonsense", "(select 1)", "*, 1", ""])
def test_only_columns_that_there_are_reach_a_statement(tmp_path, names):
    run = make_run(tmp_path / "run", scored=False)

    with pytest.raises(UnknownNameError, match="unknown column"):
        run.samples(names)


def test_columns_that_there_are_come_quoted():
    assert listed_columns("sample_id, text") == '"sample_id", "text"'


class Trap:
    """What an array of objects would run when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_in_place_of_an_array_is_refused_and_not_run(tmp_path):
    run = make_run(tmp_path / "run")
    prepare(run)
    found = sorted(run.files.prepared.rglob("*.npy"))
    for path in found:
        np.save(path, np.array([Trap(tmp_path / "sprung")], object), allow_pickle=True)

    with pytest.raises(CartoError):
        previewing.estimator_of(run)

    assert found
    assert not (tmp_path / "sprung").exists()


def test_reading_a_run_meets_no_pickle(tmp_path):
    """Python says so itself, by an audit event, wherever something is unpickled by name."""
    run = make_run(tmp_path / "run", probes=True)
    prepare(run)
    program = (
        "import sys; from carto_core.workflows import light, previewing; from carto_core.store.reader import open_run\n"
        "def refuse(event, found):\n"
        "    if event == 'pickle.find_class': raise SystemExit(f'unpickled {found}')\n"
        "sys.addaudithook(refuse)\n"
        "run = open_run(sys.argv[1]); table = light.load_table(run); previewing.estimator_of(run, table=table)\n"
        "run.texts([0, 1]); run.trajectories(); light.quality(run, 'calibration', label='inserted', table=table)\n"
    )

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, run.files.path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")


def auditing():
    spec = importlib.util.spec_from_file_location("audit_dependencies", ROOT / ".ci" / "audit_dependencies.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def package(name, *vulnerabilities, skipped=False):
    facts = {"name": name, "version": "1.0", "vulns": [{"id": v} for v in vulnerabilities]}
    return {"name": name, "skip_reason": "not found"} if skipped else facts


@pytest.mark.parametrize(
    ("report", "code", "said"),
    [
        (None, 0, "NOT audited"),
        ({"dependencies": [package("a", skipped=True)]}, 0, "NOT audited"),
        ({"dependencies": [package("a"), package("b", skipped=True)]}, 0, "in 1 packages; of 1 others nothing"),
        ({"dependencies": [package("a"), package("b", "PYSEC-1")]}, 1, "b 1.0: PYSEC-1"),
    ],
)
def test_an_audit_of_dependencies_that_could_not_ask_does_not_pass_for_a_clean_one(report, code, said):
    found = auditing().verdict(report)

    assert found[0] == code
    assert said in found[1]
