"""Cleaning in rounds on the intervene page, through `app.py`."""

import pytest

from carto_core import jobs
from carto_core.store.rundir import update_manifest, write_json
from carto_core.ui.panels import working
from carto_core.workflows import rounds
from tests import tiny
from tests.ui.test_pages import SCORES, as_read, button, labelled, opened, press, words


@pytest.fixture
def root(tmp_path, monkeypatch):
    folder = tmp_path / "runs"
    folder.mkdir()
    monkeypatch.setenv("CARTO_RUNS", str(folder))
    return folder


@pytest.fixture
def run(root):
    run = tiny.make_run(root / "tiny", num_samples=300, config=SCORES)
    update_manifest(run.files, train_s=70.0, measure_s=10.0)
    return run


def cleaned(run, *, ended=""):
    """Write what one round that halved the leak would have left."""
    means = {
        arm: {"extraction.calibration": share, "extraction.report": share, "ppl_nats": 3.0 + cost}
        for arm, share, cost in (("baseline", 0.5, 0.0), ("plan", 0.25, 0.02), ("control", 0.48, 0.01))
    }
    one = {"round": 1, "plan": "p", "share": 0.05, "num_affected": 15, "means": means, "effects": []}
    content = {"version": 1, "run_id": run.run_id, "by": "final_loss", "step": 0.05, "budget": 0.1, "target": 0.0}
    later = one | {"round": 2, "map_of": "other"}
    write_json(
        rounds.cleaning_file(run),
        content | {"seeds": 2, "rounds": [one | {"map_of": "tiny"}, later], "ended": ended},
    )


def test_it_says_what_it_costs_and_starts_with_what_is_set(run, monkeypatch):
    launched = []
    monkeypatch.setattr(jobs, "launch", lambda arguments, **how: launched.append((arguments, how["kind"])))
    monkeypatch.setattr(rounds, "num_workers", lambda manifest: 2)
    app = opened("intervene", run="tiny")

    labelled(app.slider, "Cut a round (%)").set_value(10)
    labelled(app.slider, "Budget (%)").set_value(30).run()
    # round 1: 12 retrains, rounds 2 and 3: 6 each, of 60 s, two at a time; two maps of 70 s
    assert button(app, "Start").label == "Start: at most 3 rounds (about 14 min at most)"
    press(app, "Start")

    settings = ["--by", "consolidation", "--step", "0.1", "--budget", "0.3", "--target", "0.05", "--seeds", "3"]
    assert launched == [(["clean", str(run.files.path), *settings], "clean")]


def test_a_budget_below_one_step_is_one_sentence(run):
    app = opened("intervene", run="tiny")

    labelled(app.slider, "Budget (%)").set_value(2).run()

    assert "--budget must be at least --step" in as_read(app.error[0].value)
    assert not app.exception


def test_every_round_is_shown_with_its_control_and_price(run):
    cleaned(run, ended="budget spent: 5.0% of the samples are cut")

    app = opened("intervene", run="tiny")

    row = next(table.value for table in app.dataframe if "by the map of" in table.value).iloc[0]
    assert row["cut so far"] == "15 (5.0%)"
    assert (row["given away"], row["after a random cut"], row["unchanged"]) == ("25%", "48%", "50%")
    assert row["perplexity"] == "+2.0%"
    assert "Budget spent: 5.0% of the samples are cut." in words(app)


def test_the_last_rounds_map_is_one_click_away(run, root):
    for name in ("other", "zulu"):
        tiny.make_run(root / name, num_samples=300, config=SCORES)
    cleaned(run)
    app = opened("intervene", run="tiny")

    press(app, "Compare with other")

    assert "What changed after the cut?" in words(app)
    assert labelled(app.selectbox, "After (B)").value == "other"


def test_a_cleaning_under_way_is_watched(run, monkeypatch):
    monkeypatch.setattr(working, "newest", lambda run_id, kind, **_: kind if kind == "clean" else None)
    monkeypatch.setattr(jobs, "is_active", lambda job: True)
    watched = []
    monkeypatch.setattr(working, "watch", lambda job, *, reached: watched.append((job, reached())))
    cleaned(run)

    app = opened("intervene", run="tiny")

    assert watched == [("clean", 2)]
    assert not [b for b in app.button if b.label.startswith("Start")]
    assert "Not ended yet." in words(app)


def test_what_cannot_be_cleaned_says_why(root):
    tiny.make_run(root / "bare", canaries=False, config=SCORES)

    app = opened("intervene", run="bare")

    assert "nothing would tell when it is clean" in words(app)
    assert not [b for b in app.button if b.label.startswith("Start")]


def test_a_damaged_file_of_rounds_is_one_sentence(run):
    rounds.cleaning_file(run).write_text("{")

    app = opened("intervene", run="tiny")

    assert "clean the run again" in as_read(app.error[0].value)
    assert not app.exception
