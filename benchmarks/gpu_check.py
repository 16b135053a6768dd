"""Whether CUDA gives what the CPU gives, and bfloat16 what float32 gives.

    python -m benchmarks.gpu_check [--device cuda|cpu] [--samples 600] [--epochs 6] [--seed 0]

For an LSTM and a small transformer: (a) the same short float32 training on CPU and CUDA, as far as the first snapshot, whose
losses may differ by 1e-3 nats at most; (b) the same on one device in float32 and in bf16; the Spearman correlation of the
samples' difficulty at the end of the run must be 0.95 or more. Also prints whether a second run on the device repeats
the first bit for bit, in either precision.

`--device cpu` does (b) on the CPU. Exit code 0 when every bar is met, 1 when one is missed, 3 without a CUDA device.
Needs torch, numpy, safetensors and psutil; no database, no dashboard, no tokenizer: a text is its UTF-8 bytes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from carto_core.config import EngineConfig, ModelConfig, ScoreConfig
from carto_core.corpus.tokens import Tokens
from carto_core.engine.loop import train
from carto_core.engine.order import total_steps
from carto_core.scores.trajectory import burn_in_length, difficulty
from carto_core.tasks.language import LanguageTask
from carto_core.types import Float32, Int32, Snapshot

TEXTS = Path(__file__).parents[1] / "data" / "demo" / "demo-mix.jsonl"
MAX_BYTES = 192
BOS, VOCAB_SIZE = 256, 257
LOSS_BAR, SPEARMAN_BAR = 1e-3, 0.95
MODELS = {
    "lstm": ModelConfig(embed=64, hidden=128, context=96),
    "gpt": ModelConfig(task="gpt", hidden=128, layers=4, heads=4, context=96),
}


class Kept:
    """A recorder that keeps the losses."""

    def __init__(self) -> None:
        self.losses: list[Float32] = []

    def record(self, snapshot: Snapshot, losses: Float32, num_tokens: Int32) -> None:
        """Keep one snapshot."""
        self.losses.append(losses.copy())


def main() -> None:
    """Print one line a comparison, and exit with the code that the bars give."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--samples", type=int, default=600)
    parser.add_argument("--epochs", type=float, default=6)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("not run: no CUDA device")
        sys.exit(3)
    name = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, {options.samples} texts of at most {MAX_BYTES} bytes")
    tokens = byte_tokens(options.samples)
    engine = EngineConfig(
        epochs=options.epochs, snapshots=12, learning_rate=1e-3, seed=options.seed, device=options.device
    )
    met = [check(model, tokens, engine) for model in MODELS]
    sys.exit(0 if all(met) else 1)


def check(model: str, tokens: Tokens, engine: EngineConfig) -> bool:
    """Compare one model's trainings and return whether every bar is met."""
    met, by_precision = [], {}
    for precision in ("float32", "bf16"):
        settings = dataclasses.replace(engine, precision=precision)
        by_precision[precision] = trained(model, tokens, settings)
        repeats = np.array_equal(by_precision[precision], trained(model, tokens, settings))
        print(f"{model}: {precision} on {engine.device} repeats bit for bit: {'yes' if repeats else 'NO'}")
    exact, rough = by_precision.values()
    agrees = spearman(_difficulty(exact), _difficulty(rough))
    met.append(agrees >= SPEARMAN_BAR)
    print(f"{model}: float32 and bf16, difficulty, Spearman {agrees:.4f} {_word(met[-1])}")
    print(f"{model}: float32 and bf16, last loss, Spearman {spearman(exact[-1], rough[-1]):.4f} (no bar)")
    if engine.device != "cpu":
        on_cpu = trained(model, tokens, dataclasses.replace(engine, device="cpu"), snapshots=1)
        differs = float(np.abs(exact[0].astype(np.float64) - on_cpu[0]).max())
        met.append(differs <= LOSS_BAR)
        print(
            f"{model}: cpu and {engine.device}, first snapshot, largest difference {differs:.2e} nats {_word(met[-1])}"
        )
    return all(met)


def trained(model: str, tokens: Tokens, engine: EngineConfig, *, snapshots: int | None = None) -> Float32:
    """Train anew, as far as so many snapshots if that is asked for, and return float32[S, N], the losses at each."""
    task = LanguageTask(MODELS[model], tokens, vocab_size=VOCAB_SIZE, bos_id=BOS)
    kept, began = Kept(), time.perf_counter()
    steps = None
    if snapshots is not None:
        ones = np.ones(len(tokens), np.int32)
        steps = round(total_steps(engine, ones) * snapshots / engine.snapshots)
        engine = dataclasses.replace(engine, snapshots=snapshots)
    done = train(task, engine, steps=steps, recorder=kept)
    seconds = time.perf_counter() - began
    rate = done.tokens / (seconds - done.measure_s)
    print(f"  {model} {engine.precision} on {done.device}: {done.steps} steps, {seconds:.1f} s, {rate:,.0f} tokens/s")
    return np.stack(kept.losses)


def byte_tokens(count: int) -> Tokens:
    """Return the first bytes of the bundled corpus's first `count` different texts, spread over the file."""
    lines = TEXTS.read_text(encoding="utf-8").splitlines()
    texts = list(dict.fromkeys(json.loads(line)["text"] for line in lines))
    chosen = [texts[i] for i in np.linspace(0, len(texts) - 1, min(count, len(texts))).astype(int)]
    ids = [np.frombuffer(text.encode()[:MAX_BYTES], np.uint8) for text in chosen]
    return Tokens(np.concatenate(ids).astype(np.int32), np.cumsum([0, *map(len, ids)]).astype(np.int64))


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Return the rank correlation; ties, which losses hardly have, keep their order."""
    ranks = [np.argsort(np.argsort(values, kind="stable"), kind="stable") for values in (a, b)]
    return float(np.corrcoef(np.stack(ranks))[0, 1])


def _difficulty(losses: Float32) -> Float32:
    """Return the score that a finished run has by default: the mean of its early snapshots."""
    return difficulty(losses, burn_in=burn_in_length(ScoreConfig().burn_in, len(losses)))


def _word(met: bool) -> str:  # noqa: FBT001 (a condition is what it is)
    return "(bar met)" if met else "(BAR MISSED)"


if __name__ == "__main__":
    main()
