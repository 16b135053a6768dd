"""The instant estimate on the intervene page, through `app.py`."""

import numpy as np
import pytest

from carto_core import jobs
from carto_core.preview.estimate import Range
from carto_core.store.rundir import update_manifest
from carto_core.ui.panels import estimate
from carto_core.workflows import previewing
from tests import tiny
from tests.ui.test_pages import SCORES, actions, as_read, button, labelled, opened, press, with_hotspots, words
from tests.workflows.test_preparing import measured


@pytest.fixture
def run(tmp_path, monkeypatch):
    root = tmp_path / "runs"
    root.mkdir()
    monkeypatch.setenv("CARTO_RUNS", str(root))
    return tiny.make_run(root / "tiny", num_samples=300, config=SCORES)


def metrics(app):
    return {m.label: m for m in app.metric}


def plan_dir_of(run):
    """The plan that the page has written."""
    (plan_dir,) = run.files.plans.iterdir()
    return plan_dir


def test_an_unprepared_run_offers_to_prepare_it(run, monkeypatch):
    launched = []
    monkeypatch.setattr(jobs, "launch", lambda arguments, **how: launched.append(arguments))
    app = with_hotspots(run)

    assert "before estimates were prepared" in words(app)
    press(app, "Prepare it")

    assert launched == [["prepare", str(run.files.path)]]


def test_the_card_shows_what_the_verb_says(run):
    tiny.prepare(run)

    app = with_hotspots(run)

    said = previewing.estimate_plan(run, plan_dir_of(run))
    found = said["metrics"]["extraction.calibration"]
    shown = metrics(app)["Secrets given away"]
    assert shown.value == f"{found['value']:.0%}"
    assert shown.delta == (
        f"{points:+d} points" if (points := round(100 * (found["value"] - found["unchanged"]))) else "0 points"
    )
    assert f"calibration half: {found['low']:.0%} to {found['high']:.0%}" in words(app)
    assert metrics(app)["Perplexity"].value == f"{np.expm1(said['metrics']['ppl_nats']['value']):+.1%}"
    assert "extrapolated: no run supports this" in words(app)
    assert "No plan of this run was measured yet, so it rests on the ladder" in words(app)
    assert "measure one before you trust its numbers" in words(app)


@pytest.mark.parametrize(
    ("by", "delta", "color", "arrow"), [(-0.004, "0 points", "off", "off"), (0.02, "+2 points", "inverse", "auto")]
)
def test_a_change_that_rounds_to_nothing_is_neither_good_nor_bad(by, delta, color, arrow):
    shown = []
    column = type(
        "Column", (), {"metric": lambda self, *a, **how: shown.append((a, how)), "caption": lambda *_: None}
    )()

    estimate._share(column, "Secrets given away", Range(0.5 + by, 0.4, 0.6, 0.5))

    ((_, _, said), how) = shown[0]
    assert (said, how["delta_color"], how["delta_arrow"]) == (delta, color, arrow)


def test_the_estimate_moves_with_the_slider(run):
    tiny.prepare(run)
    app = with_hotspots(run)
    actions(app).set_value("reweight").run()
    before = metrics(app)["Secrets given away"].value

    labelled(app.slider, "Loss weight of the selection").set_value(0.05).run()

    assert metrics(app)["Secrets given away"].value != before


def test_a_measured_plan_is_badged_and_stands_in_the_tradeoff(run):
    tiny.prepare(run)
    shares = {"baseline": 0.5, "plan": 0.3, "control": 0.5, "dedup": 0.2}
    app = with_hotspots(run)
    measured(run, plan_dir_of(run), shares=shares)

    app.run()

    assert "badge[measured]" in words(app)
    assert "1 measured plan of this run taught it." in words(app)
    alts = [chart.proto.alt for chart in app.get("plotly_chart")]
    assert any(alt.startswith("6 plans by change of perplexity") for alt in alts), alts


def test_the_tradeoff_takes_another_way_to_leak(run):
    tiny.prepare(run)
    app = with_hotspots(run)
    measured(run, plan_dir_of(run), shares={"baseline": 0.5, "plan": 0.3, "control": 0.5, "dedup": 0.2})
    app.run()
    assert any("canary extraction, calibration half" in c.proto.alt for c in app.get("plotly_chart"))

    labelled(app.get("button_group"), "What is given away").set_value("natural_extraction").run()

    alts = [c.proto.alt for c in app.get("plotly_chart")]
    assert any("perplexity and natural extraction" in alt for alt in alts), alts
    assert not any("perplexity and canary extraction" in alt for alt in alts)


def test_the_tradeoff_takes_membership_where_a_plan_was_asked_for_it(run):
    tiny.prepare(run)
    app = with_hotspots(run)
    shares = {"baseline": 0.5, "plan": 0.3, "control": 0.5, "dedup": 0.2}
    measured(run, plan_dir_of(run), shares=shares)
    app.run()

    labelled(app.get("button_group"), "What is given away").set_value("membership_tpr").run()
    assert "measure a plan *With membership inference*" in app.info[-1].value

    measured(run, plan_dir_of(run), shares=shares, membership_tpr=0.04)
    app.run()
    assert any("perplexity and membership TPR" in c.proto.alt for c in app.get("plotly_chart"))


def test_the_calibration_page_sets_estimates_beside_measurements(run):
    tiny.prepare(run)
    app = with_hotspots(run)
    measured(run, plan_dir_of(run), shares={"baseline": 0.5, "plan": 0.3, "control": 0.5, "dedup": 0.2})

    page = opened("calibration", run="tiny")

    cases = previewing.calibration(run, previewing.estimator_of(run))
    inside = sum(case["inside"] for case in cases)
    assert f"{inside} of {len(cases)}** measurements of 1 plan lay inside their 90% interval" in words(page)
    rows = page.dataframe[0].value
    assert len(rows) == len(cases)
    assert rows.set_index("metric").loc["perplexity, change", "measured"] == "+10.5%"
    alts = [chart.proto.alt for chart in page.get("plotly_chart")]
    assert len(alts) == len({case["metric"] for case in cases})
    assert "Intervals of perplexity are" in words(page)
    assert not app.exception


def test_the_calibration_page_says_what_is_missing(run):
    assert "not prepared for estimates yet" in words(opened("calibration", run="tiny"))
    tiny.prepare(run)

    assert "No plan of this run was measured yet" in words(opened("calibration", run="tiny"))


def test_the_report_half_takes_its_place_once_it_was_seen(run):
    tiny.prepare(run)
    assert "report half:" not in words(with_hotspots(run))

    update_manifest(run.files, report_seen=True)

    assert "report half:" in words(with_hotspots(run))


def test_without_canaries_the_card_says_why_it_is_silent(tmp_path, monkeypatch):
    monkeypatch.setenv("CARTO_RUNS", str(tmp_path))
    run = tiny.make_run(tmp_path / "bare", canaries=False, config=SCORES)
    tiny.prepare(run)

    app = with_hotspots(run)

    assert "Extraction cannot be estimated" in words(app)
    assert metrics(app)["Secrets given away"].value == "–"


def test_damaged_preparation_is_one_sentence(run):
    tiny.prepare(run)
    (run.files.prepared / "data.npy").write_bytes(b"")

    app = with_hotspots(run)

    assert "python -m carto_core prepare tiny" in as_read(app.error[0].value)
    assert not app.exception


def test_what_is_prepared_while_the_page_is_open_is_shown(run):
    app = with_hotspots(run)
    tiny.prepare(run)

    app.run()

    assert metrics(app)["Secrets given away"].value != "–"
    assert button(app, "Measure it") is not None
