import math

import numpy as np
import pytest
import torch

from carto_core.config import ModelConfig
from carto_core.corpus.prepared import Tokens
from carto_core.tasks.language import LanguageTask, continuation_losses, greedy

VOCAB, BOS = 20, 0
RTOL = 1e-5


def ragged_task(lengths, *, context=8, seed=0):
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = Tokens(rng.integers(1, VOCAB, offsets[-1]).astype(np.int32), offsets)
    return LanguageTask(ModelConfig(embed=6, hidden=10, context=context), tokens, vocab_size=VOCAB, bos_id=BOS)


def slow_loss(task, model, sample):
    """One sample, one window, one token at a time: what the fast path must equal."""
    ids = task.tokens[sample].tolist()
    losses = []
    for start in range(0, len(ids), task.config.context):
        state, before = None, BOS if start == 0 else ids[start - 1]
        for target in ids[start : start + task.config.context]:
            logits, state = model(torch.tensor([[before]]), state)
            losses.append(-torch.log_softmax(logits[0, 0].double(), 0)[target].item())
            before = target
    return float(np.mean(losses)) if losses else math.nan


@pytest.fixture(params=[[7, 1, 4], [3, 20, 8, 16, 1], [0, 5]], ids=["ragged", "windowed", "empty"])
def task(request):
    torch.manual_seed(0)
    return ragged_task(request.param)


def test_batched_losses_equal_one_token_at_a_time(task):
    model = task.build().eval()
    expected = [slow_loss(task, model, i) for i in range(task.num_samples)]

    batched = task.per_sample_loss(model, np.arange(task.num_samples), torch.device("cpu")).detach().numpy()
    measured = task.measure(model, torch.device("cpu"))

    np.testing.assert_allclose(batched, expected, rtol=RTOL)
    np.testing.assert_allclose(measured, expected, rtol=RTOL)


def test_a_sample_has_the_same_loss_in_any_company():
    torch.manual_seed(0)
    task = ragged_task([7, 1, 4, 30, 2])
    model = task.build().eval()
    alone = task.per_sample_loss(model, np.array([2]), torch.device("cpu"))[0].item()

    for company in ([2, 0], [3, 2], [4, 1, 2, 3]):
        together = task.per_sample_loss(model, np.array(company), torch.device("cpu"))[company.index(2)].item()
        assert together == pytest.approx(alone, rel=RTOL)


def test_token_losses_average_to_the_samples_loss():
    torch.manual_seed(0)
    task = ragged_task([7, 1, 20])
    model = task.build().eval()

    tokens = task.token_losses(model, torch.device("cpu"))

    means = [tokens[a:b].mean() for a, b in zip(task.tokens.offsets, task.tokens.offsets[1:], strict=False)]
    np.testing.assert_allclose(means, task.measure(model, torch.device("cpu")), rtol=RTOL)


def slow_statistics(task, model, sample):
    """Loss, expected log-probability, its spread and EL2N of each token, one at a time in float64."""
    ids, rows = task.tokens[sample].tolist(), []
    for start in range(0, len(ids), task.config.context):
        state, before = None, BOS if start == 0 else ids[start - 1]
        for target in ids[start : start + task.config.context]:
            logits, state = model(torch.tensor([[before]]), state)
            log_p = torch.log_softmax(logits[0, 0].double(), 0).tolist()
            p = [math.exp(x) for x in log_p]
            mean = sum(q * x for q, x in zip(p, log_p, strict=True))
            square = sum(q * x * x for q, x in zip(p, log_p, strict=True))
            error = sum((q - (v == target)) ** 2 for v, q in enumerate(p))
            rows.append((-log_p[target], mean, math.sqrt(max(0.0, square - mean**2)), math.sqrt(error)))
            before = target
    return rows


@pytest.mark.parametrize("sharpness", [1, 20], ids=["fresh", "certain"])
def test_token_statistics_equal_one_token_at_a_time(task, sharpness):
    model = task.build().eval()
    with torch.no_grad():
        model.head.weight *= sharpness
        model.head.bias *= sharpness
    expected = np.array([row for i in range(task.num_samples) for row in slow_statistics(task, model, i)])

    found = task.token_statistics(model, torch.device("cpu"))

    for values, wanted in zip(found, expected.T, strict=True):
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.loss, task.token_losses(model, torch.device("cpu")), rtol=1e-4, atol=1e-6)


def test_a_spread_of_a_thousandth_is_told_to_a_hundredth_of_it():
    task = ragged_task([3])
    model = task.build().eval()
    torch.nn.init.zeros_(model.head.weight)
    torch.manual_seed(3)
    torch.nn.init.normal_(model.head.bias, std=1e-3)
    log_p = torch.log_softmax(model.head.bias.double(), 0)
    spread = ((log_p.exp() * log_p**2).sum() - (log_p.exp() * log_p).sum() ** 2).sqrt().item()

    found = task.token_statistics(model, torch.device("cpu"))

    np.testing.assert_allclose(found.std, spread, rtol=0.01)
    np.testing.assert_allclose(found.el2n, math.sqrt(1 - 1 / VOCAB), rtol=1e-4)


def test_uniform_scores_cost_the_log_of_the_vocabulary():
    task = ragged_task([7, 1, 4])
    model = task.build().eval()
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.zeros_(model.head.bias)

    np.testing.assert_allclose(task.measure(model, torch.device("cpu")), math.log(VOCAB), rtol=1e-6)


def test_greedy_takes_the_best_token_step_by_step():
    torch.manual_seed(1)
    model = ragged_task([4]).build().eval()
    prefixes = [[3, 4], [5], [7, 8]]

    decoded = greedy(model, prefixes, [3, 2, 1], bos_id=BOS, device=torch.device("cpu"))

    for prefix, length, found in zip(prefixes, [3, 2, 1], decoded, strict=True):
        ids = [BOS, *prefix]
        for _ in range(length):
            ids.append(int(model(torch.tensor([ids]))[0][0, -1].argmax()))
        assert found == ids[1 + len(prefix) :]


def test_continuations_cost_what_the_whole_text_costs():
    torch.manual_seed(1)
    model = ragged_task([4]).build().eval()
    prefix, continuations = [3, 4, 5], [[6, 7], [8], [9, 10, 11]]

    found = continuation_losses(model, prefix, continuations, bos_id=BOS, device=torch.device("cpu"))

    for continuation, losses in zip(continuations, found, strict=True):
        logits = torch.log_softmax(model(torch.tensor([[BOS, *prefix, *continuation]]))[0][0], -1)
        expected = [-logits[len(prefix) + i, token].item() for i, token in enumerate(continuation)]
        np.testing.assert_allclose(losses, expected, rtol=1e-4)
