import lightning
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from carto_core import per_sample_loss
from carto_core.errors import ConfigError, RunExists
from carto_core.integrations.lightning import CartoCallback
from carto_core.store.reader import open_run
from tests.integrations.test_sample_losses import slow_twin
from tests.integrations.tiny_gpt2 import NUM_TOKENS, padded, tiny_gpt2, token_rows

pytestmark = pytest.mark.filterwarnings(
    "ignore:The '?train_dataloader'? does not have many workers",
    "ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated",
    "ignore:Checkpoint directory .* exists and is not empty",
    "ignore:Found .* module\\(s\\) in eval mode",
)


class Module(lightning.LightningModule):
    """Works out each sample's loss beside its own, one token at a time; knows a sample by its first token."""

    def __init__(self, loss):
        super().__init__()
        torch.manual_seed(0)
        self.gpt2 = tiny_gpt2(dropout=0.1) if loss == "of the model" else None
        self.table = nn.Embedding(NUM_TOKENS, NUM_TOKENS)
        self.loss, self.seen, self.fails_at = loss, [], None

    def training_step(self, batch, batch_idx):
        if self.global_step == self.fails_at:
            raise ZeroDivisionError("as a module may")
        ids, labels = batch["input_ids"], batch["labels"]
        if self.gpt2 is not None:
            output = self.gpt2(input_ids=ids, labels=labels, attention_mask=batch["attention_mask"])
            logits, result = output.logits, output.loss
        else:
            logits = self.table(ids)
            targets = labels[:, 1:].reshape(-1)
            result = functional.cross_entropy(logits[:, :-1].reshape(-1, NUM_TOKENS), targets)
        if self.loss == "returned":
            losses, num_tokens = per_sample_loss(logits, labels)
            result = {
                "loss": result + 0 * functional.cross_entropy(logits[:, 0], ids[:, 0]),
                "losses": losses,
                "num_tokens": num_tokens,
            }
        self.seen += zip(ids[:, 0].tolist(), slow_twin(logits, labels)[0], strict=True)
        return result

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def fit(folder, module, callback, *, rows=None, loader=None, ckpt_path=None, **changes):
    settings = {
        "max_epochs": 3, "accelerator": "cpu", "logger": False, "enable_checkpointing": False, "default_root_dir": folder,
        "enable_progress_bar": False, "enable_model_summary": False,
    }  # fmt: skip
    trainer = lightning.Trainer(**settings | {"callbacks": [callback]} | changes)
    if loader is None:
        generator = torch.Generator().manual_seed(3)
        loader = DataLoader(rows or token_rows(), batch_size=4, shuffle=True, collate_fn=padded, generator=generator)
    trainer.fit(module, loader, ckpt_path=ckpt_path)
    return trainer


def twin_losses(module, *, num_samples=10):
    """float[S, N] of passes over all samples."""
    seen = np.full((len(module.seen) // num_samples, num_samples), np.nan)
    for i, (sample, loss) in enumerate(module.seen):
        seen[i // num_samples, sample] = loss
    return seen


@pytest.mark.parametrize("loss", ["of the model", "of the step", "returned"])
def test_each_samples_loss_is_the_slow_twins_to_1e_5(tmp_path, loss):
    module, callback = Module(loss), CartoCallback(tmp_path / "mine")

    fit(tmp_path, module, callback, accumulate_grad_batches=2)

    run = open_run(tmp_path / "mine")
    assert (callback.recorder.failure, run.status) == (None, "complete")
    assert run.samples("num_tokens")["num_tokens"].tolist() == [len(r["input_ids"]) - 1 for r in token_rows()]
    assert run.snapshots()["epoch"].tolist() == [1, 2, 3]
    assert run.snapshots()["step"].tolist() == [2, 4, 6]
    np.testing.assert_allclose(run.trajectories("during"), twin_losses(module), rtol=1e-5)
    assert "training_step" not in vars(module)


def test_a_batch_that_has_keys_is_known_by_them(tmp_path):
    def keyed(rows):
        batch = padded(rows)
        return batch | {"key": [f"k{i}" for i in batch["input_ids"][:, 0].tolist()]}

    corpus = [{"key": f"k{i}", "text": f"text {i}"} for i in range(10)]
    callback = CartoCallback(tmp_path / "mine", corpus=corpus, snapshot_steps=2)
    loader = DataLoader(token_rows(), batch_size=4, collate_fn=keyed)

    fit(tmp_path, Module("of the step"), callback, loader=loader)

    run = open_run(tmp_path / "mine")
    assert callback.recorder.failure is None
    assert run.samples()["key"].tolist() == [row["key"] for row in corpus]
    assert run.samples()["num_tokens"].min() > 0
    assert run.snapshots()["step"].tolist() == [2, 4, 6, 8, 9]
    np.testing.assert_allclose(run.snapshots()["epoch"], [2 / 3, 4 / 3, 2, 8 / 3, 3])


def test_a_training_that_goes_on_from_its_checkpoint_goes_on_with_its_recording(tmp_path):
    module = Module("of the step")
    module.fails_at = 7
    saver = lightning.pytorch.callbacks.ModelCheckpoint(dirpath=tmp_path, save_last=True, every_n_epochs=1)
    callback = CartoCallback(tmp_path / "mine")
    with pytest.raises(ZeroDivisionError):
        fit(tmp_path, module, callback, enable_checkpointing=True, callbacks=[callback, saver])
    assert "ZeroDivisionError" in open_run(tmp_path / "mine").manifest["error"]

    module.fails_at = None
    callbacks = [CartoCallback(tmp_path / "mine"), saver]
    fit(tmp_path, module, None, callbacks=callbacks, enable_checkpointing=True, ckpt_path=tmp_path / "last.ckpt")

    run = open_run(tmp_path / "mine")
    assert run.status == "complete"
    assert run.snapshots()["step"].tolist() == [3, 6, 9]
    assert not np.isnan(run.trajectories("during")).any()


def test_a_step_that_takes_the_batch_alone_is_called_as_it_was(tmp_path):
    class Short(Module):
        def training_step(self, batch):
            return super().training_step(batch, 0)

    callback, module = CartoCallback(tmp_path / "mine"), Short("of the step")

    fit(tmp_path, module, callback, max_epochs=1)

    assert callback.recorder.failure is None
    np.testing.assert_allclose(open_run(tmp_path / "mine").trajectories("during"), twin_losses(module), rtol=1e-5)


def test_a_second_fit_with_the_same_loader_is_recorded_too(tmp_path):
    loader = DataLoader(token_rows(), batch_size=4, collate_fn=padded)
    for name in ("first", "second"):
        callback = CartoCallback(tmp_path / name)

        fit(tmp_path, Module("of the step"), callback, loader=loader, max_epochs=1, limit_train_batches=2)

        assert callback.recorder.failure is None
        assert open_run(tmp_path / name).samples("key")["key"].tolist() == [str(i) for i in range(8)]


def test_a_stream_without_keys_ends_the_recording_and_not_the_training(tmp_path):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(token_rows())

    callback = CartoCallback(tmp_path / "mine")

    trainer = fit(
        tmp_path, Module("of the step"), callback, loader=DataLoader(Stream(), batch_size=4, collate_fn=padded)
    )

    assert trainer.global_step == 9
    assert "a batch has no 'key'" in callback.recorder.failure


def test_what_cannot_be_recorded_is_refused_before_the_training(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "run.json").write_text("{}")

    with pytest.raises(RunExists):
        fit(tmp_path, Module("of the step"), CartoCallback(tmp_path / "there"))
    with pytest.raises(ConfigError, match="snapshot_steps must be at least 1"):
        CartoCallback(tmp_path / "mine", snapshot_steps=0)
