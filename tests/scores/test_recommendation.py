import json
from pathlib import Path

import pytest

from carto_core.scores import SCORES
from carto_core.scores.quality import BUDGETS, UNKNOWN, Estimate, Quality
from carto_core.scores.recommendation import FOUND_ELSEWHERE, UNJUDGED, recommend

DETECTORS = Path(__file__).parents[2] / "docs" / "results" / "detectors.json"


def of(auc, positives=30):
    """Quality with this AUC, give or take 0.15; None = nothing to compare."""
    known = auc is not None
    estimate = Estimate(auc, auc - 0.15, auc + 0.15) if known else UNKNOWN
    return Quality(estimate, estimate, dict.fromkeys(BUDGETS, estimate), positives * known, 100, "")


def recommended(overall, once=None, varied=None, positives=30):
    """Recommend from AUCs by score: overall, and of the secrets in the two hard parts, so many of them."""
    empty = dict.fromkeys(overall)
    parts = {
        ("extracted", "all"): overall,
        ("exposed", "once"): once or empty,
        ("extracted", "kind varied"): varied or empty,
    }
    return recommend(
        "extracted",
        lambda label, part: {n: of(a, 30 if part == "all" else positives) for n, a in parts[label, part].items()},
    )


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


def test_a_score_that_is_clearly_worse_overall_does_not_win_by_the_hard_secrets():
    overall = {"memorization": 0.4, "consolidation": 0.9, "difficulty": 0.1, "num_tokens": 0.6}
    once = {"memorization": 0.5, "consolidation": 0.6, "difficulty": 0.9, "num_tokens": 0.7}

    assert recommended(overall, once=once).score == "consolidation"


def test_too_few_hard_secrets_ask_nothing_and_the_reason_says_so():
    overall = {"memorization": 0.4, "consolidation": 0.9, "final_loss": 0.8, "num_tokens": 0.6}
    once = {"memorization": 0.5, "consolidation": 0.6, "final_loss": 0.8, "num_tokens": 0.7}

    found = recommended(overall, once=once, positives=5)

    assert found.score == "consolidation"
    assert not found.beats_baselines
    assert "too few" in found.reason


def test_the_literal_score_is_no_refuge_where_another_finds_more():
    overall = {"memorization": 0.82, "consolidation": 0.85, "lt_iqr": 0.8, "num_tokens": 0.5}
    once = {"memorization": 0.5, "consolidation": 0.5, "lt_iqr": 0.7, "num_tokens": 0.6}

    found = recommended(overall, once=once, varied=once)

    assert found.score == "lt_iqr"
    assert found.beats_baselines


def test_a_choice_on_few_positives_says_on_how_many():
    few = {name: of(auc, 3) for name, auc in {"memorization": 0.4, "consolidation": 1.0}.items()}

    found = recommend("extracted", lambda label, part: few if part == "all" else {n: of(None) for n in few})

    assert "AUC 1.00 (on 3 of them, too few to be sure), the paper's literal score with 0.40" in found.reason


def test_where_nothing_beats_the_baselines_the_best_is_shown_with_a_warning():
    overall = {"memorization": 0.4, "consolidation": 0.9, "num_tokens": 0.6}
    varied = {"memorization": 0.5, "consolidation": 0.6, "num_tokens": 0.7}

    found = recommended(overall, varied=varied)

    assert found.score == "consolidation"
    assert not found.beats_baselines
    assert "do not rely" in found.reason


def test_the_literal_score_stays_where_nothing_is_better():
    assert recommended({"memorization": 0.9, "consolidation": 0.9}).score == "memorization"


def test_a_score_below_the_literal_one_does_not_take_its_place_by_the_hard_secrets():
    overall = {"memorization": 0.95, "consolidation": 0.9, "num_tokens": 0.6}
    once = {"memorization": 0.5, "consolidation": 0.8, "num_tokens": 0.7}

    found = recommended(overall, once=once)

    assert found.score == "memorization"
    assert not found.beats_baselines


def test_where_nothing_can_be_judged_what_found_most_elsewhere_is_shown_and_the_reason_says_so():
    found = recommended({"memorization": None, "consolidation": None})

    assert found.score == "confidence"
    assert not found.beats_baselines
    assert found.reason == (
        "On the four corpora that we measured Confidence told what a second model recites with AUC 0.96 to 1.00, the paper's "
        "literal score with 0.22 to 0.29; nothing in this run can confirm it (canaries would), and texts that are merely easy "
        "to predict stand high too."
    )


def test_what_is_said_of_other_corpora_is_what_was_measured_there():
    corpora = json.loads(DETECTORS.read_text(encoding="utf-8"))["corpora"].values()
    auc = {
        (name, role): [
            corpus["scores"][name]["quality"]["extracted"][role]["all"]["auc"]["value"] for corpus in corpora
        ]
        for name, score in SCORES.items()
        for role in ("calibration", "report")
        if score.probe is None
    }

    chosen = max((name for name, role in auc if role == "calibration"), key=lambda name: sum(auc[name, "calibration"]))

    assert (len(corpora), chosen) == (4, UNJUDGED)
    for name, told in FOUND_ELSEWHERE.items():
        assert told == tuple(round(edge(auc[name, "report"]), 2) for edge in (min, max))


OVERALL = {"memorization": 0.4, "consolidation": 0.9, "num_tokens": 0.6}
STRONG, WEAK = OVERALL | {"consolidation": 0.8}, OVERALL | {"num_tokens": 0.95}
CHOSEN = (
    "Consolidation tells extracted calibration samples from the rest with AUC 0.90, the paper's literal score with 0.40"
)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        (
            {},
            f"{CHOSEN}; whether it beats copy counts and length on secrets they cannot see, too few were memorized to say.",
        ),
        (
            {"once": STRONG, "varied": STRONG},
            f"{CHOSEN}, and it beats copy counts and length on secrets inserted once and repeated in varied context.",
        ),
        (
            {"varied": WEAK},
            f"{CHOSEN}; but on secrets repeated in varied context it does not beat copy counts and length, "
            "so do not rely on it for those.",
        ),
    ],
)
def test_the_reason_says_what_was_compared(parts, reason):
    assert recommended(OVERALL, **parts).reason == reason


def test_the_literal_score_is_not_compared_with_itself():
    found = recommended({"memorization": 0.9, "consolidation": 0.8})

    assert found.reason.startswith(
        "Memorization (literal) tells extracted calibration samples from the rest with AUC 0.90; whether"
    )
    assert recommended({"memorization": None}).beats_baselines is False
