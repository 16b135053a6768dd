import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from carto_core.scores import roc as module
from carto_core.scores.roc import auc, roc, tpr_at_fpr


def sides(members, nonmembers):
    scores = np.array([*members, *nonmembers], float)
    return scores, np.arange(len(scores)) < len(members)


def random_sides(seed, *, ties=False, members=150, nonmembers=130):
    rng = np.random.default_rng(seed)
    draw = (lambda shift, n: rng.integers(0, 9, n) + shift) if ties else (lambda shift, n: rng.normal(shift, 1, n))
    return sides(draw(1, members), draw(0, nonmembers))


def slow_auc(scores, is_member):
    pairs = [(m, n) for m in scores[is_member] for n in scores[~is_member]]
    return sum((m > n) + 0.5 * (m == n) for m, n in pairs) / len(pairs)


def slow_tpr(scores, is_member, target):
    """Every threshold in turn: the largest TPR whose FPR is at most the target."""
    best = 0.0
    for threshold in scores:
        accepted = scores >= threshold
        if accepted[~is_member].mean() <= target + 1e-12:
            best = max(best, accepted[is_member].mean())
    return best


def test_a_roc_of_four_points_by_hand():
    # from the top: member 4, non-member 3, member 2, non-member 1: the curve steps up, right, up, right
    scores, is_member = sides([4, 2], [3, 1])

    assert auc(scores, is_member) == 0.75
    assert math.isnan(tpr_at_fpr(scores, is_member, 0.49))
    assert tpr_at_fpr(scores, is_member, 0.5) == 1.0, "one false alarm is allowed, and 2 needs just that"
    assert tpr_at_fpr(scores, is_member, 0.99) == 1.0


def test_the_allowed_rate_itself_is_allowed():
    # 4 non-members: at 25 % one false alarm; the first member comes before any, the second after one, the third after two
    scores, is_member = sides([9, 7, 5], [8, 6, 1, 0])

    assert tpr_at_fpr(scores, is_member, 0.25) == pytest.approx(2 / 3)
    assert tpr_at_fpr(scores, is_member, 0.5) == 1.0
    assert tpr_at_fpr(scores, is_member, 0.49) == pytest.approx(2 / 3)


@pytest.mark.parametrize("n", [10, 100, 300, 1000, 3000])
def test_a_rate_that_is_a_whole_number_of_alarms_is_not_rounded_away(n):
    scores, is_member = sides([0.5], np.arange(n))
    for allowed in (1, 3, 7):
        assert tpr_at_fpr(scores + 1e6 * is_member, is_member, allowed / n) == 1.0
        beaten_by = sides([n - allowed - 0.5], np.arange(n))
        assert tpr_at_fpr(*beaten_by, allowed / n) == 1.0, "exactly `allowed` non-members lie above"
        assert tpr_at_fpr(*sides([n - allowed - 1.5], np.arange(n)), allowed / n) == 0.0


def test_a_product_that_floats_below_a_whole_number_counts_as_it():
    assert 0.29 * 100 < 29
    assert tpr_at_fpr(*sides([70.5], np.arange(100)), 0.29) == 1.0, "29 of 100 lie above"


def test_tied_scores_are_accepted_together_or_not_at_all():
    scores, is_member = sides([5, 5, 9], [5, 5, 1, 0])

    assert tpr_at_fpr(scores, is_member, 0.25) == pytest.approx(1 / 3), "accepting 5 would raise two alarms, not one"
    assert tpr_at_fpr(scores, is_member, 0.5) == 1.0
    assert auc(*sides([1, 1], [1, 1, 1])) == 0.5


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_area_and_rates_equal_the_slow_ones(seed, ties):
    scores, is_member = random_sides(seed, ties=ties)

    assert auc(scores, is_member) == pytest.approx(slow_auc(scores, is_member), abs=1e-12)
    for target in (0.01, 0.02, 0.1, 0.3):
        assert tpr_at_fpr(scores, is_member, target) == slow_tpr(scores, is_member, target)


@pytest.mark.parametrize("ties", [False, True])
def test_they_equal_scikit_learns(ties):
    scores, is_member = random_sides(7, ties=ties)
    fpr, tpr, _ = roc_curve(is_member, scores, drop_intermediate=False)

    assert auc(scores, is_member) == pytest.approx(roc_auc_score(is_member, scores), abs=1e-12)
    for target in (0.01, 0.05, 0.5):
        assert tpr_at_fpr(scores, is_member, target) == pytest.approx(tpr[fpr <= target].max(), abs=1e-12)


@pytest.mark.parametrize("transform", [np.exp, lambda x: 3 * x - 7, np.arctan], ids=["exp", "line", "arctan"])
def test_only_the_order_of_scores_counts(transform):
    scores, is_member = random_sides(3)

    assert roc(transform(scores), is_member, seed=0) == roc(scores, is_member, seed=0)


def test_an_area_below_one_half_stays_there_and_is_flagged():
    scores, is_member = random_sides(3)
    backwards = roc(-scores, is_member, seed=0)

    assert backwards.auc.value == pytest.approx(1 - auc(scores, is_member))
    assert backwards.below_chance
    assert not roc(scores, is_member, seed=0).below_chance
    assert not roc(*sides([1, 2, 3], [1.5, 2.5, 3.5]), seed=0).below_chance, "0.33, but 0.5 lies within the interval"


def test_a_rate_that_so_few_nonmembers_cannot_show_is_unknown():
    for nonmembers, known in [(99, []), (100, [0.01]), (999, [0.01]), (1000, [0.01, 0.001])]:
        got = roc(*random_sides(0, nonmembers=nonmembers), seed=0)
        assert [target for target, rate in got.tpr.items() if not math.isnan(rate.value)] == known
        assert all(math.isnan(r.low) for t, r in got.tpr.items() if t not in known)
        assert not math.isnan(got.auc.low)


def test_nothing_to_compare_is_unknown():
    for members, nonmembers in [([], [1.0]), ([1.0], []), ([], [])]:
        got = roc(*sides(members, nonmembers), seed=0)
        assert math.isnan(got.auc.value)
        assert not got.below_chance
        assert (got.num_members, got.num_nonmembers) == (len(members), len(nonmembers))


def test_unknown_scores_are_left_out():
    scores, is_member = random_sides(1)
    holes, more = np.append(scores, [np.nan, np.nan, np.nan]), np.append(is_member, [True, False, False])

    assert roc(holes, more, seed=0) == roc(scores, is_member, seed=0)


def test_intervals_are_those_of_a_plain_stratified_bootstrap():
    scores, is_member = random_sides(5)
    members, nonmembers = scores[is_member], scores[~is_member]
    rng = np.random.default_rng(0)
    drawn = [sides(rng.choice(members, 150), rng.choice(nonmembers, 130)) for _ in range(2000)]
    aucs, tprs = [auc(*d) for d in drawn], [tpr_at_fpr(*d, 0.05) for d in drawn]

    got = roc(scores, is_member, seed=0, targets=(0.05,))

    assert (got.auc.low, got.auc.high) == pytest.approx(np.quantile(aucs, [0.025, 0.975]), abs=0.01)
    rate = got.tpr[0.05]
    assert (rate.low, rate.high) == pytest.approx(np.quantile(tprs, [0.025, 0.975]), abs=0.03)
    assert rate.low <= rate.value <= rate.high


def test_the_seed_fixes_the_interval():
    scores, is_member = random_sides(5)

    assert roc(scores, is_member, seed=1) == roc(scores, is_member, seed=1)
    assert roc(scores, is_member, seed=1).auc != roc(scores, is_member, seed=2).auc


def test_resampling_in_blocks_is_resampling_all_the_same(monkeypatch):
    scores, is_member = random_sides(5)
    whole = roc(scores, is_member, seed=1)
    monkeypatch.setattr(module, "BLOCK", 50_000)
    cut = roc(scores, is_member, seed=1)

    assert cut.auc.value == whole.auc.value
    assert (cut.auc.low, cut.auc.high) == pytest.approx((whole.auc.low, whole.auc.high), abs=0.01)


def test_without_members_everything_is_unknown():
    found = roc(np.array([1.0, 2.0]), np.zeros(2, bool), seed=0, targets=(0.5,))

    assert np.isnan(found.auc).all()
    assert np.isnan(found.tpr[0.5]).all()
    assert (list(found.tpr), found.num_members, found.num_nonmembers) == ([0.5], 0, 2)
