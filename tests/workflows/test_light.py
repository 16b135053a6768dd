import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from carto_core.config import ScoreConfig
from carto_core.errors import PlanError, RunCorrupt, RunNotSealed, SelectionError, UnknownNameError
from carto_core.export import read_plan
from carto_core.interventions import plan_sha256
from carto_core.probes import PROBES
from carto_core.quadrants import Cuts
from carto_core.scores import SCORES, ScoreInputs, compute_scores
from carto_core.scores.tokenwise import zlib_bytes
from carto_core.store.probes import write_probe
from carto_core.store.rundir import update_manifest
from carto_core.workflows import light
from tests.tiny import make_run, write_audit

HOT = {"type": "top", "by": "consolidation", "q": 0.1}


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def test_the_light_verbs_never_load_torch():
    code = "import sys, carto_core.workflows.light; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_table_holds_the_runs_samples_in_order(run):
    table = light.load_table(run)

    samples = run.samples()
    assert table.key.tolist() == samples["key"].tolist()
    assert table.group_id.tolist() == samples["group_id"].tolist()
    assert table.is_canary.tolist() == samples["canary_id"].notna().tolist()
    assert list(table.scores) == list(SCORES)
    assert {values.dtype for values in table.scores.values()} == {np.dtype(np.float32)}
    assert (table.run_id, table.seed, table.corpus_sha256) == ("run", 0, "0" * 64)


@pytest.mark.parametrize("state", [{"sealed": False}, {"scored": False}])
def test_a_run_without_scores_has_no_table_yet(state, tmp_path):
    run = make_run(tmp_path / "run", **state)

    with pytest.raises(RunNotSealed):
        light.load_table(run)


def test_a_running_run_cannot_be_scored(tmp_path):
    run = make_run(tmp_path / "run", sealed=False)

    with pytest.raises(RunNotSealed):
        light.score(run, ScoreConfig())


def computed(run, config):
    samples = run.samples()
    inputs = ScoreInputs(
        losses=run.trajectories("after"),
        group_id=samples["group_id"].to_numpy(np.int32),
        num_tokens=samples["num_tokens"].to_numpy(np.int32),
        zlib_bytes=zlib_bytes(samples["text"]),
    )
    return compute_scores(inputs, config).scores


def test_stored_scores_are_those_of_the_trajectories(run):
    expected = computed(run, ScoreConfig())

    for name, values in light.load_table(run).scores.items():
        np.testing.assert_array_equal(values, expected[name])


def test_the_scores_table_has_the_contracts_columns_and_types(run):
    rows = run.query(
        "select column_name, data_type from duckdb_columns() where table_name = 'scores' order by column_index"
    )

    columns = dict(zip(rows["column_name"], rows["data_type"], strict=True))

    assert columns == {"sample_id": "INTEGER"} | dict.fromkeys(SCORES, "FLOAT") | {"quadrant": "VARCHAR"}


def test_resolved_settings_parse_back_exactly(run):
    meta = run.meta()

    losses = run.trajectories("after").astype(np.float64)
    difficulty = run.scores()["difficulty"].to_numpy(np.float64)
    assert float(meta["eps"]) == np.quantile(losses, 0.5)
    assert float(meta["tau_d"]) == np.percentile(difficulty, 75)
    assert (meta["eps_mode"], meta["eps_quantile"], meta["burn_in"], meta["score_kind"]) == (
        "pooled",
        "0.5",
        "5",
        "after",
    )
    assert (meta["quadrant_x"], meta["quadrant_y"]) == ("difficulty", light.recommended(run).score)


def test_a_threshold_per_snapshot_leaves_eps_null(run):
    light.score(run, ScoreConfig(eps_mode="snapshot", eps=0.4))

    assert (run.meta()["eps"], run.meta()["eps_quantile"]) == (None, "0.4")


def test_an_absolute_threshold_has_no_quantile(run):
    light.score(run, ScoreConfig(eps_mode="absolute", eps=1.7))

    assert (run.meta()["eps"], run.meta()["eps_quantile"]) == ("1.7", None)


@pytest.mark.parametrize(("losses", "kind"), [("after", "after"), ("both", "after"), ("during", "during")])
def test_after_losses_are_scored_where_there_are_any(losses, kind, tmp_path):
    run = make_run(tmp_path / "run", losses=losses)

    assert run.meta()["score_kind"] == kind


def test_quadrants_are_cut_as_meta_says(run):
    light.score(run, ScoreConfig(x="lt_iqr", y="final_loss", cut_x=60, cut_y=90))
    table, rows = light.load_table(run), run.scores()
    hard = rows["lt_iqr"].to_numpy(np.float64) > table.tau_x
    memorized = rows["final_loss"].to_numpy(np.float64) < table.tau_y

    names = np.array(["stable-easy", "ambiguous-hard", "hotspot-memorized", "noisy-outlier"])

    assert rows["quadrant"].tolist() == names[hard + 2 * memorized].tolist()
    assert 0 < memorized.sum() <= 20  # a tenth, less those exactly at the cut


def test_a_rescore_replaces_the_old_one_whole_and_is_remembered(run):
    config = ScoreConfig(burn_in=0.5, x="variability", cut_y=50)

    summary = light.score(run, config)

    assert light.score_config(run) == config
    assert run.meta()["burn_in"] == "12"
    assert len(run.scores()) == 200
    assert len(run.query("select key from meta")) == len(run.query("select distinct key from meta"))
    assert sum(summary["quadrants"].values()) == 200
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_a_rescore_changes_the_scores_themselves_in_the_database_and_in_its_twin(run):
    before = run.scores()

    light.score(run, ScoreConfig(eps=0.9, burn_in=1.0))

    after = run.scores()
    expected = computed(run, ScoreConfig(eps=0.9, burn_in=1.0))
    for name in ("difficulty", "memorization"):
        np.testing.assert_array_equal(after[name].to_numpy(np.float32), expected[name])
        assert (after[name] != before[name]).any()
    pd.testing.assert_frame_equal(pd.read_parquet(run.files.table("scores")), after)


def test_a_summary_says_how_many_samples_sit_at_the_cut(run):
    notes = light.score(run, ScoreConfig(y="group_size", cut_y=10))["notes"]

    assert "sit exactly at the cut" in notes[1]


def test_an_axis_that_is_no_score_leaves_the_run_as_it_was(run):
    before = run.version

    with pytest.raises(UnknownNameError, match="unknown score 'memory'"):
        light.score(run, ScoreConfig(y="memory"))

    assert run.version == before


def test_quality_looks_at_one_role_at_a_time(run):
    calibration, report = (light.quality(run, role) for role in ("calibration", "report"))

    assert list(calibration) == list(SCORES)
    assert calibration["lt_iqr"].num_positives == report["lt_iqr"].num_positives == 6
    assert calibration["lt_iqr"].auc != report["lt_iqr"].auc


def test_a_run_without_canaries_has_no_quality(tmp_path):
    run = make_run(tmp_path / "run", canaries=False)

    assert not any(q.is_known for q in light.quality(run).values())
    assert light.recommended(run).score == run.meta()["quadrant_y"] == "confidence"


def test_the_map_shows_the_recommended_score_unless_told_otherwise(run):
    recommended = light.recommended(run)

    assert recommended.score != "memorization"
    assert run.meta()["quadrant_y"] == recommended.score
    assert light.quality(run)[recommended.score].auc > light.quality(run)["memorization"].auc
    light.score(run, ScoreConfig(y="memorization"))
    assert run.meta()["quadrant_y"] == "memorization"


def test_a_truth_that_needs_a_twin_names_the_command(run):
    with pytest.raises(RunNotSealed, match=f"probe {run.run_id} twin"):
        light.quality(run, label="extracted")
    with pytest.raises(UnknownNameError, match="unknown label 'leaked'"):
        light.quality(run, label="leaked")


def test_a_probe_column_becomes_a_score_and_a_truth_judges_it(run):
    extracted = np.zeros(200, np.float32)
    extracted[:40] = 1
    write_probe(run.files, "twin", {"extracted": extracted, "exposed": np.full(200, np.nan, np.float32)})
    write_probe(run.files, "passes", {"min_k": extracted - 1})

    light.score(run, ScoreConfig())

    found = light.describe_scores(run)["min_k"]
    assert found["not_run"] is None
    assert found["quality"]["extracted"]["calibration"]["all"]["auc"]["value"] == 1.0
    assert "report" not in found["quality"]["extracted"], "not before it was seen"
    assert "probe" in light.describe_scores(run)["el2n"]["not_run"]
    assert light.recommended(run).score == "min_k"
    assert json.loads(json.dumps(light.describe_scores(run), allow_nan=False))


def test_scores_are_compared_with_self_influence_and_with_counterfactual_memorization_where_those_were_run(run):
    assert "self_influence" not in light.describe_scores(run)["final_loss"]
    low = -light.load_table(run).scores["final_loss"]
    write_probe(run.files, "influence", {"self_influence": low})
    write_probe(run.files, "folds", {"counterfactual": -low})

    light.score(run, ScoreConfig())

    found = light.describe_scores(run)
    assert found["final_loss"]["self_influence"]["among_all"]["value"] == pytest.approx(1)
    assert found["final_loss"]["counterfactual"]["among_all"]["value"] == pytest.approx(-1)
    assert "self_influence" not in found["self_influence"], "with itself it always agrees"


def test_a_twin_that_gives_nothing_back_leaves_the_judging_to_what_was_inserted(run):
    nothing = np.zeros(200, np.float32)
    write_probe(run.files, "twin", {"extracted": nothing, "exposed": nothing})

    light.score(run, ScoreConfig())

    assert light.default_label(light.load_table(run), run.canaries()) == "inserted"
    assert "tells inserted calibration samples" in light.recommended(run).reason


def test_a_probe_is_missing_until_the_run_was_scored_with_it(run):
    assert light.missing_probes(run) == list(PROBES)
    write_probe(run.files, "passes", {"min_k": np.zeros(200, np.float32)})
    assert "passes" in light.missing_probes(run), "its column is not among the scores yet"

    light.score(run, ScoreConfig())

    assert light.missing_probes(run) == [name for name in PROBES if name != "passes"]


def test_whether_a_probe_is_missing_does_not_hang_on_the_clock(run):
    write_probe(run.files, "passes", {"min_k": np.zeros(200, np.float32)})
    light.score(run, ScoreConfig())
    probe = run.files.probes / "passes.parquet"

    later = run.files.database.stat().st_mtime + 86_400  # it was run before the clock was set back by a day
    os.utime(probe, (later, later))
    assert "passes" not in light.missing_probes(run)

    update_manifest(run.files, scored_probes=[])  # it was run again, and not scored since
    os.utime(probe, (0, 0))
    assert "passes" in light.missing_probes(run)


def test_near_groups_and_fold_facts_are_unknown_until_their_probe_was_run(tmp_path):
    plain, probed = make_run(tmp_path / "plain"), make_run(tmp_path / "probed", probes=True)

    assert light.near_groups(plain) is light.fold_facts(plain) is None
    groups, facts = light.near_groups(probed), light.fold_facts(probed)
    assert groups is not None
    assert facts is not None
    assert groups.dtype == np.int32
    assert groups[50] == groups[51] != groups[52]
    assert facts["ceiling"] == 0.87


def test_a_probe_file_of_another_run_is_refused(run):
    write_probe(run.files, "passes", {"min_k": np.zeros(7, np.float32)})

    with pytest.raises(RunCorrupt, match="7 rows"):
        light.load_table(run)


def test_the_cost_of_probes_is_told_from_what_the_run_took(run):
    update_manifest(run.files, train_s=130.0, measure_s=10.0)

    assert light.probe_minutes(run, ["twin"]) == pytest.approx(3.0)
    assert light.probe_minutes(run, []) > light.probe_minutes(run, ["twin"])
    with pytest.raises(UnknownNameError, match="unknown probe"):
        light.probe_minutes(run, ["magic"])


@pytest.mark.parametrize("phrase", ["SCRIPT>ALERT", "100 % 'single'", "$x^2$", '"quoted"'])
def test_a_search_is_a_literal_whatever_its_case(phrase, run):
    assert light.search(run, phrase).tolist() == [0]


@pytest.mark.parametrize("phrase", ["100 _", "%script%", "river.*", "' or 1=1 --"])
def test_a_search_is_no_pattern_and_no_sql(phrase, run):
    assert light.search(run, phrase).tolist() == []


def test_a_filter_by_text_searches_the_runs_texts(run):
    selection = light.select(run, {"type": "filter", "text": "access CODE"})

    texts = run.samples()["text"].tolist()
    assert selection.sample_ids.tolist() == [i for i, text in enumerate(texts) if "access code" in text]
    assert len(selection.sample_ids) == 30


def test_a_quadrant_rule_names_the_same_samples_after_the_cuts_have_moved(run):
    rule = light.quadrant_rule("ambiguous-hard", Cuts.of(light.load_table(run)))
    before = light.select(run, rule).sample_ids.tolist()
    assert before == np.flatnonzero(run.scores()["quadrant"] == "ambiguous-hard").tolist()

    light.score(run, ScoreConfig(cut_x=20))

    assert light.select(run, rule).sample_ids.tolist() == before


def test_a_selection_file_comes_back_as_the_same_selection(run, tmp_path):
    selection = light.select(run, HOT)
    path = light.write_selection(run, selection, tmp_path / "out" / "selection.json")

    back = light.read_selection(run, path)

    content = json.loads(path.read_text())
    assert back.sample_ids.tolist() == selection.sample_ids.tolist()
    assert (back.rule, back.notes) == (selection.rule, selection.notes)
    assert {"version", "run_id", "corpus_sha256", "rule", "num_samples", "keys"} <= set(content)
    assert content["num_samples"] == len(content["keys"]) == len(selection.sample_ids)


def test_a_selection_file_keeps_its_samples_through_a_rescore(run, tmp_path):
    selection = light.select(run, {"type": "top", "by": "memorization", "q": 0.05})
    path = light.write_selection(run, selection, tmp_path / "selection.json")

    light.score(run, ScoreConfig(eps=0.9))

    assert light.read_selection(run, path).sample_ids.tolist() == selection.sample_ids.tolist()


def test_a_selection_of_another_corpus_is_refused(run, tmp_path):
    path = light.write_selection(run, light.select(run, HOT), tmp_path / "selection.json")
    other = make_run(tmp_path / "other", seed=1)

    with pytest.raises(SelectionError, match="another corpus"):
        light.read_selection(other, path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 1, "keys": []}', '{"version": 2}'])
def test_what_is_no_selection_file_is_the_users_mistake(text, run, tmp_path):
    path = tmp_path / "selection.json"
    path.write_text(text)

    with pytest.raises(SelectionError):
        light.read_selection(run, path)


def test_a_key_file_has_one_key_a_line(run, tmp_path):
    path = tmp_path / "keys.txt"
    path.write_text("tiny/0003\n\n=1+1\n")

    assert light.select(run, light.read_keys(path)).sample_ids.tolist() == [0, 3]


@pytest.mark.parametrize("content", [None, b"", b"\n\n", b"\xff\xfe"])
def test_an_unreadable_or_empty_key_file_is_the_users_mistake(content, tmp_path):
    path = tmp_path / "keys.txt"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(SelectionError, match=r"keys\.txt"):
        light.read_keys(path)


def test_a_plan_is_saved_under_its_hash_and_exported(run, tmp_path):
    table = light.load_table(run)
    plan = light.plan_action(run, light.select(run, HOT), action="prune")

    folder = light.save_plan(run, plan)
    path = light.export(run, folder, file_format="jsonl", out=tmp_path / "list.jsonl")

    keys = [json.loads(line)["key"] for line in path.read_text("utf-8").splitlines()]
    assert plan_sha256(plan, table).startswith(folder.name)
    assert light.measurement_dir(run, folder) == run.files.previews / folder.name
    assert keys == table.key[plan.affected].tolist()


def test_exporting_the_corpus_leaves_out_what_was_pruned_and_planted(run, tmp_path):
    plan = light.plan_action(run, light.select(run, {"type": "keys", "keys": ["=1+1"]}), action="prune")

    path = light.export(run, light.save_plan(run, plan), file_format="jsonl", out=tmp_path / "clean", corpus=True)

    keys = [json.loads(line)["key"] for line in path.read_text("utf-8").splitlines()]
    assert keys == [key for key in light.load_table(run).key if key != "=1+1" and not key.startswith("canary/")]


def test_exporting_what_is_no_plan_is_the_users_mistake(run, tmp_path):
    with pytest.raises(PlanError):
        light.export(run, tmp_path / "nowhere", file_format="csv", out=tmp_path / "list.csv")


def test_the_policy_warns_of_samples_that_the_natural_audit_extracted(run):
    hard = int(np.flatnonzero((run.scores()["quadrant"] == "ambiguous-hard") & run.samples()["canary_id"].isna())[0])
    rows = [{"sample_ids": [hard], "extracted": True}, {"sample_ids": [hard + 1], "extracted": False}]
    write_audit(run, "natural", rows)

    notes = light.plan_policy(run, alpha=0.5, gamma=2).notes

    assert light.extracted_samples(run) == {hard}
    assert any("1 samples that the model already recites" in note for note in notes)
    assert any("planted canaries" in note for note in notes)


def test_one_copy_of_each_text_is_left(run):
    table = light.load_table(run)

    plan = light.plan_deduplicate(run)

    assert sorted(table.group_id[plan.repeats == 1]) == sorted(set(table.group_id))
    assert (plan.rule, plan.action) == ({"type": "deduplicate"}, "prune")
    assert read_plan(light.save_plan(run, plan), table)[0].repeats.tolist() == plan.repeats.tolist()


def test_without_copies_there_is_none_to_prune(run):
    table = light.load_table(run)
    alone = dataclasses.replace(table, group_id=np.arange(len(table), dtype=np.int32))

    with pytest.raises(PlanError, match="trained on no text twice"):
        light.plan_deduplicate(run, table=alone)


def test_an_audit_that_was_not_run_is_no_audit(run):
    assert light.read_audit(run, "natural") is None
    assert light.extracted_samples(run) == set()


def sealed_bits(run):
    """What scoring leaves behind, bit for bit: the parquet file, every column of the sealed table, and what `meta` says."""
    table = run.query("select * from scores order by sample_id")
    columns = {
        name: values.to_numpy().tolist() if name == "quadrant" else values.to_numpy().tobytes()
        for name, values in table.items()
    }
    return run.files.table("scores").read_bytes(), columns, run.meta()


@pytest.mark.parametrize("probes", [False, True])
def test_scoring_twice_leaves_the_same_bits_whatever_was_scored_between(tmp_path, probes):
    run = make_run(tmp_path / "again", probes=probes)
    first = sealed_bits(run)

    light.score(run, ScoreConfig())
    second = sealed_bits(run)
    light.score(run, ScoreConfig(burn_in=0.5, eps=0.3, y="difficulty", cut_x=40))
    between = sealed_bits(run)
    light.score(run, ScoreConfig())

    assert first == second == sealed_bits(run)
    assert all(one != other for one, other in zip(first, between, strict=True))
