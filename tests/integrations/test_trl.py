import numpy as np
import pytest
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

from carto_core import per_sample_loss
from carto_core.errors import ConfigError
from carto_core.integrations.huggingface import RecordingMixin, prepare_trainer
from carto_core.store.reader import open_run
from tests.integrations.tiny_gpt2 import NUM_TOKENS, tiny_gpt2

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:trl.*", "ignore::DeprecationWarning:trl.*")
WORDS = [f"w{i}" for i in range(NUM_TOKENS - 1)]


class TwinTrainer(SFTTrainer):
    """Works out each sample's loss from logits that it asks for; knows a sample by its first word."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        forward = self.model.forward  # not by a call, which the recorder would see
        logits = forward(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        losses, _ = per_sample_loss(logits, inputs["labels"])
        self.seen = [*getattr(self, "seen", []), *zip(inputs["input_ids"][:, 0].tolist(), losses.tolist(), strict=True)]
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)


class RecordedTrainer(RecordingMixin, TwinTrainer):
    pass


def tokenizer():
    model = WordLevel({word: i for i, word in enumerate(["[PAD]", *WORDS])}, unk_token="[PAD]")
    plain = Tokenizer(model)
    plain.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="[PAD]", eos_token="[PAD]", unk_token="[PAD]")


def texts(num_samples=8):
    rng = np.random.default_rng(0)
    return [{"text": " ".join([WORDS[i], *rng.choice(WORDS, 3 + i % 4)])} for i in range(num_samples)]


def make_trainer(folder, cls=SFTTrainer, *, rows=None, run=None, **changes):
    settings = {
        "output_dir": str(folder), "num_train_epochs": 2, "per_device_train_batch_size": 3, "max_length": 12, "activation_checkpointing": False,
        "use_cpu": True, "bf16": False, "report_to": [], "save_strategy": "no", "disable_tqdm": True,
        "logging_strategy": "no", "dataset_num_proc": None,
    }  # fmt: skip
    return cls(
        model=tiny_gpt2(),
        args=SFTConfig(**settings | changes),
        train_dataset=Dataset.from_list(texts() if rows is None else rows),
        processing_class=tokenizer(),
        **({} if run is None else {"run": run}),
    )


def test_the_fused_heads_log_probabilities_give_each_samples_loss(tmp_path):
    rows = [row | {"key": f"k{i}"} for i, row in enumerate(texts())]
    trainer = prepare_trainer(make_trainer(tmp_path, TwinTrainer, rows=rows), tmp_path / "mine", sweeps=1)

    trainer.train()

    run = open_run(tmp_path / "mine")
    assert trainer.recorder.failure is None
    assert run.samples()["key"].tolist() == [row["key"] for row in rows]
    assert run.samples()["text"].tolist() == [row["text"] + "[PAD]" for row in rows]  # TRL's own end of text
    expected = np.full((2, 8), np.nan)
    for i, (word, loss) in enumerate(trainer.seen):
        expected[i // 8, word - 1] = loss
    np.testing.assert_allclose(run.trajectories("during"), expected, rtol=1e-5)
    assert run.snapshots()["kind"].tolist() == ["during", "during", "after"]


def test_the_mixin_numbers_rows_before_trl_drops_and_shuffles_them(tmp_path):
    rows = texts()
    rows[2] = {"text": WORDS[2]}
    trainer = make_trainer(
        tmp_path, RecordedTrainer, rows=rows, run=tmp_path / "mine", shuffle_dataset=True, max_length=12
    )

    trainer.train()

    run = open_run(tmp_path / "mine")
    assert trainer.recorder.failure is None
    shown = dict(zip(run.samples()["key"], run.samples()["text"], strict=True))
    assert shown == {str(i): row["text"] + "[PAD]" for i, row in enumerate(rows)}
    told = dict(zip(run.samples()["key"], run.samples()["num_tokens"], strict=True))
    assert told == {str(i): len(row["text"].split()) for i, row in enumerate(rows)}


def test_packing_and_rows_without_keys_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="drops and reorders rows"):
        prepare_trainer(make_trainer(tmp_path), tmp_path / "mine")
    for setting in ({"packing": True, "packing_strategy": "wrapped"}, {"padding_free": True, "max_length": None}):
        with pytest.raises(ConfigError, match="lay several samples in one row"):
            prepare_trainer(make_trainer(tmp_path, **setting), tmp_path / "mine")
