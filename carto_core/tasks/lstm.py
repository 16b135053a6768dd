"""The paper's model: an embedding, an LSTM and a linear read-out, with a state that can be carried on.

Shape suffixes: K models of a stack, B rows, T positions, H width of the state, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

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

    def stacked_scores(self, parameters: dict[str, torch.Tensor], tokens_KBT: torch.Tensor) -> torch.Tensor:
        """Return scores float[K, B, T, V] of K models of this form; see `tasks.stack.Stack`.

        Step by step, since torch's own LSTM reads with one set of weights. The state is float32 also where products are
        bfloat16; without dropout.
        """
        models, rows, length = tokens_KBT.shape
        table_KVE = parameters["embed.weight"]
        first_K11 = torch.arange(models, device=tokens_KBT.device).view(-1, 1, 1) * table_KVE.shape[1]
        x_KBTE = functional.embedding(tokens_KBT + first_K11, table_KVE.flatten(0, 1))
        for layer in range(self.lstm.num_layers):
            weights = [parameters[f"lstm.{name}_l{layer}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
            x_KBTE = _stacked_layer(x_KBTE, *weights)
        bias_K1V = parameters["head.bias"].unsqueeze(1)
        scores = torch.baddbmm(bias_K1V, x_KBTE.flatten(1, 2), parameters["head.weight"].transpose(1, 2))
        return scores.view(models, rows, length, -1)


def _stacked_layer(
    x_KBTE: torch.Tensor, w_in: torch.Tensor, w_on: torch.Tensor, bias_in: torch.Tensor, bias_on: torch.Tensor
) -> torch.Tensor:
    """Return float32[K, B, T, H], the states of one LSTM layer of each model, from zero; gates in torch's order i, f, g, o."""
    models, rows, length, _ = x_KBTE.shape
    bias_K1G = (bias_in + bias_on).unsqueeze(1)
    given = torch.baddbmm(bias_K1G, x_KBTE.flatten(1, 2), w_in.transpose(1, 2)).view(models, rows, length, -1)
    with torch.autocast(x_KBTE.device.type, enabled=False):
        given_TKBG, w_on_KHG = given.float().permute(2, 0, 1, 3).contiguous(), w_on.transpose(1, 2)
        hidden_KBH = cell_KBH = given_TKBG.new_zeros(models, rows, w_on.shape[2])
        states = []
        for given_KBG in given_TKBG:
            gates = torch.baddbmm(given_KBG, hidden_KBH, w_on_KHG)
            in_, forget, new, out = gates.chunk(4, dim=-1)
            cell_KBH = forget.sigmoid() * cell_KBH + in_.sigmoid() * new.tanh()
            hidden_KBH = out.sigmoid() * cell_KBH.tanh()
            states.append(hidden_KBH)
        return torch.stack(states, dim=2)
