import math

import numpy as np
import pytest
import torch

from carto_core.config import ModelConfig
from carto_core.corpus.prepared import Tokens
from carto_core.tasks.influence import gradient_norms
from carto_core.tasks.language import LanguageTask

VOCAB, BOS = 12, 0
CPU = torch.device("cpu")


def ragged(lengths, *, dropout=0.0, context=4):
    rng = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = Tokens(rng.integers(1, VOCAB, offsets[-1]).astype(np.int32), offsets)
    config = ModelConfig(embed=3, hidden=4, context=context, dropout=dropout)
    return LanguageTask(config, tokens, vocab_size=VOCAB, bos_id=BOS)


def mean_loss(task, model, sample):
    """One token at a time, in the model's own precision."""
    ids, losses = task.tokens[sample].tolist(), []
    for start in range(0, len(ids), task.config.context):
        state, before = None, BOS if start == 0 else ids[start - 1]
        for target in ids[start : start + task.config.context]:
            logits, state = model(torch.tensor([[before]]), state)
            losses.append(-torch.log_softmax(logits[0, 0], 0)[target])
            before = target
    return sum(losses) / len(losses)


def slow_norm(task, model, sample, *, step=1e-5):
    """Central differences in float64: one weight at a time, two losses each."""
    total = 0.0
    with torch.no_grad():
        for weight in model.parameters():
            flat = weight.view(-1)
            for i in range(len(flat)):
                flat[i] += step
                above = mean_loss(task, model, sample)
                flat[i] -= 2 * step
                below = mean_loss(task, model, sample)
                flat[i] += step
                total += ((above - below) / (2 * step)).item() ** 2
    return total


def test_it_is_the_squared_norm_of_finite_differences():
    torch.manual_seed(0)
    task = ragged([3, 1, 6])
    model = task.build()
    double = task.build().double()
    double.load_state_dict(model.state_dict())
    expected = [slow_norm(task, double.eval(), i) for i in range(3)]

    found = gradient_norms(task, model, np.arange(3), CPU)

    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_samples_come_back_in_the_order_asked_for_and_an_empty_one_is_unknown():
    torch.manual_seed(0)
    task = ragged([3, 0, 6])
    model = task.build()
    whole = gradient_norms(task, model, np.arange(3), CPU)

    assert math.isnan(whole[1])
    np.testing.assert_array_equal(gradient_norms(task, model, np.array([2, 0, 2]), CPU), whole[[2, 0, 2]])
    assert gradient_norms(task, model, np.array([], int), CPU).shape == (0,)


def test_the_model_is_left_as_it_was_and_dropout_is_off():
    torch.manual_seed(0)
    task = ragged([3, 6], dropout=0.5)
    model = task.build().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    with torch.no_grad():
        found = [gradient_norms(task, model, np.arange(2), CPU) for _ in range(2)]

    np.testing.assert_array_equal(*found)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())


def test_a_frozen_or_unused_weight_counts_nothing():
    torch.manual_seed(0)
    task = ragged([5])
    model = task.build()
    whole = gradient_norms(task, model, np.array([0]), CPU)[0]
    model.register_parameter("unused", torch.nn.Parameter(torch.ones(3)))
    assert gradient_norms(task, model, np.array([0]), CPU)[0] == whole
    loss = task.per_sample_loss(model, np.array([0]), CPU)[0]
    head = torch.autograd.grad(loss, model.head.bias)[0].square().sum().item()

    model.head.bias.requires_grad_(False)

    assert gradient_norms(task, model, np.array([0]), CPU)[0] == pytest.approx(whole - head, rel=1e-5)
