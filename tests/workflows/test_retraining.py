"""`train_plan`: a run of its own under a plan, on what a really trained run was trained on."""

import json
import os
import shutil
import signal

import numpy as np
import pandas as pd
import pytest

from carto_core.audits.membership import draw_pool
from carto_core.config import ScoreConfig
from carto_core.engine import loop
from carto_core.engine.run_corpus import load_run_corpus
from carto_core.errors import Cancelled, ConfigError, PlanError, RunCorrupt, RunError, RunExists
from carto_core.scores.labels import sides
from carto_core.store.reader import open_run
from carto_core.store.writer import PartWriter
from carto_core.types import Plan
from carto_core.workflows import light
from carto_core.workflows.auditing import audit_run
from carto_core.workflows.probing import probe_run
from carto_core.workflows.training import resume_plan, resume_run, train_plan


@pytest.fixture(scope="module")
def base(trained_run, tmp_path_factory):
    """A copy of the trained run that plans may be written into."""
    folder = tmp_path_factory.mktemp("retrain") / "trained"
    shutil.copytree(trained_run.files.path, folder)
    return open_run(folder)


def saved(run, repeats=None, weights=None):
    """Write a plan of these repeats and weights, by default one that changes nothing."""
    n = run.num_samples
    repeats = np.ones(n, np.int32) if repeats is None else repeats
    weights = np.ones(n, np.float32) if weights is None else weights
    return light.save_plan(run, Plan(repeats, weights, [""] * n, {"type": "test"}, "policy"))


def pruned(run, rows):
    repeats, weights = np.ones(run.num_samples, np.int32), np.ones(run.num_samples, np.float32)
    repeats[rows], weights[rows] = 0, 0
    return saved(run, repeats, weights)


def canary_rows(run):
    """The rows of the first calibration canary."""
    canaries = run.canaries().query("inserted and role == 'calibration'")
    return np.flatnonzero(light.load_table(run).canary_id == canaries["canary_id"].iloc[0])


@pytest.fixture(scope="module")
def cut(base, tmp_path_factory):
    """A retrain without five texts and a whole canary, and the rows that were cut."""
    rows = np.concatenate([np.arange(5), canary_rows(base)])
    out = tmp_path_factory.mktemp("cut") / "cut"
    train_plan(base, pruned(base, rows), out)
    return open_run(out), rows


def test_a_plan_that_changes_nothing_gives_the_runs_own_losses_bit_for_bit(base, tmp_path):
    result = train_plan(base, saved(base), tmp_path / "same")

    again = open_run(tmp_path / "same")
    assert result == {"run": str(tmp_path / "same"), "status": "complete"} | {
        name: base.manifest[name] for name in ("num_samples", "num_snapshots")
    }
    for kind in ("after", "during"):
        assert np.array_equal(again.trajectories(kind), base.trajectories(kind), equal_nan=True)
    pd.testing.assert_frame_equal(again.scores(), base.scores())


def test_another_seed_changes_order_and_start_and_nothing_else(base, tmp_path):
    train_plan(base, saved(base), tmp_path / "other", seed=7)

    other = open_run(tmp_path / "other")
    assert not np.array_equal(other.trajectories(), base.trajectories())
    assert (other.manifest["seed"], other.manifest["train_seed"]) == (base.manifest["seed"], 7)
    assert other.meta()["seed"] == base.meta()["seed"], "which splits halves and breaks ties"
    assert other.manifest["config"] == base.manifest["config"]
    for table in ("samples", "validation", "canaries"):
        pd.testing.assert_frame_equal(getattr(other, table)(), getattr(base, table)())
    assert other.files.tokenizer.read_bytes() == base.files.tokenizer.read_bytes()


def test_what_is_pruned_is_never_drawn_and_still_measured(base, monkeypatch, tmp_path):
    drawn, batches = set(), loop.batches

    def watched(*arguments, **options):
        for batch in batches(*arguments, **options):
            drawn.update(batch.tolist())
            yield batch

    monkeypatch.setattr(loop, "batches", watched)
    train_plan(base, pruned(base, np.arange(5)), tmp_path / "cut")

    run = open_run(tmp_path / "cut")
    assert drawn == set(range(5, base.num_samples))
    assert not np.isnan(run.trajectories("after")).any()
    assert np.isnan(run.trajectories("during")[:, :5]).all()


def test_run_json_says_where_it_comes_from_and_the_steps_are_the_base_runs(base, cut):
    run, rows = cut
    facts = json.loads((pruned(base, rows) / "plan.json").read_text())

    manifest = run.manifest
    assert (manifest["parent_run"], manifest["plan_sha256"]) == (base.run_id, facts["plan_sha256"])
    assert manifest["steps"] == base.manifest["steps"]
    assert run.snapshots()["step"].tolist() == base.snapshots()["step"].tolist()
    table, before = light.load_table(run), light.load_table(base)
    assert (table.x, table.y) == (before.x, before.y)
    assert np.flatnonzero(~table.is_trained).tolist() == sorted(rows)


def test_equal_epochs_take_fewer_steps(base, tmp_path):
    train_plan(base, pruned(base, np.arange(60)), tmp_path / "short", equal="epochs")

    assert open_run(tmp_path / "short").manifest["steps"] < base.manifest["steps"]


def test_weights_are_trained_under(base, tmp_path):
    weights = np.ones(base.num_samples, np.float32)
    weights[:40] = 0.1

    train_plan(base, saved(base, weights=weights), tmp_path / "light")

    after = open_run(tmp_path / "light").trajectories()[-1] - base.trajectories()[-1]
    assert after[:40].mean() > after[40:].mean()


def test_an_interrupted_retrain_goes_on_to_the_same_losses(base, cut, monkeypatch, tmp_path):
    run, rows = cut
    record, plan_dir, out = PartWriter.record, pruned(base, rows), tmp_path / "cut"

    def stopped(self, snapshot, losses, num_tokens):
        record(self, snapshot, losses, num_tokens)
        if snapshot.snapshot == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(PartWriter, "record", stopped)
    with pytest.raises(Cancelled):
        train_plan(base, plan_dir, out)
    monkeypatch.undo()
    assert open_run(out).status == "cancelled"
    with pytest.raises(RunError, match="no retrain of trained under this plan"):
        resume_plan(base, saved(base), out)
    shutil.rmtree(plan_dir)  # the run keeps what it is trained under

    assert resume_run(out)["status"] == "complete"
    assert np.array_equal(open_run(out).trajectories(), run.trajectories())
    assert resume_plan(base, pruned(base, rows), out)["status"] == "complete"


@pytest.mark.parametrize(
    ("plan", "how", "error", "said"),
    [
        ("everything", {}, PlanError, "prunes every sample"),
        ("nowhere", {}, PlanError, "plan.json cannot be read"),
        ("good", {"seed": -1}, ConfigError, "--seed must be 0 to 9223372036854775807"),
        ("good", {"equal": "tokens"}, ConfigError, "--equal must be steps or epochs"),
    ],
)
def test_what_cannot_be_trained_is_refused_and_leaves_nothing_behind(base, tmp_path, plan, how, error, said):
    plans = {"everything": lambda: pruned(base, slice(None)), "good": lambda: saved(base)}
    plan_dir = plans[plan]() if plan in plans else tmp_path / plan

    with pytest.raises(error, match=said):
        train_plan(base, plan_dir, tmp_path / "out", **how)

    assert not (tmp_path / "out").exists()


def test_a_run_is_never_written_over_and_a_lost_file_is_named(base, tmp_path):
    with pytest.raises(RunExists):
        train_plan(base, saved(base), base.files.path)
    shutil.copytree(base.files.path, tmp_path / "trained")
    (tmp_path / "trained" / "validation.parquet").unlink()

    with pytest.raises(RunCorrupt, match=r"lacks validation\.parquet"):
        train_plan(open_run(tmp_path / "trained"), saved(base), tmp_path / "out")


def test_a_retrain_without_its_plan_is_not_taken_for_an_ordinary_run(cut, tmp_path):
    shutil.copytree(cut[0].files.path, tmp_path / "cut")
    (tmp_path / "cut" / "plan.parquet").unlink()

    with pytest.raises(RunCorrupt, match=r"has no plan\.parquet"):
        load_run_corpus(open_run(tmp_path / "cut"))


# What is made of a retrain afterwards


def test_what_was_cut_is_no_member_and_no_positive(base, cut):
    run, rows = cut
    corpus = load_run_corpus(run)

    assert not np.isin(draw_pool(corpus, seed=0).members, np.arange(5)).any()
    assert np.isin(draw_pool(load_run_corpus(base), seed=0).members, np.arange(5)).any()
    before, after = (
        sides(light.load_table(r), r.canaries(), label="inserted", role="calibration", part="once") for r in (base, run)
    )
    canary = canary_rows(base)
    assert before.positive[canary].all()
    assert not after.positive[canary].any()
    assert not after.negative[rows].any()


def test_a_second_cut_keeps_the_first(cut):
    run, rows = cut
    selection = light.select(run, {"type": "keys", "keys": ["k50"]})

    plan = light.plan_action(run, selection, action="prune")

    gone = np.flatnonzero(plan.repeats == 0)
    assert set(gone) == {*rows, *selection.sample_ids.tolist()}
    assert not plan.weights[gone].any()
    assert plan.reason[0] == "plan of run cut"
    assert plan.notes[-1].startswith("On top of the plan that run cut was trained under, which changed 6 samples")
    halved = light.plan_action(run, selection, action="reweight", factor=0.5)
    assert halved.weights[selection.sample_ids].tolist() == [0.5]
    assert np.flatnonzero(halved.repeats == 0).tolist() == sorted(rows)


def test_one_copy_is_left_of_what_the_first_cut_left(cut):
    run, _ = cut
    repeats, _ = run.drawn()
    group_id = light.load_table(run).group_id

    plan = light.plan_deduplicate(run)

    assert sorted(group_id[plan.repeats > 0]) == sorted(set(group_id[repeats > 0]))
    assert not plan.repeats[repeats == 0].any()


def test_a_measurement_is_refused_because_its_baseline_would_be_the_whole_corpus(cut):
    run, _ = cut

    with pytest.raises(PlanError, match="measure a plan of trained"):
        light.measurement_arms(run, saved(run), seeds=1)


def test_probes_that_would_not_keep_to_the_plan_are_refused(cut):
    with pytest.raises(ConfigError, match="the probe folds trains on the whole corpus"):
        probe_run(cut[0], ["folds"])


def test_the_twin_of_a_retrain_never_saw_what_was_cut_either(cut, monkeypatch, tmp_path):
    from carto_core.probes import twin

    seen = {}
    train = twin.train
    monkeypatch.setattr(twin, "train", lambda *a, **k: seen.update(k, engine=a[1]) or train(*a, **k))
    run = cut[0]

    twin._train_twin(run.files.path, 1000, tmp_path / "twin.json")

    assert np.flatnonzero(seen["repeats"] == 0).tolist() == sorted(cut[1])
    assert seen["steps"] == run.manifest["steps"]


def test_a_retrain_is_audited_like_any_run(cut, tmp_path):
    shutil.copytree(cut[0].files.path, tmp_path / "cut")

    found = audit_run(open_run(tmp_path / "cut"), ["extraction", "perplexity"])

    assert found["extraction"]["summary"]["calibration"]["inserted"]["n"] == 4, "cut or not, each is asked for"


def test_the_axes_probe_is_run_where_it_needs_no_training(base, tmp_path):
    shutil.copytree(base.files.path, tmp_path / "trained")
    run = open_run(tmp_path / "trained")
    probe_run(run, ["passes"])
    light.score(run, ScoreConfig(y="min_k_pp"))

    train_plan(run, saved(run), tmp_path / "again")

    again = light.load_table(open_run(tmp_path / "again"))
    assert again.y == "min_k_pp"
    assert np.array_equal(again.scores["min_k_pp"], light.load_table(run).scores["min_k_pp"])
