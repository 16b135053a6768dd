"""What a measurement says: paired differences over seeds, with t intervals."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from carto_core.errors import RunCorrupt
from carto_core.store.shapes import (
    COUNT,
    FLAG,
    INTERVAL,
    NUMBER,
    SECONDS,
    SHA256,
    TEXT,
    WHOLE_OBJECT,
    Kind,
    among,
    by_name,
    maybe,
    optional,
    problem_of,
    read_json,
)
from carto_core.types import ROLES, Interval

CONFIDENCE = 0.95
PARTIAL = "partial.json"
MAX_FLIPS = 20
TIED = 1e-9  # differences no further apart are one, but for rounding
NO_INTERVAL, NOT_SHOWN = "no interval: measure more seeds", "no effect shown (covers 0)"
SATURATED, UNKNOWN = "cannot be told: both at the most that was counted", "unknown"
METRICS: dict[str, str] = {
    **{f"extraction.{role}": f"canary extraction, {role} half (share)" for role in ROLES},
    "natural_extraction": "natural extraction (share of duplicate groups)",
    **{f"exposure.{role}": f"median exposure, {role} half (bits)" for role in ROLES},
    "ppl_nats": "validation loss (nats per token)",
    "membership_tpr": "membership TPR at 1 % FPR (share)",
}
ON_REQUEST = ("membership_tpr",)  # told only where an arm was asked for it


KNOWN = {"k": COUNT, "n": COUNT}
RESULT = {  # of one retrain; what was not asked for is absent
    "steps?": COUNT,
    "tokens?": COUNT,
    "device?": TEXT,
    "extraction?": dict.fromkeys(ROLES, KNOWN | {"by_repeats?": by_name(KNOWN)}),
    "natural_extraction?": KNOWN,
    "exposure?": optional(dict.fromkeys(ROLES, maybe(NUMBER))),
    "exposure_most?": NUMBER,
    "secret_nats?": dict.fromkeys(ROLES, maybe(NUMBER)),
    "membership_auc?": maybe(NUMBER),
    "membership_tpr?": maybe(NUMBER),
    "ppl_nats?": NUMBER,
    "wall_s?": SECONDS,
}
DRAWN = {"num_rows": COUNT, "tokens": COUNT, "plan_tokens": COUNT, "within_tolerance": FLAG, "overlap": COUNT}
DRAWN |= {"texts_lost?": COUNT, "plan_texts_lost?": COUNT}
NOTES = Kind("the notes of a draw, or none", lambda value: value == {} or problem_of(value, DRAWN) is None)
ARM = RESULT | {"arm": TEXT, "seed": COUNT, "notes?": NOTES}
EFFECT = {"metric": among(*METRICS), "arm": TEXT, "against": TEXT, "method": TEXT}
EFFECT |= {name: maybe(NUMBER) for name in ("estimate", "low", "high")} | {WHOLE_OBJECT: INTERVAL}
MEASUREMENT = {"plan_sha256?": SHA256, "equal?": among("steps", "epochs"), "seeds?": [COUNT], "stopped_early?": FLAG}
MEASUREMENT |= {"arms": [ARM], "effects": [EFFECT]}
MEASURE_CURE = "remove it and measure the plan again (retrains that are done are kept)"


def metric_of(arm: dict[str, Any], metric: str) -> float:
    """Return one metric of one arm of `measure.json`; NaN where it is unknown, or was not asked for."""
    name, _, role = metric.partition(".")
    value = arm.get(name)
    if role and value is not None:
        value = value[role]
    if isinstance(value, dict):
        return value["k"] / value["n"] if value["n"] else math.nan
    return math.nan if value is None else float(value)


def is_share(metric: str) -> bool:
    """Return whether a metric is a share, in [0, 1]."""
    return "extraction" in metric or metric == "membership_tpr"


def with_unit(metric: str, value: float) -> str:
    """Return a value of a metric as text: a share in percent, exposure in bits, a loss in nats per token."""
    if is_share(metric):
        return f"{value:.0%}"
    return f"{value:.1f} bits" if metric.startswith("exposure") else f"{value:.3f} nats"


def mean_of(arms: list[dict[str, Any]], metric: str) -> float:
    """Return the mean of one metric over the seeds of one arm, unknown ones left out; NaN where all are."""
    known = [value for value in (metric_of(arm, metric) for arm in arms) if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def paired_interval(differences: np.ndarray) -> tuple[float, Interval]:
    """Return the mean difference over seeds and its 95 % t interval; NaN bounds below two seeds.

    Also where all differ by the same amount other than 0, as shares do by chance that move by one canary at a time: that
    says nothing of the spread, and an interval of no width would claim to know it. A difference that is always 0 has one.
    """
    values = np.asarray(differences, np.float64)
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return math.nan, Interval(math.nan, math.nan)
    if len(values) == 1:
        return float(values[0]), Interval(math.nan, math.nan)
    mean = float(values.mean())
    if np.ptp(values) < TIED and abs(mean) >= TIED:
        return mean, Interval(math.nan, math.nan)
    half = float(student.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    return mean, Interval(mean - half, mean + half)


def sign_flip_p(differences: np.ndarray) -> float:
    """Return the exact two-sided p of a sign-flip test: how often random signs give a mean at least as far from 0.

    Every pattern of signs is tried, so with S differences p is at least 2 / 2^S; NaN for none, at most 20 are taken.

    Args:
        differences: float64[S], paired over seeds, NaN left out.

    Raises:
        ValueError: more than 20 differences.
    """
    values = np.asarray(differences, np.float64)
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return math.nan
    if len(values) > MAX_FLIPS:
        raise ValueError(f"{len(values)} differences have too many sign patterns to try them all")
    signs = 1.0 - 2.0 * ((np.arange(2 ** len(values))[:, None] >> np.arange(len(values))) & 1)
    sums = signs @ values
    return float(np.mean(np.abs(sums) >= abs(values.sum()) - 1e-12))


def smallest_p(num_differences: int) -> float:
    """Return the smallest p that `sign_flip_p` can give for so many differences, none of them 0."""
    return 2 / 2**num_differences


def effects_of(arms: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the effects of `measure.json`: the plan against baseline and control, all others against baseline.

    Pairs share a seed. `estimate`, `low`, `high` are None where they cannot be had; a metric in `ON_REQUEST` that no arm was
    asked for has no effect.
    """
    metrics = [metric for metric in METRICS if metric not in ON_REQUEST or any(metric in arm for arm in arms)]
    pairs = [("plan", "baseline"), ("plan", "control"), ("control", "baseline"), ("dedup", "baseline")]
    pairs += [("oracle", "baseline")] * any(arm["arm"] == "oracle" for arm in arms)
    return [_effect(arms, metric, arm=arm, against=against) for arm, against in pairs for metric in metrics]


def mixed_devices(arms: Sequence[dict[str, Any]]) -> str:
    """Return a sentence where retrains were trained on more than one kind of device; else, or where none is known, nothing.

    A run's folder may be taken from a GPU to a machine without one, and what was trained is not trained again.
    """
    counts = Counter(arm["device"] for arm in arms if "device" in arm)
    if len(counts) < 2:
        return ""
    told = ", ".join(f"{count} on {device}" for device, count in sorted(counts.items()))
    return (
        f"These retrains come from more than one device ({told}). Devices round differently, so two retrains of a seed then "
        "differ by more than the plan."
    )


def part_of_oracles(line: dict[str, Any], lines: Sequence[dict[str, Any]]) -> float:
    """Return a line's change of extraction (report half, against unchanged) as a part of the oracle's at the same share.

    Negative where the line raises it; NaN for the oracle's own, without an oracle of that share, or where that lowers nothing.

    Args:
        line: of the results of `benchmarks.paper_table`.
        lines: of the same corpus.
    """
    alike = (o for o in lines if o["policy"] == "oracle" and all(o[n] == line[n] for n in ("share", "equal")))
    oracle = next(alike, None)
    if oracle is None or line["policy"] == "oracle":
        return math.nan
    mine, whole = (
        next(e["estimate"] for e in of["effects"] if (e["metric"], e["against"]) == ("extraction.report", "baseline"))
        for of in (line, oracle)
    )
    return mine / whole if mine is not None and whole is not None and whole < 0 else math.nan


def reading(effect: dict[str, Any]) -> str:
    """Return what an effect of `measure.json` shows: `lower`, `higher`, or why neither can be said."""
    if effect["estimate"] is None:
        return SATURATED if effect["method"] == SATURATED else UNKNOWN
    if effect["low"] is None:
        return NO_INTERVAL
    if effect["low"] <= 0 <= effect["high"]:
        return NOT_SHOWN
    return "lower" if effect["high"] < 0 else "higher"


def half_width(effects: list[dict[str, Any]]) -> float:
    """Return half the interval of plan minus control in extraction of the report half; infinity where it is none or a point."""
    wanted = ("plan", "control", "extraction.report")
    found = next(e for e in effects if (e["arm"], e["against"], e["metric"]) == wanted)
    return math.inf if found["low"] in (None, found["high"]) else (found["high"] - found["low"]) / 2


def read_partial(folder: Path) -> dict[str, Any] | None:
    """Return what a measurement that is not finished has found so far, or None.

    Raises:
        RunCorrupt: the file is damaged.
    """
    path = folder / PARTIAL
    shape = {"arms": [ARM], "effects": [EFFECT], "finished": COUNT, "wanted": COUNT}
    return _with_effects(read_json(path, shape, cure=MEASURE_CURE), path) if path.is_file() else None


def read_measurement(folder: Path) -> dict[str, Any] | None:
    """Return the finished `measure.json` of a preview directory, or None.

    Raises:
        RunCorrupt: the file is damaged.
    """
    path = folder / "measure.json"
    if not path.is_file():
        return None
    found = _with_effects(read_json(path, MEASUREMENT, cure=MEASURE_CURE), path)
    if not any(arm["arm"] == "plan" for arm in found["arms"]):
        raise RunCorrupt(f"{path} holds no arm of the plan; {MEASURE_CURE}")
    return found


def _with_effects(found: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return a measurement, once each of its effects of a plan is there."""
    always = [metric for metric in METRICS if metric not in ON_REQUEST]
    wanted = {("plan", against, metric) for against in ("baseline", "control") for metric in always}
    if missing := wanted - {(effect["arm"], effect["against"], effect["metric"]) for effect in found["effects"]}:
        metric = min(metric for _, _, metric in missing)
        raise RunCorrupt(f"{path} cannot be read: it holds no effect of the plan on {metric}; {MEASURE_CURE}")
    return found


def _effect(arms: list[dict[str, Any]], metric: str, *, arm: str, against: str) -> dict[str, Any]:
    mine = {a["seed"]: metric_of(a, metric) for a in arms if a["arm"] == arm}
    other = {a["seed"]: metric_of(a, metric) for a in arms if a["arm"] == against}
    seeds = sorted(set(mine) & set(other))
    estimate, interval = paired_interval(np.array([mine[s] - other[s] for s in seeds]))
    method = f"paired t interval over {len(seeds)} seeds, {CONFIDENCE:.0%}"
    if metric.startswith("exposure"):
        most = min((a["exposure_most"] for a in arms if "exposure_most" in a), default=math.inf) - TIED
        if any(mine[s] >= most and other[s] >= most for s in seeds):
            estimate, interval, method = math.nan, Interval(math.nan, math.nan), SATURATED
        elif any(mine[s] >= most or other[s] >= most for s in seeds):
            method += "; at least so much, because one side is at the most that was counted"
    return {
        "metric": metric,
        "arm": arm,
        "against": against,
        "estimate": _known(estimate),
        "low": _known(interval.low),
        "high": _known(interval.high),
        "method": method,
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
