import math

import numpy as np
import pytest
import torch

from carto_core.config import ModelConfig
from carto_core.corpus.prepared import Tokens
from carto_core.tasks.language import LanguageTask

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


def test_uniform_scores_cost_the_log_of_the_vocabulary():
    task = ragged_task([7, 1, 4])
    model = task.build().eval()
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.zeros_(model.head.bias)

    np.testing.assert_allclose(task.measure(model, torch.device("cpu")), math.log(VOCAB), rtol=1e-6)
