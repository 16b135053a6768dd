"""The seam between the engine and what is trained."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from carto_core.types import Int32


class Task(Protocol):
    """A model and a loss per sample. The engine calls these four and knows nothing else of the data."""

    num_samples: int
    num_tokens: Int32  # int32[N]: predicted units behind each sample's loss

    def build(self) -> torch.nn.Module:
        """Return a freshly initialised model; its weights come from torch's global generator."""
        ...

    def per_sample_loss(self, model: torch.nn.Module, sample_ids: np.ndarray, device: torch.device) -> torch.Tensor:
        """Return float32[B]: each sample's mean loss per predicted unit, in nats; NaN for one without any.

        A sample's loss does not depend on which others share its batch.
        """
        ...

    def measure(self, model: torch.nn.Module, device: torch.device) -> np.ndarray:
        """Return float32[N]: `per_sample_loss` of every sample under the model's present weights, without gradients."""
        ...
