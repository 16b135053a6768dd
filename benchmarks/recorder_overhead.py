"""What recording `during` losses costs a training that is not ours: a plain loop, a Trainer, a LightningModule.

    python -m benchmarks.recorder_overhead [--pairs 800] [--only plain hf lightning] [--device cuda]

One training is recorded at every other step, in the order on off off on: the same model, optimizer and memory, which two trainings side
by side would not have (their steps differ by up to a tenth for no reason of ours). A step is all that happens from the end of the last
one: loading, forward, backward, optimizer, callbacks, and the snapshot where one ends, which is always with the recorder on.
What stays on is that a batch carries its keys. On the CPU its time is the process's, one thread; on a GPU it is the clock's, with
the device waited for after each step. The ratio is that of the sums; its interval is a bootstrap over pairs. Sealing, once at the
end, is left out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

import carto_core
from carto_core.integrations.recorder import Recorder

VOCABULARY, WIDTH, DEPTH, HEADS = 8192, 192, 4, 4
BATCH, LENGTH = 8, 32
STEPS_A_PASS = 52  # a multiple of 4: the step after a pass, which its snapshot counts to, is one with the recorder on
WARM_UP = 6  # pairs that are not counted
OFF = "switched off for a step"
RESULTS = Path(__file__).parents[1] / "docs" / "results" / "recorder_overhead.json"


class Switch:
    """Switches a recorder on and off from step to step, and keeps the seconds of each.

    A recorder that has stopped does nothing, so that is what one is told to have done.

    Args:
        device: whose work is waited for before the clock is read; `cpu` reads the process's time.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._seconds: list[float] = []
        self._began = 0.0

    def lap(self, recorder: Recorder) -> None:
        """End a step. The first is not kept: the clock did not run yet."""
        now = self._now()
        if self._began:
            self._seconds.append(now - self._began)
        if recorder.failure not in (None, OFF):
            raise RuntimeError(f"the recording ended early, so nothing can be measured: {recorder.failure}")
        recorder.failure = None if len(self._seconds) % 4 in (0, 3) else OFF
        self._began = self._now()

    def _now(self) -> float:
        if self._device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def facts(self, pairs: int) -> dict[str, float]:
        """Return the ratio of the steps with our lines to those without, its 95 % interval, and seconds a step without."""
        steps = np.array(self._seconds[: 2 * (WARM_UP + pairs)]).reshape(-1, 2)
        steps[1::2] = steps[1::2, ::-1].copy()  # off came first
        on, off = steps[WARM_UP:].T
        drawn = np.random.default_rng(0).integers(len(on), size=(10_000, len(on)))
        low, high = np.quantile(on[drawn].sum(axis=1) / off[drawn].sum(axis=1), [0.025, 0.975])
        return {"seconds_a_step": off.mean(), "ratio": on.sum() / off.sum(), "low": float(low), "high": float(high)}


class Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """Random tokens; as many batches as a pass has steps."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self._ids = torch.randint(VOCABULARY, (BATCH * STEPS_A_PASS, LENGTH), generator=generator)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self._ids[index], "labels": self._ids[index], "key": index}


class GPT(nn.Module):
    """A causal model in the manner of nanoGPT: logits and the mean loss."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(LENGTH, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, dropout=0.1, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, DEPTH, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict y from x, both int64[B, T]."""
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device)
        hidden = self.tokens(x) + self.places(torch.arange(x.shape[1], device=x.device))
        logits = self.head(self.blocks(hidden, mask=mask, is_causal=True))
        return logits, functional.cross_entropy(logits.view(-1, VOCABULARY), y.reshape(-1))


def train_plain(run: Path, switch: Switch, *, steps: int, device: str) -> int:
    """Train a plain loop; returns the model's parameters."""
    model = GPT().to(device)
    optimizer = torch.optim.AdamW(model.parameters())
    loader = DataLoader(Rows(), batch_size=BATCH, shuffle=True)
    with carto_core.record(run) as recorder:
        for batch in (batch for _ in range(steps // STEPS_A_PASS + 1) for batch in _passing(loader, recorder)):
            ids = batch["input_ids"].to(device)
            with recorder.watch(batch["key"]):
                _, loss = model(ids[:, :-1], ids[:, 1:])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            switch.lap(recorder)
        recorder.failure = None
    return sum(p.numel() for p in model.parameters())


def _passing(loader: Iterable[Any], recorder: Recorder) -> Iterator[Any]:
    yield from loader
    recorder.snapshot()


def train_hf(run: Path, switch: Switch, *, steps: int, device: str) -> int:
    """Train with a Trainer of Hugging Face."""
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

    from carto_core.integrations.huggingface import prepare_trainer

    class Laps(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            switch.lap(trainer.recorder)

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            trainer.recorder.failure = None

    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=WIDTH, n_layer=DEPTH, n_head=HEADS, bos_token_id=0, eos_token_id=0,
        loss_type="ForCausalLM",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, max_steps=steps, per_device_train_batch_size=BATCH, report_to=[], use_cpu=device == "cpu",
            save_strategy="no", logging_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        trainer: Any = prepare_trainer(Trainer(GPT2LMHeadModel(config), arguments, train_dataset=Rows()), run)
        trainer.add_callback(Laps())
        trainer.train()
    return sum(p.numel() for p in trainer.model.parameters())


def train_lightning(run: Path, switch: Switch, *, steps: int, device: str) -> int:
    """Train with Lightning."""
    import lightning

    from carto_core.integrations.lightning import CartoCallback

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.gpt = GPT()

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            return self.gpt(batch["input_ids"][:, :-1], batch["input_ids"][:, 1:])[1]

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters())

    class Laps(lightning.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            switch.lap(recording.recorder)

        def on_train_end(self, *_: Any) -> None:
            recording.recorder.failure = None

    module, recording = Module(), CartoCallback(run)
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            callbacks=[Laps(), recording], max_steps=steps, max_epochs=-1,
            accelerator="cpu" if device == "cpu" else "gpu", devices=1, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        )  # fmt: skip
        trainer.fit(module, DataLoader(Rows(), batch_size=BATCH, shuffle=True))
    return sum(p.numel() for p in module.parameters())


FRAMEWORKS = {"plain": train_plain, "hf": train_hf, "lightning": train_lightning}


def measure(name: str, *, pairs: int, device: str) -> dict[str, Any]:
    """Return the facts of one framework: parameters, pairs, seconds a step, ratio and interval."""
    switch = Switch(device)
    with tempfile.TemporaryDirectory() as folder:
        parameters = FRAMEWORKS[name](Path(folder) / "run", switch, steps=2 * (WARM_UP + pairs) + 1, device=device)
    return {"parameters": parameters, "pairs": pairs, **switch.facts(pairs)}


def main() -> None:
    """Print one line a framework, and keep the figures."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--pairs", type=int, default=800)
    parser.add_argument("--only", nargs="+", choices=FRAMEWORKS, default=list(FRAMEWORKS))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    kept = json.loads(options.out.read_text()) if options.out.is_file() else {}
    print(f"{'framework':10} {'parameters':>11} {'ms a step':>10} {'overhead %':>11} {'95 % interval':>16}")
    for name in options.only:
        facts = measure(name, pairs=options.pairs, device=options.device)
        kept.setdefault(options.device, {})[name] = facts
        over, low, high = (100 * (facts[key] - 1) for key in ("ratio", "low", "high"))
        print(
            f"{name:10} {facts['parameters']:11,} {1000 * facts['seconds_a_step']:10.1f} {over:+11.2f} [{low:+.2f}, {high:+.2f}]",
            flush=True,
        )
        options.out.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
