"""Exposure, LiRA, ROC figures and (n, p): TensorFlow Privacy, PrivacyGuard and scikit-learn."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm, skewnorm, spearmanr
from sklearn.metrics import roc_auc_score, roc_curve

from carto_core.audits.exposure import exposure_of_rank
from carto_core.audits.membership import offline_lira
from carto_core.scores.roc import auc, tpr_at_fpr

TF = "tensorflow_privacy.privacy.privacy_tests"


def extrapolated(losses, references):
    """Exposure past the references, in bits: the tail of a skew normal fitted to them."""
    return -skewnorm.logcdf(losses, *skewnorm.fit(references)) / math.log(2)


def members_and_others(seed=0, *, n=500):
    rng = np.random.default_rng(seed)
    return np.round(np.concatenate([rng.normal(0.7, 1, n), rng.normal(0, 1, n)]), 2), np.arange(2 * n) < n


def shadows(seed=0, *, models=12, texts=80):
    """Log-probabilities of other models, which of them are out, and the target's own."""
    rng = np.random.default_rng(seed)
    ease = rng.normal(-3, 1, texts)
    is_out = np.stack([rng.permutation(np.arange(models) % 2 == 0) for _ in range(texts)], axis=1)
    phi = ease + rng.normal(0, 0.3, (models, texts)) + 0.5 * ~is_out
    return phi, is_out, ease + rng.normal(0.25, 0.4, texts)


@pytest.mark.parametrize("ties", [False, True])
def test_exposure_by_rank(oracle, ties):
    exposures = oracle(f"{TF}.secret_sharer.exposures")
    rng = np.random.default_rng(0)
    references, secrets = rng.normal(30, 5, 1000), rng.normal(18, 8, 30)
    if ties:
        references, secrets = references.round(), secrets.round()
    ours = [exposure_of_rank(1000, int((references <= secret).sum())) for secret in secrets]

    theirs = exposures.compute_exposure_interpolation({"all": secrets.tolist()}, references.tolist())["all"]

    np.testing.assert_allclose(sorted(ours), sorted(theirs), atol=1e-12)  # theirs come sorted, not in the order given


def test_exposure_by_the_tail_of_a_skew_normal(oracle):
    exposures = oracle(f"{TF}.secret_sharer.exposures")
    rng = np.random.default_rng(0)
    references, secrets = rng.gamma(9, 3, 1000), np.array([30.0, 12.0, 8.0, 5.0])

    theirs = exposures.compute_exposure_extrapolation({"all": secrets}, references)["all"]

    np.testing.assert_allclose(extrapolated(secrets, references), theirs, rtol=1e-9)


def test_offline_lira_has_the_mean_and_spread_of_tensorflow_privacy(oracle):
    advanced_mia = oracle(f"{TF}.membership_inference_attack.advanced_mia")
    phi, is_out, target = shadows()
    out = [phi[is_out[:, i], i][:, None] for i in range(len(target))]
    z = offline_lira(target, -phi, is_out)
    # theirs divides by the number of residuals, ours by the degrees of freedom: 6 and 5 a text
    theirs_std = np.sqrt(np.mean(np.concatenate([(o - o.mean()) ** 2 for o in out])))
    ours = norm.logpdf(z * math.sqrt(6 / 5)) - math.log(theirs_std)

    theirs = advanced_mia.compute_score_lira(
        target[:, None], None, out, option="out", fix_variance=True, median_or_mean="mean"
    )

    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_offline_lira_ranks_almost_as_privacyguards_two_sided_one(oracle):
    lira, aggregation = (
        oracle("privacy_guard.attacks.lira_attack"),
        oracle("privacy_guard.analysis.mia.aggregate_analysis_input"),
    )
    phi, is_out, target = shadows(texts=400)
    z = offline_lira(target, -phi, is_out)
    out = np.where(is_out, phi, np.nan)
    frame = pd.DataFrame(
        {
            "user_id": range(400),
            "score_orig": target,
            "score_mean": np.nanmean(out, axis=0),
            "score_std": np.nanstd(out, axis=0, ddof=1),
        }
    )

    attack = lira.LiraAttack(
        frame[:200].copy(), frame[200:].copy(), aggregation.AggregationType.NONE, std_dev_type="shadows_out"
    )
    found = attack.run_attack()

    theirs = np.concatenate([found.df_train_merge["score"], found.df_test_merge["score"]])
    std = frame["score_std"].mean()
    expected = -norm.logpdf(target, frame["score_mean"], std)
    np.testing.assert_allclose(theirs, expected, rtol=1e-9)
    pooled = ((target - frame["score_mean"]) / z).iloc[0]
    assert pooled == pytest.approx(std, rel=0.1), "theirs is a mean of spreads, ours the root of a mean variance"
    above = z > 0  # two-sided: far below the mean counts for them as far above it
    assert spearmanr(theirs[above], z[above]).statistic == pytest.approx(1.0)


def test_area_and_true_positive_rate_of_privacyguard(oracle):
    results = oracle("privacy_guard.analysis.mia.mia_results")
    scores, is_member = members_and_others()
    theirs = results.MIAResults(torch.from_numpy(scores[is_member]), torch.from_numpy(scores[~is_member]))

    _, their_auc, _ = theirs.compute_acc_auc_epsilon(delta=1e-5)
    tpr, fpr = theirs.get_tpr_fpr()

    assert auc(scores, is_member) == pytest.approx(their_auc, abs=1e-12)
    for target in (0.01, 0.05, 0.1):
        # theirs drops points on straight stretches of the curve, so it may read a little lower, never higher
        assert tpr[fpr <= target].max() <= tpr_at_fpr(scores, is_member, target) + 1e-12


@pytest.mark.parametrize("target", [0.002, 0.01, 0.05, 0.5])
def test_area_and_true_positive_rate_of_scikit_learn(target):
    scores, is_member = members_and_others()
    fpr, tpr, _ = roc_curve(is_member, scores, drop_intermediate=False)

    assert auc(scores, is_member) == pytest.approx(roc_auc_score(is_member, scores), abs=1e-12)
    assert tpr_at_fpr(scores, is_member, target) == pytest.approx(tpr[fpr <= target].max(), abs=1e-12)


def n_p(log_prob, n):
    """Chance that a text of that log-probability comes up in n draws, exact for small ones."""
    return -math.expm1(n * math.log1p(-math.exp(log_prob)))


def test_chance_to_extract_in_n_draws_of_privacyguard(oracle):
    package = "privacy_guard.analysis.extraction.probabilistic_memorization_analysis"
    node, given = oracle(f"{package}_node"), oracle(f"{package}_input")
    log_probs = [[-0.5, -0.1], [-2.0, -3.0, -1.0], [-0.01]]
    asked = given.ProbabilisticMemorizationAnalysisInput(
        pd.DataFrame({"prediction_logprobs": [[row] for row in log_probs]}), prob_threshold=0.5, n_values=[1, 10, 100]
    )

    found = node.ProbabilisticMemorizationAnalysisNode(asked).run_analysis().n_probabilities

    for row, theirs in zip(log_probs, found, strict=True):
        for n, chance in theirs.items():
            assert n_p(sum(row), n) == pytest.approx(chance, rel=1e-9)
