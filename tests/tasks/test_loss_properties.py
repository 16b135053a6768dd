"""A loss belongs to its text and the weights alone: the company in a batch, its order and the padding it brings change none.

Within 1e-6 nats in float32: two units in the last place of a loss of 4 to 8 nats, so no arithmetic in float32 does better.
"""

import functools

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carto_core.tasks import language
from tests.tasks.test_language import MODELS, loud_model, ragged_task

CPU = torch.device("cpu")
NATS = 1e-6
bounded = settings(derandomize=True, deadline=None, max_examples=15)
lengths = st.lists(st.integers(1, 40), min_size=1, max_size=10).map(tuple)


@functools.cache
def made(kind, texts, seed=0):
    """A task over texts of these lengths, a model, and each text's loss in a batch of its own."""
    task = ragged_task(kind, list(texts), seed=seed)
    model = loud_model(task, seed)
    with torch.no_grad():
        alone = [task.per_sample_loss(model, np.array([i]), CPU).item() for i in range(len(texts))]
    return task, model, np.array(alone)


def off(found, expected):
    return float(np.abs(found - expected).max())


@bounded
@given(kind=st.sampled_from(sorted(MODELS)), texts=lengths, seed=st.integers(0, 3), data=st.data())
def test_a_loss_is_the_same_in_any_batch_in_any_order(kind, texts, seed, data):
    task, model, alone = made(kind, texts, seed)
    batch = data.draw(st.lists(st.integers(0, len(texts) - 1), min_size=1, max_size=12))

    with torch.no_grad():
        found = task.per_sample_loss(model, np.array(batch), CPU).numpy()

    assert off(found, alone[batch]) <= NATS


@bounded
@given(kind=st.sampled_from(sorted(MODELS)), texts=lengths, scores=st.integers(1, 2000))
def test_a_measured_loss_is_the_same_however_many_are_read_at_a_time(kind, texts, scores):
    task, model, alone = made(kind, texts)
    whole = language.MEASURE_SCORES
    try:
        language.MEASURE_SCORES = scores * task.vocab_size
        found = task.measure(model, CPU)
    finally:
        language.MEASURE_SCORES = whole

    assert off(found, alone) <= NATS


@bounded
@given(kind=st.sampled_from(sorted(MODELS)), texts=lengths, padding=st.integers(1, 8))
def test_padding_changes_no_loss(kind, texts, padding):
    task, model, alone = made(kind, texts)
    batch = task._batch

    def padded(rows):
        inputs, targets = batch(rows)
        room = min(padding, task.config.context - inputs.shape[1])
        pad = torch.nn.functional.pad
        return pad(inputs, (0, room), value=task.bos_id), pad(targets, (0, room), value=language.IGNORE)

    task._batch = padded
    try:
        with torch.no_grad():
            found = task.per_sample_loss(model, np.arange(len(texts)), CPU).numpy()
            measured = task.measure(model, CPU)
    finally:
        del task._batch

    assert off(found, alone) <= NATS
    assert off(measured, alone) <= NATS


@bounded
@given(kind=st.sampled_from(sorted(MODELS)), texts=lengths)
def test_measuring_twice_gives_the_same_bits(kind, texts):
    task, model, _ = made(kind, texts)

    assert task.measure(model, CPU).tobytes() == task.measure(model, CPU).tobytes()
