import math

from carto_core.scores.quality import BUDGETS, UNKNOWN, Estimate, Quality
from carto_core.scores.recommendation import recommend


def of(auc):
    """Quality with this AUC; None = nothing to compare."""
    known = auc is not None
    estimate = Estimate(auc, auc, auc) if known else UNKNOWN
    return Quality(estimate, estimate, dict.fromkeys(BUDGETS, estimate), 30 * known, 100, "")


def recommended(overall, once=None, varied=None):
    """Recommend from AUCs by score: overall (label `extracted`), and of planted canaries in the two hard parts."""
    empty = dict.fromkeys(overall)
    parts = {
        ("extracted", "all"): overall,
        ("inserted", "once"): once or empty,
        ("inserted", "kind varied"): varied or empty,
    }
    return recommend("extracted", lambda label, part: {n: of(a) for n, a in parts[label, part].items()})


def test_the_best_detector_wins_and_a_baseline_never_does():
    found = recommended({"memorization": 0.4, "consolidation": 0.9, "final_loss": 0.8, "group_size": 1.0})

    assert found.score == "consolidation"
    assert "0.90" in found.reason
    assert "0.40" in found.reason


def test_a_score_that_copy_counts_or_length_beat_on_hard_secrets_gives_way():
    overall = {"memorization": 0.4, "consolidation": 0.9, "final_loss": 0.8, "num_tokens": 0.6}
    once = {"memorization": 0.5, "consolidation": 0.6, "final_loss": 0.8, "num_tokens": 0.7}

    found = recommended(overall, once=once)

    assert found.score == "final_loss"
    assert found.beats_baselines


def test_where_nothing_beats_the_baselines_the_best_is_shown_with_a_warning():
    overall = {"memorization": 0.4, "consolidation": 0.9, "num_tokens": 0.6}
    varied = {"memorization": 0.5, "consolidation": 0.6, "num_tokens": 0.7}

    found = recommended(overall, varied=varied)

    assert found.score == "consolidation"
    assert not found.beats_baselines
    assert "do not rely" in found.reason


def test_the_literal_score_stays_where_nothing_is_better():
    assert recommended({"memorization": 0.9, "consolidation": 0.9}).score == "memorization"


def test_without_canaries_the_literal_score_is_shown_and_the_reason_says_so():
    found = recommended({"memorization": None, "consolidation": None})

    assert found.score == "memorization"
    assert "No inserted canaries" in found.reason
    assert not math.isnan(len(found.reason))
