"""A Trainer of Hugging Face with a tiny GPT-2, recorded: the lines that are ours end with `# carto`.

python docs/examples/hf_trainer.py data/runs/hf-trainer
"""

import sys
import tempfile

from datasets import Dataset
from rows import ROWS, VOCABULARY, encode
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from carto_core.integrations.huggingface import prepare_trainer  # carto


def collate(rows):
    """Pad the token ids of a batch."""
    ids, labels = encode([{"text": bytes(row["input_ids"]).decode()} for row in rows])
    return {"input_ids": ids, "labels": labels, "attention_mask": (labels >= 0).long()}


def main(run):
    """Train for eight passes."""
    dataset = Dataset.from_list([row | {"input_ids": list(row["text"].encode())} for row in ROWS])
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=64, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0,
        loss_type="ForCausalLM",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, num_train_epochs=8, per_device_train_batch_size=6, learning_rate=3e-3, report_to=[], use_cpu=True,
            save_strategy="no", logging_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        trainer = Trainer(GPT2LMHeadModel(config), arguments, collate, dataset)
        prepare_trainer(trainer, run)  # carto
        trainer.train()


if __name__ == "__main__":
    main(sys.argv[1])
