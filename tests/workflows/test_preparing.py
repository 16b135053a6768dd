"""`prepare` on a really trained run, `preview` on what is measured of it."""

import json
import shutil

import numpy as np
import pytest

from carto_core.audits.subject import load_subject
from carto_core.errors import RunError
from carto_core.preview.arms import draw_control
from carto_core.preview.effects import effects_of
from carto_core.preview.prepared import emphasis_of, read_prepared
from carto_core.store.reader import open_run
from carto_core.tasks.decoding import continuation_losses
from carto_core.workflows import light, previewing
from carto_core.workflows.preparing import prepare_run
from tests import tiny


@pytest.fixture(scope="module")
def run(trained_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared") / "trained"
    shutil.copytree(trained_run.files.path, folder)
    return open_run(folder)


@pytest.fixture
def made(tmp_path):
    run = tiny.make_run(tmp_path / "run")
    tiny.prepare(run)
    return run


def plan_of(run, rows, **how):
    table = light.load_table(run)
    keys = {"type": "keys", "keys": table.key[rows].tolist()}
    plan = light.plan_action(run, light.select(run, keys, table=table), action="prune", table=table, **how)
    return plan, light.save_plan(run, plan, table=table)


def measured(run, plan_dir, *, shares, seeds=(0, 1), equal="steps", **more):
    """Write a measurement in which each arm gives away so much of the calibration half; `more` holds of all arms."""
    arms = [
        {
            "arm": name,
            "seed": seed,
            "extraction": {"calibration": {"k": round(20 * share), "n": 20}, "report": {"k": 1, "n": 20}},
            "natural_extraction": {"k": 1, "n": 9},
            "exposure": {"calibration": 4.0, "report": 4.0},
            "ppl_nats": 3.0 + 0.1 * place,
        }
        | more
        for seed in seeds
        for place, (name, share) in enumerate(shares.items())
    ]
    folder = light.measurement_dir(run, plan_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "measure.json").write_text(json.dumps({"equal": equal, "arms": arms, "effects": effects_of(arms)}))


def test_a_training_prepares_itself(run):
    found = read_prepared(run)

    assert found is not None
    assert found.canaries["canary_id"].tolist() == run.canaries()["canary_id"].tolist()
    assert found.visits == run.manifest["steps"] * run.manifest["config"]["engine"]["batch_size"]


def test_secrets_are_asked_for_as_the_audit_does(run):
    shutil.rmtree(run.files.prepared)

    done = prepare_run(run)

    found, subject = read_prepared(run), load_subject(run)
    audit = {row["canary_id"]: row["extracted"] for row in light.read_audit(run, "extraction")["per_item"]}
    assert dict(zip(found.canaries["canary_id"], found.canaries["extracted"], strict=True)) == audit
    prefix, secret = subject.canary_tokens[3]
    bos = subject.corpus.tokenizer.bos_id
    losses = continuation_losses(subject.model, prefix, [secret], bos_id=bos, device=subject.device)[0]
    assert found.canaries["nats"].iloc[3] == pytest.approx(losses.mean(), abs=1e-5)
    assert done["num_canaries"] == len(found.canaries)
    natural = light.read_audit(run, "natural")["per_item"]
    assert found.naturals["group_id"].tolist() == [row["group_id"] for row in natural]
    assert found.naturals["copies"].tolist() == [row["group_size"] for row in natural]
    assert found.naturals["extracted"].tolist() == [row["extracted"] for row in natural]


def test_copies_are_counted_in_the_samples(run):
    found = read_prepared(run).canaries.merge(run.canaries()[["canary_id", "repeats"]], on="canary_id")

    assert (found["copies"] == found["repeats"]).all()


def test_a_preview_of_an_unprepared_run_says_what_to_do(made):
    shutil.rmtree(made.files.prepared)

    with pytest.raises(RunError, match="python -m carto_core prepare run"):
        previewing.estimate_plan(made, plan_of(made, np.arange(9))[1])


def test_a_preview_hides_the_report_half_until_it_was_seen(made):
    found = previewing.estimate_plan(made, plan_of(made, np.arange(9))[1])

    assert set(found["by_copies"]) == {"calibration"}
    assert not found["measured"]
    assert found["num_plans"] == 0


def test_every_arm_of_a_measurement_is_evidence_under_its_own_emphasis(made):
    plan, plan_dir = plan_of(made, np.arange(20))
    measured(made, plan_dir, shares={"baseline": 0.5, "plan": 0.3, "control": 0.5, "dedup": 0.2})
    table = light.load_table(made)

    found = previewing.evidence_of(made, table)

    by_kind = {kind: [one for one in found if one.kind == kind] for kind in ("baseline", "plan", "control", "dedup")}
    assert [len(some) for some in by_kind.values()] == [1, 1, 2, 1]
    assert (by_kind["plan"][0].emphasis == emphasis_of(plan.repeats, plan.weights)).all()
    for seed in (0, 1):
        repeats, weights, _ = draw_control(plan, table, seed=seed)
        assert (by_kind["control"][seed].emphasis == emphasis_of(repeats, weights)).all()
    assert by_kind["dedup"][0].emphasis.sum() == len(np.unique(table.group_id))
    assert [arm["seed"] for arm in by_kind["baseline"][0].arms] == [0, 1]


def test_what_was_measured_at_equal_epochs_or_is_damaged_teaches_nothing(made):
    table = light.load_table(made)
    measured(made, plan_of(made, np.arange(20))[1], shares={"baseline": 0.5, "plan": 0.3}, equal="epochs")
    damaged = light.measurement_dir(made, plan_of(made, np.arange(9))[1])
    damaged.mkdir(parents=True)
    (damaged / "measure.json").write_text("{")

    assert previewing.evidence_of(made, table) == []


def test_a_measured_plan_is_told_as_measured_and_stands_in_the_track_record(made):
    plan_dir = plan_of(made, np.arange(20))[1]
    measured(made, plan_dir, shares={"baseline": 0.5, "plan": 0.3})

    found = previewing.estimate_plan(made, plan_dir)
    cases = previewing.calibration(made, previewing.estimator_of(made))

    assert found["measured"]
    assert found["num_plans"] == 1
    assert {case["metric"] for case in cases} == {"extraction.calibration", "natural_extraction", "ppl_nats"}
    change = next(case for case in cases if case["metric"] == "ppl_nats")
    assert change["measured"] == pytest.approx(0.1)


def test_the_tradeoff_shows_every_arm_against_the_unchanged_one(made):
    plan_dir = plan_of(made, np.arange(20))[1]
    measured(made, plan_dir, shares={"baseline": 0.5, "plan": 0.3, "control": 0.5})

    points = previewing.tradeoff_points(previewing.estimator_of(made), "extraction.calibration")

    by_kind = {point["kind"]: point for point in points}
    assert by_kind["baseline"]["x"] == 0
    assert by_kind["plan"]["y"] == pytest.approx(0.3)
    assert by_kind["plan"]["x"] == pytest.approx(np.expm1(0.1))
    assert by_kind["plan"]["key"].startswith(plan_dir.name)
    assert by_kind["control"]["key"] == ""


def test_a_sweep_prunes_more_and_more(made):
    estimator = previewing.estimator_of(made)

    found = previewing.sweep(made, estimator, "final_loss", "extraction.calibration", (0.05, 0.1, 0.2))

    assert [budget for _, _, budget in found] == [0.05, 0.1, 0.2]
    shares = [share for _, share, _ in found]
    assert shares[-1] < shares[0]
    assert previewing.sweep(made, estimator, "no_such_score", "extraction.calibration", (0.1,)) == []
