"""Numbers, rules and actions in words that need no knowledge of the program."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from carto_core.quadrants import QUADRANTS
from carto_core.scores import SCORES
from carto_core.selection import Rule
from carto_core.types import Plan

UNKNOWN = "unknown"
PERCENT = "\u00a0%"  # a sign that wraps onto the next line reads badly
HALVES = {"calibration": "calibration half", "report": "report half"}


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share as a percentage."""
    return UNKNOWN if share is None or math.isnan(share) else f"{minus(f'{100 * share:.{digits}f}')}{PERCENT}"


def minus(text: str) -> str:
    """Return a formatted number with a real minus sign, and none before a zero."""
    bare = text.lstrip("+-")
    if not bare.strip("0."):
        return bare
    return text.replace("-", "−")


def number(value: float | None, digits: int = 4) -> str:
    """Return a number to some significant digits."""
    return UNKNOWN if value is None or math.isnan(value) else minus(f"{value:,.{digits}g}")


def between(low: float | None, high: float | None, said: Callable[[float], str]) -> str:
    """Return a 95 % interval in words; why not, where there is none."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return "no interval"
    return f"95{PERCENT} interval {said(low)} to {said(high)}"


def when(moment: str | None) -> str:
    """Return an ISO 8601 time in UTC as a date and a time of day."""
    return "not recorded" if moment is None else f"{moment[:16].replace('T', ' ')} UTC"


def listed(parts: list[str], last: str = "and") -> str:
    """Return `a, b and c`."""
    return f" {last} ".join(part for part in (", ".join(parts[:-1]), *parts[-1:]) if part)


def score_title(name: str) -> str:
    """Return a score's title; its name where this version does not know it."""
    return SCORES[name].title if name in SCORES else name


def score_value(name: str, value: float) -> str:
    """Return a value of a score with its unit."""
    return f"{number(value)} {SCORES[name].unit}" if name in SCORES else number(value)


def action_words(plan: Plan) -> str:
    """Return what a plan does to the samples that it names, as the end of `The plan ... them.`."""
    weights, repeats = sorted(set(plan.weights[plan.affected])), sorted(set(plan.repeats[plan.affected]))
    single = {
        "prune": "removes",
        "reweight": f"counts with {number(float(str(weights[-1])))} times the weight",
        "upsample": f"shows {repeats[-1]} times in every pass over the data",
    }
    return single.get(plan.action, "treats by quadrant")


def rule_words(rule: Rule, *, with_texts: bool = False) -> str:
    """Return a selection's rule in words.

    Args:
        rule: see `carto_core.selection`; a type that this version does not know is called by its name.
        with_texts: print a phrase that was searched for; it may be a sample's own text.
    """
    kind = str(rule.get("type"))
    if kind == "filter":
        return _filter(rule, with_texts=with_texts)
    if kind in ("all", "any"):
        parts = [rule_words(part, with_texts=with_texts) for part in rule["rules"]]
        return listed([f"({part})" for part in parts], "and" if kind == "all" else "or")
    if kind == "combined":
        first, *others = (f"({rule_words(part, with_texts=with_texts)})" for part in rule["rules"])
        return f"{first} {_COMBINED[rule['op']]} {listed(others)}"
    if kind == "duplicates_of":
        return f"{rule_words(rule['rule'], with_texts=with_texts)}, with every exact copy"
    return _RULES[kind](rule) if kind in _RULES else f"a rule of type {kind}"


def axis_of(rule: Rule) -> str | None:
    """Return the score by which a rule tells memorized samples from others; None where no score decides."""
    for part in _parts(rule):
        for name in ("y", "by", "score"):
            if name in part:
                return str(part[name])
    return None


def axes_of(rule: Rule) -> Rule | None:
    """Return the first part of a rule that speaks of a map, with its `x` and `y`; None where none does."""
    return next((part for part in _parts(rule) if "x" in part and "y" in part), None)


def outlines_of(rule: Rule, *, x: str, y: str) -> list[list[list[float]]]:
    """Return the polygons that a rule draws on a map of two scores."""
    drawn = (part for part in _parts(rule) if part.get("type") == "polygon" and (part["x"], part["y"]) == (x, y))
    return [polygon for part in drawn for polygon in part["polygons"]]


def _parts(rule: Rule) -> Iterator[Rule]:
    """Yield a rule and all rules inside it."""
    yield rule
    for part in [*rule.get("rules", []), *([rule["rule"]] if "rule" in rule else [])]:
        yield from _parts(part)


def _polygon(rule: Rule) -> str:
    count = len(rule["polygons"])
    outlines = "the outline" if count == 1 else f"any of the {count} outlines"
    return f"samples inside {outlines} drawn on the map of {score_title(rule['x'])} against {score_title(rule['y'])}"


def _quadrant(rule: Rule) -> str:
    place = list(QUADRANTS).index(rule["name"])
    return (
        f"the quadrant {QUADRANTS[rule['name']].title}: "
        f"{_side(rule['x'], rule['tau_x'], beyond=place % 2 == 1)}, and {_side(rule['y'], rule['tau_y'], beyond=place >= 2)}"
    )


def _side(name: str, tau: float, *, beyond: bool) -> str:
    is_low = name in SCORES and SCORES[name].memorized_when == "low"
    words = ("below" if is_low else "above") if beyond else ("at least" if is_low else "at most")
    return f"{score_title(name)} {words} {score_value(name, tau)}"


def _top(rule: Rule) -> str:
    return (
        f"the {number(100 * rule['q'])}{PERCENT} of samples that look most memorized by {score_title(rule['by'])}, "
        "exact copies together"
    )


def _range(rule: Rule) -> str:
    ends = [f"{word} {score_value(rule['score'], rule[end])}" for end, word in (("low", "at least"), ("high", "at most")) if rule.get(end) is not None]  # fmt: skip
    return f"samples with {score_title(rule['score'])} {listed(ends) or 'of any value'}"


def _policy(rule: Rule) -> str:
    return (
        "the four quadrants of the map, each treated in its way: "
        f"{QUADRANTS['ambiguous-hard'].title} drawn {rule['gamma']} times, "
        f"{QUADRANTS['hotspot-memorized'].title} counted with weight {number(rule['alpha'])}, "
        f"{QUADRANTS['noisy-outlier'].title} removed; "
        f"cuts at {score_title(rule['x'])} {score_value(rule['x'], rule['tau_x'])} "
        f"and {score_title(rule['y'])} {score_value(rule['y'], rule['tau_y'])}"
    )


def _filter(rule: Rule, *, with_texts: bool) -> str:
    parts = []
    if rule.get("source"):
        parts.append(f"from {listed([str(name) for name in rule['source']], 'or')}")
    for end, word in (("min_tokens", "at least"), ("max_tokens", "at most")):
        if rule.get(end) is not None:
            parts.append(f"of {word} {number(rule[end])} tokens")
    if rule.get("duplicates") is not None:
        parts.append("with an exact copy" if rule["duplicates"] else "without an exact copy")
    if rule.get("text") is not None:
        parts.append(f"containing “{rule['text']}”" if with_texts else "containing a phrase that is not printed here")
    return f"samples {listed(parts)}" if parts else "all samples"


_COMBINED = {"add": "together with", "subtract": "without", "intersect": "as far as they are also among"}
_RULES: dict[str, Callable[[dict[str, Any]], str]] = {
    "polygon": _polygon,
    "quadrant": _quadrant,
    "top": _top,
    "keys": lambda rule: f"a list of {len(set(rule['keys'])):,} samples, named one by one",
    "range": _range,
    "policy": _policy,
    "deduplicate": lambda rule: "every exact copy of a text but the first",
}


def changes(plan: Plan, actions: np.ndarray) -> list[tuple[str, int]]:
    """Return what happens to how many samples, in words, leaving out what happens to none."""
    weights = sorted({float(str(weight)) for weight in plan.weights[actions == "reweight"]})
    repeats = sorted({int(count) for count in plan.repeats[actions == "upsample"]})
    said = {
        "prune": "removed from training",
        "reweight": f"counted with weight {listed([number(w) for w in weights], 'or')} instead of 1",
        "upsample": f"shown {listed([str(r) for r in repeats], 'or')} times in every pass instead of once",
    }
    counted = [(words, int((actions == name).sum())) for name, words in said.items()]
    return [(words, count) for words, count in counted if count]
