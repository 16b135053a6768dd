"""The loss of each sample of a batch, from what a causal language model returns."""

from __future__ import annotations

import torch
from torch.nn import functional

from carto_core.errors import ConfigError

IGNORED = -100


@torch.no_grad()
def per_sample_loss(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean loss of each sample and its number of predicted tokens, without gradients.

    Position t predicts label t + 1, as in every causal model of Hugging Face; a label of -100 is not predicted. Computed
    one sample at a time in float32, so that a large vocabulary needs no second copy of the logits in memory.

    Args:
        logits: float[B, T, V], on any device, any precision.
        labels: int64[B, T], not shifted.

    Returns:
        float32[B], nats per token, NaN for a sample without a predicted token; and int64[B], its tokens. Both on the
        device of the logits, which is not waited for.

    Raises:
        ConfigError: the shapes do not fit.
    """
    if logits.ndim != 3 or labels.shape != logits.shape[:2]:
        raise ConfigError(
            f"per_sample_loss needs logits [B, T, V] and labels [B, T], got {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    targets = labels[:, 1:].to(logits.device)
    num_tokens = (targets != IGNORED).sum(dim=1)
    sums = [
        functional.cross_entropy(row[:-1].float(), target, ignore_index=IGNORED, reduction="sum")
        for row, target in zip(logits, targets, strict=True)
    ]
    return torch.stack(sums) / num_tokens, num_tokens
