"""In which order samples are trained on: a pure function of seed, plan and step, so that a resumed run goes on alike."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from carto_core.config import EngineConfig
from carto_core.errors import PlanError
from carto_core.types import Int32


def batches(repeats: Int32, *, batch_size: int, seed: int, start_step: int = 0) -> Iterator[np.ndarray]:
    """Yield batches of sample ids without end, one epoch's shuffle after the other.

    An epoch holds sample i `repeats[i]` times. Every batch lies within one epoch, the last of an epoch may be smaller.

    Args:
        repeats: int32[N].
        batch_size: samples a step.
        seed: of the order.
        start_step: how many batches to pass over.

    Raises:
        PlanError: the plan leaves nothing to train on.
    """
    drawn = np.repeat(np.arange(len(repeats)), repeats)
    if len(drawn) == 0:
        raise PlanError("the plan prunes every sample; leave at least one to train on")
    per_epoch = steps_per_epoch(repeats, batch_size=batch_size)
    epoch, skip = divmod(start_step, per_epoch)
    while True:
        order = drawn[np.random.default_rng([seed, 4, epoch]).permutation(len(drawn))]
        for place in range(skip, per_epoch):
            yield order[place * batch_size : (place + 1) * batch_size]
        epoch, skip = epoch + 1, 0


def steps_per_epoch(repeats: Int32, *, batch_size: int) -> int:
    """Return the optimizer steps of one epoch under a plan's repeats."""
    return -(-int(repeats.sum()) // batch_size)


def total_steps(config: EngineConfig, repeats: Int32) -> int:
    """Return the optimizer steps of `config.epochs` passes over a plan; at least 1."""
    return max(1, round(config.epochs * steps_per_epoch(repeats, batch_size=config.batch_size)))
