"""The same loop on several ranks; each records what it saw itself. The lines that are ours end with `# carto`.

torchrun --nproc-per-node 2 docs/examples/ddp_loop.py data/runs/ddp-loop
"""

import sys

import torch
from plain_loop import GPT, batch_of
from rows import ROWS
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

import carto_core  # carto


def main(run):
    """Train for eight passes."""
    distributed.init_process_group("gloo")
    torch.manual_seed(0)
    model = DistributedDataParallel(GPT())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    sampler = DistributedSampler(ROWS, seed=0)
    loader = DataLoader(ROWS, batch_size=4, sampler=sampler, collate_fn=batch_of)
    with carto_core.record(run, corpus=ROWS) as recorder:  # carto
        for epoch in range(8):
            sampler.set_epoch(epoch)
            for keys, x, y in loader:
                with recorder.watch(keys):  # carto
                    _, loss = model(x, y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            recorder.snapshot()  # carto
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
