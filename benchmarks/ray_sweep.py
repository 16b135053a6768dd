"""A sweep of eight measured previews, and fold models, on a local Ray with two workers against local processes.

    python -m benchmarks.ray_sweep [--chars 20000] [--seeds 1] [--results docs/results/ray_sweep.json]

Both are asked for by their commands, on two copies of one small run, so that starting Ray is counted. Every number must be
the same bit for bit; only how long each training took and when may differ. Exit code 1 names what else does.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from carto_core.config import CanaryConfig, CorpusConfig, EngineConfig, ModelConfig, RunConfig
from carto_core.preview.effects import RESULT
from carto_core.store.folds import read_folds
from carto_core.store.reader import Run, open_run
from carto_core.store.rundir import write_json
from carto_core.store.shapes import SECONDS, read_json
from carto_core.workflows import light
from carto_core.workflows.training import train_run

SHARES = (0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3)
WORKERS = 2
MODELS = 4
OF_THE_CLOCK = ("wall_s", "created")


def main() -> None:
    """Measure twice, compare, print and write down."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--chars", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--results", type=Path, default=Path("docs/results/ray_sweep.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        found = compare(Path(root), chars=options.chars, seeds=options.seeds)
    for name, value in found.items():
        print(f"{name}: {value}")
    write_json(options.results, found)
    sys.exit(1 if found["differences"] else 0)


def compare(root: Path, *, chars: int, seeds: int) -> dict[str, Any]:
    """Return what both executors gave of one run: whether it is the same, and how long they took."""
    base = root / "base" / "sweep"
    train_run(base_config(chars), base)
    run = open_run(base)
    plans = [_pruning(run, share) for share in SHARES]
    runs, took = {}, {}
    for executor in ("local", "ray"):
        path = root / executor / "sweep"
        shutil.copytree(base, path)
        runs[executor] = open_run(path)
        how = ("--executor", executor, "--workers", WORKERS)
        sweep = [path / plan.relative_to(base) for plan in plans]
        took[executor] = {
            "measure": _seconds("measure", path, *sweep, "--seeds", seeds, *how),
            "folds": _seconds("probe", path, "folds", "--models", MODELS, *how),
        }
    previews = [_without_clock(_measured(runs["local"], plan)) for plan in plans]
    differences = differing(previews, [_without_clock(_measured(runs["ray"], plan)) for plan in plans], "measure.json")
    differences += differing(_folds(runs["local"]), _folds(runs["ray"]), "folds")
    table = light.load_table(run)
    arms = [arm.path(run) for plan in plans for arm in light.measurement_arms(run, plan, seeds=seeds)]
    return {
        "num_plans": len(plans),
        "seeds": seeds,
        "num_retrains": len(set(arms)),
        "num_fold_models": MODELS,
        "num_samples": len(table),
        "workers": WORKERS,
        "num_numbers": sum(_count(one) for one in previews) + _count(_folds(runs["local"])),
        "differences": differences,
        "wall_s": took,
        "median_retrain_s": {name: _median_retrain(runs[name]) for name in runs},
        "ray_against_local": {name: took["ray"][name] / took["local"][name] for name in took["ray"]},
        "versions": {name: version(name) for name in ("ray", "torch", "numpy", "tokenizers")},
    }


def base_config(chars: int) -> RunConfig:
    """Return settings under which a training takes some seconds."""
    return RunConfig(
        corpus=CorpusConfig(path="demo", max_chars=chars),
        canaries=CanaryConfig(num_inserted=16, repeats=(1, 4), kinds=("template", "words")),
        model=ModelConfig(embed=32, hidden=64, context=64),
        engine=EngineConfig(epochs=6, snapshots=6, batch_size=16, learning_rate=4e-3),
    )


def _pruning(run: Run, share: float) -> Path:
    top = light.select(run, {"type": "top", "by": "final_loss", "q": share})
    return light.save_plan(run, light.plan_action(run, top, action="prune"))


def _seconds(*words: object) -> float:
    command = [sys.executable, "-m", "carto_core", *map(str, words)]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _measured(run: Run, plan: Path) -> Any:
    return read_json(run.files.previews / plan.name / "measure.json", {"arms": [RESULT]}, cure="")


def _median_retrain(run: Run) -> float:
    arms = (run.files.previews / "arms").glob("*.json")
    return float(np.median([read_json(path, {"wall_s": SECONDS}, cure="")["wall_s"] for path in arms]))


def _folds(run: Run) -> dict[str, Any]:
    folds = read_folds(run.files)
    assert folds is not None
    return vars(folds)


def _without_clock(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_clock(part) for name, part in value.items() if name not in OF_THE_CLOCK}
    return [_without_clock(part) for part in value] if isinstance(value, list) else value


def differing(one: Any, other: Any, where: str) -> list[str]:
    """Return the places at which two results are not the same, bit for bit; numbers are compared as numbers, NaN with NaN."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [place for name in one for place in differing(one[name], other[name], f"{where}.{name}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [place for i in range(len(one)) for place in differing(one[i], other[i], f"{where}[{i}]")]
    if isinstance(one, np.ndarray):
        same = one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    else:
        same = type(one) is type(other) and one == other
    return [] if same else [where]


def _count(value: Any) -> int:
    if isinstance(value, dict):
        return sum(_count(part) for part in value.values())
    if isinstance(value, list):
        return sum(_count(part) for part in value)
    if isinstance(value, np.ndarray):
        return value.size
    return isinstance(value, int | float) and not isinstance(value, bool)


if __name__ == "__main__":
    main()
