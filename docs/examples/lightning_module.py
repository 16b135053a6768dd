"""A LightningModule, recorded: the lines that are ours end with `# carto`.

python docs/examples/lightning_module.py data/runs/lightning-module
"""

import sys
import tempfile

import lightning
import torch
from plain_loop import GPT, batch_of
from rows import ROWS
from torch.utils.data import DataLoader

from carto_core.integrations.lightning import CartoCallback  # carto


class Module(lightning.LightningModule):
    """The loop's model; its loss is computed in its forward."""

    def __init__(self):
        super().__init__()
        self.gpt = GPT()

    def training_step(self, batch, index):
        """Return the mean loss."""
        _, x, y = batch
        return self.gpt(x, y)[1]

    def configure_optimizers(self):
        """Return the optimizer."""
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def main(run):
    """Train for eight passes."""
    lightning.seed_everything(0, verbose=False)
    loader = DataLoader(ROWS, batch_size=6, shuffle=True, collate_fn=batch_of)
    recording = CartoCallback(run, corpus=[{"text": row["text"]} for row in ROWS])  # carto
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            callbacks=[recording], max_epochs=8, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        )  # fmt: skip
        trainer.fit(Module(), loader)


if __name__ == "__main__":
    main(sys.argv[1])
