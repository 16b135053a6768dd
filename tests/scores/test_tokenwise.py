import math
import zlib

import numpy as np
import pytest

from carto_core.scores.tokenwise import lowest_mean, min_k, min_k_pp, recitation, zlib_bytes, zlib_ratio


def flat(*rows):
    """float32[sum of lengths] and int64[N + 1] of some rows."""
    return np.array([x for row in rows for x in row], np.float32), np.cumsum([0, *(len(row) for row in rows)])


def random_rows(seed=0, *, texts=60):
    rng = np.random.default_rng(seed)
    return [rng.normal(-2, 1, n).astype(np.float32).tolist() for n in rng.integers(0, 40, texts)]


def slow_min_k(row, share):
    lowest = sorted(row)[: max(1, int(len(row) * share + 1e-9))]
    return sum(lowest) / len(lowest) if row else math.nan


def test_the_least_likely_tokens_by_hand():
    log_probs, offsets = flat([-1, -9, -3, -2, -5], [-4], [-7, -1, -6, -1, -1, -1, -8, -1, -1, -1], [-2, -3, -1, -1])

    # 20 % of 5 is one token, of 10 two; of 1 and of 4 it is none, so one
    np.testing.assert_allclose(min_k(log_probs, offsets), [-9, -4, -7.5, -3])
    np.testing.assert_allclose(min_k(log_probs, offsets, 1.0), [-4, -4, -2.8, -1.75])
    np.testing.assert_allclose(min_k(log_probs, offsets, 0.4), [-7, -4, (-8 - 7 - 6 - 1) / 4, -3])


def test_a_text_without_tokens_is_unknown_wherever_it_stands():
    log_probs, offsets = flat([], [-4], [], [-1, -2], [])

    np.testing.assert_array_equal(min_k(log_probs, offsets), np.float32([np.nan, -4, np.nan, -2, np.nan]))
    assert np.isnan(min_k(*flat([], []))).all()


@pytest.mark.parametrize("share", [0.05, 0.2, 0.29, 0.5, 1.0])
def test_it_equals_sorting_each_text(share):
    rows = random_rows()

    np.testing.assert_allclose(min_k(*flat(*rows), share), [slow_min_k(row, share) for row in rows], rtol=1e-6)


def test_a_share_that_gives_a_whole_number_gives_that_many():
    log_probs, offsets = flat(np.arange(100))

    assert min_k(log_probs, offsets, 0.29)[0] == pytest.approx(np.arange(29).mean()), "0.29 * 100 is 28.999999999999996"


def test_normalised_by_what_was_expected_by_hand():
    log_probs, offsets = flat([-1, -9, -3, -2, -5], [-4])
    mean, _ = flat([-1, -8, -1, -2, -9], [-5])
    std, _ = flat([1, 2, 0.5, 1, 2], [0.5])

    # z = 0, -0.5, -4, 0, 2 and 2
    np.testing.assert_allclose(min_k_pp(log_probs, mean, std, offsets), [-4, 2])
    np.testing.assert_allclose(min_k_pp(log_probs, mean, std, offsets, 0.4), [-2.25, 2])


def test_a_certain_model_does_not_divide_by_zero():
    log_probs, offsets = flat([-0.5], [0.0])
    mean, _ = flat([0.0], [0.0])

    np.testing.assert_allclose(min_k_pp(log_probs, mean, np.zeros(2, np.float32), offsets), [-500, 0])


def test_bytes_of_the_zip_and_loss_over_them():
    texts = ["a" * 1000, "größer", ""]
    counts = zlib_bytes(texts)

    assert counts.tolist() == [*(len(zlib.compress(t.encode())) for t in texts[:2]), 0]
    np.testing.assert_allclose(
        zlib_ratio(np.float32([2, 3, 4]), counts), [2 / counts[0], 3 / counts[1], np.nan], rtol=1e-6
    )


@pytest.mark.parametrize(
    ("correct", "expected"),
    [([1, 1, 1], 1), ([0, 0], 0), ([1, 0, 1, 1], 0.5), ([1, 1, 0, 1], 0.5), ([], np.nan), ([0, 1], 0.5)],
)
def test_recitation_is_the_longest_run_that_greedy_would_write(correct, expected):
    # neighbours that are all right must not lend their tokens
    flat = np.float32([1, 1, *correct, 1, 1])
    offsets = np.array([0, 2, 2 + len(correct), 4 + len(correct)])

    np.testing.assert_allclose(recitation(flat, offsets), [1, expected, 1])


def test_recitation_of_a_single_token_is_all_or_nothing():
    np.testing.assert_array_equal(recitation(np.float32([1, 0]), np.array([0, 1, 1, 2])), np.float32([1, np.nan, 0]))


def test_results_are_float32_and_sums_float64():
    values, offsets = flat([-1, -2], [])

    assert {min_k(values, offsets).dtype, recitation(values, offsets).dtype} == {np.dtype(np.float32)}
    assert lowest_mean(values, offsets, 1.0).dtype == np.float64


@pytest.mark.parametrize("share", [0, -0.2, 1.1])
def test_a_share_of_the_tokens_is_above_0_and_at_most_1(share):
    with pytest.raises(AssertionError):
        min_k(*flat([-1, -2]), share)
