import math

import numpy as np
import pyarrow.parquet as pq
import pytest

from carto_core.errors import RunCorrupt
from carto_core.store.folds import (
    Folds,
    accuracy_gap,
    counterfactual,
    counterfactual_accuracy,
    held_out_gap,
    normalised_gap,
    only,
    read_folds,
    split_half_reliability,
    write_folds,
)
from carto_core.store.rundir import RunDir

NAN = math.nan


def by_hand():
    """Four models, three samples: the last was never left out."""
    return Folds(
        trained_on=np.array([[1, 0, 1], [0, 1, 1], [1, 1, 1], [0, 0, 1]], bool),
        losses=np.float32([[1, 5, 2], [4, 3, 2], [2, 4, 2], [6, 9, 2]]),
        validation_losses=np.float32([[7, 8], [7, 9], [6, 8], [5, 5]]),
        seeds=np.array([10, 10, 11, 11]),
        accuracies=np.float32([[1, 0.25, 0.5], [0.5, 0.5, 0.5], [0.5, 0.25, 0.5], [0.25, 0.5, 0.5]]),
    )


def simulated(*, models=16, samples=3000, gap_spread=1.0, noise=1.0, seed=0):
    """Complementary pairs; sample i loses `gap_i` nats when seen; independent noise in every model."""
    rng = np.random.default_rng(seed)
    gap = rng.normal(2, gap_spread, samples)
    first = rng.random((models // 2, samples)) < 0.5
    trained_on = np.stack([first, ~first], axis=1).reshape(models, samples)
    losses = 5 - gap * trained_on + rng.normal(0, noise, (models, samples))
    unknown = np.full(losses.shape, np.nan, np.float32)
    return Folds(trained_on, losses.astype(np.float32), np.zeros((models, 3), np.float32), np.arange(models), unknown)


def slow(folds, sample):
    """Mean, variance and number of the losses with and without one sample."""
    found = []
    for wanted in (True, False):
        values = [
            float(loss)
            for loss, seen in zip(folds.losses[:, sample], folds.trained_on[:, sample], strict=True)
            if seen == wanted
        ]
        mean = sum(values) / len(values) if values else NAN
        variance = sum((v - mean) ** 2 for v in values) / (len(values) - 1) if len(values) > 1 else NAN
        found.append((mean, variance, len(values)))
    return found


def test_the_accuracy_gap_by_hand_with_its_error():
    # sample 0: in 1, 0.5; out 0.5, 0.25. sample 1: in 0.5, 0.25; out 0.25, 0.5. sample 2: nothing without it
    estimate, error = counterfactual_accuracy(by_hand())

    np.testing.assert_allclose(estimate, [0.375, 0, NAN])
    np.testing.assert_array_equal(estimate, accuracy_gap(by_hand()))
    by_formula = [math.sqrt(0.125 / 2 + 0.03125 / 2), math.sqrt(0.03125 / 2 + 0.03125 / 2), NAN]
    np.testing.assert_allclose(error, by_formula, rtol=1e-6)


def test_the_gap_by_hand():
    # sample 0: out 4, 6; in 1, 2. sample 1: out 5, 9; in 3, 4. sample 2: nothing without it
    np.testing.assert_allclose(held_out_gap(by_hand()), [3.5, 3.5, NAN])
    np.testing.assert_allclose(normalised_gap(by_hand()), [3.5 / 6.5, 3.5 / 10.5, NAN], rtol=1e-6)
    estimate, error = counterfactual(by_hand())
    np.testing.assert_array_equal(estimate, held_out_gap(by_hand()))
    np.testing.assert_allclose(error, [math.sqrt(0.5 / 2 + 2 / 2), math.sqrt(0.5 / 2 + 8 / 2), NAN], rtol=1e-6)


def test_one_model_of_a_kind_gives_a_gap_but_no_error():
    whole = by_hand()
    pair = only(whole, [0, 1])
    estimate, error = counterfactual(pair)

    np.testing.assert_allclose(estimate, [3, 2, NAN])
    assert np.isnan(error).all()


def test_equal_to_a_loop_over_samples():
    folds = simulated(models=10, samples=40)
    folds.trained_on[:, 0], folds.trained_on[:, 1], folds.losses[:, 2] = True, False, 0
    folds.trained_on[:, 3] = np.arange(10) == 4
    expected = [slow(folds, i) for i in range(40)]

    gaps = [out[0] - seen[0] for seen, out in expected]
    np.testing.assert_allclose(held_out_gap(folds), gaps, rtol=1e-5)
    ratios = [(o[0] - i[0]) / (o[0] + i[0]) if o[0] + i[0] != 0 else NAN for i, o in expected]
    np.testing.assert_allclose(normalised_gap(folds), ratios, rtol=1e-5)
    errors = [math.sqrt(i[1] / i[2] + o[1] / o[2]) if i[2] and o[2] else NAN for i, o in expected]
    np.testing.assert_allclose(counterfactual(folds)[1], errors, rtol=1e-5)


def test_reliability_is_that_of_the_known_ratio_of_signal_to_noise():
    # a half of 8 models has 4 with and 4 without: its gap's noise has variance 2 * noise^2 / 4
    folds = simulated(models=16, gap_spread=1.0, noise=1.0)
    half, whole = 1 / (1 + 0.5), 1 / (1 + 0.25)

    found = split_half_reliability(folds, 0)

    # ranks of two normal variables correlate at 6 / pi * asin(r / 2)
    assert found.spearman == pytest.approx(6 / math.pi * math.asin(half / 2), abs=0.02)
    assert found.corrected == pytest.approx(whole, abs=0.02)
    assert found.ceiling == math.sqrt(found.corrected)


def test_the_ceiling_is_what_the_truth_itself_correlates_at():
    folds = simulated(models=8, noise=1.0, seed=3)
    truth = np.random.default_rng(3).normal(2, 1.0, 3000)

    assert split_half_reliability(folds, 0).ceiling == pytest.approx(
        np.corrcoef(truth, held_out_gap(folds))[0, 1], abs=0.03
    )


def test_gaps_of_noise_alone_repeat_nothing():
    found = split_half_reliability(simulated(gap_spread=0.0, seed=1), 0)

    assert abs(found.spearman) < 0.05


def test_pairs_stay_together_so_that_each_half_saw_every_sample():
    # with one pair in each half, splitting a pair would leave a half with models that all saw the sample, or none
    assert split_half_reliability(simulated(models=4, noise=0.01), 0).spearman > 0.99


def test_too_few_models_or_no_spread_is_unknown():
    for models in (2, 3):
        whole = simulated(models=4, samples=20)
        few = only(whole, list(range(models)))
        assert math.isnan(split_half_reliability(few, 0).spearman)
    assert math.isnan(split_half_reliability(simulated(gap_spread=0.0, noise=0.0), 0).spearman)


def test_an_odd_number_of_pairs_uses_all_of_them_in_turn():
    found = split_half_reliability(simulated(models=6), 0)

    assert found.spearman == pytest.approx(6 / math.pi * math.asin(1 / (1 + 2) / 2 * 1), abs=0.05)


def test_what_is_written_is_read_back(tmp_path):
    run = RunDir(tmp_path)
    assert read_folds(run) is None
    folds = by_hand()
    folds.losses[0, 1] = NAN

    write_folds(run, folds)
    found = read_folds(run)

    assert run.folds == tmp_path / "probes" / "models" / "folds.parquet"
    for name in ("trained_on", "losses", "validation_losses", "seeds", "accuracies"):
        np.testing.assert_array_equal(getattr(found, name), getattr(folds, name))
        assert getattr(found, name).dtype == getattr(folds, name).dtype
    assert [p.name for p in run.folds.parent.iterdir()] == ["folds.parquet"]


def test_rows_in_any_order_are_read_and_missing_or_foreign_ones_refused(tmp_path):
    run = RunDir(tmp_path)
    write_folds(run, by_hand())
    table = pq.read_table(run.folds)

    pq.write_table(table.take(np.random.default_rng(0).permutation(len(table))), run.folds)
    np.testing.assert_array_equal(read_folds(run).losses, by_hand().losses)
    for damaged in (table.slice(1), table.slice(0, len(table) - 1), table.drop_columns(["seed"]), table.slice(0, 0)):
        pq.write_table(damaged, run.folds)
        with pytest.raises(RunCorrupt, match="train the fold models again"):
            read_folds(run)
    run.folds.write_bytes(b"not parquet")
    with pytest.raises(RunCorrupt, match="cannot be read"):
        read_folds(run)
