"""What recording every sample's loss costs: `during` and `after` against a plain loop, side by side.

    python -m benchmarks.logging_cost [--rounds 5]

Trains the demo's model for two epochs each way, in turn, and prints the medians and their ratios to the plain loop.
Snapshots at the demo's rate of 1.5 an epoch.
"""

from __future__ import annotations

import argparse
import dataclasses
import time

import numpy as np

from carto_core.corpus.prepared import prepare
from carto_core.engine.loop import train
from carto_core.tasks.language import LanguageTask
from carto_core.types import Float32, Int32, Snapshot
from carto_core.workflows.demo import demo_config

EPOCHS, SNAPSHOTS = 2, 3


class Forget:
    """A recorder that keeps nothing: what is timed is the measuring, not the disk."""

    def record(self, snapshot: Snapshot, losses: Float32, num_tokens: Int32) -> None:
        """Take a snapshot and drop it."""


def main() -> None:
    """Print one line a way of logging."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    config = demo_config()
    corpus = prepare(config.corpus, config.canaries, seed=0)
    task = LanguageTask(
        config.model, corpus.train_tokens, vocab_size=len(corpus.tokenizer), bos_id=corpus.tokenizer.bos_id
    )
    seconds: dict[str, list[float]] = {way: [] for way in ("plain", "during", "after", "both")}
    for _ in range(rounds):
        for way, times in seconds.items():
            losses = "after" if way == "plain" else way
            engine = dataclasses.replace(config.engine, epochs=EPOCHS, snapshots=SNAPSHOTS, losses=losses)
            began = time.perf_counter()
            train(task, engine, recorder=None if way == "plain" else Forget())
            times.append(time.perf_counter() - began)
    plain = np.median(seconds["plain"])
    print(f"{'way':8} {'median s':>9} {'from':>7} {'to':>7} {'ratio to plain':>15}")
    for way, times in seconds.items():
        print(f"{way:8} {np.median(times):9.2f} {min(times):7.2f} {max(times):7.2f} {np.median(times) / plain:15.2f}")


if __name__ == "__main__":
    main()
