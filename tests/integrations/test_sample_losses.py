import math

import pytest
import torch

from carto_core import per_sample_loss
from carto_core.errors import ConfigError


def slow_twin(logits, labels):
    """One token at a time, in Python floats."""
    losses, counts = [], []
    for rows, targets in zip(logits.tolist(), labels.tolist(), strict=True):
        nats = []
        for scores, target in zip(rows[:-1], targets[1:], strict=True):
            if target != -100:
                top = max(scores)
                nats.append(top + math.log(sum(math.exp(s - top) for s in scores)) - scores[target])
        losses.append(sum(nats) / len(nats) if nats else math.nan)
        counts.append(len(nats))
    return losses, counts


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_are_those_of_a_slow_twin_to_1e_5(dtype):
    generator = torch.Generator().manual_seed(0)
    logits = (10 * torch.randn(6, 9, 17, generator=generator)).to(dtype)
    labels = torch.randint(0, 17, (6, 9), generator=generator)
    labels[0, 4:] = labels[1, :3] = labels[2, ::2] = -100
    labels[3] = -100
    labels[4, 1:] = -100

    losses, num_tokens = per_sample_loss(logits, labels)

    expected, counts = slow_twin(logits.float(), labels)
    assert num_tokens.tolist() == counts
    torch.testing.assert_close(losses, torch.tensor(expected), rtol=1e-5, atol=0, equal_nan=True)
    assert losses.isnan().tolist() == [False, False, False, True, True, False]


def test_no_gradient_is_kept():
    logits = torch.randn(2, 3, 5, requires_grad=True)

    losses, _ = per_sample_loss(logits, torch.zeros(2, 3, dtype=torch.long))

    assert not losses.requires_grad


def test_shapes_that_do_not_fit_are_told():
    with pytest.raises(ConfigError, match=r"got \(2, 3\) and \(2, 3\)"):
        per_sample_loss(torch.randn(2, 3), torch.zeros(2, 3, dtype=torch.long))
