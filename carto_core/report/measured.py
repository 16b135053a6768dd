"""What a measurement says: the verdict in words, every retrain, and what the arms differ by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from carto_core.plots.palette import ARM_COLOURS, ARM_SYMBOLS, OTHER
from carto_core.preview.arms import ARMS
from carto_core.preview.effects import NO_INTERVAL, mean_of, metric_of, paired_interval, reading
from carto_core.report.commands import export_command, measure_command
from carto_core.report.drawings import Row
from carto_core.report.facts import Facts
from carto_core.report.words import HALVES, PERCENT, UNKNOWN, between, listed, minus, percent

EXTRACTION, LOSS = "extraction.report", "ppl_nats"
ARM_WORDS = {
    "plan": "trained under this plan",
    "control": "trained under the same changes, made to as many randomly drawn samples of like length",
    "baseline": "trained on everything, unchanged",
    "dedup": "trained with only the first of every set of exact copies",
    "oracle": "trained without as many samples, chosen by one who knows where the secrets are: what could be hoped for, no plan",
}
ORDER = ("plan", "control", "baseline", "dedup")
PAIRS = (
    ("plan", "control"),
    ("plan", "baseline"),
    ("control", "baseline"),
    ("dedup", "baseline"),
    ("oracle", "baseline"),
)


@dataclass(frozen=True, slots=True)
class Measure:
    """One metric of a measurement, as the report writes it.

    Attributes:
        metric: key in `effects.METRICS`.
        title: in words.
        explained: sentence.
        kind: `share`, `bits` or `perplexity` (kept as nats per token).
    """

    metric: str
    title: str
    explained: str
    kind: str

    def level(self, value: float | None) -> str:
        """Return a value in words."""
        if value is None or math.isnan(value):
            return UNKNOWN
        if self.kind == "share":
            return percent(value)
        return f"{value:.2f} bits" if self.kind == "bits" else f"{math.exp(value):.2f}"

    def difference(self, value: float) -> str:
        """Return a difference without its unit: points of a share, bits, or per cent of the perplexity."""
        if self.kind == "bits":
            return minus(f"{value:+.2f}")
        return minus(f"{100 * (value if self.kind == 'share' else math.expm1(value)):+.1f}")

    @property
    def unit(self) -> str:
        """What differences are told in, with the space before it."""
        return {"share": " percentage points", "bits": " bits", "perplexity": PERCENT}[self.kind]

    @property
    def heading(self) -> str:
        """The title for a column of values."""
        return f"{self.title} (bits)" if self.kind == "bits" else self.title

    def tick(self, value: float) -> str:
        """Return a tick of the axis; `value` is in the chart's units."""
        return percent(value, 0) if self.kind == "share" else f"{value:g}"

    def drawn(self, value: float) -> float:
        """Return a value in the chart's units."""
        return math.exp(value) if self.kind == "perplexity" and not math.isnan(value) else value


_CANARIES = "Share of the planted secrets of this half that the model gives back word for word. Lower is safer."
_EXPOSURE = (
    "How far up the model ranks a typical planted secret of this half among secrets it never saw. Lower is safer."
)
MEASURES = (
    Measure(EXTRACTION, "Secrets given away, report half", _CANARIES, "share"),
    Measure("extraction.calibration", "Secrets given away, calibration half", _CANARIES, "share"),
    Measure(
        "natural_extraction",
        "Repeated texts of the corpus recited",
        "Share of the corpus's own repeated texts that the model continues word for word. Lower is safer.",
        "share",
    ),
    Measure("exposure.report", "Exposure of secrets, report half", _EXPOSURE, "bits"),
    Measure("exposure.calibration", "Exposure of secrets, calibration half", _EXPOSURE, "bits"),
    Measure(
        "membership_tpr",
        "Training texts told by their loss",
        "Share of the corpus's training texts, those too that a plan prunes, that an attacker who sees losses finds while "
        "taking at most 1 % of other texts for such. Lower is safer.",
        "share",
    ),
    Measure(
        LOSS,
        "Perplexity on held-out text",
        "How surprised the model is by text that it was not trained on: the price. Lower is better.",
        "perplexity",
    ),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer.

    Attributes:
        kind: `lower`, `higher`, `open`, `hidden` or `unmeasured`; also its colour.
        headline: one sentence.
        sentences: the numbers behind it.
        command: what to run where there is no answer yet.
    """

    kind: str
    headline: str
    sentences: tuple[str, ...]
    command: str | None = None


def verdict(facts: Facts) -> Verdict:
    """Return whether the plan does more than a random choice of its size, on the report half, and at what price."""
    if facts.is_foreign:
        return Verdict(
            "unmeasured",
            "Not measured: another program trained the model, and only that program can train it under this plan.",
            (
                "What follows describes the run and the plan; it cannot say whether the plan helps. To find out, train "
                "under the list that this command writes, and once more under a random choice of the same size:",
            ),
            export_command(facts),
        )
    if facts.measured is None:
        return Verdict(
            "unmeasured",
            "Not measured: nobody knows yet what this plan does to a model.",
            (
                "No model was retrained under this plan. What follows describes the run and the plan; it cannot say "
                "whether the plan helps. This command retrains the model under the plan and under its controls:",
            ),
            measure_command(facts),
        )
    if "report" not in facts.roles:
        return Verdict(
            "hidden",
            "Measured, but the half of the planted secrets that judges is still hidden.",
            ("The run's manifest does not say that the report half was looked at, so its numbers are not shown here.",),
            measure_command(facts),
        )
    effect = effect_of(facts.measured, EXTRACTION, "plan", "control")
    if effect is None or effect["estimate"] is None:
        return Verdict(
            "open",
            "Measured, without planted secrets that could judge it.",
            ("No canary of the report half was inserted into this run. The other measures are below.",),
        )
    kind, headline = _headline(effect)
    return Verdict(kind, headline, (_levels(facts), _difference(facts, effect), _price(facts)))


def arms_named(measured: dict[str, Any]) -> list[str]:
    """Return the arms that were trained, in the order to show them."""
    there = {arm["arm"] for arm in measured["arms"]}
    return [name for name in dict.fromkeys((*ORDER, *ARMS, *sorted(there))) if name in there]


def measures_shown(facts: Facts) -> list[Measure]:
    """Return the measures that hold a known number and speak of no half that is hidden."""
    arms = (facts.measured or {}).get("arms", [])
    hidden = [role for role in HALVES if role not in facts.roles]
    return [
        measure
        for measure in MEASURES
        if measure.metric.partition(".")[2] not in hidden
        and any(not math.isnan(metric_of(arm, measure.metric)) for arm in arms)
    ]


def effect_of(measured: dict[str, Any], metric: str, arm: str, against: str) -> dict[str, Any] | None:
    """Return one effect of `measure.json`, or None where it does not hold it."""
    wanted = (metric, arm, against)
    return next((e for e in measured["effects"] if (e["metric"], e["arm"], e["against"]) == wanted), None)


def difference_words(measure: Measure, effect: dict[str, Any]) -> str:
    """Return a known difference with its interval, as part of a sentence."""
    value = f"{measure.difference(effect['estimate'])}{measure.unit}"
    return f"{value} ({between(effect['low'], effect['high'], measure.difference)})"


def difference_cell(measure: Measure, effect: dict[str, Any] | None) -> tuple[str, str, bool]:
    """Return a difference and its interval for a table, and whether the interval leaves out zero."""
    if effect is None or effect["estimate"] is None:
        return UNKNOWN if effect is None else reading(effect), "", False
    value = f"{measure.difference(effect['estimate'])}{measure.unit.replace(' percentage', '')}"
    if effect["low"] is None:
        return value, "", False
    low, high = (measure.difference(effect[end]) for end in ("low", "high"))
    return value, f"[{low}, {high}]", reading(effect) in ("lower", "higher")


def estimate_row(measure: Measure, found: dict[str, float]) -> tuple[str, str, str, str]:
    """Return title, estimate, its interval and the estimate for the unchanged run; of perplexity the change alone."""
    if measure.kind == "perplexity":
        value, low, high = (measure.difference(found[end]) for end in ("value", "low", "high"))
        return f"{measure.title}, change", f"{value}{measure.unit}", f"[{low}, {high}]", "0"
    ends = ", ".join(measure.level(found[end]) for end in ("low", "high"))
    return measure.title, measure.level(found["value"]), f"[{ends}]", measure.level(found["unchanged"])


def rows_of(measured: dict[str, Any], measure: Measure) -> list[Row]:
    """Return one row an arm: every seed, the mean, and the 95 % t interval over the seeds."""
    rows = []
    for name in arms_named(measured):
        values = [metric_of(arm, measure.metric) for arm in measured["arms"] if arm["arm"] == name]
        mean, (low, high) = paired_interval(np.array(values, np.float64))
        said = measure.level(mean) if math.isnan(low) else f"{measure.level(mean)}  [{_ends(measure, low, high)}]"
        row = Row(
            label=name,
            said=said,
            values=[measure.drawn(value) for value in values],
            mean=measure.drawn(mean),
            low=measure.drawn(low),
            high=measure.drawn(high),
            colour=ARM_COLOURS.get(name, OTHER),
            symbol=ARM_SYMBOLS.get(name, "circle"),
        )
        rows.append(row)
    return rows


def ends_of(rows: list[Row], measure: Measure) -> tuple[float, float]:
    """Return the axis of a chart: shares and bits from 0, perplexities around what was seen; never of no width."""
    seen = [v for row in rows for v in (*row.values, row.low, row.high) if not math.isnan(v)]
    low, high = min(seen), max(seen)
    if measure.kind == "share":
        return 0.0, min(1.0, max(high * 1.05, 0.05))
    if measure.kind == "bits":
        return min(0.0, low), max(high, 1.0) * 1.05
    margin = (high - low) * 0.1 or high * 0.05
    return low - margin, high + margin


def seed_rows(measured: dict[str, Any], measures: list[Measure]) -> list[dict[str, Any]]:
    """Return one table row a retrain: arm, seed, and every measure with its counts."""
    order = arms_named(measured)
    retrains = sorted(measured["arms"], key=lambda arm: (order.index(arm["arm"]), arm["seed"]))
    return [{"arm": a["arm"], "seed": a["seed"], "cells": [_cell(m, a) for m in measures]} for a in retrains]


def control_words(measured: dict[str, Any]) -> str | None:
    """Return what the draws of the control came to; None where nothing is recorded."""
    notes = [arm["notes"] for arm in measured["arms"] if arm["arm"] == "control" and arm.get("notes")]
    if not notes:
        return None
    overlaps, tokens = [note["overlap"] for note in notes], [note["tokens"] for note in notes]
    text = (
        f"The control changes {notes[0]['num_rows']:,} samples of {_span(tokens)} tokens, drawn anew for every seed (the plan "
        f"changes {notes[0]['plan_tokens']:,} tokens); by chance {_span(overlaps)} of them are the plan's own."
    )
    lost = [note["texts_lost"] for note in notes if "texts_lost" in note]
    if any(lost):
        text += (
            f" The plan leaves no copy of {notes[0]['plan_texts_lost']:,} of the distinct texts, the control of {_span(lost)}; "
            "losing a text altogether costs more perplexity than losing a copy."
        )
    off = sum(not note["within_tolerance"] for note in notes)
    return text + (
        f" In {off} of {len(notes)} draws the tokens differ by more than 2{PERCENT}: the nearest found." if off else ""
    )


def _headline(effect: dict[str, Any]) -> tuple[str, str]:
    shown = reading(effect)
    known = {
        "lower": "The plan makes the model give away fewer planted secrets than a random choice of the same size does.",
        "higher": "The plan makes the model give away more planted secrets than a random choice of the same size does. Do not apply it for privacy.",
        NO_INTERVAL: "Too few retrains for a verdict.",
    }
    kind = shown if shown in ("lower", "higher") else "open"
    return kind, known.get(shown, "Not shown to do more than a random choice of the same size.")


def _levels(facts: Facts) -> str:
    arms = (facts.measured or {})["arms"]
    measure = MEASURES[0]
    said = {name: measure.level(mean_of([a for a in arms if a["arm"] == name], EXTRACTION)) for name in ORDER}
    count = next((arm["extraction"]["report"]["n"] for arm in arms if arm.get("extraction")), 0)
    return (
        f"Of the {count} planted secrets of the report half the model gave away, on average over the retrains, {said['plan']} "
        f"under the plan, {said['control']} under a random choice of the same size, and {said['baseline']} when nothing was changed."
    )


def _difference(facts: Facts, effect: dict[str, Any]) -> str:
    seeds = sorted({arm["seed"] for arm in (facts.measured or {})["arms"]})
    runs = (
        f"{len(seeds)} paired retrains (seeds {listed([str(s) for s in seeds])})" if len(seeds) > 1 else "one retrain"
    )
    meaning = {
        "lower": "The whole interval lies below zero, so chance between retrains is an unlikely explanation.",
        "higher": "The whole interval lies above zero, so chance between retrains is an unlikely explanation.",
        NO_INTERVAL: "One retrain, or retrains that all differ by the same amount, give no interval; more seeds do.",
    }.get(reading(effect), "The interval holds zero: the difference may be chance. More seeds narrow it.")
    return f"Plan minus random choice: {difference_words(MEASURES[0], effect)}, over {runs}. {meaning}"


def _price(facts: Facts) -> str:
    effect = effect_of(facts.measured or {}, LOSS, "plan", "baseline")
    if effect is None or effect["estimate"] is None:
        return "The price in quality was not measured."
    shown = {"lower": "an improvement", "higher": "a loss of quality", NO_INTERVAL: "too few retrains to tell"}
    said = shown.get(reading(effect), "no change shown")
    return (
        f"The price: perplexity on held-out text (lower is better) differs by {difference_words(MEASURES[-1], effect)} from the "
        f"unchanged model: {said}."
    )


def _cell(measure: Measure, arm: dict[str, Any]) -> str:
    name, _, role = measure.metric.partition(".")
    counts = arm.get(name)
    counts = counts.get(role) if role and isinstance(counts, dict) else counts
    if isinstance(counts, dict) and counts["n"]:
        return f"{counts['k']} of {counts['n']}"
    return measure.level(metric_of(arm, measure.metric)).removesuffix(" bits")


def _ends(measure: Measure, low: float, high: float) -> str:
    """Return an interval's ends; that of a share is cut at 0 and 100 %."""
    if measure.kind == "share":
        return ", ".join(f"{100 * min(max(end, 0.0), 1.0):.1f}" for end in (low, high))
    return ", ".join(minus(f"{measure.drawn(end):.2f}") for end in (low, high))


def _span(values: list[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
