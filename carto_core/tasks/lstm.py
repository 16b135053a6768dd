"""The paper's model: an embedding, an LSTM and a linear read-out, with a state that can be carried on."""

from __future__ import annotations

import torch
from torch import nn

from carto_core.config import ModelConfig

State = tuple[torch.Tensor, torch.Tensor]


def build(config: ModelConfig, vocab_size: int) -> nn.Module:
    """Return a freshly initialised LSTM for a vocabulary of `vocab_size`."""
    return LSTMLanguageModel(config, vocab_size)


class LSTMLanguageModel(nn.Module):
    """Next-token scores from a recurrent state. Causal: padding on the right never reaches a real token."""

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        assert config.embed is not None
        self.embed = nn.Embedding(vocab_size, config.embed)
        between = config.dropout if config.layers > 1 else 0.0
        self.lstm = nn.LSTM(config.embed, config.hidden, config.layers, batch_first=True, dropout=between)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.hidden, vocab_size)

    def forward(self, tokens_BT: torch.Tensor, state: State | None = None) -> tuple[torch.Tensor, State | None]:
        """Return scores float[B, T, V] before the softmax, and the state after the last token.

        Args:
            tokens_BT: int64[B, T].
            state: what an earlier call returned, to go on from there; None starts afresh.
        """
        hidden_BTH, state = self.lstm(self.embed(tokens_BT), state)
        return self.head(self.dropout(hidden_BTH)), state
