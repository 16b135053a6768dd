"""A GPT-2 small enough to train in a second, and samples for it that are known by their first token."""

import torch
from transformers import GPT2Config, GPT2LMHeadModel, TrainingArguments

NUM_TOKENS = 40


def tiny_gpt2(*, dropout=0.0, seed=0):
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=NUM_TOKENS, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0,
        resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout, loss_type="ForCausalLM",
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def token_rows(num_samples=10, seed=0):
    """Rows of 4 to 9 tokens; row i begins with token i."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(4, 10, (num_samples,), generator=generator).tolist()
    return [
        {"input_ids": [i, *torch.randint(0, NUM_TOKENS, (n - 1,), generator=generator).tolist()]}
        for i, n in enumerate(lengths)
    ]


def padded(rows):
    """Collate: pads with token 0, which the labels leave out."""
    longest = max(len(row["input_ids"]) for row in rows)
    ids = [list(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in rows]
    labels = [list(row["input_ids"]) + [-100] * (longest - len(row["input_ids"])) for row in rows]
    masks = [[int(label != -100) for label in row] for row in labels]
    return {"input_ids": torch.tensor(ids), "labels": torch.tensor(labels), "attention_mask": torch.tensor(masks)}


def arguments(folder, **changes):
    settings = {
        "output_dir": str(folder), "num_train_epochs": 3, "per_device_train_batch_size": 4, "learning_rate": 1e-2,
        "use_cpu": True, "report_to": [], "save_strategy": "no", "disable_tqdm": True, "logging_strategy": "no", "seed": 1,
    }  # fmt: skip
    return TrainingArguments(**settings | changes)
