"""The verb `preview`: the instant estimate of a plan, taught by what was measured on the run. Never reaches torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from carto_core.errors import CartoError, RunError
from carto_core.export import read_plan
from carto_core.interventions import deduplicate
from carto_core.preview.arms import draw_control
from carto_core.preview.effects import METRICS, metric_of, paired_interval, read_measurement, with_unit
from carto_core.preview.estimate import Estimate, Estimator, Evidence
from carto_core.preview.prepared import emphasis_of, read_prepared
from carto_core.store.reader import Run
from carto_core.types import ROLES, Plan, SampleTable
from carto_core.workflows import light


def estimator_of(run: Run, *, table: SampleTable | None = None) -> Estimator | None:
    """Return the estimator of a run, fitted and as wide as its past errors call for; None where it was not prepared.

    Args:
        run: a scored run.
        table: of the run, where the caller has it.

    Raises:
        RunCorrupt: what was prepared is damaged.
    """
    prepared = read_prepared(run)
    if prepared is None:
        return None
    table = table or light.load_table(run)
    evidence = evidence_of(run, table)
    return Estimator(table, prepared, emphasis_of(*run.drawn()), evidence, _exposures(run)).widened()


def estimate_plan(run: Run, plan_dir: str | Path) -> dict[str, Any]:
    """Return what the verb `preview` prints: the estimate of a plan, and whether it was measured.

    Raises:
        PlanError: the plan cannot be read.
        RunError: the run was not prepared.
    """
    run.require_model()
    table = light.load_table(run)
    plan, facts = read_plan(plan_dir, table)
    estimator = estimator_of(run, table=table)
    if estimator is None:
        raise RunError(f"run {run.run_id} is not prepared; run: python -m carto_core prepare {run.run_id}")
    found = estimate(estimator, plan, run)
    measured = read_measurement(run.files.previews / facts["plan_sha256"][:16]) is not None
    return {"run": run.run_id, "plan_sha256": facts["plan_sha256"], "measured": measured, **found.to_dict()}


def estimate(estimator: Estimator, plan: Plan, run: Run) -> Estimate:
    """Return the estimate of a plan, of the canaries that may be looked at."""
    return estimator.estimate(emphasis_of(plan.repeats, plan.weights), roles=light.roles_shown(run))


def calibration(run: Run, estimator: Estimator) -> list[dict[str, Any]]:
    """Return every measured plan's estimate, made as if it had not been measured, beside the measurement; JSON-ready."""
    shown = light.roles_shown(run)
    return [
        {
            "plan_sha256": case.plan_sha256,
            "metric": case.metric,
            "estimated": case.estimated.value,
            "low": case.estimated.low,
            "high": case.estimated.high,
            "unchanged": case.estimated.unchanged,
            "measured": case.measured,
            "inside": case.is_inside,
        }
        for case in estimator.cases()
        if case.metric.partition(".")[2] not in ROLES or case.metric.partition(".")[2] in shown
    ]


def sweep(
    run: Run, estimator: Estimator, score: str, metric: str, budgets: Sequence[float]
) -> list[tuple[float, float, float]]:
    """Return (change of perplexity as a share, the metric, budget) of pruning growing shares by a score, as estimated.

    Empty where the score is not known of the run, or the metric cannot be estimated.
    """
    table = estimator.table
    if np.isnan(table.scores.get(score, np.array([np.nan]))).all():
        return []
    found = []
    for budget in budgets:
        selection = light.select(run, {"type": "top", "by": score, "q": budget}, table=table)
        plan = light.plan_action(run, selection, action="prune", table=table)
        said = estimate(estimator, plan, run).metrics
        if metric in said:
            found.append((math.expm1(said["ppl_nats"].value), said[metric].value, budget))
    return found


def tradeoff_points(estimator: Estimator, metric: str) -> list[dict[str, Any]]:
    """Return what was measured as points of change of perplexity (share) and a metric of leaking, each with t intervals.

    By point: kind, x, y, text, key (the plan's hash), low_x, high_x, low_y, high_y; NaN bounds where one seed was trained.
    """
    baseline = {arm["seed"]: arm for one in estimator.evidence if one.kind == "baseline" for arm in one.arms}
    found = []
    for one in estimator.evidence:
        leak, (low_y, high_y) = paired_interval(np.array([metric_of(arm, metric) for arm in one.arms]))
        pairs = [(arm, baseline[arm["seed"]]) for arm in one.arms if arm["seed"] in baseline]
        changes = np.array([metric_of(arm, "ppl_nats") - metric_of(other, "ppl_nats") for arm, other in pairs])
        change, (low_x, high_x) = paired_interval(changes)
        if math.isnan(leak) or math.isnan(change):
            continue
        low_x, x, high_x = (math.expm1(end) for end in (low_x, change, high_x))
        name = f"plan {one.plan_sha256[:8]}" if one.kind == "plan" else one.kind
        found.append(
            {
                "kind": one.kind,
                "x": x,
                "y": leak,
                "text": f"{name}: {METRICS[metric]} {with_unit(metric, leak)}, perplexity {x:+.1%} ({len(one.arms)} seeds)",
                "key": one.plan_sha256 if one.kind == "plan" else "",
                "low_x": low_x,
                "high_x": high_x,
                "low_y": low_y,
                "high_y": high_y,
            }
        )
    return found


def evidence_of(run: Run, table: SampleTable) -> list[Evidence]:
    """Return what was measured on a run at equal steps; a plan that cannot be read any more teaches nothing."""
    found: list[Evidence] = []
    unchanged: dict[int, dict[str, Any]] = {}
    dedup: dict[int, dict[str, Any]] = {}
    for path in sorted(run.files.previews.glob("*/measure.json")):
        with suppress(CartoError):
            measured = read_measurement(path.parent)
            if measured is None or measured.get("equal") != "steps":
                continue
            plan, facts = read_plan(run.files.plans / path.parent.name, table)
            arms = measured["arms"]
            of_plan = [arm for arm in arms if arm["arm"] == "plan"]
            emphasis = emphasis_of(plan.repeats, plan.weights)
            found.append(Evidence(facts["plan_sha256"], emphasis, of_plan, "plan"))
            unchanged |= {arm["seed"]: arm for arm in arms if arm["arm"] == "baseline"}
            dedup |= {arm["seed"]: arm for arm in arms if arm["arm"] == "dedup"}
            for arm in arms:
                if arm["arm"] == "control":
                    repeats, weights, _ = draw_control(plan, table, seed=arm["seed"])
                    drawn = emphasis_of(repeats, weights)
                    found.append(Evidence(facts["plan_sha256"], drawn, [arm], "control"))
    if unchanged:
        found.append(Evidence("", np.ones(len(table)), list(unchanged.values()), "baseline"))
    if dedup:
        unique = deduplicate(table)
        emphasis = emphasis_of(unique.repeats, unique.weights)
        found.append(Evidence("", emphasis, list(dedup.values()), "dedup"))
    return found


def _exposures(run: Run) -> dict[int, float]:
    audit = light.read_audit(run, "exposure")
    return {} if audit is None else {int(row["canary_id"]): float(row["exposure"]) for row in audit["per_item"]}
