import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from carto_core.scores.agreement import agreement, rank_correlation
from tests.test_selection import make_table

ALL = np.ones(60, bool)
ALONE = np.arange(60, dtype=np.int32)


def columns(seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=60).astype(np.float32)
    return (truth + rng.normal(size=60)).astype(np.float32).round(1), truth


def test_the_correlation_is_spearmans_with_ties_averaged():
    values, truth = columns()

    found = rank_correlation(values, truth, ALONE, ALL, seed=0)

    assert found["value"] == pytest.approx(spearmanr(values, truth).statistic)
    assert found["low"] < found["value"] < found["high"]
    assert found["n"] == 60


def test_only_rows_that_are_known_in_both_and_asked_for_count():
    values, truth = columns()
    values[0], truth[1] = np.nan, np.nan
    among = ALL.copy()
    among[2] = False

    found = rank_correlation(values, truth, ALONE, among, seed=0)

    assert found["n"] == 57
    assert found["value"] == pytest.approx(spearmanr(values[3:], truth[3:]).statistic)


def test_copies_are_resampled_together_so_that_they_do_not_narrow_the_interval():
    values, truth = columns()
    tripled = [np.repeat(column, 3) for column in (values, truth)]

    alone = rank_correlation(values, truth, ALONE, ALL, seed=0)
    together = rank_correlation(*tripled, np.repeat(ALONE, 3), np.ones(180, bool), seed=0)
    apart = rank_correlation(*tripled, np.arange(180, dtype=np.int32), np.ones(180, bool), seed=0)

    width = {name: found["high"] - found["low"] for name, found in (("1", alone), ("3", together), ("wrong", apart))}
    assert width["3"] == pytest.approx(width["1"], rel=0.2)
    assert width["wrong"] < 0.8 * width["1"]


@pytest.mark.parametrize("values", [np.zeros(60, np.float32), np.full(60, np.nan, np.float32)])
def test_a_score_without_spread_has_no_correlation(values):
    assert rank_correlation(values, columns()[1], ALONE, ALL, seed=0)["value"] is None


def test_three_rows_are_enough_and_two_are_not():
    values, truth = np.float32([1, 2, 3]), np.float32([1, 3, 2])

    found = rank_correlation(values, truth, ALONE[:3], ALL[:3], seed=0)

    assert found["value"] == pytest.approx(0.5)
    assert rank_correlation(values[:2], truth[:2], ALONE[:2], ALL[:2], seed=0) == {
        "value": None,
        "low": None,
        "high": None,
        "n": 2,
    }


def test_the_interval_is_the_seeds_alone():
    values, truth = columns()

    first, again, other = (rank_correlation(values, truth, ALONE, ALL, seed=seed) for seed in (1, 1, 2))

    assert first == again != other
    rng = np.random.default_rng([1, 11])
    weights = [rng.multinomial(60, np.full(60, 1 / 60)) for _ in range(500)]
    ranks = rankdata(values), rankdata(truth)
    slow = [np.corrcoef(*(np.repeat(rank, weight) for rank in ranks))[0, 1] for weight in weights]
    assert (first["low"], first["high"]) == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])))


def test_a_score_that_is_low_where_it_matters_is_turned_and_planted_rows_can_be_left_out():
    values, truth = columns()
    table = make_table(60, difficulty=values, final_loss=-values, unheard_of=values)
    table.canary_id[:20] = 0

    found = agreement(table, truth)

    assert list(found) == ["difficulty", "memorization", "final_loss"]
    assert found["difficulty"] == found["final_loss"]
    assert found["difficulty"] == {
        "among_all": rank_correlation(values, truth, ALONE, ALL, seed=0),
        "among_natural": rank_correlation(values, truth, ALONE, np.arange(60) >= 20, seed=0),
    }
