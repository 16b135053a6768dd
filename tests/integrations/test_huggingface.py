import random

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import Trainer

from carto_core.errors import ConfigError, RunExists
from carto_core.integrations.huggingface import COLUMN, RecordingMixin, prepare_trainer
from carto_core.store.reader import open_run
from carto_core.workflows import light
from tests.integrations.test_sample_losses import slow_twin
from tests.integrations.tiny_gpt2 import arguments, padded, tiny_gpt2, token_rows


class TwinTrainer(Trainer):
    """Works out each sample's loss beside its own, one token at a time; knows a sample by its first token."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        assert COLUMN not in inputs
        labels = inputs["labels"]
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        if model.training:
            losses, _ = slow_twin(outputs.logits.float(), labels)
            self.seen = [*getattr(self, "seen", []), *zip(inputs["input_ids"][:, 0].tolist(), losses, strict=True)]
        return (loss, outputs) if return_outputs else loss


def twin_losses(trainer, *, num_samples=10):
    """float[S, N] of passes over all samples."""
    seen = np.full((len(trainer.seen) // num_samples, num_samples), np.nan)
    for i, (sample, loss) in enumerate(trainer.seen):
        seen[i // num_samples, sample] = loss
    return seen


def padded_by_chance(rows):
    """Collate as `padded`, in a training that draws numbers of its own as it does, from every source there is."""
    torch.rand(1), np.random.rand(), random.random()
    return padded(rows)


def make_trainer(folder, *, cls=Trainer, dataset=None, dropout=0.0, **changes):
    own = {
        name: changes.pop(name)
        for name in list(changes)
        if name in ("run", "sweeps", "eval_dataset", "compute_loss_func", "data_collator")
    }
    return cls(
        model=tiny_gpt2(dropout=dropout),
        args=arguments(folder, **changes),
        train_dataset=Dataset.from_list(token_rows()) if dataset is None else dataset,
        **{"data_collator": padded} | own,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2},
        {"label_smoothing_factor": 0.1},
        {"compute_loss_func": lambda outputs, labels, num_items_in_batch=None: outputs.logits.square().mean()},
        {"remove_unused_columns": False, "dataloader_num_workers": 1},
    ],
)
def test_each_samples_loss_is_the_slow_twins_to_1e_5(tmp_path, changes):
    trainer = prepare_trainer(make_trainer(tmp_path, cls=TwinTrainer, dropout=0.1, **changes), tmp_path / "mine")

    trainer.train()

    run = open_run(tmp_path / "mine")
    assert (trainer.recorder.failure, run.status) == (None, "complete")
    assert run.samples("key")["key"].tolist() == [str(i) for i in range(10)]
    assert run.samples("num_tokens")["num_tokens"].tolist() == [len(r["input_ids"]) - 1 for r in token_rows()]
    assert run.snapshots()["epoch"].tolist() == [1, 2, 3]
    assert run.snapshots()["step"].tolist() == [3, 6, 9]
    np.testing.assert_allclose(run.trajectories("during"), twin_losses(trainer), rtol=1e-5)


def test_recording_and_sweeping_change_no_weight_by_a_single_bit(tmp_path):
    settings = {"dropout": 0.1, "data_collator": padded_by_chance}
    plain_trainer = make_trainer(tmp_path, **settings)
    plain_trainer.train()
    chance = random.random(), np.random.rand(), torch.rand(1)
    trainer = prepare_trainer(make_trainer(tmp_path, **settings), tmp_path / "mine", sweeps=3)

    trainer.train()

    assert (random.random(), np.random.rand(), torch.rand(1)) == chance
    assert trainer.recorder.failure is None
    plain, recorded = (list(each.model.parameters()) for each in (plain_trainer, trainer))
    assert all(torch.equal(a, b) for a, b in zip(plain, recorded, strict=True))


def test_a_sweep_measures_every_sample_under_the_same_weights_without_dropout(tmp_path):
    trainer = prepare_trainer(make_trainer(tmp_path, dropout=0.5), tmp_path / "mine", sweeps=2)

    trainer.train()

    run = open_run(tmp_path / "mine")
    assert run.snapshots()["kind"].tolist() == ["during", "during", "after", "during", "during", "after"]
    assert run.snapshots()["step"].tolist() == [3, 4, 4, 6, 9, 9]
    trainer.model.eval()
    batch = padded(token_rows())
    expected, _ = slow_twin(trainer.model(**batch).logits, batch["labels"])
    np.testing.assert_allclose(run.trajectories("after")[-1], expected, rtol=1e-5)
    assert light.scored_kind(run) == "after"


def test_snapshots_can_end_every_few_steps_and_the_rest_is_kept(tmp_path):
    trainer = prepare_trainer(make_trainer(tmp_path), tmp_path / "mine", snapshot_steps=4)

    trainer.train()

    assert open_run(tmp_path / "mine").snapshots()["step"].tolist() == [4, 8, 9]


def test_a_training_that_goes_on_from_its_checkpoint_goes_on_with_its_recording(tmp_path):
    whole = prepare_trainer(make_trainer(tmp_path / "a"), tmp_path / "whole")
    whole.train()
    saved = {"save_strategy": "epoch"}
    broken = prepare_trainer(make_trainer(tmp_path / "b", **saved), tmp_path / "mine")
    step, steps = broken.training_step, iter(range(100))
    broken.training_step = lambda *args, **kwargs: step(*args, **kwargs) if next(steps) < 7 else 1 / 0
    with pytest.raises(ZeroDivisionError):
        broken.train()
    assert "ZeroDivisionError" in open_run(tmp_path / "mine").manifest["error"]

    resumed = prepare_trainer(make_trainer(tmp_path / "b", **saved), tmp_path / "mine")
    resumed.train(resume_from_checkpoint=str(tmp_path / "b" / "checkpoint-3"))  # a snapshot earlier than the last

    run, expected = open_run(tmp_path / "mine"), open_run(tmp_path / "whole")
    assert run.status == "complete"
    assert run.snapshots()["step"].tolist() == [3, 6, 9]
    np.testing.assert_allclose(run.trajectories("during"), expected.trajectories("during"), rtol=1e-6)


def test_keys_texts_and_sources_come_from_the_data_set(tmp_path):
    rows = [row | {"key": f"k{i}", "text": f"text {i}", "source": "book"} for i, row in enumerate(token_rows())]
    dataset = Dataset.from_list(rows)
    dataset.set_format("torch")
    trainer = prepare_trainer(make_trainer(tmp_path, dataset=dataset, eval_dataset=dataset), tmp_path / "mine")

    trainer.train()
    trainer.evaluate()

    samples = open_run(tmp_path / "mine").samples()
    assert trainer.recorder.failure is None
    assert samples["key"].tolist() == [f"k{i}" for i in range(10)]
    assert samples["text"].tolist() == [f"text {i}" for i in range(10)]
    assert set(samples["source"]) == {"book"}


def test_rows_in_a_list_are_numbered_and_join_the_corpus_that_is_given(tmp_path):
    corpus = [{"text": f"text {i}"} for i in range(10)]
    trainer = prepare_trainer(make_trainer(tmp_path, dataset=token_rows()), tmp_path / "mine", corpus=corpus)

    trainer.train()

    assert trainer.recorder.failure is None
    assert open_run(tmp_path / "mine").samples("text")["text"].tolist() == [row["text"] for row in corpus]


def test_the_mixin_records_as_the_function_does(tmp_path):
    class Recorded(RecordingMixin, Trainer):
        pass

    by_function = prepare_trainer(make_trainer(tmp_path), tmp_path / "function")
    by_class = make_trainer(tmp_path, cls=Recorded, run=tmp_path / "class")

    by_function.train()
    by_class.train()

    runs = [open_run(tmp_path / name) for name in ("function", "class")]
    np.testing.assert_array_equal(runs[0].trajectories("during"), runs[1].trajectories("during"))


def test_what_goes_wrong_in_the_recorder_ends_the_recording_and_not_the_training(tmp_path, caplog):
    trainer = make_trainer(tmp_path)
    trainer.get_train_dataloader = lambda: trainer._get_dataloader(
        Dataset.from_list(token_rows()), "own", 4, lambda dataset: None
    )
    prepare_trainer(trainer, tmp_path / "mine")

    trainer.train()

    assert trainer.state.global_step == 9
    assert "without the keys of its samples" in trainer.recorder.failure
    assert caplog.text.count("STOPPED RECORDING") == 1


def test_a_model_that_returns_nothing_to_see_ends_the_recording_and_not_the_training(tmp_path):
    class Silent(Trainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            return model.lm_head.weight.square().mean()

    trainer = prepare_trainer(make_trainer(tmp_path, cls=Silent), tmp_path / "mine")

    trainer.train()

    assert trainer.state.global_step == 9
    assert "no sample's loss is known" in trainer.recorder.failure


def test_what_cannot_be_recorded_is_refused_before_the_training(tmp_path):
    named = [{"key": f"k{i}", "text": "t"} for i in range(10)]
    trainer = prepare_trainer(make_trainer(tmp_path), tmp_path / "mine", corpus=named)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "run.json").write_text("{}")
    stream = Dataset.from_list(token_rows()).to_iterable_dataset()

    with pytest.raises(ConfigError, match="keep the column with the keys"):
        trainer.train()
    with pytest.raises(RunExists):
        prepare_trainer(make_trainer(tmp_path), tmp_path / "there").train()
    with pytest.raises(ConfigError, match="no column 'id'"):
        prepare_trainer(make_trainer(tmp_path), tmp_path / "mine", key_column="id")
    with pytest.raises(ConfigError, match="rows of a stream have no number"):
        prepare_trainer(make_trainer(tmp_path, dataset=stream, max_steps=2), tmp_path / "mine")
    with pytest.raises(ConfigError, match="must be mappings"):
        prepare_trainer(make_trainer(tmp_path, dataset=[(1, 2)]), tmp_path / "mine")
    with pytest.raises(ConfigError, match="snapshot_steps must be at least 1"):
        prepare_trainer(make_trainer(tmp_path), tmp_path / "mine", snapshot_steps=0)
