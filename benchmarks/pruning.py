"""What pruning the top share by a score does to extraction and perplexity, beside its controls.

    python -m benchmarks.pruning [--seeds 3] [--shares 0.05 0.1] [--scores memorization consolidation]

Uses the demo run (training it if it is not there); every arm is trained once and then found again. The best score is
chosen on calibration canaries, the effect is reported on the report half.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np

from carto_core.cli import make_demo
from carto_core.preview.effects import metric_of, paired_interval
from carto_core.scores import SCORES
from carto_core.store.reader import Run, open_run
from carto_core.store.rundir import resolve_runs_root
from carto_core.workflows import light
from carto_core.workflows.demo import DEMO_RUN
from carto_core.workflows.measuring import measure_plan

METRICS = ("extraction.report", "natural_extraction", "exposure.report", "ppl_nats")


def main() -> None:
    """Print one table a plan."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.05, 0.1])
    parser.add_argument("--scores", nargs="+", default=None, choices=list(SCORES))
    options = parser.parse_args()
    root = resolve_runs_root()
    make_demo(root)
    run = open_run(root / DEMO_RUN)
    print_quality(run)
    for score in options.scores or ["memorization", best_score(run)]:
        for share in options.shares:
            print_plan(run, score, share, seeds=options.seeds)


def best_score(run: Run) -> str:
    """Return the trajectory score with the highest AUC on calibration canaries (exact copies is 1 by construction)."""
    quality = light.quality(run, "calibration")
    return max((name for name in quality if name != "group_size"), key=lambda name: quality[name].auc)


def print_quality(run: Run) -> None:
    """Print the AUC of every score on both roles."""
    halves = {role: light.quality(run, role) for role in ("calibration", "report")}
    print(f"{'score':16} {'calibration':>22} {'report':>22}")
    for name in SCORES:
        cells = [f"{q.auc:.3f} [{q.low:.3f}, {q.high:.3f}]" for q in (halves[role][name] for role in halves)]
        print(f"{name:16} {cells[0]:>22} {cells[1]:>22}")


def print_plan(run: Run, score: str, share: float, *, seeds: int) -> None:
    """Prune the top share by a score, measure it, and print every arm with its mean and 95 % t interval over seeds."""
    selection = light.select(run, {"type": "top", "by": score, "q": share})
    plan_dir = light.save_plan(run, light.plan_action(run, selection, action="prune"))
    measured = measure_plan(run, plan_dir, seeds=seeds)
    print(
        f"\nprune top {share:.0%} by {score}: {len(selection.sample_ids)} of {run.num_samples} samples, {seeds} seeds"
    )
    print(f"{'arm':10}" + "".join(f"{metric:>30}" for metric in METRICS))
    for arm in ("baseline", "plan", "control", "dedup"):
        print(f"{arm:10}" + "".join(f"{_cell(measured['arms'], arm, metric):>30}" for metric in METRICS))
    for effect in measured["effects"]:
        if effect["arm"] == "plan" and effect["metric"] in METRICS:
            facts = {name: effect[name] for name in ("metric", "against", "estimate", "low", "high")}
            print("  effect " + json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in facts.items()}))


def _cell(arms: list[dict[str, Any]], arm: str, metric: str) -> str:
    values = np.array([metric_of(a, metric) for a in arms if a["arm"] == arm])
    mean, interval = paired_interval(values)
    return f"{mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


if __name__ == "__main__":
    main()
