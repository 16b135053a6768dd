"""The recount, against one that loops."""

import math
from collections import Counter

import numpy as np
import pytest

from carto_core.corpus.tokens import Tokens
from carto_core.preview.ngrams import ORDER, PRIOR_COUNTS, NGrams

VOCAB = 7


def tokens(texts):
    return Tokens(np.array([i for text in texts for i in text], np.int32), np.cumsum([0, *map(len, texts)]))


def texts_of(seed, count):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, VOCAB, int(rng.integers(1, 9))).tolist() for _ in range(count)]


def slow_nats(train, validation, emphasis):
    """Count with dictionaries, predict token by token."""
    mean_length = np.mean([len(text) for text in train])
    relative = np.asarray(emphasis) * len(emphasis) / np.sum(emphasis)
    grams, contexts = Counter(), Counter()
    for text, weight in zip(train, relative, strict=True):
        padded = [VOCAB] * (ORDER - 1) + text
        for end in range(ORDER - 1, len(padded)):
            for order in range(ORDER):
                context = tuple(padded[end - order : end])
                contexts[context] += weight * mean_length / len(text)
                grams[(*context, padded[end])] += weight * mean_length / len(text)
    losses = []
    for text in validation:
        padded = [VOCAB] * (ORDER - 1) + text
        for end in range(ORDER - 1, len(padded)):
            chance = 1 / VOCAB
            for order in range(ORDER):
                context = tuple(padded[end - order : end])
                chance = (grams[(*context, padded[end])] + PRIOR_COUNTS * chance) / (contexts[context] + PRIOR_COUNTS)
            losses.append(-math.log(chance))
    return np.mean(losses)


@pytest.mark.parametrize("seed", range(4))
def test_the_recount_is_what_counting_anew_gives(seed):
    train, validation = texts_of(seed, 40), texts_of(seed + 100, 9)
    emphasis = np.random.default_rng(seed).choice([0, 0.5, 1, 3], 40)

    counted = NGrams.count(tokens(train), tokens(validation), vocab_size=VOCAB)

    assert counted.nats(np.ones(40)) == pytest.approx(slow_nats(train, validation, np.ones(40)), abs=1e-5)
    assert counted.nats(emphasis) == pytest.approx(slow_nats(train, validation, emphasis), abs=1e-5)


def test_a_common_factor_changes_nothing():
    counted = NGrams.count(tokens(texts_of(1, 20)), tokens(texts_of(2, 5)), vocab_size=VOCAB)

    assert counted.nats(np.full(20, 0.3)) == pytest.approx(counted.nats(np.ones(20)), abs=1e-9)


def test_a_copy_is_missed_less_than_the_only_one():
    train = [[1, 2, 3, 4], [1, 2, 3, 4], [5, 6, 5, 6], [0, 0, 0, 0]]
    validation = [[1, 2, 3, 4], [5, 6, 5, 6]]
    counted = NGrams.count(tokens(train), tokens(validation), vocab_size=VOCAB)

    copy, only = (counted.nats(np.array(e, float)) for e in ([1, 0, 1, 1], [1, 1, 0, 1]))

    assert copy < only


def test_what_was_saved_is_what_is_loaded(tmp_path):
    counted = NGrams.count(tokens(texts_of(3, 20)), tokens(texts_of(4, 5)), vocab_size=VOCAB)
    counted.save(tmp_path)

    loaded = NGrams.load(tmp_path, vocab_size=VOCAB)

    assert loaded.num_samples == 20
    assert loaded.nats(np.arange(20.0)) == counted.nats(np.arange(20.0))
