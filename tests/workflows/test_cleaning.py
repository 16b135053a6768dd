"""`clean`: rounds of cutting, with retrains and measurements that are made up."""

import itertools
import json
import shutil

import pytest

from carto_core.errors import ConfigError, PlanError, UnknownNameError
from carto_core.preview.effects import effects_of
from carto_core.store.reader import open_run
from carto_core.types import ROLES
from carto_core.workflows import cleaning, light, rounds
from tests import tiny


@pytest.fixture
def run(tmp_path):
    return tiny.make_run(tmp_path / "first", num_samples=300)


@pytest.fixture
def done(monkeypatch):
    """What was retrained and measured: extraction falls with the share that is cut, retrains copy the base run."""
    calls = {"trained": [], "measured": []}

    def measure(run, plan_dir, *, seeds, executor):
        share = json.loads((plan_dir / "plan.json").read_text())["num_affected"] / run.num_samples
        calls["measured"].append(plan_dir.name)
        leak = {"baseline": 0.5, "plan": max(0.0, 0.5 - 4 * share), "control": 0.5}
        arms = [
            {
                "arm": name,
                "seed": seed,
                "extraction": {role: {"k": round(100 * value), "n": 100} for role in ROLES},
                "ppl_nats": 3.0 + (0.1 if name == "plan" else 0.0),
            }
            for name, value in leak.items()
            for seed in range(seeds)
        ]
        return {"arms": arms, "effects": effects_of(arms)}

    def train(run, plan_dir, out):
        calls["trained"].append(out.name)
        shutil.copytree(run.files.path, out)
        shutil.copy(plan_dir / "plan.parquet", out / "plan.parquet")
        digest = json.loads((plan_dir / "plan.json").read_text())["plan_sha256"]
        tiny.as_retrain(open_run(out), run.run_id, digest)

    monkeypatch.setattr(cleaning, "measure_plan", measure)
    monkeypatch.setattr(cleaning, "train_plan", train)
    return calls


def test_it_goes_on_until_little_is_given_away(run, done):
    found = cleaning.clean_run(run, by="final_loss", step=0.05, budget=0.5, target=0.2, seeds=2)

    assert found["ended"].startswith("clean: calibration canaries are given away at")
    assert [one["round"] for one in found["rounds"]] == [1, 2]
    assert done["trained"] == ["first-round-1"], "the last round's cut is measured, its map is not needed"
    shares = [one["share"] for one in found["rounds"]]
    assert shares[0] == pytest.approx(0.05, abs=0.015)
    assert shares[1] == pytest.approx(0.10, abs=0.02)
    assert json.loads((run.files.path / "cleaning.json").read_text())["rounds"] == found["rounds"]


def test_it_ends_with_the_budget(run, done):
    found = cleaning.clean_run(run, by="final_loss", step=0.05, budget=0.1, target=0.0, seeds=2)

    assert found["ended"].startswith("budget spent")
    assert len(found["rounds"]) == 2
    assert found["rounds"][-1]["share"] <= 0.125


def test_a_later_round_keeps_the_earlier_cuts_and_goes_by_the_new_map(run, done):
    found = cleaning.clean_run(run, by="final_loss", step=0.05, budget=0.15, target=0.0, seeds=1)

    cuts = [light.read_plan(run.files.plans / one["plan"], light.load_table(run))[0] for one in found["rounds"]]
    for earlier, later in itertools.pairwise(cuts):
        assert (later.affected[earlier.affected]).all()
        assert later.affected.sum() > earlier.affected.sum()
    assert [one["map_of"] for one in found["rounds"]] == ["first", "first-round-1", "first-round-2"]


def test_it_takes_up_where_it_was_stopped(run, done):
    first = cleaning.clean_run(run, by="final_loss", step=0.05, budget=0.1, target=0.0, seeds=1)
    trained = list(done["trained"])

    again = cleaning.clean_run(run, by="final_loss", step=0.05, budget=0.1, target=0.0, seeds=1)

    assert done["trained"] == trained
    assert again["rounds"] == first["rounds"]


def test_it_ends_where_nothing_more_can_be_cut(run, done, monkeypatch):
    cut = cleaning._next_cut(run, run, by="final_loss", step=0.05)
    monkeypatch.setattr(cleaning, "_next_cut", lambda *_, **__: cut)

    found = cleaning.clean_run(run, by="final_loss", step=0.05, budget=0.5, target=0.0, seeds=1)

    assert found["ended"].startswith("nothing more to cut: final_loss")
    assert len(found["rounds"]) == 1
    assert json.loads((run.files.path / "cleaning.json").read_text())["ended"] == found["ended"]


def test_a_folder_of_another_cut_is_not_taken_for_this_rounds(run, done):
    cleaning.clean_run(run, by="final_loss", step=0.05, budget=0.1, target=0.0, seeds=1)

    with pytest.raises(ConfigError, match="holds another run than this round's"):
        cleaning.clean_run(run, by="difficulty", step=0.05, budget=0.1, target=0.0, seeds=1)


def test_rounds_are_told_in_words(run, done):
    said = rounds.lines(cleaning.clean_run(run, by="final_loss", step=0.05, budget=0.05, target=0.0, seeds=1))

    assert said[0].startswith("Round 1, by the map of first: ")
    assert "random control 50.0%, unchanged 50.0%; perplexity +10.5%" in said[0]
    assert said[-1].startswith("Ended: budget spent")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"step": 0}, "--step must lie"),
        ({"step": 0.3, "budget": 0.2}, "--budget must be at least --step"),
        ({"target": 1}, "--target must be"),
    ],
)
def test_numbers_out_of_range_are_refused(run, done, how, said):
    with pytest.raises(ConfigError, match=said):
        cleaning.clean_run(run, **how)


def test_without_canaries_or_a_score_there_is_nothing_to_clean_by(tmp_path, run, done):
    with pytest.raises(ConfigError, match="nothing tells when it is clean"):
        cleaning.clean_run(tiny.make_run(tmp_path / "bare", canaries=False))
    with pytest.raises(UnknownNameError, match="no_such_score"):
        cleaning.clean_run(run, by="no_such_score")


def test_a_retrain_is_no_base_run(run, tmp_path):
    (run.files.path / "plan.parquet").write_bytes(
        (light.save_plan(run, light.plan_action(run, light.select(run, {"type": "top", "by": "final_loss", "q": 0.05}), action="prune")) / "plan.parquet").read_bytes()
    )  # fmt: skip
    tiny.as_retrain(run, "other")

    with pytest.raises(PlanError, match="was trained under a plan"):
        cleaning.clean_run(run, by="final_loss", step=0.05, budget=0.1)
