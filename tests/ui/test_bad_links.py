"""What anybody may write into a link: refused or read as it is, and no page breaks on it."""

import shutil
import time
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from carto_core.errors import SelectionError
from carto_core.store.rundir import update_manifest, write_json
from carto_core.ui import state
from carto_core.ui.panels import evidence
from carto_core.ui.words import literal
from tests import tiny
from tests.bad_input.addresses import READ, REFUSED, packed
from tests.bad_input.corpora import MARKUP

PROJECT = Path(__file__).parents[2]
BELOW = ("map", "samples", "intervene", "compare", "audit", "home")
NAME = "<b>x<br> **y** $z^2$ :smile: [a](b)"


@pytest.fixture
def runs_root(tmp_path, monkeypatch):
    root = tmp_path / "runs"
    root.mkdir()
    monkeypatch.setenv("CARTO_RUNS", str(root))
    monkeypatch.setattr(evidence, "RESULTS", tmp_path / "results")
    return root


def opened(page, **address):
    app = AppTest.from_file(PROJECT / "app.py", default_timeout=60)
    for name, value in address.items():
        app.query_params[name] = value
    return turned(app, page)


def turned(app, page):
    app.switch_page(f"pages/{page}.py").run()
    assert not app.exception, app.exception[0].message + "\n".join(app.exception[0].stack_trace)
    return app


def said(app, *kinds):
    return "\n".join(str(element.value) for kind in kinds for element in app.get(kind))


@pytest.mark.parametrize("link", REFUSED.values(), ids=REFUSED)
def test_a_link_that_no_page_wrote_is_refused_at_once(link):
    began = time.perf_counter()

    with pytest.raises((ValueError, SelectionError)):
        state.unpacked(link)

    assert time.perf_counter() - began < 2


@pytest.mark.parametrize("fields", READ.values(), ids=READ)
def test_an_odd_link_is_read_as_it_is(fields):
    view = state.unpacked(packed(fields), run="tiny")

    known = {name: value for name, value in fields.items() if hasattr(view, name) and name != "__class__"}
    assert {name: getattr(view, name) for name in known} == {
        name: tuple(value) if isinstance(value, list) else value for name, value in known.items()
    }


@pytest.mark.parametrize("link", ["a bomb of a gigabyte", "a rule of no type"])
def test_a_page_says_that_a_link_cannot_be_read_and_starts_afresh(link, runs_root):
    tiny.make_run(runs_root / "tiny", num_samples=120, num_snapshots=5)

    app = opened("map", run="tiny", view=REFUSED[link])

    assert "could not be read" in said(app, "warning")
    assert "Nothing selected" in said(app, "markdown")


@pytest.mark.parametrize("link", ["a rule on a score that is none", "an axis that is none", "a source that is none"])
def test_a_page_clears_what_a_link_names_and_no_run_has(link, runs_root):
    tiny.make_run(runs_root / "tiny", num_samples=120, num_snapshots=5)

    app = opened("map", run="tiny", view=packed(READ[link]))

    assert "Where does the model memorize?" in said(app, "title")


@pytest.mark.parametrize("run", ["../../etc", "/etc/passwd", "\u202eבא", MARKUP, "x" * 5000, ""])
def test_a_run_that_is_none_is_said_as_text_and_another_shown(run, runs_root):
    tiny.make_run(runs_root / "tiny", num_samples=120, num_snapshots=5)

    app = opened("home", run=run)

    errors = said(app, "error")
    assert (literal(repr(run[:200])) in errors) == bool(run)
    assert "#### tiny" in said(app, "markdown")


def test_every_page_goes_on_beside_runs_that_cannot_be_read(runs_root):
    tiny.make_run(runs_root / "tiny", num_samples=120, num_snapshots=5)
    for name, content in {"newer": {"contract_version": 9}, "list": [], NAME: {"contract_version": 1}}.items():
        (runs_root / name).mkdir()
        write_json(runs_root / name / "run.json", content)
    (runs_root / "half").mkdir()
    (runs_root / "half" / "run.json").write_text('{"contract_version": 1, "stat')
    (runs_root / "linked").symlink_to(runs_root / "tiny")

    app = opened("home", run="newer")
    home = said(app, "warning")
    others = [said(turned(app, page), "title") for page in BELOW]

    assert "reads version 1" in said(opened("home", run="newer"), "error")
    assert all(f"**{literal(name)}** cannot be read" in home for name in ("newer", "list", "half", "linked", NAME))
    assert len(set(others)) == len(BELOW)


def test_names_that_are_markup_stand_on_every_page_as_text(runs_root):
    run = tiny.make_run(runs_root / NAME, num_samples=120, num_snapshots=5)
    update_manifest(run.files, error=MARKUP, created=MARKUP)
    shutil.copytree(run.files.path, runs_root / "other")

    app = opened("home", run=NAME)
    shown = said(app, "markdown", "caption")
    compared = said(turned(app, "compare"), "markdown", "caption", "info", "toggle")

    assert literal(NAME) in shown
    assert literal(MARKUP) in shown
    assert MARKUP not in shown
    assert NAME not in shown + compared


def test_a_run_whose_files_were_damaged_is_told_in_a_sentence_on_every_page(runs_root):
    run = tiny.make_run(runs_root / "tiny", num_samples=120, num_snapshots=5)
    run.files.database.write_bytes(b"SQLite format 3\0" * 300)

    app = opened("map", run="tiny")

    assert "cannot be read" in said(app, "error")
    for page in ("samples", "intervene", "audit", "home"):
        turned(app, page)


def test_words_of_others_are_one_line_without_markup():
    assert literal("a\n\n# b *c* <i> $x$ :d: &lt; @e") == ("a \\# b \\*c\\* \\<i\\> \\$x\\$ \\:d\\: \\&lt; \\@e")
