"""How hard each sample pulls on the weights: the squared gradient norm of its loss."""

from __future__ import annotations

import numpy as np
import torch

from carto_core.tasks.base import Task
from carto_core.types import Float64


def gradient_norms(task: Task, model: torch.nn.Module, sample_ids: np.ndarray, device: torch.device) -> Float64:
    """Return float64[B]: ||gradient of each sample's loss||^2 over all trained weights, in (nats per token)^2.

    Times the learning rate and summed over checkpoints this is TracIn's self-influence under plain gradient descent
    (Pruthi et al., arXiv 2002.08484); what an adaptive optimizer does to the gradient is not in it. Exact, one sample
    at a time: recurrent layers have no rule for a batch of gradients. Dropout is off.

    Args:
        task: whose `per_sample_loss` is differentiated.
        model: at the weights of one checkpoint; left as it was.
        sample_ids: int[B].
        device: where the model is.

    Returns:
        NaN for a sample without predicted units.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    was_training = model.training
    model.eval()
    # cuDNN's recurrent layers refuse a backward pass in evaluation mode
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        norms = [_squared_norm(task, model, sample, weights, device) for sample in np.asarray(sample_ids).tolist()]
    model.train(was_training)
    return np.array(norms, np.float64)


def _squared_norm(
    task: Task, model: torch.nn.Module, sample: int, weights: list[torch.nn.Parameter], device: torch.device
) -> float:
    if task.num_tokens[sample] == 0:
        return float("nan")
    loss = task.per_sample_loss(model, np.array([sample]), device)[0]
    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    # one transfer a sample, whatever the number of weights
    return float(torch.stack([g.double().square().sum() for g in gradients if g is not None]).sum())
