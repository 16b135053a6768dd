"""The sections of the report, in order: each has a title, a template of its name, and the values that it shows.

To add one, write `templates/sections/NAME.html` and put a `Section` where it belongs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from carto_core import __version__
from carto_core.config import ModelConfig
from carto_core.plots.palette import OTHER, QUADRANT_SIGNS
from carto_core.preview.effects import mixed_devices
from carto_core.preview.estimate import SEEDS
from carto_core.quadrants import QUADRANTS, counts
from carto_core.report import commands, measured
from carto_core.report.audited import audit_lines
from carto_core.report.drawings import ACTION_COLOURS, Row, map_svg, rows_svg
from carto_core.report.facts import Facts, Judged
from carto_core.report.words import (
    HALVES,
    PERCENT,
    action_words,
    between,
    changes,
    listed,
    minus,
    number,
    outlines_of,
    percent,
    rule_words,
    score_title,
    when,
)
from carto_core.scores import SCORES
from carto_core.scores.labels import LABELS
from carto_core.tasks import TASKS

MAX_SOURCES = 8
CHANCE = 0.5
ACTION_WORDS = {"prune": "removed", "reweight": "counted with another weight", "upsample": "shown more often"}
DETECTOR_COLOUR = "#D55E00"


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the document.

    Attributes:
        name: its anchor, and its template `sections/NAME.html`.
        title: its heading.
        values: what the template shows.
        applies: whether the facts have anything for it.
    """

    name: str
    title: str
    values: Callable[[Facts], dict[str, Any]]
    applies: Callable[[Facts], bool] = lambda facts: True


def about(facts: Facts) -> dict[str, Any]:
    """Return what was trained on what, and what the plan does, for two sentences."""
    corpus = "" if facts.is_foreign else facts.manifest["config"]["corpus"]["path"]
    return {
        "run_id": facts.run_id,
        "model": model_words(facts),
        "num_samples": len(facts.table),
        "corpus": corpus.replace("\\", "/").rstrip("/").rpartition("/")[2],
        "action": action_words(facts.plan),
        "num_affected": int(facts.plan.affected.sum()),
        "is_measured": facts.measured is not None,
    }


def model_words(facts: Facts) -> str:
    """Return the kind and size of the model, or which program's it is."""
    if facts.is_foreign:
        return f"model of another program, {facts.manifest['origin']['kind']} by {facts.manifest['origin']['by']}"
    model = ModelConfig.from_dict(facts.manifest["config"]["model"])
    title = TASKS[model.task].title if model.task in TASKS else model.task
    return f"{title}, {model.layers} layer{'s' if model.layers > 1 else ''} of {model.hidden}"


def verdict(facts: Facts) -> dict[str, Any]:
    """Return the answer."""
    return {"verdict": measured.verdict(facts)}


def the_map(facts: Facts) -> dict[str, Any]:
    """Return the drawing, its legend, and what every quadrant holds."""
    x, y, cuts = facts.values(facts.cuts.x), facts.values(facts.cuts.y), facts.cuts
    labels = cuts.assign(facts.table.scores)
    affected = counts(labels[facts.plan.affected])
    legend = [("not changed", OTHER, int((~facts.plan.affected).sum()))]
    legend += [(ACTION_WORDS[n], colour, int((facts.actions == n).sum())) for n, colour in ACTION_COLOURS.items()]
    outlines = outlines_of(facts.plan.rule, x=cuts.x, y=cuts.y)
    return {
        "drawing": map_svg(x, y, facts.actions, cuts=cuts, outlines=outlines),
        "legend": [entry for entry in legend if entry[2]],
        "num_outlines": len(outlines),
        "axes": [SCORES[name] for name in (cuts.x, cuts.y)],
        "num_unplaced": int((np.isnan(x) | np.isnan(y)).sum()),
        "quadrants": [
            {
                "sign": QUADRANT_SIGNS[name],
                "title": QUADRANTS[name].title,
                "meaning": QUADRANTS[name].meaning,
                "count": count,
                "affected": affected[name],
            }
            for name, count in counts(labels).items()
        ],
    }


def the_plan(facts: Facts) -> dict[str, Any]:
    """Return whom the plan touches, how, and what it warns of."""
    plan, table = facts.plan, facts.table
    before, after = int(table.num_tokens.sum()), int((table.num_tokens.astype(np.int64) * plan.repeats).sum())
    return {
        "rule": rule_words(plan.rule, with_texts=bool(facts.texts)),
        "changes": changes(plan, facts.actions),
        "num_affected": int(plan.affected.sum()),
        "share": percent(float(plan.affected.mean())),
        "tokens": (before, after, minus(f"{100 * (after / before - 1):+.1f}") + PERCENT),
        "sources": _sources(facts),
        "canaries": [(HALVES[role], *found) for role, found in facts.canaries.items()],
        "near_left": facts.near_left,
        "removes": bool((plan.repeats == 0).any()),
        "notes": [note for note in plan.notes if not note.startswith("Warning")],
        "warnings": [note for note in plan.notes if note.startswith("Warning")],
        "created": facts.plan_facts["created"],
        "near_command": commands.command("probe", facts.run_id, "near_duplicates"),
    }


def _sources(facts: Facts) -> dict[str, Any]:
    """Return the user's own sources by how much of them the plan changes, the most changed first."""
    mine, affected = ~facts.table.is_canary, facts.plan.affected
    names, place, sizes = np.unique(facts.table.source[mine], return_inverse=True, return_counts=True)
    changed = np.bincount(place, weights=affected[mine], minlength=len(names)).astype(int)
    order = [i for i in np.argsort(-changed, kind="stable") if changed[i]]
    rows = [
        {
            "name": names[i],
            "changed": int(changed[i]),
            "count": int(sizes[i]),
            "share": percent(float(changed[i] / sizes[i]), 0),
        }
        for i in order[:MAX_SOURCES]
    ]
    return {"rows": rows, "touched": len(order), "total": len(names), "left_out": max(0, len(order) - MAX_SOURCES)}


def estimate(facts: Facts) -> dict[str, Any]:
    """Return what was estimated, a line a measure, and how far to believe it."""
    if facts.estimate is None:
        return {"rows": [], "command": commands.command("prepare", facts.run_id)}
    found = facts.estimate["metrics"]
    taught = facts.estimate["num_plans"]
    return {
        "rows": [measured.estimate_row(m, found[m.metric]) for m in measured.MEASURES if m.metric in found],
        "support": f"{facts.estimate['support'].capitalize()}; {taught or 'no'} measured plan{'s' * (taught != 1)} taught it.",
        "notes": facts.estimate["notes"],
        "seeds": SEEDS,
        "command": None,
    }


def arms(facts: Facts) -> dict[str, Any]:
    """Return a chart a measure, the differences between arms, and a table of every retrain."""
    if facts.measured is None:
        return {"command": commands.measure_command(facts), "charts": []}
    shown = measured.measures_shown(facts)
    charts = []
    for measure in shown:
        rows = measured.rows_of(facts.measured, measure)
        ends = measured.ends_of(rows, measure)
        label = f"{measure.title} by arm: " + "; ".join(f"{row.label} {row.said}" for row in rows)
        drawing = rows_svg(rows, ends=ends, said=measure.tick, label=label)
        charts.append({"title": measure.title, "explained": measure.explained, "drawing": drawing})
    pairs = [pair for pair in measured.PAIRS if any(measured.effect_of(facts.measured, m.metric, *pair) for m in shown)]
    return {
        "command": None,
        "charts": charts,
        "arms": [(name, measured.ARM_WORDS.get(name, "")) for name in measured.arms_named(facts.measured)],
        "seeds": sorted({arm["seed"] for arm in facts.measured["arms"]}),
        "equal": "optimizer steps" if facts.measured.get("equal", "steps") == "steps" else "passes over the data",
        "control": measured.control_words(facts.measured),
        "devices": mixed_devices(facts.measured["arms"]),
        "pairs": [f"{arm} − {against}" for arm, against in pairs],
        "differences": [
            (m.title, [measured.difference_cell(m, measured.effect_of(facts.measured, m.metric, *p)) for p in pairs])
            for m in shown
        ],
        "measures": [measure.heading for measure in shown],
        "retrains": measured.seed_rows(facts.measured, shown),
        "created": facts.measured.get("created"),
    }


def audits(facts: Facts) -> dict[str, Any]:
    """Return a line an audit."""
    return {"audits": audit_lines(facts), "is_hidden": "report" not in facts.roles}


def detector(facts: Facts) -> dict[str, Any]:
    """Return how well the score that chose the samples finds what is memorized, beside the plain baselines."""
    name = facts.axis or facts.cuts.y
    groups: dict[tuple[str, str], list[Judged]] = {}
    for judged in facts.judged:
        groups.setdefault((judged.label, judged.role), []).append(judged)
    return {
        "chose": facts.axis is not None,
        "title": score_title(name),
        "means": SCORES[name].higher_means if name in SCORES else "",
        "truths": [LABELS[label] for label in dict.fromkeys(label for label, _ in groups)],
        "groups": [_judged(label, role, rows, chosen=name) for (label, role), rows in groups.items()],
    }


def _judged(label: str, role: str, rows: list[Judged], *, chosen: str) -> dict[str, Any]:
    mine = next((row.quality for row in rows if row.score == chosen), None)
    known = [row for row in rows if row.quality.is_known]
    bars = [
        Row(
            score_title(row.score) + (" (plain baseline)" if SCORES[row.score].is_baseline else ""),
            _said(row),
            [row.quality.auc.value],
            math.nan,
            row.quality.auc.low,
            row.quality.auc.high,
            DETECTOR_COLOUR if row.score == chosen else OTHER,
            "circle" if row.score == chosen else "square",
        )
        for row in known
    ]
    low = min([0.4, *(bar.low for bar in bars if not math.isnan(bar.low))])
    title = f"{LABELS[label].title}, {HALVES[role]}"
    described = f"AUC against {title}: " + "; ".join(f"{bar.label} {bar.said}" for bar in bars)
    return {
        "title": title,
        "note": mine.note if mine is not None else "not scored by this run",
        "said": None if mine is None or not mine.is_known else _area(mine.auc),
        "counts": None if mine is None else (mine.num_positives, mine.num_negatives),
        "drawing": rows_svg(bars, ends=(low, 1.0), said="{:g}".format, label=described, line=CHANCE) if bars else None,
    }


def _said(row: Judged) -> str:
    auc = row.quality.auc
    return f"{auc.value:.2f}  [{auc.low:.2f}, {auc.high:.2f}]"


def _area(auc: Any) -> str:
    return f"{auc.value:.2f} ({between(auc.low, auc.high, '{:.2f}'.format)})"


def limits(facts: Facts) -> dict[str, Any]:
    """Return what the numbers cannot say, in plain words."""
    seeds = len({arm["seed"] for arm in (facts.measured or {}).get("arms", [])})
    mine = [judged for judged in facts.judged if judged.score == facts.axis]
    return {
        "model": model_words(facts),
        "num_samples": len(facts.table),
        "seeds": seeds,
        "num_canaries": sum(total for _, total in facts.canaries.values()),
        "report_shown": "report" in facts.roles,
        "seen_before": bool(facts.plan_facts.get("report_seen", False)),
        "weak": listed(
            [_named(judged) for judged in mine if judged.quality.is_known and not judged.quality.auc.low > CHANCE]
        ),
        "few": listed(
            [_named(judged) for judged in mine if not judged.quality.is_known or not judged.quality.is_enough]
        ),
        "axis": score_title(facts.axis) if facts.axis else None,
    }


def _named(judged: Judged) -> str:
    return f"“{LABELS[judged.label].title.lower()}” ({HALVES[judged.role]})"


def texts(facts: Facts) -> dict[str, Any]:
    """Return the samples that somebody asked to have printed."""
    name = facts.axis or facts.cuts.y
    rows = [
        {
            "key": shown.key,
            "source": shown.source,
            "text": shown.text,
            "action": ACTION_WORDS[shown.action],
            "quadrant": QUADRANTS[shown.quadrant].title if shown.quadrant else "unknown",
            "value": number(shown.value),
        }
        for shown in facts.texts
    ]
    return {
        "texts": rows,
        "score": score_title(name),
        "report_hidden": "report" not in facts.roles,
        "masked": facts.is_masked,
    }


def provenance(facts: Facts) -> dict[str, Any]:
    """Return hashes, seeds and versions, and the command lines that make it all again."""
    manifest = facts.manifest
    tokenizer = manifest.get("tokenizer") or {}
    measurement = facts.measured or {}
    rows = {
        "Run": facts.run_id,
        "Corpus, SHA-256": facts.table.corpus_sha256,
        "Plan, SHA-256": facts.plan_facts["plan_sha256"],
        "Tokenizer, SHA-256": tokenizer.get("sha256"),
        "Seed of the run": manifest.get("seed"),
        "Seeds of the measurement": ", ".join(map(str, sorted({a["seed"] for a in measurement.get("arms", [])}))),
        "Program, when trained": manifest.get("carto_version"),
        "Program, of this report": __version__,
        "Commit": manifest.get("code_version"),
        "Libraries": ", ".join(f"{name} {version}" for name, version in (manifest.get("versions") or {}).items()),
        "Device": manifest.get("device"),
        "Run made": when(manifest.get("created")),
        "Plan made": when(facts.plan_facts.get("created")),
        "Measured": when(measurement.get("created")) if measurement else "not measured",
        "Report made": when(facts.created),
    }
    return {
        "rows": {name: "not recorded" if value in (None, "") else value for name, value in rows.items()},
        "commands": commands.commands(facts),
        "has_plan_commands": bool(commands.plan_commands(facts)),
        "polygon": commands.polygon_json(facts.plan.rule),
        "without_flag": commands.settings_without_flag(manifest),
    }


def nothing(facts: Facts) -> dict[str, Any]:
    """Return no value, for a section whose words are always the same."""
    return {}


SECTIONS: tuple[Section, ...] = (
    Section("about", "What this is", about),
    Section("verdict", "The answer", verdict),
    Section("map", "Which samples", the_map),
    Section("plan", "What the plan does", the_plan),
    Section("estimate", "What was estimated", estimate, applies=lambda facts: not facts.is_foreign),
    Section("arms", "What was measured", arms, applies=lambda facts: not facts.is_foreign),
    Section(
        "audits",
        "What the original model gives away",
        audits,
        applies=lambda facts: any(facts.audits.values()) or not facts.is_foreign,
    ),
    Section("detector", "How good the choice is", detector),
    Section("limits", "What these numbers cannot say", limits),
    Section("texts", "Affected samples in full", texts, applies=lambda facts: bool(facts.texts)),
    Section("provenance", "Where it comes from, and how to make it again", provenance),
    Section("words", "Words used here", nothing),
)
