"""The home page: start a run, the jobs, the runs under another name and gone, the doctor."""

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from streamlit.testing.v1 import AppTest

from carto_core import jobs
from carto_core.store.rundir import append_progress, now, write_json
from carto_core.ui.panels.training import PATH
from carto_core.workflows import doctor
from tests import tiny
from tests.texts import sentences, write_jsonl
from tests.ui.test_pages import as_read

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path, monkeypatch):
    root = tmp_path / "runs"
    root.mkdir()
    monkeypatch.setenv("CARTO_RUNS", str(root))
    return root


@pytest.fixture
def launched(monkeypatch):
    started = []
    monkeypatch.setattr(jobs, "launch", lambda arguments, **facts: started.append((list(arguments), facts)))
    return started


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def home():
    app = AppTest.from_file(PROJECT / "app.py", default_timeout=60)
    app.switch_page("pages/home.py").run()
    return sound(app)


def sound(app):
    assert not app.exception, app.exception[0].message + "\n".join(app.exception[0].stack_trace)
    return app


def words(app):
    kinds = ("title", "markdown", "caption", "info", "warning", "error", "code")
    return "\n".join(as_read(element.value) for kind in kinds for element in app.get(kind))


def field(elements, label):
    return next(element for element in elements if element.label == label)


def with_corpus(app, path, column="text"):
    field(app.selectbox, "Corpus").set_value(PATH).run()
    field(app.text_input, "Path").set_value(str(path))
    field(app.text_input, "Text column").set_value(column).run()
    return sound(app)


def job_in(root, process, name, **changes):
    folder = root / ".jobs" / name
    folder.mkdir(parents=True)
    fields = {"job_id": name, "kind": "train", "run_id": "tiny", "command": [], "created": now(), "progress": ""}
    fields |= {"result": "", "folder": str(folder), "pid": process.pid}
    write_json(folder / "job.json", fields | {"pid_start": psutil.Process(process.pid).create_time()} | changes)
    return folder


def test_a_training_starts_with_the_settings_of_the_form_and_says_first_what_it_will_take(root, tmp_path, launched):
    corpus = write_jsonl(tmp_path / "mine.jsonl", [*sentences(40), *sentences(5)])
    app = with_corpus(home(), corpus)
    assert "**45 samples**, 40 of them different" in words(app)
    assert "a guess from its size" in words(app)

    field(app.text_input, "Name of the run").set_value("first").run()
    field(app.number_input, "Epochs").set_value(3).run()
    sound(field(app.button, "Start the training").click().run())

    ((arguments, facts),) = launched
    said = dict(zip(arguments[1::2], arguments[2::2], strict=True))
    assert arguments[0] == "train"
    assert (said["--corpus"], said["--epochs"], said["--model-size"]) == (str(corpus), "3.0", "small")
    assert said["--out"] == str(root / "first")
    assert (facts["kind"], facts["run_id"], facts["runs_root"]) == ("train", "first", root)


@pytest.mark.parametrize(
    ("content", "column", "said"),
    [
        (None, "text", "there is no such file or folder"),
        ('{"text": "a"}\n{"text": "b"}\n', "body", "column 'body' is missing"),
        ("", "text", "holds no text"),
        ("{broken\n", "text", "not valid JSON"),
        ('{"text": "a"}\n{"text": "a"}\n', "text", "at least 2 that differ"),
    ],
)
def test_a_corpus_that_will_not_do_is_one_sentence_before_anything_starts(root, tmp_path, content, column, said):
    path = tmp_path / "mine.jsonl"
    if content is not None:
        path.write_text(content)

    app = with_corpus(home(), path, column)

    assert said in words(app).replace("\\", "")
    assert field(app.button, "Start the training").disabled


@pytest.mark.parametrize(
    ("name", "said"), [("a/b", "cannot be a name"), ("tiny", "there already"), ("busy", "is being made by a job")]
)
def test_a_name_is_checked_before_anything_starts(root, sleeper, name, said):
    tiny.make_run(root / "tiny", num_samples=120)
    job_in(root, sleeper, "1", run_id="busy")
    app = home()

    field(app.text_input, "Name of the run").set_value(name).run()

    assert said in words(app)
    assert field(app.button, "Start the training").disabled


def test_jobs_are_listed_with_what_they_do_and_wait_for_and_can_be_cancelled(root, sleeper):
    tiny.make_run(root / "tiny", num_samples=120)
    first = job_in(root, sleeper, "1")
    append_progress(first / "progress.jsonl", stage="training", done=30, total=120, rate=2.0, eta_s=45.0)
    (first / "log.txt").write_text("a line of its log\n")
    second = job_in(root, sleeper, "2", kind="audit")
    append_progress(second / "progress.jsonl", stage="waiting for the training of other to end", done=0, total=1)

    app = home()
    bars, said = " ".join(str(bar.proto.text) for bar in app.get("progress")), words(app)
    sound(app.button(key="stop_1").click().run())
    sleeper.wait(timeout=10)

    assert "training: 30 of 120 (25%) · 2 a second · about 45 seconds left" in bars.replace("\\", "")
    assert "waiting for the training of other to end" in bars
    assert "a line of its log" in said
    assert jobs.state_of(jobs.list_jobs(root)[-1]) == "cancelled"


def test_ended_jobs_say_why_and_can_be_cleared(root, sleeper):
    folder = job_in(root, sleeper, "1")
    (folder / "log.txt").write_text("error: the corpus is empty\n")
    write_json(folder / "exit.json", {"code": 2})
    app = home()
    assert "the corpus is empty" in words(app)

    sound(field(app.button, "Clear the list").click().run())

    assert not folder.exists()


def opened(app, key):
    app.session_state[key] = True
    return sound(app.run())


def test_a_run_is_renamed_and_deleted_only_when_its_name_is_typed(root):
    tiny.make_run(root / "tiny", num_samples=120)
    app = opened(home(), "rename_tiny")
    app.text_input(key="new_name_tiny").set_value("other").run()
    sound(app.button(key="do_rename_tiny").click().run())
    assert [path.name for path in root.iterdir()] == ["other"]

    app = opened(home(), "delete_other")
    assert "go for good" in words(app)
    assert app.button(key="do_delete_other").disabled
    app.text_input(key="typed_other").set_value("other").run()
    sound(app.button(key="do_delete_other").click().run())

    assert list(root.iterdir()) == []


def test_a_run_that_is_worked_on_cannot_be_deleted(root, sleeper):
    tiny.make_run(root / "tiny", num_samples=120)
    job_in(root, sleeper, "1", kind="audit")

    app = opened(home(), "delete_tiny")

    assert "its job audit is under way" in words(app)
    assert not [button for button in app.button if button.label == "Delete it"]


def test_a_damaged_run_is_one_sentence_beside_the_others_and_can_be_deleted(root):
    tiny.make_run(root / "sound", num_samples=120)
    damaged = tiny.make_run(root / "damaged", num_samples=120)
    damaged.files.manifest.write_text("{")

    app = opened(home(), "delete_damaged")

    assert "run.json cannot be read" in words(app)
    assert app.button(key="open_sound")
    assert app.button(key="do_delete_damaged")


def test_the_doctor_is_asked_by_a_button(root, monkeypatch):
    tiny.make_run(root / "tiny", num_samples=120)
    monkeypatch.setattr(doctor, "_ask_torch", lambda: {"error": "an illegal instruction"})
    app = home()

    sound(field(app.button, "Check everything").click().run())

    table = app.dataframe[0].value
    assert "1 of " in words(app)
    assert table.iloc[0]["found"] == "cannot be loaded: an illegal instruction"
    assert json.loads(table.to_json())
