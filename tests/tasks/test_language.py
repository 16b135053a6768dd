import math

import numpy as np
import pytest
import torch

from carto_core.config import ModelConfig
from carto_core.corpus.tokens import Tokens
from carto_core.tasks import language
from carto_core.tasks.decoding import continuation_losses, greedy
from carto_core.tasks.language import LanguageTask

VOCAB, BOS = 20, 0
RTOL = 1e-5
MODELS = {
    "lstm": {"embed": 6, "hidden": 10},
    "gpt": {"hidden": 12, "layers": 2, "heads": 3},
}


@pytest.fixture(params=MODELS)
def kind(request):
    return request.param


def ragged_task(kind, lengths, *, context=8, seed=0):
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = Tokens(rng.integers(1, VOCAB, offsets[-1]).astype(np.int32), offsets)
    config = ModelConfig(task=kind, context=context, **MODELS[kind])
    return LanguageTask(config, tokens, vocab_size=VOCAB, bos_id=BOS)


def loud_model(task, seed=0):
    """A model whose scores depend on all that it reads: a fresh transformer's hardly do."""
    torch.manual_seed(seed)
    model = task.build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    return model


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
def task(request, kind):
    return ragged_task(kind, request.param)


def test_batched_losses_equal_one_token_at_a_time(task):
    model = loud_model(task)
    expected = [slow_loss(task, model, i) for i in range(task.num_samples)]

    batched = task.per_sample_loss(model, np.arange(task.num_samples), torch.device("cpu")).detach().numpy()
    measured = task.measure(model, torch.device("cpu"))

    np.testing.assert_allclose(batched, expected, rtol=RTOL)
    np.testing.assert_allclose(measured, expected, rtol=RTOL)


def test_a_sample_has_the_same_loss_in_any_company(kind):
    task = ragged_task(kind, [7, 1, 4, 30, 2])
    model = loud_model(task)
    alone = task.per_sample_loss(model, np.array([2]), torch.device("cpu"))[0].item()

    for company in ([2, 0], [3, 2], [4, 1, 2, 3]):
        together = task.per_sample_loss(model, np.array(company), torch.device("cpu"))[company.index(2)].item()
        assert together == pytest.approx(alone, rel=RTOL)


def test_token_losses_average_to_the_samples_loss(kind):
    task = ragged_task(kind, [7, 1, 20])
    model = loud_model(task)

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
            rows.append(
                (-log_p[target], mean, math.sqrt(max(0.0, square - mean**2)), math.sqrt(error), p[target] == max(p))
            )
            before = target
    return rows


def check_statistics(task, model):
    expected = np.array([row for i in range(task.num_samples) for row in slow_statistics(task, model, i)])

    found = task.token_statistics(model, torch.device("cpu"))

    for values, wanted in zip(found, expected.T, strict=True):
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.loss, task.token_losses(model, torch.device("cpu")), rtol=1e-4, atol=1e-6)


def test_token_statistics_equal_one_token_at_a_time(task):
    check_statistics(task, loud_model(task))


def test_token_statistics_hold_where_the_model_is_nearly_certain():
    task = ragged_task("lstm", [3, 20, 8])
    model = task.build().eval()
    with torch.no_grad():
        model.head.weight *= 20
        model.head.bias *= 20

    check_statistics(task, model)


def test_where_all_tokens_are_as_likely_the_spread_is_zero():
    task = ragged_task("lstm", [3])
    model = task.build().eval()
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)

    found = task.token_statistics(model, torch.device("cpu"))

    np.testing.assert_allclose(found.std, 0, atol=1e-6)
    np.testing.assert_allclose(found.mean, -math.log(VOCAB), rtol=1e-6)
    np.testing.assert_allclose(found.el2n, math.sqrt(1 - 1 / VOCAB), rtol=1e-6)


def test_uniform_scores_cost_the_log_of_the_vocabulary(kind):
    task = ragged_task(kind, [7, 1, 4])
    model = task.build().eval()
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)

    np.testing.assert_allclose(task.measure(model, torch.device("cpu")), math.log(VOCAB), rtol=1e-6)


def test_measuring_in_small_passes_changes_no_loss(kind, monkeypatch):
    task = ragged_task(kind, [7, 1, 4, 30, 2, 8, 8])
    model = loud_model(task)
    whole = task.measure(model, torch.device("cpu"))

    monkeypatch.setattr(language, "MEASURE_SCORES", 9 * VOCAB)

    assert max(len(rows) for rows, _ in task._measured_rows(model, torch.device("cpu"))) == 2
    np.testing.assert_allclose(task.measure(model, torch.device("cpu")), whole, rtol=RTOL)


def test_in_bfloat16_the_loss_is_the_float32_loss_of_the_models_scores(kind):
    task = ragged_task(kind, [8, 8])
    model = loud_model(task)
    exact = task.measure(model, torch.device("cpu"))

    with torch.autocast("cpu", torch.bfloat16):
        losses = task.per_sample_loss(model, np.arange(2), torch.device("cpu"))
        logits, _ = model(torch.tensor([[BOS, *task.tokens[i][:-1].tolist()] for i in range(2)]))

    assert logits.dtype == torch.bfloat16
    assert losses.dtype == torch.float32
    rows = torch.log_softmax(logits[0].double(), -1)
    expected = -rows[torch.arange(8), torch.from_numpy(task.tokens[0].astype(np.int64))].mean().item()
    assert losses[0].item() == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(losses.detach().numpy(), exact, rtol=0.03)
    assert not np.array_equal(losses.detach().numpy(), exact)
    assert task.per_sample_loss(model.to(torch.bfloat16), np.arange(2), torch.device("cpu")).dtype == torch.float32


def test_greedy_takes_the_best_token_step_by_step(kind):
    model = loud_model(ragged_task(kind, [4]), seed=1)
    prefixes = [[3, 4], [5], [7, 8]]

    decoded = greedy(model, prefixes, [3, 2, 1], bos_id=BOS, device=torch.device("cpu"))

    for prefix, length, found in zip(prefixes, [3, 2, 1], decoded, strict=True):
        ids = [BOS, *prefix]
        for _ in range(length):
            ids.append(int(model(torch.tensor([ids]))[0][0, -1].argmax()))
        assert found == ids[1 + len(prefix) :]


def test_continuations_cost_what_the_whole_text_costs(kind):
    model = loud_model(ragged_task(kind, [4]), seed=1)
    prefix, continuations = [3, 4, 5], [[6, 7], [8], [9, 10, 11]]

    found = continuation_losses(model, prefix, continuations, bos_id=BOS, device=torch.device("cpu"))

    for continuation, losses in zip(continuations, found, strict=True):
        logits = torch.log_softmax(model(torch.tensor([[BOS, *prefix, *continuation]]))[0][0], -1)
        expected = [-logits[len(prefix) + i, token].item() for i, token in enumerate(continuation)]
        np.testing.assert_allclose(losses, expected, rtol=1e-4)
