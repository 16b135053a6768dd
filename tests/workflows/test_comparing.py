import numpy as np
import pytest

from carto_core.compare import FROM, TO
from carto_core.config import ScoreConfig
from carto_core.errors import CompareError, RunNotSealed
from carto_core.store.rundir import update_manifest
from carto_core.workflows import light
from carto_core.workflows.comparing import compare_runs, likeliest_other
from tests import tiny

SCORES = ScoreConfig(x="difficulty", y="consolidation")


@pytest.fixture
def pair(tmp_path):
    """Two runs of the same samples and secrets, scored on the same axes."""
    return tuple(tiny.make_run(tmp_path / name, config=SCORES, seed=3) for name in ("one", "two"))


def audited(run, extracted):
    """Say of a run which canaries greedy decoding gives back."""
    rows = [
        {name: row[name] for name in ("canary_id", "kind", "role")} | {"extracted": row["canary_id"] in extracted}
        for row in run.canaries().to_dict("records")
    ]
    tiny.write_audit(run, "extraction", rows)


def test_a_run_and_its_copy_differ_in_nothing(pair):
    found = compare_runs(*pair).to_dict()

    counts = np.array(found["flow"]["counts"])
    assert counts[:4, :4].trace() == counts.sum() == 200
    assert (found["movers"], found["value_movers"], found["new_hotspots"]["num_samples"]) == ([], [], 0)
    assert found["samples"] == {
        "a": 200,
        "b": 200,
        "in_both": 200,
        "only_a": 0,
        "only_b": 0,
        "other_text": 0,
        "trained_in_both": 200,
    }
    assert (found["flow"]["from"], found["flow"]["to"]) == (list(FROM), list(TO))


def test_secrets_of_two_seeds_have_one_key_and_are_not_taken_for_one(pair, tmp_path):
    other = tiny.make_run(tmp_path / "other", config=SCORES, seed=4)
    for run in (pair[0], other):
        audited(run, set())

    found = compare_runs(pair[0], other)

    samples = found.to_dict()["samples"]
    assert (samples["in_both"], samples["other_text"]) == (1, 199), "the first text is the same in every such run"
    assert found.canaries == {}
    assert found.notes[0].startswith(
        "1 samples are in both runs, of 200 in one and 200 in other. The two were trained on diff"
    )
    assert "199 keys stand for another text in the other run, and are left out." in found.notes
    assert "no planted secret in common" in found.notes[-1]


def test_cuts_are_each_runs_own_or_those_of_the_first(pair):
    light.score(pair[1], ScoreConfig(x="difficulty", y="consolidation", cut_y=50))

    own, same = (compare_runs(*pair, cuts=cuts) for cuts in ("own", "a"))

    assert own.cuts_b.tau_y < own.cuts_a.tau_y
    assert own.num_new_hotspots > 0
    assert same.cuts_a == same.cuts_b == own.cuts_a
    assert same.num_new_hotspots == 0
    assert any("own percentiles" in note for note in own.notes)


def test_different_axes_are_an_error_and_one_score_can_be_named_for_both(pair):
    light.score(pair[1], ScoreConfig(x="difficulty", y="final_loss"))

    with pytest.raises(CompareError, match="run one is cut on y = consolidation and run two on y = final_loss"):
        compare_runs(*pair)
    found = compare_runs(*pair, y="final_loss")
    assert found.cuts_a == found.cuts_b, "both at the same percentile of the score that was asked for"
    assert found.cuts_a.y == "final_loss"


def test_other_settings_of_the_scores_are_said(pair):
    light.score(pair[1], ScoreConfig(x="difficulty", y="consolidation", burn_in=0.5))

    assert "The two were scored with different settings (burn_in)." in compare_runs(*pair).notes


def test_canaries_of_the_report_half_are_counted_only_once_both_runs_say_that_it_was_seen(pair):
    ids = pair[0].canaries().query("inserted").groupby("role")["canary_id"].first()
    audited(pair[0], set())
    audited(pair[1], set(ids))

    before = compare_runs(*pair)
    update_manifest(pair[0].files, report_seen=True)
    half = compare_runs(*pair)
    update_manifest(pair[1].files, report_seen=True)
    after = compare_runs(*pair)

    assert list(before.canaries) == list(half.canaries) == ["calibration"]
    assert [r["canary_id_a"] for r in before.canaries["calibration"]["became"]] == [ids["calibration"]]
    assert [r["canary_id_a"] for r in after.canaries["report"]["became"]] == [ids["report"]]


def test_planted_copies_of_the_report_half_are_named_in_no_list(pair):
    light.score(pair[1], ScoreConfig(x="difficulty", y="consolidation", cut_y=10, cut_x=90))
    canaries = pair[0].canaries().set_index("canary_id")["role"]
    table = light.load_table(pair[0])

    def roles(found):
        rows = [table.canary_id[row["sample_id_a"]] for row in found.hotspots]
        return {canaries[int(i)] for i in rows if not np.isnan(i)}

    before = compare_runs(*pair)
    for run in pair:
        update_manifest(run.files, report_seen=True)
    after = compare_runs(*pair)

    assert roles(before) == {"calibration"}
    assert roles(after) == {"calibration", "report"}
    assert before.num_new_hotspots == after.num_new_hotspots


def test_a_missing_audit_names_the_command(pair):
    audited(pair[0], set())

    found = compare_runs(*pair)

    assert found.canaries == {}
    assert found.notes[-1] == "Canaries are not compared: run python -m carto_core audit two extraction"


def test_a_run_without_scores_is_refused(pair, tmp_path):
    with pytest.raises(RunNotSealed, match="carto_core score bare"):
        compare_runs(pair[0], tiny.make_run(tmp_path / "bare", scored=False))


def test_a_run_is_likeliest_compared_with_its_retrain_then_its_base_then_its_corpus(tmp_path):
    run, same, child = (tiny.make_run(tmp_path / name, seed=3) for name in ("run", "same", "child"))
    other = tiny.make_run(tmp_path / "other", seed=4)
    tiny.as_retrain(child, "run")

    assert likeliest_other(run, [other, same, child]) is child
    assert likeliest_other(child, [other, same, run]) is run
    assert likeliest_other(run, [other, same]) is same
    assert likeliest_other(run, [other]) is other
