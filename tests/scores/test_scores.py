import numpy as np
import pytest

from carto_core import scores
from carto_core.config import ScoreConfig
from carto_core.scores import SCORES, compute_scores

CONTRACT = [
    "difficulty",
    "memorization",
    "consolidation",
    "lt_iqr",
    "confidence",
    "variability",
    "final_loss",
    "rises",
    "group_size",
]


def some_losses(num_samples=50):
    return np.random.default_rng(3).gamma(2.0, 1.0, (12, num_samples)).astype(np.float32)


def test_the_scores_are_the_contracts_columns_in_its_order():
    assert list(SCORES) == CONTRACT


@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES.keys())
def test_every_score_has_its_words_for_the_user(score):
    assert score.title
    assert score.unit
    assert score.source
    assert score.higher_means.endswith(".")
    assert score.memorized_when in ("high", "low")


@pytest.mark.parametrize("name", SCORES)
def test_permuting_the_samples_permutes_their_scores(name):
    losses, group_id = some_losses(), np.arange(50, dtype=np.int32) // 2
    order = np.random.default_rng(0).permutation(50)

    straight = compute_scores(losses, group_id, ScoreConfig()).scores[name]
    permuted = compute_scores(losses[:, order], group_id[order], ScoreConfig()).scores[name]

    assert straight.dtype == np.float32
    assert straight.shape == (50,)
    assert np.isfinite(straight).all()
    np.testing.assert_array_equal(permuted, straight[order])


@pytest.mark.parametrize("chunk", [1, 7, 50])
def test_scores_do_not_depend_on_the_size_of_a_chunk(chunk, monkeypatch):
    losses, group_id = some_losses(), np.arange(50, dtype=np.int32) // 3
    whole = compute_scores(losses, group_id, ScoreConfig())

    monkeypatch.setattr(scores, "CHUNK", chunk)
    cut = compute_scores(losses, group_id, ScoreConfig())

    for name in SCORES:
        np.testing.assert_array_equal(cut.scores[name], whole.scores[name])


def test_a_threshold_per_snapshot_leaves_no_single_eps():
    table = compute_scores(some_losses(), np.arange(50, dtype=np.int32), ScoreConfig(eps_mode="snapshot"))

    assert table.eps is None


def test_settings_come_back_resolved():
    losses = some_losses()

    table = compute_scores(losses, np.arange(50, dtype=np.int32), ScoreConfig(burn_in=0.3, eps=0.25))

    assert table.burn_in == 4
    assert table.eps == np.quantile(losses.astype(np.float64), 0.25)
