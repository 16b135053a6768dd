import errno
import json

import numpy as np
import pytest

from carto_core.config import ScoreConfig
from carto_core.errors import ConfigError, DiskError, SelectionError
from carto_core.rules import combine
from carto_core.workflows import light, saved
from carto_core.workflows.naming import checked_name
from tests.tiny import make_run

HOT = {"type": "top", "by": "consolidation", "q": 0.1}
LOW = {"type": "range", "score": "final_loss", "low": None, "high": 1.0}


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def save(run, name, rule=HOT):
    return saved.save_selection(run, light.select(run, rule), name)


def names(run):
    return [entry.name for entry in saved.list_saved(run)]


def test_a_selection_comes_back_by_its_name_and_its_file_is_a_selection_file(run):
    rule = combine("subtract", HOT, LOW)

    path = save(run, "  hot, but not quite learnt ", rule)
    back = saved.load_saved(run, "hot, but not quite learnt")

    assert path == run.files.path / "selections" / "hot, but not quite learnt.json"
    assert back.rule == rule
    assert back.sample_ids.tolist() == light.select(run, rule).sample_ids.tolist()
    assert back.sample_ids.tolist() == light.read_selection(run, path).sample_ids.tolist()
    content = json.loads(path.read_text())
    assert set(content) == {"name", "version", "run_id", "corpus_sha256", "rule", "num_samples", "notes", "keys"}
    assert content["name"] == "hot, but not quite learnt"
    assert saved.still_names(run, back)


def test_saved_selections_are_listed_with_number_and_words(run):
    save(run, "Zebra")
    save(run, "apple", combine("intersect", HOT, LOW))

    apple, zebra = saved.list_saved(run)

    assert (apple.name, zebra.name) == ("apple", "Zebra")
    assert zebra.num_samples == len(light.select(run, HOT).sample_ids)
    assert zebra.words == "top 10 % by Consolidation"
    assert "intersected with" in apple.words


def test_a_run_without_saved_selections_has_an_empty_list(run):
    assert saved.list_saved(run) == []


def test_a_name_is_never_written_over(run):
    path = save(run, "mine")
    before = path.read_bytes()

    with pytest.raises(SelectionError, match="'mine' already; choose another name"):
        save(run, "mine ", LOW)

    assert path.read_bytes() == before


def test_a_selection_that_cannot_be_written_leaves_its_name_free(run, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("pathlib.Path.write_text", full)
        with pytest.raises(DiskError, match=r"cannot write .*mine\.json: No space left on device"):
            save(run, "mine")
    assert list(run.files.selections.iterdir()) == []

    save(run, "mine")

    assert names(run) == ["mine"]


def test_a_selection_is_renamed_in_its_file_too_and_deleted(run):
    save(run, "old")
    save(run, "other")

    path = saved.rename_saved(run, "old", "new")

    assert names(run) == ["new", "other"]
    assert json.loads(path.read_text())["name"] == "new"
    with pytest.raises(SelectionError, match="already"):
        saved.rename_saved(run, "new", "other")
    saved.delete_saved(run, "new")
    assert names(run) == ["other"]
    for missing in (saved.load_saved, saved.delete_saved):
        with pytest.raises(SelectionError, match=r"no saved selection 'new' \(there: other\)"):
            missing(run, "new")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "  ",
        ".",
        "..",
        "../run",
        "a/b",
        "a\\b",
        ".hidden",
        "dot.",
        "a:b",
        "a\nb",
        "a\0b",
        "a\x1b",
        "*",
        "a" * 81,
        "漢" * 70,
    ],
)
def test_a_name_with_another_meaning_is_the_users_mistake(run, name):
    with pytest.raises(SelectionError, match="name"):
        save(run, name)
    assert not run.files.selections.exists()
    for verb in (saved.load_saved, saved.delete_saved):
        with pytest.raises(SelectionError):
            verb(run, name)
    assert (run.files.path / "run.json").is_file()


@pytest.mark.parametrize("name", ["a" * 80, "Größe 3,5 – mails", "漢字", "50 % (v2.1)", "$(rm -rf)", "'--help'"])
def test_a_name_in_any_language_is_a_files_name(run, name):
    save(run, name)

    assert names(run) == [name]
    assert saved.load_saved(run, name).rule == HOT


def test_a_name_has_one_form_in_unicode(run):
    assert checked_name("e\u0301te\u0301", error=ConfigError) == "\u00e9t\u00e9"
    with pytest.raises(ConfigError):
        checked_name("", error=ConfigError)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"keys": 3, "rule": {}}', "[" * 100_000])
def test_a_damaged_file_is_listed_as_that_and_can_only_be_deleted(run, text):
    save(run, "good")
    (run.files.selections / "bad.json").write_text(text)

    bad, _good = saved.list_saved(run)

    assert (bad.name, bad.num_samples) == ("bad", None)
    assert "damaged" in bad.words
    with pytest.raises(SelectionError):
        saved.load_saved(run, "bad")
    with pytest.raises(SelectionError, match="cannot be read"):
        saved.rename_saved(run, "bad", "better")
    saved.delete_saved(run, "bad")
    assert names(run) == ["good"]


def test_after_a_rescore_the_keys_decide_and_the_difference_is_known(run):
    save(run, "forgotten", {"type": "top", "by": "memorization", "q": 0.1})
    before = saved.load_saved(run, "forgotten").sample_ids

    light.score(run, ScoreConfig(eps_mode="absolute", eps=0.7))

    after = saved.load_saved(run, "forgotten")
    assert np.array_equal(after.sample_ids, before)
    assert not saved.still_names(run, after)


def test_a_rule_that_names_a_score_of_another_time_no_longer_names_its_samples(run):
    path = save(run, "old score")
    path.write_text(path.read_text().replace('"consolidation"', '"some_old_score"'))

    selection = saved.load_saved(run, "old score")

    assert len(selection.sample_ids)
    assert not saved.still_names(run, selection)
