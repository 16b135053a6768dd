"""A loop of Accelerate, on any number of ranks; each records what it saw itself. The lines that are ours end with `# carto`.

accelerate launch --num_processes 2 --cpu docs/examples/accelerate_loop.py data/runs/accelerate-loop
"""

import sys

import torch
from accelerate import Accelerator
from plain_loop import GPT, batch_of
from rows import ROWS
from torch.utils.data import DataLoader

import carto_core  # carto


def main(run):
    """Train for eight passes, two batches of each rank to a step."""
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = GPT()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    loader = DataLoader(ROWS, batch_size=3, shuffle=True, collate_fn=batch_of)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    with carto_core.record(run, corpus=ROWS) as recorder:  # carto
        for _ in range(8):
            for keys, x, y in loader:
                with accelerator.accumulate(model):
                    with recorder.watch(keys):  # carto
                        _, loss = model(x, y)
                    accelerator.backward(loss)
                    optimizer.step()
                    optimizer.zero_grad()
            recorder.snapshot()  # carto
    accelerator.end_training()


if __name__ == "__main__":
    main(sys.argv[1])
