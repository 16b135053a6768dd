"""The verbs `retrain` and `compare` from the command line."""

import json
import shutil

import pytest

from tests.test_cli import carto


@pytest.fixture(scope="module")
def runs(trained_run, tmp_path_factory):
    """A folder with the trained run, and a plan of it."""
    root = tmp_path_factory.mktemp("runs")
    shutil.copytree(trained_run.files.path, root / "trained")
    return root


def planned(capsys, runs, tmp_path, run="trained"):
    where = ["--runs-root", runs]
    code, _, _ = carto(capsys, "select", run, *where, "--top", 0.2, "--by", "final_loss", "--out", tmp_path / "s.json")
    assert code == 0
    _, text, _ = carto(capsys, "plan", run, *where, tmp_path / "s.json", "--action", "prune", "--json")
    return json.loads(text)


def test_a_run_is_retrained_under_a_plan_and_compared_with_itself(capsys, runs, tmp_path):
    plan, where = planned(capsys, runs, tmp_path), ["--runs-root", runs]

    code, text, _ = carto(
        capsys, "retrain", "trained", plan["path"], *where, "--out", runs / "after", "--seed", 3, "--json"
    )

    assert code == 0
    assert json.loads(text)["status"] == "complete"
    manifest = json.loads((runs / "after" / "run.json").read_text())
    assert (manifest["parent_run"], manifest["train_seed"]) == ("trained", 3)
    code, text, _ = carto(capsys, "retrain", "trained", plan["path"], *where, "--out", runs / "after", "--resume")
    assert (code, text.split(":")[0]) == (0, "complete")
    code, text, _ = carto(capsys, "compare", "trained", "after", *where, "--json")
    assert code == 0
    found = json.loads(text)
    assert sum(row[-1] for row in found["flow"]["counts"]) == plan["num_samples"], "what was cut is gone"
    assert (found["run_a"], found["run_b"], found["cuts"]) == ("trained", "after", "own")
    assert "audit after extraction" in found["notes"][-1]
    carto(capsys, "audit", "after", *where, "extraction")
    code, text, _ = carto(capsys, "compare", "trained", "after", *where, "--cuts", "a", "--y", "final_loss")
    assert code == 0
    assert f"{plan['num_samples']} of them after never trains on" in text
    assert "Canaries (calibration): " in text
    assert "report" not in text
    assert len(text.splitlines()) < 40


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (["compare", "trained"], "MissingParameter", "RUN_B"),
        (["compare", "trained", "gone"], "RunNotFound", "no run 'gone'"),
        (["compare", "trained", "trained", "--y", "vibes"], "UnknownNameError", "unknown score 'vibes'"),
        (["compare", "trained", "trained", "--y", "min_k_pp"], "CompareError", "probe trained passes"),
        (["compare", "trained", "trained", "--cuts", "b"], "BadParameter", "'b'"),
        (["retrain", "trained", "nowhere", "--out", "OUT"], "PlanError", "plan.json cannot be read"),
        (["retrain", "trained", "nowhere"], "MissingParameter", "--out"),
    ],
)
def test_a_users_mistake_gets_one_line_and_code_2(capsys, runs, tmp_path, arguments, error, said):
    arguments = [str(tmp_path / "out") if a == "OUT" else a for a in arguments]

    code, out, err = carto(capsys, *arguments, "--runs-root", runs, "--json")

    assert code == 2
    assert json.loads(out)["error"] == error
    assert said in json.loads(out)["message"]
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_retrain_with_no_run_to_resume_is_said(capsys, runs, tmp_path):
    plan = planned(capsys, runs, tmp_path)

    code, _, err = carto(
        capsys, "retrain", "trained", plan["path"], "--runs-root", runs, "--out", tmp_path / "none", "--resume"
    )

    assert code == 2
    assert "holds no run to resume" in err
