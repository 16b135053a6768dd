import json
import math
import shutil

import numpy as np
import pytest
from scipy import stats

from carto_core import cli
from carto_core.audits.subject import load_subject
from carto_core.engine.executors import LocalExecutor
from carto_core.errors import Cancelled, ConfigError
from carto_core.interventions import oracle
from carto_core.preview.arms import arms_of, draw_control, expected_minutes
from carto_core.preview.effects import (
    effects_of,
    half_width,
    mean_of,
    metric_of,
    paired_interval,
    read_measurement,
    read_partial,
)
from carto_core.preview.measured import ARM_AUDITS, measure_arms
from carto_core.store.reader import open_run
from carto_core.store.rundir import write_json
from carto_core.types import ROLES, Plan
from carto_core.workflows import light, measuring
from carto_core.workflows.measuring import measure_plan
from tests.here import HERE


@pytest.fixture
def run(trained_run, tmp_path):
    shutil.copytree(trained_run.files.path, tmp_path / "trained")
    return open_run(tmp_path / "trained")


def prune(run, q=0.2):
    selection = light.select(run, {"type": "top", "by": "consolidation", "q": q})
    return light.plan_action(run, selection, action="prune")


def test_the_control_is_as_large_as_the_plan_and_differs_from_it(run):
    table, plan = light.load_table(run), prune(run)

    repeats, weights, notes = draw_control(plan, table, seed=0)

    assert (repeats == 0).sum() == plan.affected.sum()
    assert np.array_equal(repeats == 0, weights == 0)
    assert abs(notes["tokens"] / notes["plan_tokens"] - 1) <= 0.02 or not notes["within_tolerance"]
    assert notes["overlap"] == ((repeats == 0) & plan.affected).sum() < plan.affected.sum()


def test_the_control_says_how_many_texts_it_and_the_plan_lose_altogether(run):
    table = light.load_table(run)
    groups = np.flatnonzero(np.bincount(table.group_id) > 2)
    repeats = np.where(np.isin(table.group_id, groups), 0, 1).astype(np.int32)
    plan = Plan(repeats, repeats.astype(np.float32), [""] * len(table), {"type": "test"}, "prune")

    drawn, _, notes = draw_control(plan, table, seed=0)

    left = [group for group in np.unique(table.group_id) if (drawn[table.group_id == group] > 0).any()]
    assert notes["plan_texts_lost"] == len(groups)
    assert notes["texts_lost"] == len(np.unique(table.group_id)) - len(left) != len(groups)


def test_the_control_is_drawn_anew_for_each_seed_and_the_same_for_one(run):
    table, plan = light.load_table(run), prune(run)
    first, again, other = (draw_control(plan, table, seed=seed)[0] for seed in (0, 0, 1))

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_control_gives_away_the_plans_own_pairs(run):
    table = light.load_table(run)
    repeats, weights = np.ones(len(table), np.int32), np.ones(len(table), np.float32)
    repeats[:10], weights[10:30] = 3, 0.25
    plan = Plan(repeats, weights, [""] * len(table), {"type": "test"}, "policy")

    drawn_repeats, drawn_weights, _ = draw_control(plan, table, seed=4)

    pairs = lambda r, w: sorted(zip(r.tolist(), w.tolist(), strict=True))  # noqa: E731
    assert pairs(drawn_repeats, drawn_weights) == pairs(repeats, weights)


def test_all_arms_take_equal_steps_and_seeds_are_paired(run):
    arms = arms_of(run, prune(run), light.load_table(run), seeds=2, equal="steps")

    assert [(a.arm, a.seed) for a in arms] == [(n, s) for s in (0, 1) for n in ("baseline", "plan", "control", "dedup")]
    assert len({a.steps for a in arms}) == 1
    assert len({a.key(run) for a in arms}) == 8
    fewer = arms_of(run, prune(run), light.load_table(run), seeds=1, equal="epochs")
    assert fewer[1].steps < fewer[0].steps


def test_an_oracle_is_an_arm_of_the_plans_size_where_it_was_asked_for(run):
    plan_dir = light.save_plan(run, prune(run))

    arms = light.measurement_arms(run, plan_dir, seeds=2, oracle=True)

    assert [a.arm for a in arms] == ["baseline", "plan", "control", "dedup", "oracle"] * 2
    cut = arms[4].repeats == 0
    assert 0 < cut.sum() <= prune(run).affected.sum()
    assert light.load_table(run).is_canary[cut].all()
    assert "oracle" not in [a.arm for a in light.measurement_arms(run, plan_dir, seeds=1)]


def test_no_oracle_fits_into_a_plan_of_no_canarys_size(run):
    table = light.load_table(run)
    canaries = run.canaries()

    assert len(oracle(table, canaries, budget=0).sample_ids) == 0
    assert len(oracle(table, canaries.assign(inserted=False), budget=99).sample_ids) == 0


def test_an_oracles_effect_stands_against_the_unchanged_arm():
    arms = [
        {"arm": name, "seed": 0, "extraction": {role: {"k": k, "n": 4} for role in ROLES}}
        for name, k in (("baseline", 3), ("oracle", 1))
    ]

    found = {(e["arm"], e["against"], e["metric"]): e["estimate"] for e in effects_of(arms)}

    assert found["oracle", "baseline", "extraction.report"] == -0.5
    assert ("oracle", "baseline", "extraction.report") not in {
        (e["arm"], e["against"], e["metric"]) for e in effects_of(arms[:1])
    }


def test_paired_intervals_are_students_and_unknown_below_two_seeds():
    values = np.array([0.1, -0.2, 0.4, 0.3])
    mean, interval = paired_interval(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)

    assert mean == pytest.approx(values.mean())
    assert tuple(interval) == pytest.approx((expected.low, expected.high))
    assert np.isnan(paired_interval(np.array([0.5]))[1]).all()


@pytest.mark.parametrize("values", [[-0.075, -0.075], [0.1 + 0.2, 0.3, 0.3]])
def test_equal_differences_say_nothing_of_their_spread(values):
    mean, interval = paired_interval(np.array(values))

    assert mean == pytest.approx(values[0])
    assert np.isnan(interval).all()


def test_no_difference_in_any_seed_is_an_interval_but_none_to_stop_at():
    assert paired_interval(np.zeros(3)) == (0, (0, 0))

    effect = {"arm": "plan", "against": "control", "metric": "extraction.report"}
    assert half_width([effect | {"low": 0.0, "high": 0.0}]) == math.inf
    assert half_width([effect | {"low": -0.1, "high": 0.3}]) == pytest.approx(0.2)


def test_effects_pair_by_seed_and_leave_unknown_as_none():
    def arm(name, seed, k, ppl):
        counts = {role: {"k": k, "n": 10} for role in ("calibration", "report")}
        exposure = {"calibration": None, "report": None}
        return {
            "arm": name,
            "seed": seed,
            "extraction": counts,
            "natural_extraction": {"k": 0, "n": 0},
            "exposure": exposure,
            "ppl_nats": ppl,
        }

    arms = [arm("baseline", 0, 5, 2.0), arm("baseline", 1, 7, 3.0), arm("plan", 1, 4, 3.5), arm("plan", 0, 1, 2.5)]

    found = {(e["arm"], e["against"], e["metric"]): e for e in effects_of(arms)}

    assert found["plan", "baseline", "ppl_nats"]["estimate"] == pytest.approx(0.5)
    assert found["plan", "baseline", "ppl_nats"]["low"] is None, "both seeds differ by as much"
    assert found["plan", "baseline", "extraction.report"]["low"] == pytest.approx(-0.35 - 12.7062 * 0.05, abs=1e-3)
    assert found["plan", "baseline", "extraction.report"]["estimate"] == pytest.approx(-0.35)
    assert found["plan", "baseline", "natural_extraction"]["estimate"] is None
    assert found["plan", "control", "ppl_nats"]["estimate"] is None
    assert np.isnan(metric_of(arms[0], "exposure.report"))


def test_measure_writes_all_arms_and_never_trains_one_twice(run):
    plan_dir = light.save_plan(run, prune(run))
    arms = light.measurement_arms(run, plan_dir, seeds=2)
    assert not run.manifest["report_seen"]
    assert expected_minutes(run, arms) > 0

    measured = measure_plan(run, plan_dir, seeds=2)

    assert [(a["arm"], a["seed"]) for a in measured["arms"]] == [(a.arm, a.seed) for a in arms]
    assert len({a["steps"] for a in measured["arms"]}) == 1
    written = json.loads((light.measurement_dir(run, plan_dir) / "measure.json").read_text())
    assert written == measured
    assert {e["against"] for e in written["effects"]} == {"baseline", "control"}
    assert run.manifest["report_seen"], "from now on the report half has been looked at"
    files = {arm.path(run): arm.path(run).stat().st_mtime_ns for arm in arms}
    assert expected_minutes(run, arms) == 0
    assert measure_plan(run, plan_dir, seeds=2)["arms"] == measured["arms"]
    assert {path: path.stat().st_mtime_ns for path in files} == files


def finishing_at_once(monkeypatch, *, plan=0.2, jitter=0.0):
    """Let every retrain be done as soon as it is asked for; return what `partial.json` held after each."""
    seen = []

    def train(run_path, arms, *, progress, executor):
        run = open_run(run_path)
        for arm in arms:
            if not arm.path(run).is_file():
                share = round(
                    100 * ((plan if arm.arm == "plan" else 0.5) + jitter * (arm.seed % 2) * (arm.arm == "plan"))
                )
                counts = {key: {"k": share, "n": 100} for key in ROLES}
                result = {"extraction": counts, "natural_extraction": {"k": 0, "n": 0}, "ppl_nats": 3.0, "wall_s": 1.0}
                write_json(
                    arm.path(run), result | {"steps": arm.steps, "tokens": 1, "exposure": dict.fromkeys(ROLES, 1.0)}
                )
                progress("retraining", 1, len(arms))
                seen.extend((partial, run.manifest["report_seen"]) for partial in [read_partial(seen_in[0])])

    seen_in = []
    monkeypatch.setattr(measuring, "train_arms", train)
    return seen, seen_in


def test_results_are_there_as_soon_as_a_retrain_is(run, monkeypatch):
    plan_dir = light.save_plan(run, prune(run))
    seen, seen_in = finishing_at_once(monkeypatch)
    seen_in.append(light.measurement_dir(run, plan_dir))

    measure_plan(run, plan_dir, seeds=2)

    assert [(partial["finished"], partial["wanted"]) for partial, _ in seen] == [(i, 8) for i in range(1, 9)]
    assert all(report_seen for _, report_seen in seen), "numbers of the report half are there to be looked at"
    of_two = {(e["arm"], e["against"], e["metric"]): e for e in seen[1][0]["effects"]}
    assert of_two["plan", "baseline", "extraction.report"]["estimate"] == pytest.approx(-0.3)
    assert read_partial(seen_in[0]) is None, "measure.json stands for it now"


@pytest.mark.parametrize(("jitter", "seeds"), [(0.0, 6), (0.02, 3), (0.3, 6)])
def test_a_measurement_ends_once_its_interval_is_narrow_enough(run, monkeypatch, jitter, seeds):
    plan_dir = light.save_plan(run, prune(run))
    _, seen_in = finishing_at_once(monkeypatch, jitter=jitter)
    seen_in.append(light.measurement_dir(run, plan_dir))

    measured = measure_plan(run, plan_dir, seeds=6, stop_at=0.05)

    assert measured["seeds"] == list(range(seeds))
    assert measured["stopped_early"] == (seeds < 6)
    assert {arm["seed"] for arm in measured["arms"]} == set(range(seeds))


def test_a_sweep_of_plans_trains_once_what_several_need_and_says_of_each_what_it_would_alone(run, monkeypatch, capsys):
    plans = [light.save_plan(run, prune(run, q)) for q in (0.1, 0.2)]
    _, seen_in = finishing_at_once(monkeypatch)
    seen_in.append(light.measurement_dir(run, plans[0]))

    with pytest.raises(SystemExit) as ended:
        cli.main(["measure", str(run.files.path), *map(str, plans), "--seeds", "2", "--json"])

    assert ended.value.code == 0
    of_each = json.loads(capsys.readouterr().out)["plans"]
    assert len(list((run.files.previews / "arms").glob("*.json"))) == 2 * (2 + 2 * 2), "unchanged and unique texts once"
    for plan_dir, measured in zip(plans, of_each, strict=True):
        assert json.loads((light.measurement_dir(run, plan_dir) / "measure.json").read_text()) == measured
        assert read_partial(light.measurement_dir(run, plan_dir)) is None
        alone = measure_plan(run, plan_dir, seeds=2)
        assert alone | {"created": ""} == measured | {"created": ""}


def test_membership_is_asked_of_the_same_texts_in_every_arm(run):
    baseline, plan = arms_of(run, prune(run), light.load_table(run), seeds=1, equal="steps")[:2]
    subject = load_subject(run)

    told = [ARM_AUDITS["membership"](subject, arm) for arm in (baseline, plan)]

    assert (plan.repeats == 0).any()
    assert told[0] == told[1], "the model is the same, so what a plan prunes does not change what is told of it"


def test_the_command_line_asks_for_membership(run, monkeypatch, capsys):
    plan_dir = light.save_plan(run, prune(run))
    _, seen_in = finishing_at_once(monkeypatch)
    seen_in.append(light.measurement_dir(run, plan_dir))

    with pytest.raises(SystemExit):
        cli.main(["measure", str(run.files.path), str(plan_dir), "--seeds", "1", "--membership"])

    asked = light.measurement_arms(run, plan_dir, seeds=1, membership=True)
    assert all(arm.path(run).is_file() for arm in asked)


def test_a_sweep_goes_on_with_the_plans_that_are_not_yet_known_well_enough(run, monkeypatch):
    plans = [light.save_plan(run, prune(run, q)) for q in (0.1, 0.2)]
    _, seen_in = finishing_at_once(monkeypatch)
    seen_in.append(light.measurement_dir(run, plans[0]))
    widths = iter([0.01, 0.5, 0.5, 0.5])  # of both after three seeds, then of the second alone
    monkeypatch.setattr(measuring, "half_width", lambda effects: next(widths))

    one, other = measuring.measure_plans(run, plans, seeds=5, stop_at=0.05)

    assert (one["seeds"], one["stopped_early"]) == ([0, 1, 2], True)
    assert (other["seeds"], other["stopped_early"]) == ([0, 1, 2, 3, 4], False)


def test_retrains_run_where_they_were_asked_to(run, monkeypatch):
    def refuse(run_path, arms, *, progress, executor):
        raise Cancelled(f"on {executor.workers}")

    monkeypatch.setattr(measuring, "train_arms", refuse)

    with pytest.raises(Cancelled, match="on 17"):
        measure_plan(run, light.save_plan(run, prune(run)), executor=LocalExecutor(workers=17))


def test_where_to_write_is_asked_of_one_plan_alone(run, tmp_path):
    plans = [light.save_plan(run, prune(run, q)) for q in (0.1, 0.2)]

    with pytest.raises(ConfigError, match="--out is the directory of one measurement, and 2 plans were given"):
        measuring.measure_plans(run, plans, out=tmp_path / "out")


def test_half_an_interval_is_unknown_without_one():
    arms = [
        {"arm": name, "seed": 0, "extraction": {key: {"k": 1, "n": 2} for key in ROLES}} for name in ("plan", "control")
    ]

    assert half_width(effects_of(arms)) == math.inf


@pytest.mark.parametrize("stop_at", [0, -0.1, 1])
def test_a_width_out_of_range_is_refused(run, stop_at):
    with pytest.raises(ConfigError, match="--stop-at must lie between 0 and 1"):
        measure_plan(run, light.save_plan(run, prune(run)), stop_at=stop_at)


def test_an_arm_is_asked_what_was_wanted_of_it_and_kept_apart_by_that(run):
    table, options = light.load_table(run), {"seeds": 1, "equal": "steps"}
    asked = arms_of(run, prune(run), table, **options, audits=("extraction", "membership"))[:1]
    whole = arms_of(run, prune(run), table, **options)[:1]

    told, measured = (
        measure_arms(run.files.path, arms, progress=lambda *_: None, executor=HERE)["arms"][0]
        for arms in (asked, whole)
    )

    assert 0 <= metric_of(told, "membership_auc") <= 1
    assert np.isnan(metric_of(told, "exposure.report"))
    assert 0 < measured["exposure"]["report"] <= measured["exposure_most"] == math.log2(1000)
    assert told["extraction"] == measured["extraction"]
    assert "membership_auc" not in measured


def test_the_baseline_arm_of_the_runs_own_seed_is_the_run_itself(run):
    plan_dir = light.save_plan(run, prune(run))
    baseline = measure_plan(run, plan_dir, seeds=1, membership=True, executor=HERE)["arms"][0]
    perplexity, membership = (light.read_audit(run, name)["summary"] for name in ("perplexity", "membership"))

    assert baseline["ppl_nats"] == pytest.approx(perplexity["nats_per_token"], rel=1e-6)
    by_loss = membership["attacks"]["loss"]
    assert baseline["membership_auc"] == pytest.approx(by_loss["auc"]["value"])
    assert baseline["membership_tpr"] == by_loss["tpr_at_fpr_0.01"]["value"]


def test_membership_is_told_of_plans_that_were_asked_for_it_and_missed_in_no_other(run, tmp_path):
    def arm(name, **more):
        shares = {key: {"k": 1, "n": 2} for key in ROLES}
        return {"arm": name, "seed": 0, "extraction": shares, "ppl_nats": 2.0} | more

    plain = [arm(name) for name in ("baseline", "plan")]
    asked = [arm("baseline", membership_tpr=0.25), arm("plan", membership_tpr=0.125)]
    for name, arms in (("plain", plain), ("asked", asked)):
        write_json(tmp_path / name / "measure.json", {"arms": arms, "effects": effects_of(arms)})

    told = {
        name: {(e["arm"], e["against"]): e["estimate"] for e in found["effects"] if e["metric"] == "membership_tpr"}
        for name in ("plain", "asked")
        if (found := read_measurement(tmp_path / name)) is not None
    }

    assert told["plain"] == {}
    assert told["asked"]["plan", "baseline"] == -0.125


def test_all_arms_of_a_plan_are_asked_for_membership_or_none(run):
    plan_dir = light.save_plan(run, prune(run))
    plain, asked = (light.measurement_arms(run, plan_dir, seeds=1, membership=wish) for wish in (False, True))

    assert {"membership" in arm.audits for arm in plain} == {False}
    assert {"membership" in arm.audits for arm in asked} == {True}


def test_no_seeds_are_refused(run):
    with pytest.raises(ConfigError, match="--seeds must be 1 to 100"):
        measure_plan(run, light.save_plan(run, prune(run)), seeds=0)


def test_the_mean_over_seeds_leaves_out_what_is_unknown():
    arms = [{"natural_extraction": {"k": k, "n": n}} for k, n in ((1, 4), (0, 0), (3, 4))]

    assert mean_of(arms, "natural_extraction") == pytest.approx(0.5)
    assert np.isnan(mean_of(arms[1:2], "natural_extraction"))
