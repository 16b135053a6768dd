"""What a causal language model gives away of each token's loss while it is trained: seen, not computed a second time."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any, Self

import torch
from torch import nn

from carto_core.errors import ConfigError
from carto_core.integrations.losses import per_sample_loss, sample_means

# What every way to a cross entropy comes to (`F.cross_entropy` however it was imported, `nn.CrossEntropyLoss`), looked up
# anew at each call. A mode of torch.overrides would see it too, but makes every other call slower.
_NN: Any = torch._C._nn  # pyright: ignore[reportAttributeAccessIssue]
_NAME = "cross_entropy_loss"
_NO_REDUCTION, _SUM = 0, 2

_lock = threading.Lock()
_watchers = 0  # threads in which somebody watches; only while there are any, the function is ours
_plain: Any = None
_here = threading.local()


class TokenLosses:
    """While it is entered, notes the token losses of each cross entropy of this thread that reduces them to one number.

    The gradient is the same to the last bit, and the number but for the order of its sum: only that is done here. A call that weighs or
    smooths labels is left as it is, and so is one that asks for the losses themselves: who does masks some of them later.

    Attributes:
        seen: of each call, losses and whether the token is predicted (bool), as its targets were laid out; no gradients.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._before: TokenLosses | None = None

    def __enter__(self) -> Self:
        global _watchers, _plain
        with _lock:
            if _watchers == 0:
                _plain = getattr(_NN, _NAME)
                setattr(_NN, _NAME, _cross_entropy_loss)
            _watchers += 1
        self._before, _here.watcher = getattr(_here, "watcher", None), self
        return self

    def __exit__(self, *error: object) -> None:
        global _watchers
        _here.watcher = self._before
        with _lock:
            _watchers -= 1
            if _watchers == 0:
                setattr(_NN, _NAME, _plain)

    def note(self, scores: torch.Tensor, target: torch.Tensor, reduction: int, ignore_index: int) -> torch.Tensor:
        """Return the reduced loss of one call, and keep its losses."""
        losses = _plain(scores, target, None, _NO_REDUCTION, ignore_index, 0.0)
        predicted = target != ignore_index
        self.seen.append((losses.detach(), predicted))
        return losses.sum() if reduction == _SUM else losses.sum() / predicted.sum()


def _cross_entropy_loss(
    scores: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    reduction: int = 1,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    watcher: TokenLosses | None = getattr(_here, "watcher", None)
    is_plain = weight is None and not label_smoothing and not target.is_floating_point()
    if watcher is None or reduction == _NO_REDUCTION or not is_plain:
        return _plain(scores, target, weight, reduction, ignore_index, label_smoothing)
    return watcher.note(scores, target, reduction, ignore_index)


class Watched:
    """What was seen of one forward pass.

    Attributes:
        tokens: the token losses that the model's own loss function computed.
        outputs: what the model returned, of each call.
    """

    def __init__(self) -> None:
        self.tokens = TokenLosses()
        self.outputs: list[Any] = []

    def sample_losses(self, labels: torch.Tensor | None, *, num_samples: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean loss of each sample and its tokens, from what was seen: at no cost where the token losses were.

        Args:
            labels: int64[B, T], not shifted; needed where only logits were seen.
            num_samples: B.

        Returns:
            float32[B] and int64[B], as `per_sample_loss`.

        Raises:
            ConfigError: nothing was seen that a loss of each sample can be had from, or not one row for each.
        """
        outputs = self.outputs[0] if self.outputs else None
        if _of(outputs, "log_probs") is not None and _of(outputs, "label_mask") is not None:
            losses, predicted = -_of(outputs, "log_probs").detach(), _of(outputs, "label_mask").bool()
        elif len(self.tokens.seen) == 1 and _fits(self.tokens.seen[0][0], num_samples):
            losses, predicted = (values.reshape(num_samples, -1) for values in self.tokens.seen[0])
        elif _of(outputs, "logits") is not None and labels is not None:
            _require_rows(_of(outputs, "logits"), num_samples)
            return per_sample_loss(_of(outputs, "logits"), labels)
        else:
            raise ConfigError(
                f"the step gave neither log-probabilities nor one cross entropy over the tokens of {num_samples} samples nor "
                "logits and labels, so that no sample's loss is known; work it out and give it to log() of carto_core.record"
            )
        _require_rows(outputs if torch.is_tensor(outputs) else _of(outputs, "logits", losses), num_samples)
        return sample_means(losses, predicted)


def _fits(losses: torch.Tensor, num_samples: int) -> bool:
    return losses.numel() % num_samples == 0 if losses.ndim == 1 else len(losses) == num_samples


def _require_rows(values: torch.Tensor, num_samples: int) -> None:
    if len(values) != num_samples:
        raise ConfigError(
            f"the model saw {len(values)} rows for {num_samples} samples: where several samples share a row (packing, padding "
            "free) or one has several (preferences), no sample has a loss of its own; switch that off"
        )


def _of(outputs: Any, name: str, default: Any = None) -> Any:
    return outputs.get(name, default) if isinstance(outputs, Mapping) else getattr(outputs, name, default)


@contextmanager
def watching(model: nn.Module) -> Iterator[Watched]:
    """Watch a model for the while: what it returns, and the token losses that are computed in it or from it.

    Args:
        model: as the training step calls it, wrapped or not. Of one that torch.compile made, only what it returns.
    """
    seen = Watched()
    handle = model.register_forward_hook(lambda module, args, outputs: seen.outputs.append(outputs))
    try:
        if _is_compiled(model):
            yield seen
        else:
            with seen.tokens:
                yield seen
    finally:
        handle.remove()


@contextmanager
def watching_losses() -> Iterator[Watched]:
    """Watch what happens in the while, whichever model it is: the token losses of a cross entropy."""
    seen = Watched()
    with seen.tokens:
        yield seen


def _is_compiled(model: nn.Module) -> bool:
    return any("_orig_mod" in module._modules for module in islice(model.modules(), 3))
