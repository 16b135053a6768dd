"""A selection becomes a plan: how often each sample is drawn, and how heavily it counts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from typing import get_args

import numpy as np
import pandas as pd

from carto_core.errors import PlanError
from carto_core.quadrants import Cuts
from carto_core.types import Action, Bool, Plan, SampleTable, Selection

DEFAULT_FACTOR: dict[str, float] = {"reweight": 0.5, "upsample": 2}
DEFAULT_ALPHA = 0.5
DEFAULT_GAMMA = 2
WEIGHTS = (1e-6, 1e6)  # beyond these a float32 sum of weighted losses loses the others
MAX_REPEATS = 1000  # an epoch; beyond it hardly anything else is trained on


def make_plan(selection: Selection, table: SampleTable, *, action: str, factor: float | None = None) -> Plan:
    """Return the plan that does one thing to a selection.

    Args:
        selection: resolved against `table`.
        table: the run's samples.
        action: `prune` (never drawn), `reweight` (loss times `factor`) or `upsample` (drawn `factor` times an epoch).
        factor: for reweight within `WEIGHTS` and not 1 (default 0.5); for upsample a whole number from 2 to `MAX_REPEATS`
            (default 2).

    Raises:
        PlanError: the action is unknown, the factor does not fit it, or the selection is empty or is everything
            that could be trained on.
    """
    if action not in get_args(Action):
        raise PlanError(f"unknown action {action!r}; choose one of: {', '.join(get_args(Action))}")
    if len(selection.sample_ids) == 0:
        raise PlanError("the selection is empty: choose at least one sample to plan for")
    factor = _checked_factor(action, factor)
    repeats, weights = _nothing_changed(len(table))
    if action == "prune":
        repeats[selection.sample_ids], weights[selection.sample_ids] = 0, 0.0
    elif action == "reweight":
        weights[selection.sample_ids] = factor
    else:
        repeats[selection.sample_ids] = int(factor)
    if not repeats.any():
        raise PlanError("the plan would prune every sample; leave some to train on")
    reason = [""] * len(table)
    for sample_id in selection.sample_ids:
        reason[sample_id] = f"{action}: {selection.rule['type']}"
    warnings = _upsampling_warnings((repeats > 1) | (weights > 1), table, extractable=())
    return Plan(repeats, weights, reason, selection.rule, action, (*selection.notes, *warnings))


def quadrant_policy(
    table: SampleTable,
    cuts: Cuts,
    *,
    alpha: float = DEFAULT_ALPHA,
    gamma: float = DEFAULT_GAMMA,
    extractable: Collection[int] = (),
) -> Plan:
    """Return the paper's plan: Ambiguous-Hard drawn gamma times, Hotspots weighted alpha, Noisy-Outliers pruned.

    Its notes warn where it would up-sample planted canaries, or samples that an audit has extracted.

    Args:
        table: the run's samples.
        cuts: axes and thresholds; kept in the rule.
        alpha: weight of hotspots, above 0 and below 1.
        gamma: repeats of hard samples, a whole number of 2 or more.
        extractable: sample ids that an audit found extractable.

    Raises:
        PlanError: alpha or gamma is out of range.
    """
    if not WEIGHTS[0] <= alpha < 1:
        raise PlanError(f"--alpha must lie between {WEIGHTS[0]:g} and 1, got {alpha}")
    gamma = _checked_factor("upsample", gamma)
    quadrant = cuts.assign(table.scores)
    repeats, weights = _nothing_changed(len(table))
    repeats[quadrant == "ambiguous-hard"] = int(gamma)
    weights[quadrant == "hotspot-memorized"] = alpha
    repeats[quadrant == "noisy-outlier"], weights[quadrant == "noisy-outlier"] = 0, 0.0
    changed = (repeats != 1) | (weights != 1)
    reason = [f"policy: {name}" if touched else "" for name, touched in zip(quadrant, changed, strict=True)]
    rule = {
        "type": "policy",
        "policy": "quadrants",
        "alpha": alpha,
        "gamma": int(gamma),
        "x": cuts.x,
        "y": cuts.y,
        "tau_x": cuts.tau_x,
        "tau_y": cuts.tau_y,
    }
    notes = _upsampling_warnings(repeats > 1, table, extractable=extractable)
    return Plan(repeats, weights, reason, rule, "policy", tuple(notes))


def oracle(table: SampleTable, canaries: pd.DataFrame, *, budget: int) -> Selection:
    """Choose as one who knows the canaries: whole ones, those that a twin gives away first, fewest copies first.

    What a detector could hope for at the same size, and no plan for anybody's corpus. It takes canaries of both halves, whole
    ones only, so that a plan may do better on one half.

    Args:
        table: of the run; without a twin's truth every canary counts alike.
        canaries: `canary_id, inserted` at least.
        budget: how many rows at most.
    """
    taken: list[int] = []
    extracted = table.truth.get("extracted", np.full(len(table), np.nan, np.float32))
    inserted = canaries.loc[canaries["inserted"].astype(bool), "canary_id"]
    rows_of = {i: np.flatnonzero(table.canary_id == i) for i in inserted}
    given_away = {i: bool(len(rows) and extracted[rows[0]] == 1) for i, rows in rows_of.items()}
    for i in sorted(rows_of, key=lambda i: (not given_away[i], len(rows_of[i]), i)):
        if len(taken) + len(rows_of[i]) <= budget:
            taken += rows_of[i].tolist()
    return Selection({"type": "keys", "keys": table.key[taken].tolist()}, np.sort(np.array(taken, np.int32)))


def deduplicate(table: SampleTable, *, drawn: Bool | None = None) -> Plan:
    """Return the plan that keeps the first copy of every exact-duplicate group and prunes the rest.

    Args:
        table: the run's samples.
        drawn: bool[N], which samples the run itself was trained on; None stands for all. Of what it left out no copy is
            kept, so that a text of which it left out some does not go with all its copies.
    """
    ids = np.arange(len(table)) if drawn is None else np.flatnonzero(drawn)
    first = ids[np.unique(table.group_id[ids], return_index=True)[1]]
    repeats, weights = np.zeros(len(table), np.int32), np.zeros(len(table), np.float32)
    repeats[first], weights[first] = 1, 1.0
    reason = ["" if kept else "prune: exact duplicate" for kept in repeats]
    return Plan(repeats, weights, reason, {"type": "deduplicate"}, "prune")


def plan_sha256(plan: Plan, table: SampleTable) -> str:
    """Return the plan's content hash: SHA-256 over its (key, repeat, weight) rows in order of key.

    One JSON array a line, UTF-8, the weight as the shortest decimal of its float32.
    """
    digest = hashlib.sha256()
    for key, repeat, weight in sorted(zip(table.key, plan.repeats.tolist(), plan.weights, strict=True)):
        row = [key, repeat, float(str(weight))]
        digest.update(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def _nothing_changed(num_samples: int) -> tuple[np.ndarray, np.ndarray]:
    return np.ones(num_samples, np.int32), np.ones(num_samples, np.float32)


def _checked_factor(action: str, factor: float | None) -> float:
    if action == "prune":
        if factor is not None:
            raise PlanError("--factor has no meaning for prune; leave it out")
        return 0.0
    value = DEFAULT_FACTOR[action] if factor is None else factor
    low, high = WEIGHTS
    if action == "reweight" and not (low <= value <= high and np.float32(value) != 1):
        raise PlanError(f"reweight needs a factor from {low:g} to {high:g} and other than 1, got {value:g}")
    if action == "upsample" and not (2 <= value <= MAX_REPEATS and value == int(value)):
        raise PlanError(f"upsample needs a whole factor from 2 to {MAX_REPEATS:,}, got {value:g}")
    return float(value)


def _upsampling_warnings(upsampled: Bool, table: SampleTable, *, extractable: Collection[int]) -> list[str]:
    """Return a sentence for each kind of sample that had better not be repeated."""
    canaries = upsampled & table.is_canary
    secrets = len(np.unique(table.canary_id[canaries]))
    recited = sum(bool(upsampled[i]) for i in extractable)
    notes = []
    if secrets:
        notes.append(
            f"Warning: this up-samples {int(canaries.sum())} copies of {secrets} planted canaries, "
            "so it would likely up-sample real secrets too."
        )
    if recited:
        notes.append(f"Warning: this up-samples {recited} samples that the model already recites.")
    return notes
