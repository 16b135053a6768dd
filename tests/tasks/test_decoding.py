import itertools
import math

import numpy as np
import pytest
import torch

from carto_core.config import ModelConfig
from carto_core.tasks import decoding
from carto_core.tasks.decoding import SecretFormat, beam, best_first, continuation_losses, count_at_most, greedy
from carto_core.tasks.lstm import build

VOCAB, BOS = 8, 0
CPU = torch.device("cpu")
PREFIX = [3, 4]
DIGITS = [[2], [3], [5], [7]]
WORDS = [[1], [2, 3], [2, 4], [5, 6, 7], [5, 6, 1]]
NESTED = [[2], [2, 3], [4]]  # one unit begins another; end to end they can be told apart
ENOUGH = 10_000


def tiny_model(seed=1, *, sharp=3.0):
    """A model whose scores depend on all that it has read: as made, an LSTM hardly minds its past."""
    torch.manual_seed(seed)
    model = build(ModelConfig(embed=6, hidden=10, layers=2), VOCAB).eval()
    with torch.no_grad():
        for weight in model.lstm.parameters():
            weight *= 4
        model.head.weight *= sharp
        model.head.bias *= sharp
    return model


def slow_cost(model, prefix, tokens):
    """Read the whole text at once: what every step by step result must equal."""
    logits = torch.log_softmax(model(torch.tensor([[BOS, *prefix, *tokens]]))[0][0].double(), -1)
    return -sum(logits[len(prefix) + i, token].item() for i, token in enumerate(tokens))


def every_secret(units, length):
    return [[t for unit in some for t in unit] for some in itertools.product(units, repeat=length)]


def test_greedy_takes_the_best_token_step_by_step():
    model = tiny_model()
    prefixes = [[3, 4], [5], [7, 2]]

    decoded = greedy(model, prefixes, [3, 2, 1], bos_id=BOS, device=CPU)

    for prefix, length, found in zip(prefixes, [3, 2, 1], decoded, strict=True):
        ids = [BOS, *prefix]
        for _ in range(length):
            ids.append(int(model(torch.tensor([ids]))[0][0, -1].argmax()))
        assert found == ids[1 + len(prefix) :]


def test_greedy_does_not_depend_on_how_many_are_decoded_at_a_time(monkeypatch):
    model = tiny_model()
    prefixes = [[i, j] for i in range(VOCAB) for j in range(VOCAB)]
    together = greedy(model, prefixes, [4] * len(prefixes), bos_id=BOS, device=CPU)

    monkeypatch.setattr(decoding, "GREEDY_ROWS", 7)

    assert greedy(model, prefixes, [4] * len(prefixes), bos_id=BOS, device=CPU) == together


@pytest.mark.parametrize("rows", [1, 2, 256])
def test_continuations_cost_what_the_whole_text_costs(rows, monkeypatch):
    monkeypatch.setattr(decoding, "LOSS_ROWS", rows)
    model = tiny_model()
    prefix, continuations = [3, 4, 5], [[6, 7], [1], [2, 1, 4], [3, 3]]

    found = continuation_losses(model, prefix, continuations, bos_id=BOS, device=CPU)

    for continuation, losses in zip(continuations, found, strict=True):
        logits = torch.log_softmax(model(torch.tensor([[BOS, *prefix, *continuation]]))[0][0], -1)
        expected = [-logits[len(prefix) + i, token].item() for i, token in enumerate(continuation)]
        np.testing.assert_allclose(losses, expected, rtol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_a_beam_of_one_is_greedy(seed):
    model = tiny_model(seed)

    ((tokens, cost),) = beam(model, PREFIX, 5, 1, bos_id=BOS, device=CPU)

    assert [tokens] == greedy(model, [PREFIX], [5], bos_id=BOS, device=CPU)
    assert cost == pytest.approx(slow_cost(model, PREFIX, tokens), rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_a_beam_as_wide_as_all_prefixes_finds_the_likeliest_of_all(seed):
    model = tiny_model(seed)
    everything = sorted((slow_cost(model, PREFIX, list(c)), list(c)) for c in itertools.product(range(VOCAB), repeat=3))

    found = beam(model, PREFIX, 3, VOCAB**2, bos_id=BOS, device=CPU)

    assert len(found) == VOCAB**2
    assert [tokens for tokens, _ in found[:5]] == [tokens for _, tokens in everything[:5]]
    assert [cost for _, cost in found[:5]] == pytest.approx([cost for cost, _ in everything[:5]], rel=1e-5)


def test_a_beam_keeps_what_greedy_loses():
    """First token 1 (60 %) or 2 (40 %); after 1 two tokens are alike, after 2 one is certain: .3, .3, .4."""
    log = {(): {1: 0.6, 2: 0.4}, (1,): {3: 0.5, 4: 0.5}, (2,): {5: 1.0}}

    def model(tokens, state=None):
        before = [()] * len(tokens) if state is None else [tuple(row.tolist()) for row in state[0]]
        seen = [b if state is None else (*b, int(t[-1])) for b, t in zip(before, tokens, strict=True)]
        logits = torch.full((len(tokens), 1, VOCAB), -1e9)
        for row, path in enumerate(seen):
            for token, p in log[path].items():
                logits[row, 0, token] = math.log(p)
        return logits, torch.tensor(seen, dtype=torch.int64).reshape(1, len(seen), -1)

    assert greedy(model, [[]], [2], bos_id=BOS, device=CPU) == [[1, 3]]
    (best, first), (_, second) = beam(model, [], 2, 2, bos_id=BOS, device=CPU)
    assert best == [2, 5]
    assert (math.exp(-first), math.exp(-second)) == pytest.approx((0.4, 0.3))


@pytest.mark.parametrize("rows", [1, 3, 128])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("units", "length"), [(DIGITS, 4), (WORDS, 3), (NESTED, 4)], ids=["digits", "words", "nested"])
def test_searches_agree_with_looking_at_every_secret(units, length, seed, rows, monkeypatch):
    monkeypatch.setattr(decoding, "SEARCH_ROWS", rows)
    model = tiny_model(seed)
    secrets = every_secret(units, length)
    costs = np.array([slow_cost(model, PREFIX, tokens) for tokens in secrets])
    tree = SecretFormat.of(units, length)

    found = best_first(model, PREFIX, tree, bos_id=BOS, device=CPU, budget=ENOUGH)

    assert found.finished
    assert found.tokens == secrets[costs.argmin()]
    assert found.cost == pytest.approx(costs.min(), rel=1e-5)
    for quantile in (0.0, 0.01, 0.3, 1.0):
        bound = float(np.quantile(costs, quantile)) + 1e-4
        counted = count_at_most(model, PREFIX, tree, bound, bos_id=BOS, device=CPU, budget=ENOUGH)
        assert counted == (costs <= bound).sum()


@pytest.mark.parametrize("seed", range(4))
def test_a_search_reads_only_beginnings_cheaper_than_the_best_secret(seed, monkeypatch):
    monkeypatch.setattr(decoding, "SEARCH_ROWS", 1)
    model, length = tiny_model(seed), 5
    secrets = every_secret(DIGITS, length)
    best = min(slow_cost(model, PREFIX, tokens) for tokens in secrets)
    beginnings = {tuple(tokens[:k]) for tokens in secrets for k in range(1, length)}
    cheaper = sum(slow_cost(model, PREFIX, list(tokens)) < best for tokens in beginnings)

    tree = SecretFormat.of(DIGITS, length)
    found = best_first(model, PREFIX, tree, bos_id=BOS, device=CPU, budget=ENOUGH, at_most=best + 1e-4)

    assert found.finished
    assert found.evaluations == cheaper < len(beginnings)
    unbounded = best_first(model, PREFIX, tree, bos_id=BOS, device=CPU, budget=ENOUGH)
    assert unbounded.tokens == found.tokens
    assert unbounded.evaluations <= cheaper + length - 1, "the way to the first whole secret comes on top"


def test_a_search_beyond_its_budget_is_unknown():
    model, tree = tiny_model(sharp=0.5), SecretFormat.of(DIGITS, 6)

    found = best_first(model, PREFIX, tree, bos_id=BOS, device=CPU, budget=300)

    assert (found.tokens, found.finished, found.evaluations) == (None, False, 300)
    assert found.cost >= best_first(model, PREFIX, tree, bos_id=BOS, device=CPU, budget=ENOUGH).cost
    bound = 6 * math.log(VOCAB)
    assert count_at_most(model, PREFIX, tree, bound, bos_id=BOS, device=CPU, budget=300) is None
    assert count_at_most(model, PREFIX, tree, bound, bos_id=BOS, device=CPU, budget=ENOUGH) is not None


def test_a_count_needs_exactly_the_beginnings_within_the_bound():
    """4 digits, all certain to be within the bound: 4 + 16 + 64 beginnings are read for 256 secrets."""
    model, tree = tiny_model(), SecretFormat.of(DIGITS, 4)

    assert count_at_most(model, PREFIX, tree, 1e9, bos_id=BOS, device=CPU, budget=84) == 256
    assert count_at_most(model, PREFIX, tree, 1e9, bos_id=BOS, device=CPU, budget=83) is None


def test_a_search_stops_at_the_first_secret_cheaper_than_asked():
    model, tree = tiny_model(sharp=0.5), SecretFormat.of(DIGITS, 6)
    whole = best_first(model, PREFIX, tree, bos_id=BOS, device=CPU, budget=ENOUGH)

    found = best_first(model, PREFIX, tree, bos_id=BOS, device=CPU, budget=ENOUGH, stop_below=whole.cost + 2)

    assert not found.finished
    assert whole.cost <= found.cost < whole.cost + 2
    assert found.evaluations < whole.evaluations


def test_a_search_may_find_that_nothing_is_as_cheap_as_asked():
    found = best_first(
        tiny_model(), PREFIX, SecretFormat.of(WORDS, 2), bos_id=BOS, device=CPU, budget=ENOUGH, at_most=1e-9
    )

    assert (found.tokens, found.cost, found.finished) == (None, math.inf, True)


def test_secrets_of_one_token_need_no_reading():
    model, tree = tiny_model(), SecretFormat.of(DIGITS, 1)

    found = best_first(model, PREFIX, tree, bos_id=BOS, device=CPU, budget=0)

    assert found.finished
    assert found.evaluations == 0
    assert found.tokens in DIGITS
