"""Many models of one architecture computed as one: every parameter stacked along a first axis.

A small model leaves a GPU idle while its next kernel is started; of a stack, one kernel computes all. Shape suffixes: K
models, B rows of a batch, T positions, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel


class Stack:
    """Models that differ in their weights alone.

    A model computes a stack itself where it has a method `stacked_scores(parameters, tokens_KBT)`; any other is mapped
    over by torch, which its operations have to allow.

    Args:
        models: at least one, all built alike, without dropout and without buffers.

    Attributes:
        parameters: float32[K, ...] by name, leaves that gather gradients.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self._form = models[0]
        named = [dict(model.named_parameters()) for model in models]
        self.parameters = {
            name: torch.stack([of_model[name].detach() for of_model in named]).requires_grad_() for name in named[0]
        }

    def __call__(self, tokens_KBT: torch.Tensor) -> torch.Tensor:
        """Return scores float[K, B, T, V] before the softmax; model k reads `tokens_KBT[k]`, int64."""
        if hasattr(self._form, "stacked_scores"):
            return self._form.stacked_scores(self.parameters, tokens_KBT)  # pyright: ignore[reportCallIssue]
        with sdpa_kernel(SDPBackend.MATH):  # the one kernel of attention that torch maps over everywhere
            return vmap(self._scores)(self.parameters, tokens_KBT)

    def _scores(self, parameters: dict[str, torch.Tensor], tokens_BT: torch.Tensor) -> torch.Tensor:
        return functional_call(self._form, parameters, (tokens_BT,))[0]

    def keep(self, places: Sequence[int]) -> None:
        """Leave out all models but those at `places`; what refers to the parameters of before is void."""
        self.parameters = {
            name: found.detach()[list(places)].requires_grad_() for name, found in self.parameters.items()
        }

    def model(self, place: int) -> nn.Module:
        """Return a model of its own, in evaluation mode, with the weights at `place`."""
        alone = copy.deepcopy(self._form)
        with torch.no_grad():
            for name, parameter in alone.named_parameters():
                parameter.copy_(self.parameters[name][place])
        return alone.eval()
