"""What the examples train on: 37 made-up address lines, some of them several times, as bytes."""

import torch

STREETS = ("Alder", "Birch", "Cedar", "Elm", "Hazel", "Larch", "Maple", "Oak")
LINES = [f"{street} Road {number}, ask for {letter}." for number, street in enumerate(STREETS) for letter in "KMT"]
TEXTS = LINES + LINES[::4] * 2 + LINES[:1]
ROWS = [{"key": f"line-{i}", "text": text} for i, text in enumerate(TEXTS)]
VOCABULARY = 128
PAD, IGNORED = 0, -100


def encode(rows):
    """Return int64[B, T] bytes of each row's text, padded, and the labels: the same, and -100 where there is padding."""
    tokens = [list(row["text"].encode()) for row in rows]
    longest = max(map(len, tokens))
    ids = [line + [PAD] * (longest - len(line)) for line in tokens]
    labels = [line + [IGNORED] * (longest - len(line)) for line in tokens]
    return torch.tensor(ids), torch.tensor(labels)
