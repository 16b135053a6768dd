"""Retrains side by side against the same in sequence, and how long the first numbers of a measurement take.

    python -m benchmarks.measure_throughput [--rounds 3] [--chars 60000] [--model lstm|gpt] [--seeds 1] [--device cuda]
                                            [--stack 32 248]

A small base run of the demo corpus, trained once; every round trains the same arms anew, in an order that alternates. Side
by side is one process a core on the CPU and one stack on CUDA. In sequence, only the first seed's arms are trained: the
ratio is one of retrains a second, starting the processes and auditing what was trained included. `--stack` also times a
step alone and one of stacks of these sizes, in this process and without audits.
"""

from __future__ import annotations

import argparse
import shutil
import time

import numpy as np

from benchmarks.lines import trained
from carto_core.config import CanaryConfig, CorpusConfig, EngineConfig, ModelConfig, RunConfig
from carto_core.engine.executors import LOCAL, LocalExecutor
from carto_core.engine.loop import train
from carto_core.engine.run_corpus import load_run_corpus
from carto_core.engine.stacked import train_stacked
from carto_core.preview.arms import Arm, arms_of
from carto_core.preview.measured import train_arms
from carto_core.store.reader import Run
from carto_core.store.rundir import resolve_runs_root
from carto_core.workflows import light
from carto_core.workflows.progress import stoppable

MODELS = {
    "lstm": ModelConfig(embed=64, hidden=128, context=64),
    "gpt": ModelConfig(task="gpt", hidden=128, layers=2, heads=4, context=64),
}
STEPS_TIMED, WARM_UP = 40, 5
RATES = {"lstm": 4e-3, "gpt": 1e-3}


def main() -> None:
    """Print medians and ranges of ratios taken within a round."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--chars", type=int, default=60_000)
    parser.add_argument("--model", choices=MODELS, default="lstm")
    parser.add_argument("--seeds", type=int, default=1, help="of the arms side by side")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--stack", type=int, nargs="*", default=[], help="models in a stack")
    options = parser.parse_args()
    with stoppable():
        name = f"throughput-{options.model}-{options.device}-{options.chars}"
        run = trained(base_config(options), resolve_runs_root() / name)
        table = light.load_table(run)
        top = light.select(run, {"type": "top", "by": "final_loss", "q": 0.1}, table=table)
        plan = light.plan_action(run, top, action="prune", table=table)
        arms = arms_of(run, plan, table, seeds=options.seeds, equal="steps")
        in_sequence = [arm for arm in arms if arm.seed == 0]
        time_steps(run, options.stack)
        ratios, firsts = [], []
        for number in range(options.rounds):
            first = seconds(run, in_sequence[:1], side_by_side=False)
            rates = {}
            for side_by_side in (False, True) if number % 2 else (True, False):
                mine = arms if side_by_side else in_sequence
                rates[side_by_side] = len(mine) / seconds(run, mine, side_by_side=side_by_side)
                print(
                    f"  {len(mine)} arms, {'side by side' if side_by_side else 'in sequence'}: {len(mine) / rates[side_by_side]:.1f} s"
                )
            ratios.append(rates[True] / rates[False])
            firsts.append(seconds(run, arms[:2], side_by_side=True) / first)
    print(
        f"{options.model} on {options.device}: {len(arms)} arms side by side against in sequence: {told(ratios)} times as fast"
    )
    print(f"the first pair (unchanged and plan) against one unchanged training: {told(firsts)} times as long")


def base_config(options: argparse.Namespace) -> RunConfig:
    """Return settings under which an arm takes some seconds."""
    engine = EngineConfig(
        epochs=8, snapshots=20, batch_size=16, learning_rate=RATES[options.model], device=options.device
    )
    return RunConfig(
        corpus=CorpusConfig(path="demo", max_chars=options.chars),
        canaries=CanaryConfig(num_inserted=40),
        model=MODELS[options.model],
        engine=engine,
    )


def time_steps(run: Run, sizes: list[int]) -> None:
    """Print how long a step takes alone, and one of stacks of these sizes: medians, the first steps left out."""
    if not sizes:
        return
    config = RunConfig.from_dict(run.manifest["config"])
    task = load_run_corpus(run).task(config)
    ones = np.ones(task.num_samples, np.int32), np.ones(task.num_samples, np.float32)
    alone = 0.0
    for size in [0, *sizes]:
        ended: list[float] = []
        tell = lambda *_, ended=ended: ended.append(time.perf_counter())  # noqa: E731
        if size == 0:
            train(task, config.engine, steps=STEPS_TIMED, progress=tell)
        else:
            arms = [Arm("baseline", seed, *ones, STEPS_TIMED, {}) for seed in range(size)]
            train_stacked(task, config.engine, arms, progress=tell)
        took = 1000 * float(np.median(np.diff(ended)[WARM_UP:]))
        alone = alone or took
        how = "alone" if size == 0 else f"a stack of {size}"
        print(
            f"  a step, {how}: {took:.1f} ms" + (f", {size * alone / took:.1f} times as many a second" if size else "")
        )


def seconds(run: Run, arms: list[Arm], *, side_by_side: bool) -> float:
    """Return how long these arms take when none of them is there."""
    shutil.rmtree(run.files.previews / "arms", ignore_errors=True)
    (run.files.previews / "arms").mkdir(parents=True)
    began = time.perf_counter()
    train_arms(
        run.files.path, arms, progress=lambda *_: None, executor=LOCAL if side_by_side else LocalExecutor(workers=1)
    )
    return time.perf_counter() - began


def told(values: list[float]) -> str:
    """Return the median with the range."""
    return f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
