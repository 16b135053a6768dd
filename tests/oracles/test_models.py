"""Self-influence, perplexity and forget events: Captum, lm-eval and dPrune."""

import math

import numpy as np
import pytest
import torch

from carto_core.config import ModelConfig
from carto_core.corpus.prepared import Tokens
from carto_core.scores import trajectory
from carto_core.tasks.influence import gradient_norms
from carto_core.tasks.language import LanguageTask

CPU = torch.device("cpu")
VOCAB, BOS, LENGTH = 15, 0, 6


def task_of(num_texts=7, *, length=LENGTH):
    ids = np.random.default_rng(0).integers(1, VOCAB, num_texts * length).astype(np.int32)
    tokens = Tokens(ids, np.arange(num_texts + 1) * length)
    return LanguageTask(ModelConfig(embed=5, hidden=7, context=16), tokens, vocab_size=VOCAB, bos_id=BOS)


class Scores(torch.nn.Module):
    """The model as Captum wants it: scores alone, one row a text."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, tokens):
        return self.model(tokens)[0]


def mean_cross_entropy(scores, targets):
    """float[B]: nats per token of each text."""
    return torch.nn.functional.cross_entropy(scores.transpose(1, 2), targets, reduction="none").mean(1)


def test_self_influence_of_captum(oracle, tmp_path):
    influence = oracle("captum.influence")
    task = task_of()
    targets = torch.from_numpy(task.tokens.ids.reshape(-1, LENGTH).astype(np.int64))
    inputs = torch.cat([torch.full((len(targets), 1), BOS), targets[:, :-1]], dim=1)
    rates, ours = {"a": 0.5, "b": 0.1}, np.zeros(len(targets))
    for seed, (name, rate) in enumerate(rates.items()):
        torch.manual_seed(seed)
        model = task.build()
        torch.save(Scores(model).state_dict(), tmp_path / name)
        ours += rate * gradient_norms(task, model, np.arange(len(targets)), CPU)

    def load(module, path):
        module.load_state_dict(torch.load(path))
        return rates[path.rsplit("/", 1)[-1]]

    theirs = influence.TracInCP(
        Scores(task.build()),
        torch.utils.data.TensorDataset(inputs, targets),
        [str(tmp_path / name) for name in rates],
        checkpoints_load_func=load,
        loss_fn=_Reduced(),
        batch_size=3,
        sample_wise_grads_per_batch=False,
    ).self_influence()

    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4)


class _Reduced(torch.nn.Module):
    """Loss per text; Captum reads `reduction` and differentiates each."""

    reduction = "none"

    def forward(self, scores, targets):
        return mean_cross_entropy(scores, targets)


def test_perplexity_and_bits_per_byte_of_lm_eval(oracle):
    metrics = oracle("lm_eval.api.metrics")
    task = task_of()
    torch.manual_seed(0)
    losses = task.token_losses(task.build().eval(), CPU).astype(np.float64).reshape(-1, LENGTH)
    pairs = [(-text.sum(), LENGTH) for text in losses]
    in_bytes = [(-text.sum(), 4 * LENGTH) for text in losses]

    assert math.exp(losses.mean()) == pytest.approx(metrics.weighted_perplexity(pairs), rel=1e-12)
    assert losses.sum() / (losses.size * 4 * math.log(2)) == pytest.approx(metrics.bits_per_byte(in_bytes), rel=1e-12)


def test_forget_events_of_dprune(oracle):
    callbacks = oracle("dprune.callbacks")
    losses = np.random.default_rng(0).gamma(2, 1, (20, 50)).astype(np.float32)
    eps = np.full(20, 1.5)
    callback = callbacks.ForgettingCallback()
    callback.learning_events = {i: (losses[:, i] < 1.5).astype(int).tolist() for i in range(50)}

    ours = trajectory.memorization(losses, eps=eps) * 19

    np.testing.assert_allclose(ours, callback.calculate_forgetting_scores(), atol=1e-5)
