"""How far the scores can be relied on: the axis in use in a sentence, and every score against every truth of the run."""

from __future__ import annotations

import math
from typing import Any

import streamlit as st

from carto_core.plots.charts import Bar, intervals_figure
from carto_core.scores import SCORES
from carto_core.scores.labels import LABELS, known_labels, slice_names
from carto_core.scores.quality import BUDGETS, Quality
from carto_core.scores.roc import Estimate
from carto_core.store.reader import Run
from carto_core.types import SampleTable
from carto_core.ui import cache, state
from carto_core.ui.panels import probing
from carto_core.ui.shell import CHART, theme
from carto_core.ui.words import literal
from carto_core.workflows import light

CHANCE = 0.5
HALVES = {"calibration": "calibration: to choose by", "report": "report: to judge the choice by"}


def headline(run: Run, name: str) -> None:
    """Say how well the memorization axis in use finds what is memorized, and offer the recommended one.

    Args:
        run: a scored run.
        name: of the score in use.
    """
    label = cache.default_label(run)
    quality = cache.quality_of(run, "calibration", label)[name]
    recommended = cache.recommended(run)
    said, offered = st.columns([8, 4], vertical_alignment="center")
    said.markdown(_verdict(name, quality, label, run))
    if name == recommended.score:
        said.caption(f"Recommended: {recommended.reason}")
        return
    title = SCORES[recommended.score].title
    said.caption(f"Recommended is {title} instead: {recommended.reason}")
    if offered.button(f"Use {title}", key="use_best", width="stretch"):
        state.change_axes(y=recommended.score)
        st.rerun()


def details(run: Run, table: SampleTable) -> None:
    """Draw every score's quality in an expander: which truth, which part, a chart, a table, fold models, probes."""
    with st.expander("How well does each score find what is memorized?", key="quality_open", on_change="rerun") as box:
        if not box.open:
            return  # the comparison with fold models is not worth its seconds while nobody looks
        label, role, part = _choose(run, table)
        qualities = cache.quality_of(run, role, label, part)
        _chart(qualities, label=label, role=role, part=part)
        _table(run, qualities)
        _folds(run)
        probing.panel(run)


def _verdict(name: str, quality: Quality, label: str, run: Run) -> str:
    title = SCORES[name].title
    if not quality.is_known:
        why = light.why_unknown(run, name)
        return f"**{title}** is {literal(why)}." if why else f"**{title}**: nothing in this run to judge it by."
    value, low, high = quality.auc
    return (
        f"**{title}** tells {LABELS[label].title.lower()} samples from the rest (calibration half) with AUC "
        f"**{value:.2f}** [{low:.2f}, {high:.2f}] – **{quality.note}** "
        f"({quality.num_positives} against {quality.num_negatives:,}; 0.5 is chance)."
    )


def _choose(run: Run, table: SampleTable) -> tuple[str, str, str]:
    first, second = st.columns(2)
    labels, roles = known_labels(table), light.roles_shown(run)
    with first:
        label = _control("Truth", labels, cache.default_label(run), lambda name: LABELS[name].title)
    with second:
        role = _control("Half", list(roles), roles[0], HALVES.__getitem__)
    part = _control("Part of what is to be found", slice_names(cache.canaries_of(run), label), "all", _part_title)
    truth = LABELS[label]
    st.caption(
        f"To be found: {truth.positive} To be told from: {truth.negative} Each canary and each set of copies has one vote."
        + (" Copy counts have it easy here: nothing that it is told from has a copy." if label == "inserted" else "")
        + ("" if len(labels) > 1 else " What a model gives away is a stronger truth: run the probe Twin model below.")
        + (
            ""
            if len(roles) > 1
            else " The report half stays hidden until a measurement is done, or somebody asks for it."
        )
    )
    return label, role, part


def _control(title: str, options: list[str], default: str, said: Any) -> str:
    """A choice that outlives a change of page, and falls back where the run does not offer it."""
    kept = state.recall(f"quality_{title}", default)
    chosen = st.segmented_control(
        title,
        options,
        default=kept if kept in options else default,
        required=True,
        format_func=said,
        key=f"quality_{title}_{'_'.join(options)}",  # other options are another widget, or an old choice would stay
    )
    state.remember(f"quality_{title}", chosen)
    return chosen or default


def _part_title(part: str) -> str:
    kind, _, value = part.partition(" ")
    named = {
        "all": "All",
        "once": "Inserted once",
        "natural": "The corpus's own texts",
        "kind": f"Canaries: {literal(value)}",
        "repeats": "1 copy" if value == "1" else f"{value} copies",
    }
    return named[kind]


def _chart(qualities: dict[str, Quality], *, label: str, role: str, part: str) -> None:
    known = sorted((n for n, q in qualities.items() if q.is_known), key=lambda n: -qualities[n].auc.value)
    if not known:
        st.info(
            "Nothing to compare on this part: no sample of it is memorized by this truth, or none is not. Choose another part."
        )
        return
    bars = [Bar(SCORES[n].title, *qualities[n].auc, is_baseline=SCORES[n].is_baseline) for n in known]
    best = known[0]
    counted = max(qualities.values(), key=lambda q: q.num_positives)
    st.markdown(
        "**Which scores beat the plain baselines?** Dots right of every square; 1 finds every one first, 0.5 is chance. "
        f"{counted.num_positives} to be found among {counted.num_positives + counted.num_negatives:,} votes."
    )
    st.plotly_chart(
        intervals_figure(bars, x="AUC, 95 % interval", line=CHANCE, theme=theme()),
        theme=None,
        key="quality_chart",
        config=CHART,
        alt=f"AUC of {len(known)} scores against {LABELS[label].title.lower()}, {role} half, {_part_title(part).lower()}; "
        f"the highest is {SCORES[best].title} with {qualities[best].auc.value:.2f}",
    )


def _table(run: Run, qualities: dict[str, Quality]) -> None:
    order = sorted(qualities, key=lambda n: -qualities[n].auc.value if qualities[n].is_known else math.inf)
    st.dataframe([_row(run, name, qualities[name]) for name in order], hide_index=True, height=330)


def _row(run: Run, name: str, quality: Quality) -> dict[str, str]:
    score = SCORES[name]
    recall = {f"found in the top {b:.0%}": _said(quality.recall[b], percent=True) for b in BUDGETS}
    return {
        "score": score.title + (" (baseline)" if score.is_baseline else ""),
        "AUC [95 %]": _said(quality.auc),
        "reading": quality.note if quality.is_known else light.why_unknown(run, name) or quality.note,
        "average precision": _said(quality.average_precision),
        **recall,
        "memorized when": score.memorized_when,
        "higher means": score.higher_means,
        "source": score.source,
    }


def _said(estimate: Estimate, *, percent: bool = False) -> str:
    if math.isnan(estimate.value):
        return "–"
    value, low, high = (f"{100 * v:.0f}" if percent else f"{v:.2f}" for v in estimate)
    return f"{value} % [{low}, {high}]" if percent else f"{value} [{low}, {high}]"


def _folds(run: Run) -> None:
    """Show the rank correlation with counterfactual memorization, and what its own noise allows."""
    facts, agreed = light.fold_facts(run), cache.agreement_of(run, "counterfactual")
    in_accuracy = cache.agreement_of(run, "counterfactual_accuracy")
    if facts is None or not agreed:
        return
    st.markdown("**Does a score rank samples as models without them would?** (counterfactual memorization)")
    st.caption(_noise(facts))
    rows = [
        {
            "score": SCORES[name].title,
            "Spearman, in loss": _correlation(parts["among_all"]),
            "in loss, the corpus's own": _correlation(parts["among_natural"]),
            **({"in accuracy": _correlation(in_accuracy[name]["among_all"])} if name in in_accuracy else {}),
        }
        for name, parts in sorted(agreed.items(), key=lambda item: -(item[1]["among_all"]["value"] or -2))
        if parts["among_all"]["value"] is not None
    ]
    st.dataframe(rows, hide_index=True, height=250)


def _noise(facts: dict[str, Any]) -> str:
    models = f"{facts['models']} fold models, {facts['judging']} of them only judge."
    if facts.get("ceiling") is None:
        return f"{models} Too few to say how well their verdict repeats: train 8 or more."
    return (
        f"{models} Two halves of the judges agree with rank correlation {facts['spearman']:.2f}, all of them would repeat "
        f"themselves with {facts['corrected']:.2f}; so no score can be expected above the noise ceiling "
        f"{facts['ceiling']:.2f}{_in_accuracy(facts)}. Turned so that +1 means agreement."
    )


def _in_accuracy(facts: dict[str, Any]) -> str:
    """Return the ceiling of the other form, where the fold models kept accuracies that repeat at all."""
    ceiling = facts.get("accuracy", {}).get("ceiling")
    return "" if ceiling is None else f" in loss, or {ceiling:.2f} in token accuracy"


def _correlation(part: dict[str, Any]) -> str:
    if part["value"] is None:
        return "–"
    return f"{part['value']:+.2f} [{part['low']:+.2f}, {part['high']:+.2f}]"
