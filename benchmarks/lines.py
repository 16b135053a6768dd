"""One line of the paper's table: how samples are chosen and what is done to them, its arms, its effects, its place in the results."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from carto_core import interventions
from carto_core.config import RunConfig
from carto_core.preview.arms import Arm, Equal, arms_of
from carto_core.preview.effects import metric_of, paired_interval, sign_flip_p
from carto_core.preview.measured import measure_arms
from carto_core.quadrants import Cuts
from carto_core.store.reader import Run, open_run
from carto_core.store.rundir import now, replacing, resolve_runs_root, update_manifest
from carto_core.types import Plan, SampleTable, Selection
from carto_core.workflows import light
from carto_core.workflows.demo import DEMO_PROBES
from carto_core.workflows.probing import probe_run
from carto_core.workflows.progress import ProgressFile
from carto_core.workflows.training import resume_run, train_run

ARMS = ("plan", "control", "baseline")
PERCENTILE = 75.0
HALF = 0.5
RECOMMENDED = "recommended"


@dataclass(frozen=True)
class Cell:
    """One line of the table: a way to choose (key in `POLICIES`), how much, and what the arms share."""

    policy: str
    share: float | None
    equal: Equal


@dataclass(frozen=True)
class Experiment:
    """One of the paper's experiments.

    Attributes:
        name: of its runs' folders.
        results: file in docs/results.
        config: settings of the base run of a corpus.
        cells: its lines by stage, the most telling first.
        audits: what is asked of every arm.
        metrics: what effects are told of.
    """

    name: str
    results: Path
    config: Callable[[str], RunConfig]
    cells: dict[int, tuple[Cell, ...]]
    audits: tuple[str, ...]
    metrics: tuple[str, ...]


def base_run(experiment: Experiment, corpus: str) -> Run:
    """Return the corpus's base run with its scores and its twin, training what is missing."""
    config = experiment.config(corpus)
    run = trained(config, resolve_runs_root() / f"{experiment.name}-{corpus}-{config.corpus.max_chars}")
    missing = [name for name in light.missing_probes(run) if name in DEMO_PROBES]
    if missing:
        probe_run(run, missing)
    return run


def trained(config: RunConfig, out: Path) -> Run:
    """Return the run of these settings in `out`, training it or going on with it where it is not complete."""
    if not (out / "run.json").is_file():
        train_run(config, out)
    elif open_run(out).status != "complete":
        resume_run(out)
    return open_run(out)


def plan_of(run: Run, table: SampleTable, cell: Cell) -> tuple[str, Plan]:
    """Return which score a line goes by (empty where it goes by none), and its plan."""
    return POLICIES[cell.policy](run, table, cell)


def _ranked(run: Run, table: SampleTable, cell: Cell) -> tuple[str, Plan]:
    score = light.recommended(run, table=table).score if cell.policy == RECOMMENDED else cell.policy
    selection = light.select(run, {"type": "top", "by": score, "q": cell.share}, table=table)
    return score, light.plan_action(run, selection, action="prune", table=table)


def _oracle(run: Run, table: SampleTable, cell: Cell) -> tuple[str, Plan]:
    assert cell.share is not None
    return "", interventions.make_plan(oracle(run, table, cell.share), table, action="prune")


def _deduplicate(run: Run, table: SampleTable, cell: Cell) -> tuple[str, Plan]:
    return "", interventions.deduplicate(table)


def _quadrants(run: Run, table: SampleTable, cell: Cell) -> tuple[str, Plan]:
    cuts = _cuts(table, "memorization")
    return cuts.y, light.plan_policy(run, alpha=HALF, gamma=2, cuts=cuts, table=table)


def _half_hotspots(run: Run, table: SampleTable, cell: Cell) -> tuple[str, Plan]:
    literal = cell.policy == "half_hotspots_literal"
    cuts = _cuts(table, "memorization" if literal else light.recommended(run, table=table).score)
    hotspots = light.select(run, light.quadrant_rule("hotspot-memorized", cuts), table=table)
    return cuts.y, light.plan_action(run, hotspots, action="reweight", factor=HALF, table=table)


def _half_canaries(run: Run, table: SampleTable, cell: Cell) -> tuple[str, Plan]:
    return "", interventions.make_plan(oracle(run, table, 1.0), table, action="reweight", factor=HALF)


def _cuts(table: SampleTable, y: str) -> Cuts:
    return Cuts.at_percentiles(table.scores, x="difficulty", y=y, cut_x=PERCENTILE, cut_y=PERCENTILE)


POLICIES: dict[str, Callable[[Run, SampleTable, Cell], tuple[str, Plan]]] = {
    RECOMMENDED: _ranked,
    "memorization": _ranked,
    "difficulty": _ranked,
    "oracle": _oracle,
    "deduplicate": _deduplicate,
    "quadrants": _quadrants,
    "half_hotspots": _half_hotspots,
    "half_hotspots_literal": _half_hotspots,
    "half_canaries": _half_canaries,
}


def oracle(run: Run, table: SampleTable, share: float) -> Selection:
    """Choose a share of the samples as one who knows the canaries."""
    return interventions.oracle(table, run.canaries(), budget=round(share * len(table)))


def measure_cell(experiment: Experiment, run: Run, cell: Cell, *, seeds: int) -> dict[str, Any]:
    """Train the arms of one line that are not there yet, and return the line."""
    table = light.load_table(run)
    score, plan = plan_of(run, table, cell)
    arms = arms_of(run, plan, table, seeds=seeds, equal=cell.equal, audits=experiment.audits)
    arms = [arm for arm in arms if arm.arm in ARMS]
    progress = ProgressFile(run.files.previews / "progress.jsonl")
    what = " ".join(str(part) for part in (cell.policy, score, cell.share, cell.equal) if part)
    print(f"{run.run_id}: {what}: {_missing(run, arms)} of {len(arms)} to train", file=sys.stderr)
    measured = measure_arms(run.files.path, arms, progress=progress)["arms"]
    update_manifest(run.files, report_seen=True)
    pruned = plan.repeats == 0
    against = [(metric, arm) for metric in experiment.metrics for arm in ("control", "baseline")]
    return {
        **asdict(cell),
        "score": score,
        "num_affected": int(plan.affected.sum()),
        "num_canary_rows": int((plan.affected & table.is_canary).sum()),
        "num_recited_rows": int((plan.affected & (table.truth["extracted"] == 1)).sum()),
        "num_pruned": int(pruned.sum()),
        "tokens_pruned": float(table.num_tokens[pruned].sum() / table.num_tokens.sum()),
        "seeds": list(range(seeds)),
        "arms": {arm: [_facts(experiment, a) for a in measured if a["arm"] == arm] for arm in ARMS},
        "effects": [effect(measured, metric, arm) for metric, arm in against],
    }


def effect(arms: list[dict[str, Any]], metric: str, against: str) -> dict[str, Any]:
    """Return plan minus another arm, paired by seed: mean, 95 % t interval, exact sign-flip p. Loss also as perplexity.

    None where it cannot be had: a corpus without repeated texts has no natural extraction.
    """
    values = {arm: {a["seed"]: metric_of(a, metric) for a in arms if a["arm"] == arm} for arm in ("plan", against)}
    differences = np.array([values["plan"][seed] - values[against][seed] for seed in sorted(values["plan"])])
    mean, (low, high) = paired_interval(differences)
    found: dict[str, Any] = {"metric": metric, "against": against, "estimate": mean, "low": low, "high": high}
    if metric == "ppl_nats":
        found |= {f"{name}_percent": 100 * float(np.expm1(found[name])) for name in ("estimate", "low", "high")}
    found["p"] = sign_flip_p(differences)
    return {name: None if isinstance(value, float) and np.isnan(value) else value for name, value in found.items()}


def _facts(experiment: Experiment, arm: dict[str, Any]) -> dict[str, Any]:
    names = {"seed", "steps", "tokens", "notes"} | {metric.partition(".")[0] for metric in experiment.metrics}
    return {name: value for name, value in arm.items() if name in names}


def _missing(run: Run, arms: list[Arm]) -> int:
    return sum(not arm.path(run).is_file() for arm in arms)


def is_kept(experiment: Experiment, corpus: str, cell: Cell, *, seeds: int) -> bool:
    """Return whether the results hold this line already, with these settings and at least so many seeds."""
    found = read_results(experiment)["corpora"].get(corpus, {"lines": []})
    if found.get("config") != experiment.config(corpus).to_dict():
        return False
    return any(
        all(line[name] == value for name, value in asdict(cell).items()) and len(line["seeds"]) >= seeds
        for line in found["lines"]
    )


def keep(experiment: Experiment, run: Run, corpus: str, line: dict[str, Any]) -> None:
    """Put one line into the results, in place of an older one of its kind; lines of other settings are dropped."""
    results = read_results(experiment)
    manifest = run.manifest
    mine = results["corpora"].get(corpus, {"lines": []})
    if mine.get("config") != manifest["config"]:
        mine["lines"] = []
    mine |= {name: manifest[name] for name in ("corpus_sha256", "num_samples", "device", "config", "versions")}
    mine["recommended"] = asdict(light.recommended(run))
    mine["rows"] = _row_counts(light.load_table(run))
    same = tuple(Cell.__dataclass_fields__)
    mine["lines"] = [old for old in mine["lines"] if any(old[n] != line[n] for n in same)]
    mine["lines"].append(line | {"commit": commit(), "created": now()})
    results["corpora"][corpus] = mine
    with replacing(experiment.results) as temporary:  # without indentation: every retrain stands in it
        temporary.write_text(json.dumps(results, separators=(",", ":"), allow_nan=False) + "\n", encoding="utf-8")


def commit() -> str | None:
    """Return the commit of the code that runs; None outside a checkout or without git."""
    if shutil.which("git") is None:
        return None
    here = Path(__file__).parent
    found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, cwd=here)
    return found.stdout.strip() or None


def _row_counts(table: SampleTable) -> dict[str, int]:
    """Return how many rows are canaries' and how many the twin recites: what a plan of a given size could hold."""
    recited = table.truth["extracted"] == 1
    return {
        "canary": int(table.is_canary.sum()),
        "recited_canary": int((recited & table.is_canary).sum()),
        "recited_natural": int((recited & ~table.is_canary).sum()),
    }


def read_results(experiment: Experiment) -> dict[str, Any]:
    """Return the experiment's results so far."""
    if not experiment.results.is_file():
        return {"version": 1, "corpora": {}}
    return json.loads(experiment.results.read_text(encoding="utf-8"))
