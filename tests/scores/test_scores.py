import dataclasses

import numpy as np
import pytest

from carto_core import scores
from carto_core.config import ScoreConfig
from carto_core.probes import PROBES
from carto_core.scores import SCORES, ScoreInputs, compute_scores

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
    "near_duplicates",
    "num_tokens",
    "cumulative_loss",
    "learning_time",
    "skip_count",
    "zlib_ratio",
    "min_k",
    "min_k_pp",
    "recitation",
    "el2n",
    "self_influence",
    "two_fold_gap",
    "two_fold_normalised",
    "held_out_gap",
    "normalised_gap",
]


PROBED = [name for name, score in SCORES.items() if score.probe]


def inputs(losses, group_id=None, **fields):
    """Inputs of all scores; a probe column that falls with the sample's number."""
    ids = np.arange(losses.shape[1], dtype=np.int32)
    probes = {name: -ids.astype(np.float32) for name in PROBED}
    defaults = {"group_id": ids, "num_tokens": ids + 3, "zlib_bytes": ids + 20, "probes": probes}
    given = {"group_id": group_id} if group_id is not None else {}
    return ScoreInputs(losses=losses, **(defaults | given | fields))


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

    given = inputs(losses, group_id)
    shuffled = ScoreInputs(
        losses=losses[:, order],
        group_id=group_id[order],
        num_tokens=given.num_tokens[order],
        zlib_bytes=given.zlib_bytes[order],
        probes={name: column[order] for name, column in given.probes.items()},
    )

    straight = compute_scores(given, ScoreConfig()).scores[name]
    permuted = compute_scores(shuffled, ScoreConfig()).scores[name]

    assert straight.dtype == np.float32
    assert straight.shape == (50,)
    assert np.isfinite(straight).all()
    np.testing.assert_array_equal(permuted, straight[order])


@pytest.mark.parametrize("chunk", [1, 7, 50])
def test_scores_do_not_depend_on_the_size_of_a_chunk(chunk, monkeypatch):
    losses, group_id = some_losses(), np.arange(50, dtype=np.int32) // 3
    whole = compute_scores(inputs(losses, group_id), ScoreConfig())

    monkeypatch.setattr(scores, "CHUNK", chunk)
    cut = compute_scores(inputs(losses, group_id), ScoreConfig())

    for name in SCORES:
        np.testing.assert_array_equal(cut.scores[name], whole.scores[name])


def test_a_threshold_per_snapshot_leaves_no_single_eps():
    table = compute_scores(inputs(some_losses()), ScoreConfig(eps_mode="snapshot"))

    assert table.eps is None


def test_settings_come_back_resolved():
    losses = some_losses()

    table = compute_scores(inputs(losses), ScoreConfig(burn_in=0.3, eps=0.25))

    assert table.burn_in == 4
    assert table.eps == np.quantile(losses.astype(np.float64), 0.25)


def test_a_score_whose_probe_was_not_run_is_unknown_and_the_others_are_not():
    table = compute_scores(inputs(some_losses(), probes={"min_k": np.zeros(50, np.float32)}), ScoreConfig())

    unknown = [name for name, values in table.scores.items() if np.isnan(values).all()]

    assert unknown == [name for name in PROBED if name != "min_k"]


def test_every_probed_score_names_a_probe_that_fills_it():
    assert {name: name in PROBES[SCORES[name].probe].columns for name in PROBED} == dict.fromkeys(PROBED, True)


def test_the_loss_per_compressed_byte_is_the_last_loss_over_the_bytes():
    losses = np.float32([[4, 4], [2, np.nan]])

    found = compute_scores(inputs(losses, zlib_bytes=np.int32([20, 40])), ScoreConfig()).scores["zlib_ratio"]

    np.testing.assert_allclose(found, [0.1, 0.1])


def test_no_formula_is_given_more_samples_than_a_chunk(monkeypatch):
    given = []

    def watched(losses):
        given.append(losses.shape[1])
        return losses[-1]

    monkeypatch.setattr(scores, "CHUNK", 20)
    monkeypatch.setitem(SCORES, "final_loss", dataclasses.replace(SCORES["final_loss"], formula=watched))
    compute_scores(inputs(some_losses()), ScoreConfig())

    assert given == [20, 20, 10]


def test_an_unknown_column_is_a_float32_as_the_others():
    table = compute_scores(inputs(some_losses(), probes={}), ScoreConfig())

    assert {values.dtype for values in table.scores.values()} == {np.dtype(np.float32)}
