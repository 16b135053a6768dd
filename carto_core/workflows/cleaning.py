"""The verb `clean`: cut, look what the cut exposed, cut again, until little is given away or the budget is spent.

After a cut the next layer of samples may become exposed (privacy onion effect, arXiv 2206.10469), so that one look at one
map is not enough. Every round is measured against the whole corpus beside a random cut of the same size.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from carto_core.engine.executors import LOCAL, Executor
from carto_core.errors import ConfigError, UnknownNameError
from carto_core.preview.effects import mean_of
from carto_core.scores import SCORES
from carto_core.selection import Rule
from carto_core.store.reader import Run, open_run
from carto_core.store.rundir import now, read_manifest, write_json
from carto_core.types import Plan
from carto_core.workflows import light
from carto_core.workflows.measuring import measure_plan
from carto_core.workflows.progress import ProgressFile
from carto_core.workflows.rounds import (
    DEFAULT_BUDGET,
    DEFAULT_SEEDS,
    DEFAULT_STEP,
    DEFAULT_TARGET,
    check_settings,
    cleaning_file,
    most_rounds,
    progress_file,
)
from carto_core.workflows.training import resume_plan, train_plan

JUDGE = "extraction.calibration"  # what decides when to stop; the report half tells what that was worth


def clean_run(
    run: Run,
    *,
    by: str | None = None,
    step: float = DEFAULT_STEP,
    budget: float = DEFAULT_BUDGET,
    target: float = DEFAULT_TARGET,
    seeds: int = DEFAULT_SEEDS,
    executor: Executor = LOCAL,
) -> dict[str, Any]:
    """Prune in rounds and return the content of `cleaning.json`, which is written after every round.

    A round takes the most memorized samples of those that are still trained on, by the map of the last retrain; measures
    everything that was cut so far on the base run; and, if it goes on, retrains under it as a run of its own,
    `RUN-round-K` beside the base run. Called again it takes up where it was stopped: nothing is trained twice.

    Args:
        run: the base run, scored, with canaries.
        by: score that chooses; None takes the run's map axis.
        step: share of all samples that a round takes, in (0, 1).
        budget: share that is cut at most, in [step, 1).
        target: stop once the mean extraction of calibration canaries is at most this, in [0, 1).
        seeds: retrains of each arm a round.
        executor: where these are trained; the run that a round leaves is trained here.

    Raises:
        ConfigError: a number is out of range, or the run has no calibration canaries.
        UnknownNameError: no such score.
        PlanError: the run was itself trained under a plan.
        Cancelled: stopped; what was finished is kept.
    """
    run.require_model()
    check_settings(step=step, budget=budget, target=target, seeds=seeds)
    table = light.load_table(run)
    by = by or table.y
    if by not in SCORES:
        raise UnknownNameError.of("score", by, SCORES)
    canaries = run.canaries()
    if not np.any((canaries["role"] == "calibration") & canaries["inserted"]):
        raise ConfigError(f"run {run.run_id} has no planted canaries, so nothing tells when it is clean")
    content: dict[str, Any] = {"version": 1, "run_id": run.run_id, "by": by, "step": step, "budget": budget}
    content |= {"target": target, "seeds": seeds, "rounds": [], "ended": ""}
    current = run
    progress, rounds = ProgressFile(progress_file(run)), most_rounds(step=step, budget=budget)
    while not content["ended"]:
        number = len(content["rounds"]) + 1
        progress("rounds", number - 1, max(rounds, number))
        plan = _next_cut(run, current, by=by, step=step)
        if content["rounds"] and int(plan.affected.sum()) <= content["rounds"][-1]["num_affected"]:
            content["ended"] = f"nothing more to cut: {by} names no sample that is still trained on"
            break
        plan_dir = light.save_plan(run, plan, table=table)
        found = _measured(run, plan, plan_dir, seeds=seeds, executor=executor)
        content["rounds"].append({"round": number, "map_of": current.run_id} | found)
        content["ended"] = _end(found, step=step, budget=budget, target=target)
        _keep(run, content)
        if not content["ended"]:
            current = _retrained(run, plan_dir, run.files.path.with_name(f"{run.run_id}-round-{number}"))
    _keep(run, content)
    progress("complete", 1, 1)
    return content


def _keep(run: Run, content: dict[str, Any]) -> None:
    write_json(cleaning_file(run), content | {"created": now()})


def _next_cut(run: Run, current: Run, *, by: str, step: float) -> Plan:
    """Return all that was cut before together with the most memorized samples that are left, as a plan of the base run."""
    table = light.load_table(current)
    gone: Rule = {"type": "keys", "keys": table.key[~table.is_trained].tolist()}
    wanted, q = round(step * len(table)), step
    while True:
        top: Rule = {"type": "top", "by": by, "q": min(q, 1.0)}
        rule = top if table.is_trained.all() else {"type": "combined", "op": "subtract", "rules": [top, gone]}
        selection = light.select(current, rule, table=table)
        if len(selection.sample_ids) >= 0.8 * wanted or q >= 1:
            break
        q += step / 2
    plan = light.plan_action(current, selection, action="prune", table=table)
    # the rule speaks of another run's map, where it names other samples than on the base run's
    return dataclasses.replace(plan, rule={"type": "keys", "keys": table.key[plan.affected].tolist()})


def _measured(run: Run, plan: Plan, plan_dir: Path, *, seeds: int, executor: Executor) -> dict[str, Any]:
    measured = measure_plan(run, plan_dir, seeds=seeds, executor=executor)
    arms = {name: [arm for arm in measured["arms"] if arm["arm"] == name] for name in ("baseline", "plan", "control")}
    names = (JUDGE, "extraction.report", "ppl_nats")
    means = {name: {metric: _known(mean_of(some, metric)) for metric in names} for name, some in arms.items()}
    effects = [e for e in measured["effects"] if e["arm"] == "plan" and e["metric"] in names]
    return {
        "plan": plan_dir.name,
        "share": float(plan.affected.mean()),
        "num_affected": int(plan.affected.sum()),
        "means": means,
        "effects": effects,
    }


def _end(found: dict[str, Any], *, step: float, budget: float, target: float) -> str:
    """Return why to stop after a round; empty for going on."""
    leak = found["means"]["plan"][JUDGE]
    if leak is not None and leak <= target:
        return f"clean: calibration canaries are given away at {leak:.1%}, the target is {target:.1%}"
    if found["share"] + step > budget + step / 2:
        return f"budget spent: {found['share']:.1%} of the samples are cut, and {leak or 0:.1%} is still given away"
    return ""


def _retrained(run: Run, plan_dir: Path, out: Path) -> Run:
    """Return the run that was trained under a plan in `out`, training it or going on with it where it is not complete."""
    if not (out / "run.json").is_file():
        train_plan(run, plan_dir, out)
    elif open_run(out).status != "complete":
        resume_plan(run, plan_dir, out)
    found = open_run(out)
    if not str(read_manifest(found.files).get("plan_sha256", "")).startswith(plan_dir.name):
        raise ConfigError(
            f"{out} holds another run than this round's; move it away, or clean with the same settings as before"
        )
    return found


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
