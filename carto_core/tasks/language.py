"""Language modelling: texts as windows of tokens, one loss per text.

Shape suffixes: K models of a stack, B samples and R rows of a batch, T positions, V vocabulary.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from carto_core.config import ModelConfig
from carto_core.corpus.tokens import Tokens
from carto_core.errors import UnknownNameError
from carto_core.tasks import TASKS
from carto_core.tasks.stack import Stack
from carto_core.types import Float32

IGNORE = -100
# One forward pass without gradients holds at most so many positions, and positions times vocabulary. Bounds memory
# (0.25 GiB of float32 scores), does not change a loss.
MEASURE_TOKENS = 16_384
MEASURE_SCORES = 2**26


class LanguageModel(Protocol):
    """What this module needs of a model: scores, and a state that can be carried on.

    A state is a tensor, or a tuple of states; every tensor in it has the batch on axis 1.
    """

    def __call__(self, tokens_BT: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        """Return float[B, T, V] and the state."""
        ...


class TokenStatistics(NamedTuple):
    """What a model thought of every token, laid out as `tokens.ids`: float32[sum of lengths] each.

    Attributes:
        loss: -log p of the token, in nats.
        mean: sum_v p_v log p_v, the log-probability that the model expected at that place, in nats.
        std: standard deviation of log p_v under p, in nats.
        el2n: ||p - onehot||_2 (Paul et al., arXiv 2107.07075), in [0, sqrt 2].
        correct: 1 where no other token is more probable, else 0: what greedy decoding would write there.
    """

    loss: Float32
    mean: Float32
    std: Float32
    el2n: Float32
    correct: Float32


@dataclass(frozen=True)
class Windows:
    """Texts cut into rows of at most `context` tokens; every token is predicted exactly once.

    The first row of a text begins with BOS, a later row with the last token of the row before.

    Attributes:
        sample: int64[R], which text a row belongs to, ascending.
        start: int64[R], where a row's targets begin in `tokens.ids`.
        length: int64[R], how many targets it has.
        first: int64[N + 1], rows of text i are `first[i]:first[i + 1]`.
    """

    sample: np.ndarray
    start: np.ndarray
    length: np.ndarray
    first: np.ndarray

    @classmethod
    def of(cls, tokens: Tokens, context: int) -> Windows:
        """Return the rows of all texts; an empty text has none."""
        lengths = tokens.lengths.astype(np.int64)
        rows = -(-lengths // context)
        first = np.concatenate([[0], np.cumsum(rows)])
        sample = np.repeat(np.arange(len(lengths)), rows)
        place = np.arange(first[-1]) - first[sample]
        start = tokens.offsets[sample] + place * context
        return cls(sample, start, np.minimum(context, tokens.offsets[sample + 1] - start), first)

    def rows_of(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of some texts, and for each row the place of its text in `samples`."""
        counts = self.first[samples + 1] - self.first[samples]
        owner = np.repeat(np.arange(len(samples)), counts)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return self.first[samples][owner] + within, owner


class LanguageTask:
    """The `Task` of next-token prediction over a fixed set of texts.

    Args:
        config: the model's name and size.
        tokens: of the training samples.
        vocab_size: of the tokenizer.
        bos_id: what every text begins with.

    Raises:
        UnknownNameError: `config.task` is not in `TASKS`.
    """

    def __init__(self, config: ModelConfig, tokens: Tokens, *, vocab_size: int, bos_id: int) -> None:
        if config.task not in TASKS:
            raise UnknownNameError.of("task", config.task, TASKS)
        self.config = config
        self.tokens = tokens
        self.vocab_size = vocab_size
        self.bos_id = bos_id
        self.num_samples = len(tokens)
        self.num_tokens = tokens.lengths
        self._windows = Windows.of(tokens, config.context)

    def build(self) -> nn.Module:
        """Return a freshly initialised model; its weights come from torch's global generator."""
        module, function = TASKS[self.config.task].builder.split(":")
        return getattr(importlib.import_module(module), function)(self.config, self.vocab_size)

    def per_sample_loss(self, model: nn.Module, sample_ids: np.ndarray, device: torch.device) -> torch.Tensor:
        """Return float32[B]: each sample's mean cross-entropy over its tokens, in nats; NaN for an empty text."""
        rows, owner = self._windows.rows_of(np.asarray(sample_ids, np.int64))
        loss_BT = self._row_losses(model, rows, device)
        owners = torch.from_numpy(owner).to(device)
        total = torch.zeros(len(sample_ids), device=device).index_add(0, owners, loss_BT.sum(1))
        return total / torch.from_numpy(self.num_tokens[sample_ids].astype(np.float32)).to(device)

    def stacked_loss(self, stack: Stack, sample_ids: Sequence[np.ndarray], device: torch.device) -> torch.Tensor:
        """Return float32[K, B]: `per_sample_loss` of each model of a stack on samples of its own; 0 where it has fewer than B."""
        sizes = np.array([len(mine) for mine in sample_ids])
        ids = np.concatenate(sample_ids).astype(np.int64)
        model, place = _numbered(sizes)
        rows, owner = self._windows.rows_of(ids)
        counts = np.bincount(model[owner], minlength=len(sizes))
        shape_KB, shape_KR, at = (len(sizes), sizes.max()), (len(sizes), counts.max()), _numbered(counts)
        # a row that only fills up loses 0, so it may go to the first sample
        owner_KR, tokens_KB = np.zeros(shape_KR, np.int64), np.ones(shape_KB, np.float32)
        owner_KR[at] = model[owner] * shape_KB[1] + place[owner]
        tokens_KB[model, place] = self.num_tokens[ids]
        inputs, targets = self._batch(rows)
        inputs_KRT = torch.full((*shape_KR, inputs.shape[1]), self.bos_id)
        targets_KRT = torch.full_like(inputs_KRT, IGNORE)
        inputs_KRT[at], targets_KRT[at] = inputs, targets
        scores_KRTV = stack(inputs_KRT.to(device))
        loss_KRT = functional.cross_entropy(
            scores_KRTV.float().flatten(0, 2), targets_KRT.to(device).flatten(), reduction="none", ignore_index=IGNORE
        ).view(targets_KRT.shape)
        total = torch.zeros(tokens_KB.size, device=device)
        total = total.index_add(0, torch.from_numpy(owner_KR).to(device).flatten(), loss_KRT.sum(2).flatten())
        return total.view(shape_KB) / torch.from_numpy(tokens_KB).to(device)

    @torch.no_grad()
    def measure(self, model: nn.Module, device: torch.device) -> Float32:
        """Return float32[N]: every sample's mean cross-entropy under the present weights, in nats; NaN for an empty text."""
        total = np.zeros(self.num_samples, np.float64)
        for rows, loss_BT in self._measured_rows(model, device):
            np.add.at(total, self._windows.sample[rows], loss_BT.sum(1, dtype=torch.float64).cpu().numpy())
        with np.errstate(invalid="ignore"):
            return (total / self.num_tokens).astype(np.float32)

    @torch.no_grad()
    def token_losses(self, model: nn.Module, device: torch.device) -> Float32:
        """Return float32[sum of lengths]: the loss of every token, in nats, laid out as `tokens.ids`."""
        losses = np.full(len(self.tokens.ids), np.nan, np.float32)
        for rows, loss_BT in self._measured_rows(model, device):
            self._lay_out(losses, rows, loss_BT)
        return losses

    @torch.no_grad()
    def token_statistics(self, model: nn.Module, device: torch.device) -> TokenStatistics:
        """Return five numbers of every token under the present weights."""
        found = np.full((5, len(self.tokens.ids)), np.nan, np.float32)
        for rows, values_5BT in self._measured_rows(model, device, self._row_statistics):
            self._lay_out(found, rows, values_5BT)
        return TokenStatistics(*found)

    def _lay_out(self, flat: Float32, rows: np.ndarray, values: torch.Tensor) -> None:
        """Put what rows measured, [..., B, T], where their tokens are in `flat`, [..., sum of lengths]."""
        place = np.arange(values.shape[-1])
        real = place < self._windows.length[rows, None]
        flat[..., (self._windows.start[rows, None] + place)[real]] = values.cpu().numpy()[..., real]

    def _measured_rows(
        self, model: nn.Module, device: torch.device, measured: Callable[..., torch.Tensor] | None = None
    ) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Yield rows of like length with what `measured` says of them: by default token losses, [B, T], 0 at padding."""
        was_training = model.training
        model.eval()
        order = np.argsort(self._windows.length, kind="stable")
        start, positions = 0, min(MEASURE_TOKENS, MEASURE_SCORES // self.vocab_size)
        while start < len(order):
            longest_fit = positions // self._windows.length[order[start : start + positions]]
            count = max(1, int((longest_fit >= np.arange(1, len(longest_fit) + 1)).sum()))
            rows = order[start : start + count]
            yield rows, (measured or self._row_losses)(model, rows, device)
            start += count
        model.train(was_training)

    def _row_losses(self, model: nn.Module, rows: np.ndarray, device: torch.device) -> torch.Tensor:
        inputs, targets = self._batch(rows)
        logits_BTV, _ = model(inputs.to(device))
        # The loss is taken in float32 whatever the model computes in; flat, because that is twice as fast, and because
        # CUDA's loss over a class axis in the middle is not repeatable.
        flat = functional.cross_entropy(
            logits_BTV.float().flatten(0, 1), targets.to(device).flatten(), reduction="none", ignore_index=IGNORE
        )
        return flat.view(targets.shape)

    def _row_statistics(self, model: nn.Module, rows: np.ndarray, device: torch.device) -> torch.Tensor:
        """Return float32[5, B, T] in the order of `TokenStatistics`; what stands at padding means nothing."""
        inputs, targets = self._batch(rows)
        logits_BTV, _ = model(inputs.to(device))
        log_p_BTV = functional.log_softmax(logits_BTV.float(), dim=-1)
        target_BT1 = targets.to(device).clamp(min=0)[..., None]
        chosen_BT1 = log_p_BTV.gather(-1, target_BT1)
        p_BTV = log_p_BTV.exp()
        mean_BT1 = (p_BTV * log_p_BTV).sum(-1, keepdim=True)
        # the centred form: E[x^2] - E[x]^2 cancels in float32 where all tokens are about as likely
        std_BT = (p_BTV * (log_p_BTV - mean_BT1) ** 2).sum(-1).sqrt()
        el2n_BT = p_BTV.scatter(-1, target_BT1, chosen_BT1.expm1()).norm(dim=-1)
        correct_BT = (chosen_BT1[..., 0] >= log_p_BTV.amax(-1)).float()
        return torch.stack([-chosen_BT1[..., 0], mean_BT1[..., 0], std_BT, el2n_BT, correct_BT])

    def _batch(self, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Return int64 inputs and targets [B, T]; padding has target IGNORE."""
        start, length = self._windows.start[rows], self._windows.length[rows]
        place = np.arange(max(1, int(length.max(initial=0))))
        real = place < length[:, None]
        targets = np.where(real, self.tokens.ids[np.where(real, start[:, None] + place, 0)], IGNORE).astype(np.int64)
        opens_text = start == self.tokens.offsets[self._windows.sample[rows]]
        before = np.where(opens_text, self.bos_id, self.tokens.ids[np.maximum(start - 1, 0)])
        inputs = np.concatenate([before[:, None], targets[:, :-1]], axis=1)
        return torch.from_numpy(np.where(inputs == IGNORE, self.bos_id, inputs)), torch.from_numpy(targets)


def _numbered(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return int64[sum of sizes] twice, of things that lie group by group: which group one is of, and its place there."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    return group, np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
