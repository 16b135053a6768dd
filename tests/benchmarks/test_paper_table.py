import dataclasses
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from benchmarks.lines import Cell, effect, is_kept, keep, oracle, plan_of, read_results
from benchmarks.paper_table import CHARS, HALVED, REPEATS, base_config, pruning
from carto_core.workflows import light
from tests.tiny import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "run", probes=True)


def test_the_oracle_takes_whole_canaries_that_are_given_away_first_within_its_budget(run):
    table = light.load_table(run)
    chosen = oracle(run, table, 0.1).sample_ids

    assert 0 < len(chosen) <= 20
    assert table.is_canary[chosen].all()
    for canary in np.unique(table.canary_id[chosen]):
        assert np.isin(np.flatnonzero(table.canary_id == canary), chosen).all()
    given_away = table.truth["extracted"] == 1
    left_out = given_away & table.is_canary & ~np.isin(np.arange(len(table)), chosen)
    if left_out.any():
        room = 20 - len(chosen)
        assert all((table.canary_id == table.canary_id[row]).sum() > room for row in np.flatnonzero(left_out))


def test_the_oracle_prefers_what_is_given_away_whatever_its_copies(run):
    table = light.load_table(run)
    secrets = run.canaries().query("inserted").sort_values("repeats")["canary_id"].to_numpy()
    given_away = secrets[-1]  # most copies: without the twin's word it would come last
    extracted = np.where(table.canary_id == given_away, 1, 0).astype(np.float32)

    chosen = oracle(run, dataclasses.replace(table, truth=table.truth | {"extracted": extracted}), 0.05).sample_ids

    assert np.isin(np.flatnonzero(table.canary_id == given_away), chosen).all()


@pytest.mark.parametrize(("chars", "copies"), [(1000, REPEATS), (CHARS, REPEATS), (1_300_000, (1, 16, 32, 64))])
def test_copies_of_canaries_grow_with_the_text_so_that_they_stay_the_same_share_of_it(chars, copies):
    assert base_config("mail", chars=chars).canaries.repeats == copies


PRUNING = pruning(Path("unused"), 1000).cells


@pytest.mark.parametrize(
    "cell", [c for c in PRUNING[1] + PRUNING[2] if c.policy != "quadrants"], ids=lambda c: c.policy
)
def test_every_way_to_choose_prunes_and_none_passes_its_share(run, cell):
    table = light.load_table(run)

    score, plan = plan_of(run, table, cell)

    assert (plan.repeats == 0).any()
    assert cell.share is None or (plan.repeats == 0).sum() <= round(cell.share * len(table))
    assert bool(score) == (cell.policy not in ("oracle", "deduplicate"))


def test_the_second_experiment_halves_weights_and_prunes_nothing(run):
    table = light.load_table(run)
    plans = {policy: plan_of(run, table, Cell(policy, None, "steps")) for policy in HALVED}

    for _, plan in plans.values():
        assert (plan.repeats == 1).all()
        assert set(plan.weights.tolist()) == {0.5, 1.0}
    assert np.array_equal(plans["half_canaries"][1].affected, table.is_canary)
    assert plans["half_hotspots_literal"][0] == "memorization"
    assert plans["half_hotspots"][0] == light.recommended(run).score != "memorization"


def arms(values):
    return [
        {"arm": arm, "seed": seed, "ppl_nats": value} for arm, row in values.items() for seed, value in enumerate(row)
    ]


def test_an_effect_is_paired_by_seed_and_its_loss_also_a_perplexity():
    found = effect(arms({"plan": [1.0, 2.0, 3.0], "control": [0.9, 1.8, 2.9]}), "ppl_nats", "control")

    assert found["estimate"] == pytest.approx(0.4 / 3)
    assert found["estimate_percent"] == pytest.approx(100 * (np.exp(0.4 / 3) - 1))
    assert found["low"] < found["estimate"] < found["high"]
    assert found["p"] == 0.25


def test_an_effect_that_cannot_be_had_is_none():
    facts = [
        {"arm": arm, "seed": s, "natural_extraction": {"k": 0, "n": 0}} for arm in ("plan", "control") for s in (0, 1)
    ]

    found = effect(facts, "natural_extraction", "control")

    assert found["estimate"] is found["low"] is found["p"] is None
    assert json.dumps(found, allow_nan=False)


def test_a_line_is_measured_again_only_for_other_settings_or_more_seeds(tmp_path):
    experiment, cell = pruning(tmp_path, 1000), Cell("oracle", 0.1, "steps")
    facts = {"config": experiment.config("demo").to_dict(), "lines": [asdict(cell) | {"seeds": [0, 1, 2]}]}
    experiment.results.write_text(json.dumps({"corpora": {"demo": facts}}))

    assert is_kept(experiment, "demo", cell, seeds=3)
    assert not is_kept(experiment, "demo", cell, seeds=4)
    assert not is_kept(pruning(tmp_path, 2000), "demo", cell, seeds=3)
    assert not is_kept(experiment, "demo", Cell("oracle", 0.05, "steps"), seeds=3)
    assert not is_kept(experiment, "man", cell, seeds=3)
    assert not is_kept(pruning(tmp_path / "none", 1000), "demo", cell, seeds=3)


def test_lines_are_kept_beside_those_of_their_settings_and_instead_of_others(run, tmp_path):
    experiment, cell = pruning(tmp_path, 1000), Cell("oracle", 0.1, "steps")
    line = asdict(cell) | {"seeds": [0]}

    keep(experiment, run, "demo", line)
    keep(experiment, run, "demo", line | {"seeds": [0, 1]})
    keep(experiment, run, "demo", line | {"share": 0.05})
    lines = read_results(experiment)["corpora"]["demo"]["lines"]
    assert [(kept["share"], kept["seeds"]) for kept in lines] == [(0.1, [0, 1]), (0.05, [0])]

    update_results(experiment, config={"of": "another setting"})
    keep(experiment, run, "demo", line)
    assert [kept["share"] for kept in read_results(experiment)["corpora"]["demo"]["lines"]] == [0.1]


def update_results(experiment, **facts):
    results = read_results(experiment)
    results["corpora"]["demo"] |= facts
    experiment.results.write_text(json.dumps(results))
