"""A loop in the manner of nanoGPT, recorded: the lines that are ours end with `# carto`.

python docs/examples/plain_loop.py data/runs/plain-loop
"""

import sys

import torch
from rows import IGNORED, ROWS, VOCABULARY, encode
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

import carto_core  # carto

WIDTH, LONGEST = 32, 64


class GPT(nn.Module):
    """One causal block; returns logits and the mean loss, as nanoGPT's does."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.places = nn.Embedding(LONGEST, WIDTH)
        self.block = nn.TransformerEncoderLayer(WIDTH, 2, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, x, y):
        """Predict y, int64[B, T], from x."""
        length = x.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        hidden = self.block(self.tokens(x) + self.places(torch.arange(length)), src_mask=mask, is_causal=True)
        logits = self.head(hidden)
        loss = functional.cross_entropy(logits.view(-1, VOCABULARY), y.reshape(-1), ignore_index=IGNORED)
        return logits, loss


def batch_of(rows):
    """Return the keys of the rows, what is read and what is to be predicted."""
    ids, labels = encode(rows)
    return [row["key"] for row in rows], ids[:, :-1], labels[:, 1:]


def main(run):
    """Train for eight passes."""
    torch.manual_seed(0)
    model = GPT()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    loader = DataLoader(ROWS, batch_size=6, shuffle=True, collate_fn=batch_of)
    with carto_core.record(run, corpus=ROWS) as recorder:  # carto
        for _ in range(8):
            for keys, x, y in loader:
                with recorder.watch(keys):  # carto
                    _, loss = model(x, y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            recorder.snapshot()  # carto


if __name__ == "__main__":
    main(sys.argv[1])
