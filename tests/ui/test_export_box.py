"""The box on the Intervene page that a plan is taken away from."""

import functools
import io
import zipfile

import pytest

from carto_core.export import EXPORTS
from carto_core.masking import SWITCH
from carto_core.ui.panels.exporting import zipped
from carto_core.workflows import light
from tests.tiny import make_run
from tests.ui.test_pages import as_read, labelled, opened, press, sound, turned, words


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("CARTO_RUNS", str(tmp_path / "runs"))
    return make_run(tmp_path / "runs" / "tiny")


def intervening():
    app = opened("map", run="tiny")
    press(app, "Hotspot-Memorized")
    return turned(app, "intervene")


def downloads(app):
    return {element.proto.label: element.proto for element in app.get("download_button")}


def test_a_format_says_what_it_is_for_and_shows_the_program_that_applies_it(run):
    app = intervening()
    choice = labelled(app.selectbox, "Format")
    assert choice.options == [form.title for form in EXPORTS.values()]
    assert choice.value == "parquet"

    for form in map(EXPORTS.get, ("huggingface", "keys", "dolma")):
        sound(labelled(app.selectbox, "Format").set_value(form.name).run())

        assert f"For {form.reader}. Writes {form.writes}. {form.how}" in words(app)
        assert [(code.value, code.language) for code in app.code][-1] == (
            form.applied(form.out).rstrip(),
            form.language,
        )
        labels = list(downloads(app))
        assert (f"{form.title}: the folder (ZIP)" in labels) is form.is_folder
        assert ("Its manifest" in labels) is not form.is_folder


def test_a_plan_that_a_format_has_no_word_for_is_one_sentence_and_no_download(run):
    app = intervening()
    sound(labelled(app.get("button_group"), "What to do").set_value("reweight").run())

    sound(labelled(app.selectbox, "Format").set_value("datatrove").run())

    assert [e for e in app.error if "the plan drops nothing" in as_read(e.value)]
    assert list(downloads(app)) == ["Download the report", "Cleaned corpus (JSONL)"]


def test_what_a_format_does_not_carry_is_said_before_it_is_taken(run):
    app = intervening()
    sound(labelled(app.get("button_group"), "What to do").set_value("policy").run())

    sound(labelled(app.selectbox, "Format").set_value("keys").run())

    assert [w for w in app.warning if "not carried" in as_read(w.value)]


def test_a_server_that_masks_gives_no_folder_of_texts_away(run, monkeypatch):
    monkeypatch.setenv(SWITCH, "1")
    app = intervening()

    sound(labelled(app.selectbox, "Format").set_value("megatron").run())

    assert downloads(app)["Megatron blend: the folder (ZIP)"].disabled


def test_a_zip_holds_the_folder_that_the_command_writes(run, tmp_path):
    chosen = light.select(run, {"type": "filter", "text": "river"})
    plan = light.plan_action(run, chosen, action="prune", factor=None)
    plan_dir = light.save_plan(run, plan)
    folder = light.export(run, plan_dir, file_format="dolma", out=tmp_path / "dolma")

    content = zipped(EXPORTS["dolma"], functools.partial(light.export, run, plan_dir, file_format="dolma"))

    with zipfile.ZipFile(io.BytesIO(content)) as file:
        found = {name: file.read(name) for name in file.namelist() if not name.endswith("/")}
    expected = {p.relative_to(tmp_path).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    del found["dolma/manifest.json"], expected["dolma/manifest.json"]  # it holds the time
    assert found == expected
