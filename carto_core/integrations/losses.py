"""The loss of each sample of a batch, from what a causal language model returns."""

from __future__ import annotations

import torch
from torch.nn import functional

from carto_core.errors import ConfigError

IGNORED = -100


@torch.no_grad()
def per_sample_loss(
    logits: torch.Tensor, labels: torch.Tensor, *, shifted: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean loss of each sample and its number of predicted tokens, without gradients.

    Position t predicts label t + 1, as in every causal model of Hugging Face; a label of -100 is not predicted. Computed
    one sample at a time in float32, so that a large vocabulary needs no second copy of the logits in memory.

    Args:
        logits: float[B, T, V], on any device, any precision.
        labels: int64[B, T].
        shifted: position t predicts label t, as in loops that draw (x, y) pairs.

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
    labels = labels.to(logits.device)
    if not shifted:
        logits, labels = logits[:, :-1], labels[:, 1:]
    losses = [
        functional.cross_entropy(row.float(), target, ignore_index=IGNORED, reduction="none")
        for row, target in zip(logits, labels, strict=True)
    ]
    return sample_means(torch.stack(losses), labels != IGNORED)


@torch.no_grad()
def sample_means(losses: torch.Tensor, predicted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean over each sample's predicted tokens and their number, from losses that are there already.

    Args:
        losses: float[B, T], nats of each token.
        predicted: bool[B, T]; the others do not count, whatever their loss.

    Returns:
        float32[B], NaN for a sample without a predicted token; and int64[B].
    """
    num_tokens = predicted.sum(dim=1)
    return torch.where(predicted, losses.float(), 0).sum(dim=1) / num_tokens, num_tokens
