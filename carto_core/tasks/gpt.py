"""A decoder-only transformer in the GPT-2 architecture, at any size, with a key/value cache that can be carried on.

Learned positions, LayerNorm before each branch, tanh GELU, biases everywhere, one matrix for embedding and read-out.
Sizes and initialisation: Radford et al., Language Models are Unsupervised Multitask Learners, 2019.

Shape suffixes: B rows, T positions read in this call, S positions read so far (the T included), C width, H heads,
D width of a head (C = H * D), V vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from carto_core.config import ModelConfig
from carto_core.errors import ConfigError

Layer = tuple[torch.Tensor, torch.Tensor]  # keys and values, each float[H, B, S, D]
State = tuple[Layer, ...]

INIT_STD = 0.02


def build(config: ModelConfig, vocab_size: int) -> nn.Module:
    """Return a freshly initialised transformer for a vocabulary of `vocab_size`."""
    return GPTLanguageModel(config, vocab_size)


class GPTLanguageModel(nn.Module):
    """Next-token scores by causal self-attention: padding on the right never reaches a real token.

    The table of positions has exactly `config.context` rows, as GPT-2's has, since a row that no training window
    reaches would stay random. So the model refuses to read further than that, rather than guess.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        assert config.heads is not None
        self.context = config.context
        self.embed = nn.Embedding(vocab_size, config.hidden)
        self.place = nn.Embedding(config.context, config.hidden)
        self.dropout = nn.Dropout(config.dropout)
        blocks = [_Block(config.hidden, config.heads, config.dropout) for _ in range(config.layers)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(config.hidden)
        self.apply(_initialise)
        for block in blocks:
            for branch_end in (block.attended, block.narrow):
                nn.init.normal_(branch_end.weight, std=INIT_STD / math.sqrt(2 * config.layers))

    def forward(self, tokens_BT: torch.Tensor, state: State | None = None) -> tuple[torch.Tensor, State]:
        """Return scores float[B, T, V] before the softmax, and the state after the last token.

        Args:
            tokens_BT: int64[B, T].
            state: what an earlier call returned, to go on from there; None starts afresh.

        Raises:
            ConfigError: more than `context` positions would have been read.
        """
        past = 0 if state is None else state[0][0].shape[2]
        end = past + tokens_BT.shape[1]
        if end > self.context:
            raise ConfigError(
                f"this model reads at most {self.context} tokens in one go and was given {end}; "
                "train with a larger --context, or ask about shorter texts"
            )
        places_T = torch.arange(past, end, device=tokens_BT.device)
        x_BTC = self.dropout(self.embed(tokens_BT) + self.place(places_T))
        mask_TS = _mask(past, end, tokens_BT.device)
        after: list[Layer] = []
        for layer, block in enumerate(self.blocks):
            x_BTC, seen = block(x_BTC, None if state is None else state[layer], mask_TS)
            after.append(seen)
        return functional.linear(self.norm(x_BTC), self.embed.weight), tuple(after)


class _Block(nn.Module):
    """Attention, then a feed-forward network four times as wide; each reads a normed copy and adds to the stream."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.drop_share = dropout
        self.norm_attention = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.norm_network = nn.LayerNorm(width)
        self.wide = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x_BTC: torch.Tensor, past: Layer | None, mask_TS: torch.Tensor | None
    ) -> tuple[torch.Tensor, Layer]:
        """Return the stream float[B, T, C] and this layer's keys and values of all positions read so far."""
        mixed_BTC, seen = self._attend(self.norm_attention(x_BTC), past, mask_TS)
        x_BTC = x_BTC + self.dropout(self.attended(mixed_BTC))
        hidden = functional.gelu(self.wide(self.norm_network(x_BTC)), approximate="tanh")
        return x_BTC + self.dropout(self.narrow(hidden)), seen

    def _attend(
        self, x_BTC: torch.Tensor, past: Layer | None, mask_TS: torch.Tensor | None
    ) -> tuple[torch.Tensor, Layer]:
        rows, length, width = x_BTC.shape
        split = self.query_key_value(x_BTC).view(rows, length, 3, self.heads, width // self.heads)
        q_BHTD, k_BHSD, v_BHSD = split.permute(2, 0, 3, 1, 4)
        if past is not None:
            k_BHSD = torch.cat([past[0].transpose(0, 1), k_BHSD], dim=2)
            v_BHSD = torch.cat([past[1].transpose(0, 1), v_BHSD], dim=2)
        mixed_BHTD = functional.scaled_dot_product_attention(
            q_BHTD,
            k_BHSD,
            v_BHSD,
            attn_mask=mask_TS,
            dropout_p=self.drop_share if self.training else 0.0,
            is_causal=past is None,
        )
        # Views, not copies: a training step never looks at its state.
        seen = (k_BHSD.transpose(0, 1), v_BHSD.transpose(0, 1))
        return mixed_BHTD.transpose(1, 2).reshape(rows, length, width), seen


def _mask(past: int, end: int, device: torch.device) -> torch.Tensor | None:
    """Return bool[T, S], True where a position may look; None where torch's causal flag says it, or all may be seen."""
    if past == 0 or end - past == 1:
        return None
    return torch.ones(end - past, end, dtype=torch.bool, device=device).tril(diagonal=past)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=INIT_STD)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
