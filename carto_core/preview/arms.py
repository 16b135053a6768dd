"""The arms of a measured preview: what is retrained, under which plan and seed, and the key that finds it again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from carto_core.config import RunConfig
from carto_core.engine.order import total_steps
from carto_core.engine.side_by_side import num_workers
from carto_core.interventions import deduplicate
from carto_core.preview.effects import MEASURE_CURE
from carto_core.store.reader import Run
from carto_core.store.shapes import SECONDS, read_json
from carto_core.types import Float32, Int32, Plan, SampleTable

ARMS = ("baseline", "plan", "control", "dedup", "oracle")
PREVIEW_AUDITS = ("extraction", "natural", "exposure", "perplexity")
WITH_MEMBERSHIP = (*PREVIEW_AUDITS, "membership")
Equal = Literal["steps", "epochs"]
LENGTH_STRATA = 20
CONTROL_DRAWS = 200
CONTROL_TOLERANCE = 0.02
MAX_SEEDS = 100
ARM_VERSION = 2  # raise when training or an audit changes what an arm gives: cached results are then not reused


@dataclass(frozen=True)
class Arm:
    """One retrain.

    Attributes:
        arm: name in `ARMS`.
        seed: of initialisation, order and the control's draw.
        repeats: int32[N].
        weights: float32[N].
        steps: optimizer steps.
        notes: what the control's draw came to, JSON-ready; empty for other arms.
        audits: what is asked of the trained model, names in `measured.ARM_AUDITS`.
    """

    arm: str
    seed: int
    repeats: Int32
    weights: Float32
    steps: int
    notes: dict[str, Any]
    audits: tuple[str, ...] = PREVIEW_AUDITS

    def key(self, run: Run) -> str:
        """Return the hash of all that decides this arm's result: the base run, the plan itself, seed, steps and audits."""
        manifest = run.manifest
        facts = [ARM_VERSION, manifest["config"], manifest["corpus_sha256"], manifest["seed"]]
        facts += [self.seed, self.steps, self.audits]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        digest.update(self.repeats.astype(np.int32).tobytes() + self.weights.astype(np.float32).tobytes())
        return digest.hexdigest()[:24]

    def path(self, run: Run) -> Path:
        """Return where the result of this arm is kept, whatever plan asked for it."""
        return run.files.previews / "arms" / f"{self.key(run)}.json"


def arms_of(
    run: Run,
    plan: Plan,
    table: SampleTable,
    *,
    seeds: int,
    equal: Equal,
    audits: tuple[str, ...] = PREVIEW_AUDITS,
    oracle: Plan | None = None,
) -> list[Arm]:
    """Return all arms of a measurement, seed by seed: baseline, plan, control, dedup, and oracle where there is one.

    Args:
        run: the base run.
        plan: what is measured.
        table: of the base run.
        seeds: how many, 0..seeds-1.
        equal: `steps` gives every arm the baseline's optimizer steps, `epochs` the same passes over fewer samples.
        audits: see `Arm`.
        oracle: see `interventions.oracle`; None leaves that arm out.
    """
    engine = RunConfig.from_dict(run.manifest["config"]).engine
    ones = np.ones(len(table), np.int32), np.ones(len(table), np.float32)
    baseline_steps = total_steps(engine, ones[0])

    def arm(name: str, seed: int, repeats: Int32, weights: Float32, **notes: Any) -> Arm:
        steps = baseline_steps if equal == "steps" else total_steps(engine, repeats)
        return Arm(name, seed, repeats, weights, steps, notes, audits)

    def arms_of_seed(seed: int) -> Iterator[Arm]:
        yield arm("baseline", seed, *ones)
        yield arm("plan", seed, plan.repeats, plan.weights)
        repeats, weights, notes = draw_control(plan, table, seed=seed)
        yield arm("control", seed, repeats, weights, **notes)
        unique = deduplicate(table)
        yield arm("dedup", seed, unique.repeats, unique.weights)
        if oracle is not None:
            yield arm("oracle", seed, oracle.repeats, oracle.weights)

    return [arm for seed in range(seeds) for arm in arms_of_seed(seed)]


def draw_control(plan: Plan, table: SampleTable, *, seed: int) -> tuple[Int32, Float32, dict[str, Any]]:
    """Give the plan's (repeat, weight) pairs to randomly drawn rows of like length.

    Rows are drawn from all training samples within strata of length, so the count is equal and the tokens nearly so; of
    up to 200 draws the first within 2 % of the plan's tokens is taken, else the nearest. Chance overlap with the plan is
    allowed, because a truly random choice would have it, and is recorded.

    Rows are drawn one by one, whereas a plan often takes all copies of a text: for the same rows the control then loses more
    texts altogether, which costs perplexity. How many either loses is recorded.

    Returns:
        repeats int32[N], weights float32[N], and notes: `num_rows`, `tokens`, `plan_tokens`, `within_tolerance`,
        `overlap` (rows), and `texts_lost`, `plan_texts_lost` (distinct texts of which no copy is left).
    """
    rng = np.random.default_rng([seed, 5])
    affected = np.flatnonzero(plan.affected)
    wanted = int(table.num_tokens[affected].sum())
    best: tuple[int, np.ndarray, np.ndarray] | None = None
    for _ in range(CONTROL_DRAWS):
        rows, givers = _draw_rows(affected, table.num_tokens, rng)
        distance = abs(int(table.num_tokens[rows].sum()) - wanted)
        if best is None or distance < best[0]:
            best = (distance, rows, givers)
        if best[0] <= CONTROL_TOLERANCE * wanted:
            break
    assert best is not None
    distance, rows, givers = best
    repeats, weights = np.ones(len(table), np.int32), np.ones(len(table), np.float32)
    repeats[rows], weights[rows] = plan.repeats[givers], plan.weights[givers]
    return (
        repeats,
        weights,
        {
            "num_rows": len(rows),
            "tokens": int(table.num_tokens[rows].sum()),
            "plan_tokens": wanted,
            "within_tolerance": bool(distance <= CONTROL_TOLERANCE * wanted),
            "overlap": int(np.isin(rows, affected).sum()),
            "texts_lost": _texts_lost(repeats, table),
            "plan_texts_lost": _texts_lost(plan.repeats, table),
        },
    )


def _texts_lost(repeats: Int32, table: SampleTable) -> int:
    """Return how many distinct texts have no copy that is trained on."""
    return len(np.unique(table.group_id)) - len(np.unique(table.group_id[repeats > 0]))


def _draw_rows(affected: np.ndarray, num_tokens: Int32, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return drawn rows, and for each the affected row whose pair it gets; both of the plan's size."""
    order = np.lexsort((rng.random(len(num_tokens)), num_tokens))
    stratum = np.empty(len(num_tokens), np.int64)
    stratum[order] = np.arange(len(num_tokens)) * LENGTH_STRATA // len(num_tokens)
    rows, givers = [], []
    for level in range(LENGTH_STRATA):
        mine = affected[stratum[affected] == level]
        rows.append(rng.choice(np.flatnonzero(stratum == level), size=len(mine), replace=False))
        givers.append(mine)
    return np.concatenate(rows), np.concatenate(givers)


def expected_minutes(run: Run, arms: list[Arm], *, at_a_time: Callable[[dict[str, Any]], int] = num_workers) -> float:
    """Return about how long the arms that are not cached will take, in minutes.

    From the median of the arms that were trained before, else from the base run without its snapshots.

    Args:
        run: the base run.
        arms: of one plan or of many; an arm that several need counts once.
        at_a_time: how many are trained at a time, given the run's manifest; not asked where all are cached.
    """
    missing = {path for arm in arms if not (path := arm.path(run)).is_file()}
    if not missing:
        return 0.0
    done = (run.files.previews / "arms").glob("*.json")
    known = [read_json(path, {"wall_s": SECONDS}, cure=MEASURE_CURE)["wall_s"] for path in done]
    manifest = run.manifest
    seconds = float(np.median(known)) if known else manifest["train_s"] - manifest["measure_s"]
    rounds = -(-len(missing) // at_a_time(manifest))
    return seconds * rounds / 60
