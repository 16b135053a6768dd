import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from carto_core.config import EngineConfig, ModelConfig
from carto_core.corpus.tokens import Tokens
from carto_core.engine.loop import train
from carto_core.engine.stacked import is_stackable, num_stacked, train_stacked
from carto_core.errors import Cancelled, TrainingDiverged
from carto_core.tasks.language import LanguageTask

CONFIG = EngineConfig(epochs=3, batch_size=4, device="cpu", learning_rate=3e-3)
MODELS = {
    "lstm": ModelConfig(embed=5, hidden=7, context=6),
    "lstm of two layers": ModelConfig(embed=5, hidden=7, layers=2, context=6),
    "gpt": ModelConfig(task="gpt", hidden=8, layers=2, heads=2, context=6),
}
NUM_SAMPLES = 18


@dataclass(frozen=True)
class Recipe:
    seed: int
    repeats: np.ndarray
    weights: np.ndarray
    steps: int


def some_task(model="lstm", *, empty=False):
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 15, NUM_SAMPLES)  # of up to three windows
    if empty:
        lengths[2] = 0
    ids = rng.integers(1, 30, lengths.sum()).astype(np.int32)
    return LanguageTask(MODELS[model], Tokens(ids, np.concatenate([[0], np.cumsum(lengths)])), vocab_size=30, bos_id=0)


def recipe(seed=0, *, pruned=(), doubled=(), halved=(), steps=12):
    repeats, weights = np.ones(NUM_SAMPLES, np.int32), np.ones(NUM_SAMPLES, np.float32)
    repeats[list(pruned)], repeats[list(doubled)], weights[list(halved)] = 0, 2, 0.5
    return Recipe(seed, repeats, weights, steps)


RECIPES = [
    recipe(),
    recipe(seed=1, pruned=range(7), steps=20),
    recipe(doubled=(3, 4), halved=range(9), steps=17),
    recipe(seed=1, steps=12),
]


def alone(task, one, config=CONFIG):
    config = dataclasses.replace(config, seed=one.seed)
    return train(task, config, repeats=one.repeats, weights=one.weights, steps=one.steps)


@pytest.mark.parametrize("model", MODELS)
def test_every_model_of_a_stack_is_what_it_would_be_alone(model):
    task = some_task(model)

    stacked = train_stacked(task, CONFIG, RECIPES)

    for one, found in zip(RECIPES, stacked, strict=True):
        wanted = alone(task, one)
        assert (found.steps, found.tokens) == (wanted.steps, wanted.tokens)
        losses = task.measure(found.model, found.device)
        np.testing.assert_allclose(losses, task.measure(wanted.model, wanted.device), rtol=0, atol=2e-5)
        assert not found.model.training
    assert np.abs(losses - task.measure(stacked[0].model, stacked[0].device)).max() > 1e-3, "seeds differ"


def test_a_stack_in_bfloat16_is_near_what_its_models_would_be_alone():
    task, config = some_task(), dataclasses.replace(CONFIG, precision="bf16")

    (found,) = train_stacked(task, config, [recipe()])

    wanted = alone(task, recipe(), config)
    difference = task.measure(found.model, found.device) - task.measure(wanted.model, wanted.device)
    assert 0 < np.abs(difference).max() < 0.05


def test_gradients_are_clipped_for_each_model_by_itself():
    task, config = some_task(), dataclasses.replace(CONFIG, clip=0.05)

    stacked = train_stacked(task, config, RECIPES[:2])

    for one, found in zip(RECIPES, stacked, strict=False):
        wanted = alone(task, one, config)
        np.testing.assert_allclose(
            task.measure(found.model, found.device), task.measure(wanted.model, wanted.device), rtol=0, atol=2e-5
        )


def test_what_cannot_be_one_of_a_stack():
    task = some_task()
    dropping = LanguageTask(dataclasses.replace(MODELS["gpt"], dropout=0.1), task.tokens, vocab_size=30, bos_id=0)
    unweighted = dataclasses.replace(recipe(), weights=np.zeros(NUM_SAMPLES, np.float32))

    assert is_stackable(task, recipe(halved=(1, 2)))
    assert not is_stackable(dropping, recipe())
    assert not is_stackable(task, unweighted)
    assert not is_stackable(some_task(empty=True), recipe())
    assert is_stackable(some_task(empty=True), recipe(pruned=[2]))


def test_as_many_as_fit_into_the_memory():
    task = some_task()
    weights = sum(p.numel() for p in task.build().parameters())
    one = 4 * (5 * weights + 4 * 4 * 6 * 30)

    assert num_stacked(task, CONFIG, free_bytes=0) == 1
    assert num_stacked(task, CONFIG, free_bytes=10 * one) == 8
    assert num_stacked(task, CONFIG, free_bytes=10**12) == 256


def test_progress_counts_the_steps_of_the_longest_and_may_stop_it():
    told = []
    train_stacked(some_task(), CONFIG, RECIPES[:2], progress=lambda *line: told.append(line))

    assert told == [("training", step, 20) for step in range(1, 21)]

    def stop(*_):
        raise Cancelled

    with pytest.raises(Cancelled):
        train_stacked(some_task(), CONFIG, RECIPES[:2], progress=stop)


def test_one_that_diverges_says_where():
    with pytest.raises(TrainingDiverged, match="step"):
        train_stacked(some_task(), dataclasses.replace(CONFIG, learning_rate=1e38), RECIPES[:2])


def test_a_stack_leaves_torch_as_repeatable_as_a_training_does():
    train_stacked(some_task(), CONFIG, [recipe(steps=1)])

    assert torch.are_deterministic_algorithms_enabled()
