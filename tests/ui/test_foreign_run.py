"""Runs of models that another program trained: every page and verb works on them, or says in a sentence why it cannot."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

import carto_core
from carto_core import cli
from carto_core.store.columns import Named
from carto_core.store.reader import open_run
from carto_core.workflows import light
from carto_core.workflows.doctor import examine, worst
from carto_core.workflows.importing import guess_layout, import_run
from tests.texts import sentences, write_jsonl
from tests.ui import test_pages as pages

runs_root = pages.runs_root  # a fixture
WORDS = ("river", "stone", "market", "winter", "letter", "garden")
NEED_A_MODEL = (
    ["audit", "mine"],
    ["prepare", "mine"],
    ["preview", "mine", "PLAN"],
    ["measure", "mine", "PLAN"],
    ["retrain", "mine", "PLAN", "--out", "OUT"],
    ["clean", "mine"],
    ["probe", "mine", "passes"],
    ["train", "--resume", "--out", "RUN"],
)


def record(out, *, with_texts=True, num_snapshots=8, close=True):
    """A loop over 60 samples in pairs of equal texts."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, 12)) + f" {i // 2}" for i in range(60)]
    rows = [{"key": f"k{i}", "text": texts[i - i % 2], "source": WORDS[i % 3]} for i in range(60)]
    start, pace = rng.uniform(2, 5, 60), rng.uniform(0.05, 0.5, 60)
    rec = carto_core.record(out, corpus=rows if with_texts else None, by="a test's loop")
    rec.start()
    for t in range(num_snapshots):
        losses = start * np.exp(-pace * t) + rng.uniform(0, 0.3, 60)
        rec.log([f"k{i}" for i in range(60)], losses, [12] * 60)
        rec.snapshot()
    if close:
        rec.close()
    return rec


@pytest.fixture
def mine(runs_root):
    record(runs_root / "mine")
    return open_run(runs_root / "mine")


def plan_of(run):
    table = light.load_table(run)
    plan = light.plan_action(
        run, light.select(run, {"type": "top", "by": table.y, "q": 0.1}, table=table), action="prune", table=table
    )
    return light.save_plan(run, plan, table=table)


def carto(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main([str(a) for a in arguments])
    said = capsys.readouterr()
    return ended.value.code, said.out, said.err


@pytest.mark.parametrize("with_texts", [True, False])
@pytest.mark.parametrize("page", ["home", "map", "samples", "intervene", "audit", "calibration", "compare"])
def test_every_page_draws_a_recorded_run(runs_root, page, with_texts):
    record(runs_root / "mine", with_texts=with_texts)
    record(runs_root / "other", with_texts=with_texts)

    app = pages.opened(page, run="mine")

    if page in ("audit", "calibration"):
        assert "another program trained" in pages.words(app)


def test_a_plan_of_a_recorded_run_is_shown_without_estimate_and_measurement_and_can_be_taken(mine):
    app = pages.opened("intervene", run="mine")

    pages.actions(app).set_value("policy")
    pages.sound(app.run())

    said = pages.words(app)
    assert "train with it in that program" in said
    assert "Measure it" not in said
    assert not [b for b in app.button if "Measure" in b.label or "Prepare" in b.label]
    assert "The list" in said or app.get("download_button")


def test_home_says_who_recorded_a_run_and_offers_to_seal_what_was_left(runs_root):
    rec = record(runs_root / "mine", close=False)
    rec.close(KeyboardInterrupt())

    app = pages.opened("home")

    said = pages.words(app)
    assert "recorded by a test's loop" in said
    assert "the snapshots that it had finished are kept" in said
    assert "Seal what was recorded" in [b.label for b in app.button]


def test_home_and_map_show_what_was_imported(runs_root, tmp_path):
    path = tmp_path / "losses.csv"
    path.write_text("id,epoch,loss\n" + "".join(f"k{i},{t},{5 - t + i / 9}\n" for t in range(4) for i in range(9)))
    import_run(path, runs_root / "theirs", guess_layout(path, Named(key="id")))

    assert "9 samples · import of losses.csv ·" in pages.words(pages.opened("home"))
    assert "9 samples" in pages.words(pages.opened("map", run="theirs"))


def test_the_map_of_a_run_that_is_recorded_shows_what_is_there_so_far(runs_root):
    rec = record(runs_root / "mine", close=False)

    app = pages.opened("map", run="mine")

    assert "8 snapshots so far" in pages.words(app)
    rec.close()


@pytest.mark.parametrize("arguments", NEED_A_MODEL, ids=lambda a: a[0])
def test_verbs_that_need_the_model_say_in_a_sentence_why_they_cannot(mine, runs_root, tmp_path, capsys, arguments):
    places = {"PLAN": plan_of(mine), "OUT": tmp_path / "out", "RUN": runs_root / "mine"}

    code, _, said = carto(capsys, *[places.get(a, a) for a in arguments])

    assert code == 2
    assert "another program trained" in said
    assert not (tmp_path / "out").exists()


def test_the_other_verbs_work_from_the_command_line(mine, runs_root, tmp_path, capsys):
    record(runs_root / "other")

    for arguments in (
        ["runs"],
        ["score", "mine", "--json"],
        ["probe", "mine", "--json"],
        ["seal", "mine", "--json"],
        ["compare", "mine", "other", "--json"],
        ["report", "mine", plan_of(mine), "--out", tmp_path / "r.html", "--with-texts", "2"],
        ["export", "mine", plan_of(mine), "--format", "parquet", "--out", tmp_path / "list.parquet"],
        ["select", "mine", "--top", "0.1", "--by", "difficulty", "--out", tmp_path / "s.json"],
        ["rename", "other", "another"],
        ["delete", "another", "--yes"],
    ):
        code, _, said = carto(capsys, *arguments)

        assert code == 0, f"{arguments}: {said}"

    assert pq.read_table(tmp_path / "list.parquet").num_rows > 0
    page = (tmp_path / "r.html").read_text()
    assert "another program trained the model" in page
    assert "carto_core export mine" in page
    assert "carto_core train" not in page


def test_join_gives_texts_from_the_command_line(runs_root, tmp_path, capsys):
    record(runs_root / "mine", with_texts=False)
    (tmp_path / "c.jsonl").write_text(json.dumps({"key": "k7", "text": "a text of its own"}))

    code, out, _ = carto(capsys, "join", "mine", tmp_path / "c.jsonl", "--json")

    assert (code, json.loads(out)) == (0, {"run": "mine", "joined": 1, "without": 59})
    assert "a text of its own" in open_run(runs_root / "mine").samples()["text"].tolist()


def test_plant_writes_two_files_that_a_loop_is_given(tmp_path, capsys):
    write_jsonl(tmp_path / "c.jsonl", sentences(120))

    code, out, said = carto(capsys, "plant", tmp_path / "c.jsonl", "--canaries", "4", "--out", tmp_path / "p", "--json")

    assert code == 0, said
    assert json.loads(out)["num_inserted"] == 4
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == ["canaries.parquet", "corpus.jsonl"]


def test_doctor_finds_nothing_wrong_with_a_recorded_run_and_says_how_to_seal_one_that_was_left(runs_root):
    record(runs_root / "mine")
    left = record(runs_root / "left", close=False)
    left.close(KeyboardInterrupt())

    checks = [check for check in examine(runs_root)["checks"] if check["section"] == "runs"]

    assert worst([c for c in checks if c["name"] == "mine"]) == "ok", checks
