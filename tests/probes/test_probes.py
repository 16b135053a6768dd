import json
import shutil

import numpy as np
import pytest

from carto_core.corpus.near_duplicates import near_duplicates
from carto_core.engine.run_corpus import load_run_corpus
from carto_core.errors import ConfigError, UnknownNameError
from carto_core.probes import PROBES
from carto_core.probes.folds import accuracies, fold_units, half_of
from carto_core.scores import SCORES
from carto_core.scores.labels import TRUTHS
from carto_core.store.folds import accuracy_gap, counterfactual, held_out_gap, only, read_folds
from carto_core.store.probes import read_probes, write_probe
from carto_core.store.reader import open_run
from carto_core.store.rundir import RunDir
from carto_core.workflows import light
from carto_core.workflows.probing import probe_run
from tests.here import HERE


@pytest.fixture(scope="module")
def probed(trained_run, tmp_path_factory):
    """A really trained run with all its probes: about twenty seconds."""
    root = tmp_path_factory.mktemp("probed")
    shutil.copytree(trained_run.files.path, root / "run")
    run = open_run(root / "run")
    return run, probe_run(run, models=4, executor=HERE)


def test_every_probe_fills_its_columns_for_every_sample(probed):
    run, done = probed
    columns = read_probes(run.files, num_samples=run.num_samples)

    assert done["probes"] == {name: list(probe.columns) for name, probe in PROBES.items()}
    for probe in PROBES.values():
        for name in probe.columns:
            assert columns[name].shape == (run.num_samples,)
            # of two judging models one saw a sample and one did not: no spread, so no standard error
            assert np.isfinite(columns[name]).any() or name.startswith("counterfactual"), name


def test_probed_scores_enter_the_scores_table_and_no_truth_does(probed):
    run, _ = probed
    scores = run.scores()

    assert all(scores[name].notna().any() for name in SCORES)
    assert not set(TRUTHS) & set(scores.columns)
    assert set(light.load_table(run).truth) == set(TRUTHS)


def test_the_twin_is_asked_of_inserted_canaries_and_of_texts_that_are_long_enough(probed):
    run, _ = probed
    table, twin = light.load_table(run), json.loads((run.files.probes / "models" / "twin-1000.json").read_text())
    columns = read_probes(run.files, num_samples=run.num_samples)

    assert twin["references"] == 10_000
    assert {row["canary_id"] for row in twin["canaries"]} == set(table.canary_id[table.is_canary].astype(int))
    for row in twin["canaries"]:
        mine = table.canary_id == row["canary_id"]
        assert set(columns["extracted"][mine]) == {float(row["extracted"])}
        assert set(columns["exposed"][mine]) == {float(row["exposure"] >= np.log2(1000))}
    asked = ~np.isnan(columns["extracted"]) & ~table.is_canary
    assert (asked == (~table.is_canary & (table.num_tokens >= 32))).all()
    assert np.isnan(columns["exposed"][~table.is_canary]).all()


def test_no_score_is_judged_by_the_models_that_it_was_made_of(probed):
    run, done = probed
    folds, columns = read_folds(run.files), read_probes(run.files, num_samples=run.num_samples)

    np.testing.assert_array_equal(columns["held_out_gap"], held_out_gap(only(folds, [0, 1])))
    np.testing.assert_array_equal(columns["counterfactual"], counterfactual(only(folds, [2, 3]))[0])
    np.testing.assert_array_equal(columns["counterfactual_accuracy"], accuracy_gap(only(folds, [2, 3])))
    assert np.isfinite(columns["counterfactual_accuracy"]).any()
    assert done["folds"]["judging"] == 2
    assert len(set(folds.seeds.tolist())) == 4


def test_a_pair_of_models_shares_out_the_corpus_and_keeps_copies_together(probed):
    run, _ = probed
    folds, corpus = read_folds(run.files), load_run_corpus(run)

    for pair in (0, 2):
        assert (folds.trained_on[pair] ^ folds.trained_on[pair + 1]).all()
        assert 0.35 < folds.trained_on[pair].mean() < 0.65
    for model in folds.trained_on:
        for rows in (corpus.group_id, np.nan_to_num(corpus.canary_id, nan=-1 - corpus.group_id)):
            assert all(len(set(model[rows == unit])) == 1 for unit in np.unique(rows))


def test_accuracies_are_shares_of_a_texts_right_tokens():
    offsets = np.array([0, 2, 2, 6])

    found = accuracies(np.float32([1, 0, 1, 1, 1, 0]), offsets)

    np.testing.assert_array_equal(found, np.float32([0.5, np.nan, 0.75]))


def test_units_join_near_copies_and_the_copies_of_a_canary():
    class Corpus:
        texts = ["a b c d e f g h"] * 2 + ["p q r s t u", "x y z", "k l m"]
        canary_id = np.array([np.nan, np.nan, 7, 7, np.nan])

    unit = fold_units(Corpus, near_duplicates(Corpus.texts).group_id)

    assert unit[0] == unit[1]
    assert unit[2] == unit[3]
    assert len(set(unit.tolist())) == 3


def test_halves_are_seeded_whole_and_about_even():
    unit = np.repeat(np.arange(60), np.tile([1, 2, 3], 20)).astype(np.int32)

    halves = [half_of(unit, pair=pair, seed=0) for pair in (0, 1)]

    assert (halves[0] != halves[1]).any()
    np.testing.assert_array_equal(halves[0], half_of(unit, pair=0, seed=0))
    for half in halves:
        assert abs(half.mean() - 0.5) < 0.05
        assert not set(unit[half]) & set(unit[~half])


def test_el2n_and_self_influence_are_never_negative_and_recitation_is_a_share(probed):
    scores = probed[0].scores()

    assert scores["el2n"].between(0, np.sqrt(2) + 1e-6).all()
    assert (scores["self_influence"] > 0).all()
    assert scores["recitation"].between(0, 1).all()


def test_a_second_call_trains_nothing_again(probed):
    run, _ = probed
    models = run.files.probes / "models"
    before = {
        path.name: path.stat().st_mtime_ns for path in models.iterdir() if path.suffix == ".npz" or "twin" in path.name
    }

    probe_run(run, ["twin"], models=4, executor=HERE)

    assert {name: (models / name).stat().st_mtime_ns for name in before} == before


def test_what_is_written_is_read_back_and_unknown_stays_unknown(tmp_path):
    write_probe(RunDir(tmp_path), "some", {"a": np.float32([1, np.nan]), "b": np.float32([0, 2])})

    found = read_probes(RunDir(tmp_path), num_samples=2)

    np.testing.assert_array_equal(found["a"], np.float32([1, np.nan]))
    assert list(found) == ["a", "b"]


def test_a_mistake_is_told_before_anything_is_trained(trained_run):
    with pytest.raises(UnknownNameError, match="unknown probe 'magic'; choose one of: early"):
        probe_run(trained_run, ["magic"])
    with pytest.raises(ConfigError, match="--models must be an even number"):
        probe_run(trained_run, ["folds"], models=5)
