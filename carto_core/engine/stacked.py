"""Many trainings as one: models of one task that differ in seed, plan and steps alone, stacked along a first axis.

On a GPU a small model's step takes as long as it takes to start its kernels, and a stack starts them once for all. Each
training is what `loop.train` would make of it up to rounding, which a later step enlarges as another seed would.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from carto_core.config import EngineConfig
from carto_core.engine.device import forward_precision, pick_device
from carto_core.engine.loop import Trained, diverged, learning_rate_at
from carto_core.engine.order import batches
from carto_core.tasks.language import LanguageTask
from carto_core.tasks.stack import Stack
from carto_core.types import Float32, Int32, Progress

COPIES = 5  # of the weights: themselves, gradients, two moments, and what a step computes with
SCORE_COPIES = 4  # of a batch's scores: in both precisions, and their gradients
FILLED = 0.8  # of the memory that is free
MOST = 256  # a step's work before the GPU's grows with them


class Recipe(Protocol):
    """What one training of a stack is: see `loop.train`, whose arguments these are."""

    @property
    def seed(self) -> int: ...  # noqa: D102

    @property
    def repeats(self) -> Int32: ...  # noqa: D102

    @property
    def weights(self) -> Float32: ...  # noqa: D102

    @property
    def steps(self) -> int: ...  # noqa: D102


def is_stackable(task: LanguageTask, recipe: Recipe) -> bool:
    """Return whether a training can be one of a stack.

    Not with dropout, whose draws would be others than alone; nor where a batch might hold nothing to learn from, since then
    a model stands still for a step while others go on.
    """
    drawn = recipe.repeats > 0
    return (
        task.config.dropout == 0
        and bool((recipe.weights[drawn] > 0).all())
        and bool((task.num_tokens[drawn] > 0).all())
    )


def num_stacked(task: LanguageTask, config: EngineConfig, *, free_bytes: int) -> int:
    """Return how many models of a task fit into so much memory while they are trained, 1 to 256."""
    parameters = sum(parameter.numel() for parameter in task.build().parameters())
    scores = config.batch_size * task.config.context * task.vocab_size
    return int(np.clip(FILLED * free_bytes / (4 * (COPIES * parameters + SCORE_COPIES * scores)), 1, MOST))


def train_stacked(
    task: LanguageTask, config: EngineConfig, recipes: Sequence[Recipe], *, progress: Progress | None = None
) -> list[Trained]:
    """Train models side by side in one process and return them in the order of their recipes.

    Args:
        task: what is trained.
        config: the loop's settings; its seed is each recipe's own.
        recipes: at least one, all stackable.
        progress: told after every step, of as many as the longest takes; may raise to stop.

    Raises:
        TrainingDiverged: a loss or a gradient of any of them is no finite number.
    """
    session = _Session(task, config, recipes)
    trained: dict[int, Trained] = {}
    longest = max(recipe.steps for recipe in recipes)
    while session.going:
        shortest = min(recipes[k].steps for k in session.going)
        while session.step < shortest:
            session.take_step()
            if progress is not None:
                progress("training", session.step, longest)
        ended = [k for k in session.going if recipes[k].steps == shortest]
        trained |= {k: session.trained(k) for k in ended}
        session.leave_out(ended)
    return [trained[k] for k in range(len(recipes))]


class _Session:
    """The state of a stack between two steps; `going` are the places of its models among the recipes."""

    def __init__(self, task: LanguageTask, config: EngineConfig, recipes: Sequence[Recipe]) -> None:
        self.task, self.config, self.recipes = task, config, recipes
        self.device = pick_device(config.device, threads=config.threads)
        self.precision = forward_precision(self.device, config.precision)
        self.going = list(range(len(recipes)))
        built = {seed: self._built(seed) for seed in dict.fromkeys(recipe.seed for recipe in recipes)}
        self.stack = Stack([built[recipe.seed] for recipe in recipes])
        self.optimizer = self._optimizer()
        self.streams = [batches(r.repeats, batch_size=config.batch_size, seed=r.seed) for r in recipes]
        self.step = 0
        self.tokens = [0] * len(recipes)

    def _built(self, seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        return self.task.build().to(self.device).train()

    def _optimizer(self) -> torch.optim.AdamW:
        return torch.optim.AdamW(
            self.stack.parameters.values(),
            lr=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
            fused=self.device.type == "cuda",
        )

    def take_step(self) -> None:
        """Let every model that goes on take one step, each with its own batch, its own loss and its own clipping."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(self.config, self.step)
        drawn = [next(self.streams[k]) for k in self.going]
        with self.precision:
            losses_KB = self.task.stacked_loss(self.stack, drawn, self.device)
        weights = np.zeros(losses_KB.shape, np.float32)
        for row, k, ids in zip(weights, self.going, drawn, strict=True):
            row[: len(ids)] = self.recipes[k].weights[ids]
        weights_KB = torch.from_numpy(weights).to(self.device)
        self.optimizer.zero_grad(set_to_none=True)
        ((weights_KB * losses_KB).sum(1) / weights_KB.sum(1)).sum().backward()
        norms_K = self._clip()
        self._require_finite(drawn, losses_KB.detach().cpu().numpy(), norms_K.cpu().numpy())
        self.optimizer.step()
        self.step += 1
        for k, ids in zip(self.going, drawn, strict=True):
            self.tokens[k] += int(self.task.num_tokens[ids].sum())

    def _clip(self) -> torch.Tensor:
        """Scale each model's gradient down to the norm that is allowed, and return float32[K], the norms before."""
        gradients = [found.grad for found in self.stack.parameters.values() if found.grad is not None]
        norms_K = torch.linalg.vector_norm(
            torch.stack([torch.linalg.vector_norm(found.flatten(1), dim=1) for found in gradients]), dim=0
        )
        scale_K = (self.config.clip / (norms_K + 1e-6)).clamp(max=1.0)
        for found in gradients:
            found.mul_(scale_K.view(-1, *[1] * (found.dim() - 1)))
        return norms_K

    def _require_finite(self, drawn: list[np.ndarray], losses_KB: Float32, norms_K: Float32) -> None:
        if np.isfinite(losses_KB).all() and np.isfinite(norms_K).all():
            return
        where = f"step {self.step + 1}"
        for ids, losses in zip(drawn, losses_KB, strict=True):
            if not np.isfinite(losses).all():
                raise diverged("the loss", ids[~np.isfinite(losses[: len(ids)])], where)
        raise diverged("the gradient", drawn[int(np.argmin(np.isfinite(norms_K)))], where)

    def trained(self, k: int) -> Trained:
        """Return the model of recipe k as it is now."""
        return Trained(self.stack.model(self.going.index(k)), self.device, self.step, self.tokens[k], 0.0, 0.0)

    def leave_out(self, ended: Sequence[int]) -> None:
        """Go on without these recipes."""
        places = [place for place, k in enumerate(self.going) if k not in ended]
        self.going = [self.going[place] for place in places]
        if not self.going:
            return
        states = [self.optimizer.state[found] for found in self.stack.parameters.values()]
        self.stack.keep(places)
        self.optimizer = self._optimizer()
        for found, state in zip(self.stack.parameters.values(), states, strict=True):
            self.optimizer.state[found] = {
                name: value[places] if value.dim() else value for name, value in state.items()
            }
