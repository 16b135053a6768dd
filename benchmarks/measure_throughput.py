"""Retrains side by side against the same in sequence, and how long the first numbers of a measurement take.

    python -m benchmarks.measure_throughput [--rounds 3] [--chars 60000]

A small base run of the demo corpus, trained once; every round trains the same arms anew, in an order that alternates.
"""

from __future__ import annotations

import argparse
import shutil
import time

import numpy as np

from benchmarks.lines import trained
from carto_core.config import CanaryConfig, CorpusConfig, EngineConfig, ModelConfig, RunConfig
from carto_core.engine.side_by_side import num_workers, run_side_by_side
from carto_core.preview import measured
from carto_core.preview.arms import Arm, arms_of
from carto_core.store.reader import Run
from carto_core.store.rundir import resolve_runs_root
from carto_core.workflows import light
from carto_core.workflows.progress import stoppable


def main() -> None:
    """Print medians and ranges of ratios taken within a round."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--chars", type=int, default=60_000)
    options = parser.parse_args()
    with stoppable():
        run = trained(base_config(options.chars), resolve_runs_root() / f"throughput-{options.chars}")
        table = light.load_table(run)
        top = light.select(run, {"type": "top", "by": "final_loss", "q": 0.1}, table=table)
        plan = light.plan_action(run, top, action="prune", table=table)
        arms = arms_of(run, plan, table, seeds=1, equal="steps")
        ratios, firsts = [], []
        for number in range(options.rounds):
            alone = seconds(run, arms[:1], workers=1)
            order = ((1, num_workers(run.manifest)), (num_workers(run.manifest), 1))[number % 2]
            took = {workers: seconds(run, arms, workers=workers) for workers in order}
            ratios.append(took[1] / took[num_workers(run.manifest)])
            firsts.append(seconds(run, arms[:2], workers=num_workers(run.manifest)) / alone)
    workers = num_workers(run.manifest)
    print(f"{len(arms)} arms, {workers} at a time against one at a time: {told(ratios)} times as fast")
    print(f"the first pair (unchanged and plan) against one unchanged training: {told(firsts)} times as long")


def base_config(chars: int) -> RunConfig:
    """Return settings under which an arm takes some seconds."""
    return RunConfig(
        corpus=CorpusConfig(path="demo", max_chars=chars),
        canaries=CanaryConfig(num_inserted=40),
        model=ModelConfig(embed=64, hidden=128, context=64),
        engine=EngineConfig(epochs=8, snapshots=20, batch_size=16, learning_rate=4e-3),
    )


def seconds(run: Run, arms: list[Arm], *, workers: int) -> float:
    """Return how long these arms take when none of them is there."""
    shutil.rmtree(run.files.previews / "arms", ignore_errors=True)
    (run.files.previews / "arms").mkdir(parents=True)
    began = time.perf_counter()
    run_side_by_side(
        measured.train_arm,
        [(run.files.path, arm) for arm in arms],
        [arm.path(run) for arm in arms],
        workers=workers,
        stage="retraining",
        progress=lambda *_: None,
    )
    return time.perf_counter() - began


def told(values: list[float]) -> str:
    """Return the median with the range."""
    return f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
