"""Cleaning in rounds, as far as no model is needed: what it will cost at most, and what its rounds have found.

Never reaches torch, so that pages may call it; the rounds themselves are in `cleaning`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from carto_core.engine.side_by_side import num_workers
from carto_core.errors import ConfigError, RunCorrupt
from carto_core.preview.arms import MAX_SEEDS
from carto_core.store.reader import Run

DEFAULT_STEP, DEFAULT_BUDGET, DEFAULT_TARGET, DEFAULT_SEEDS = 0.05, 0.2, 0.05, 3
ARMS_ONCE, ARMS_A_ROUND = 2, 2  # unchanged and one copy of each text; plan and control


def check_settings(*, step: float, budget: float, target: float, seeds: int) -> None:
    """Refuse settings of a cleaning that are out of range.

    Raises:
        ConfigError: see `cleaning.clean_run`.
    """
    if not 0 < step < 1:
        raise ConfigError(f"--step must lie between 0 and 1, got {step}")
    if not step <= budget < 1:
        raise ConfigError(f"--budget must be at least --step and below 1, got {budget}")
    if not 0 <= target < 1:
        raise ConfigError(f"--target must be at least 0 and below 1, got {target}")
    if not 1 <= seeds <= MAX_SEEDS:
        raise ConfigError(f"--seeds must be 1 to {MAX_SEEDS}, got {seeds}")


def most_rounds(*, step: float, budget: float) -> int:
    """Return after how many rounds the budget is spent, to the nearest step."""
    return max(1, math.floor(budget / step + 0.5))


def cleaning_minutes(run: Run, *, step: float, budget: float, seeds: int) -> float:
    """Return about how long all rounds would take, in minutes, from how long the base run took; nothing cached."""
    manifest, rounds = run.manifest, most_rounds(step=step, budget=budget)
    one = manifest["train_s"] - manifest["measure_s"]
    measured = -(-seeds * (ARMS_ONCE + ARMS_A_ROUND) // num_workers(manifest))
    measured += (rounds - 1) * -(-seeds * ARMS_A_ROUND // num_workers(manifest))
    return (measured * one + (rounds - 1) * manifest["train_s"]) / 60


def cleaning_file(run: Run) -> Path:
    """Return where a cleaning writes down its rounds."""
    return run.files.path / "cleaning.json"


def progress_file(run: Run) -> Path:
    """Return where a cleaning tells in which round it is."""
    return run.files.path / "cleaning.jsonl"


def read_cleaning(run: Run) -> dict[str, Any] | None:
    """Return what the last cleaning of a run has found so far; None where there was none.

    Raises:
        RunCorrupt: its file is damaged.
    """
    path = cleaning_file(run)
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except ValueError as error:
        raise RunCorrupt(f"{path} is not valid JSON ({error}); clean the run again") from None


def lines(content: dict[str, Any]) -> list[str]:
    """Return the rounds as text, one a line, and how it ended."""
    return [*map(_line, content["rounds"]), f"Ended: {content['ended']}"]


def _line(one: dict[str, Any]) -> str:
    means = one["means"]
    shares = ", ".join(
        f"{word} {_share(means[arm]['extraction.report'])}"
        for arm, word in (("plan", "plan"), ("control", "random control"), ("baseline", "unchanged"))
    )
    return (
        f"Round {one['round']}, by the map of {one['map_of']}: {one['num_affected']:,} samples ({one['share']:.1%}) cut so far; "
        f"report canaries given away: {shares}; perplexity {price(one):+.1%}"
    )


def price(one: dict[str, Any]) -> float:
    """Return what a round's cut costs: the change of perplexity against unchanged, as a share."""
    plan, unchanged = (one["means"][arm]["ppl_nats"] for arm in ("plan", "baseline"))
    return math.expm1(plan - unchanged)


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1%}"
