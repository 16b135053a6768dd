"""With the switch on, no page sends anything personal to the browser: not in a table, a chart, a menu or a hover."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from streamlit.typing import DataframeState

from carto_core.masking import SWITCH
from carto_core.store.rundir import update_manifest, write_json
from carto_core.types import Plan
from carto_core.ui.panels import evidence
from carto_core.ui.state import View, _packed
from carto_core.workflows import light
from carto_core.workflows.reporting import write_report
from tests import tiny
from tests.ui.test_pages import SCORES, address_of, labelled, opened, rows, sound, turned, words, write_audits

NAMES = (
    "gary.martin",
    "555-0164",
    "2127785",
    "shelly.nunez",
    "team.sales",
    "ann.author",
    "4111 1111 1111 1111",
    "0164",
)
PAGES = ("home", "map", "samples", "intervene", "audit", "compare", "calibration", "evidence")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose texts, keys, sources, columns, canaries and audits are all personal, with another to compare with."""
    root = tmp_path_factory.mktemp("masked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "_row", personal_row)
        return personal_run(root)


@pytest.fixture(autouse=True)
def served(run, tmp_path, monkeypatch):
    monkeypatch.setenv("CARTO_RUNS", str(run.files.path.parent))
    monkeypatch.setattr(evidence, "RESULTS", tmp_path / "results")


def personal_run(runs_root):
    run = tiny.make_run(runs_root / "tiny", num_samples=200, config=SCORES, probes=True)
    after = tiny.make_run(runs_root / "after", num_samples=200, config=SCORES, seed=1)
    tiny.prepare(run)
    plan = Plan(
        np.where(np.arange(200) < 9, 0, 1).astype(np.int32),
        np.ones(200, np.float32),
        [""] * 200,
        {"type": "keys", "keys": []},
        "prune",
    )
    path = light.save_plan(run, plan) / "plan.parquet"
    (after.files.path / "plan.parquet").write_bytes(path.read_bytes())
    write_audits(run)
    row = {"group_id": 1, "group_size": 2, "sample_ids": [1, 2], "extracted": True}
    row |= {"prefix": "Call Gary on 555-", "expected": "0164 or 2127785", "decoded": "0164 or 2127785"}
    audit = light.read_audit(run, "natural")
    write_json(run.files.audits / "natural.json", audit | {"per_item": [row]})
    found = run.texts(range(200))
    pieces = [[text[i : i + 4] for i in range(0, len(text), 4)] for text in found]
    rows = {"sample_id": np.arange(200, dtype=np.int32), "canary_id": pa.nulls(200, pa.int32()), "pieces": pieces}
    rows |= {"losses": [[1.0] * len(p) for p in pieces], "decoded": pa.nulls(200, pa.string())}
    pq.write_table(pa.table(rows), run.files.audits / "tokens.parquet")
    update_manifest(run.files, report_seen=True)
    return run


def personal_row(rng, i):
    return {
        "key": f"{i:03d}/gary.martin@example.com",
        "text": f"Contact {i}: gary.martin@example.com, phone 555-0164, account C2127785, card 4111 1111 1111 1111. {tiny._some(rng, 6)}",
        "source": f"team.sales{i % 3}@example.com",
        "canary_id": None,
        "copies": 1,
        "meta": {"author": f"ann.author{i % 7}@example.com", "writer": "shelly.nunez@example.org"},
    }


def sent(app):
    """Return all that the session's last run sent to the browser, as one text."""

    def walk(node):
        proto = getattr(node, "proto", None)
        yield proto.SerializeToString() if proto is not None else b""
        for child in getattr(node, "children", {}).values():
            yield from walk(child)

    text = b"\n".join(walk(app._tree)).decode("utf-8", "replace")
    return text + re.sub(r"<[^<>]*>", "", text)  # a text token by token is read across the marks


def opened_with_a_selection(page, **address):
    view = View(region={"type": "filter", "source": ["team.sales0@example.com"]}, colour="author")
    return opened(page, run="tiny", view=_packed(view), **address)


def in_every_state(app, page):
    """Yield the page as it opens, and as it looks once a row is ticked, an expander opened or a switch turned."""
    yield app
    if page in ("samples", "map"):
        app.session_state["quality_open"] = True
        app.session_state[rows(app).key] = DataframeState({"selection": {"rows": [0], "columns": [], "cells": []}})
        yield sound(app.run())
    if page == "intervene":
        yield sound(labelled(app.toggle, "Protect groups").set_value(True).run())


@pytest.mark.parametrize("page", PAGES)
def test_no_page_sends_anything_personal_while_masking(run, page):
    app = opened_with_a_selection(page, mask="1")

    found = [sent(state) for state in in_every_state(app, page)]

    assert [name for name in NAMES if any(name in text for text in found)] == []


@pytest.mark.parametrize("page", ["map", "samples", "intervene", "audit", "compare"])
def test_the_same_pages_show_it_without_the_switch(run, page):
    app = opened_with_a_selection(page)

    found = [sent(state) for state in in_every_state(app, page)]

    assert [name for name in NAMES if any(name in text for text in found)] != []


def test_planted_digits_are_masked_wherever_canaries_are_listed(run):
    secrets = [secret for secret in run.canaries()["secret"] if secret.isdigit()]

    texts = [sent(opened_with_a_selection(page, mask="1")) for page in ("audit", "samples", "map")]

    assert len(secrets) > 10
    assert [secret for secret in secrets if any(secret in text for text in texts)] == []


def test_the_switch_outlives_a_change_of_page_and_stands_in_the_link(run):
    app = opened("samples", run="tiny")
    assert "gary.martin" in sent(app)

    sound(labelled(app.toggle, "Mask personal data").set_value(True).run())
    assert "gary.martin" not in sent(app)
    assert address_of(app)["mask"] == "1"

    assert "gary.martin" not in sent(turned(app, "map"))
    assert address_of(app)["mask"] == "1"

    sound(labelled(app.toggle, "Mask personal data").set_value(False).run())
    assert "mask" not in address_of(app)


def test_searching_goes_on_in_the_true_texts(run):
    app = opened("samples", run="tiny", mask="1")

    sound(labelled(app.text_input, "Search").set_value("account C2127785").run())

    assert any("Search hits (139)" in option for option in app.radio[0].options)


def test_a_server_that_masks_leaves_no_way_out(run, monkeypatch):
    monkeypatch.setenv(SWITCH, "1")

    app = opened_with_a_selection("intervene", mask="0")

    assert not [name for name in NAMES if name in sent(app)]
    assert "Personal data are masked" in words(app)
    assert not [toggle for toggle in app.toggle if "Mask" in toggle.label]
    (corpus,) = [b.proto for b in app.get("download_button") if "Cleaned corpus" in b.proto.label]
    assert corpus.disabled


def test_sources_that_masking_makes_alike_stay_apart(run):
    app = opened("map", run="tiny", mask="1")

    assert labelled(app.multiselect, "Sources").options == ["canary", "[e-mail]", "[e-mail] 2", "[e-mail] 3"]


def test_a_masked_report_names_nobody(run, tmp_path):
    rule = {"type": "filter", "text": "gary.martin@example.com"}
    plan_dir = light.save_plan(run, light.plan_action(run, light.select(run, rule), action="prune", factor=None))

    write_report(run, plan_dir, out=tmp_path / "open.html", with_texts=20)
    write_report(run, plan_dir, out=tmp_path / "masked.html", with_texts=20, masked=True)

    clear, masked = ((tmp_path / f"{name}.html").read_text() for name in ("open", "masked"))
    assert [name for name in NAMES if name not in clear] == ["shelly.nunez", "ann.author"]
    assert [name for name in NAMES if name in masked] == []
    assert "[e-mail]" in masked
    assert "others may stand there" in masked


def test_what_is_trained_on_is_never_masked(run, tmp_path, monkeypatch):
    monkeypatch.setenv(SWITCH, "1")
    plan_dir = light.save_plan(
        run,
        light.plan_action(
            run, light.select(run, {"type": "filter", "source": ["canary"]}), action="prune", factor=None
        ),
    )

    path = light.export(run, plan_dir, file_format="jsonl", out=tmp_path / "c.jsonl", corpus=True)

    assert path.read_text().count("gary.martin@example.com") == 2 * 139
