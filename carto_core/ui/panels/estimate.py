"""The instant estimate on the intervene page: what a plan would do, how far to believe it, and what it trades."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import streamlit as st

from carto_core import jobs
from carto_core.plots.tradeoff import Point, Sweep, tradeoff_figure
from carto_core.preview.effects import METRICS, ON_REQUEST, is_share, read_measurement, with_unit
from carto_core.preview.estimate import CONFIDENCE, INTERPOLATED, SEEDS, Estimate, Estimator, Range
from carto_core.scores import SCORES
from carto_core.store.reader import Run
from carto_core.store.rundir import resolve_runs_root
from carto_core.types import Plan, SampleTable
from carto_core.ui import cache, state
from carto_core.ui.panels import working
from carto_core.ui.shell import CHART, theme
from carto_core.workflows import light, previewing

BUDGETS = (0.01, 0.02, 0.05, 0.10, 0.20)
LEAKS = {
    "extraction": "secrets extracted",
    "natural_extraction": "repeated texts recited",
    "exposure": "exposure of secrets",
    "membership_tpr": "members found",
}
BADGES = {"measured": "green", INTERPOLATED: "blue"}


def card(run: Run, plan: Plan, plan_dir: Path) -> Estimate | None:
    """Draw the estimate of a plan and return it; what to do where the run is not prepared."""
    with st.container(border=True):
        estimator = cache.estimator_of(run)
        if estimator is None:
            _offer_to_prepare(run)
            return None
        found = previewing.estimate(estimator, plan, run)
        is_measured = read_measurement(light.measurement_dir(run, plan_dir)) is not None
        support = "measured" if is_measured else found.support
        st.markdown(f"**Instant estimate** :{BADGES.get(support, 'orange')}-badge[{support}]")
        half = "report" if "extraction.report" in found.metrics else "calibration"
        first, second, third = st.columns(3)
        _share(first, "Secrets given away", found.metrics.get(f"extraction.{half}"), of=f"{half} half: ")
        _perplexity(second, found.metrics["ppl_nats"])
        _share(third, "Repeated texts recited", found.metrics.get("natural_extraction"))
        for note in found.notes:
            st.caption(note)
        _details(found)
        st.caption(
            f"Beside each number its {CONFIDENCE:.0%} interval for a mean of {SEEDS} retrains, below it the change against "
            f"the run as it is. {_taught(found)} Nothing was trained for it."
        )
    return found


def tradeoff(run: Run, table: SampleTable, found: Estimate | None) -> None:
    """Draw what is given away against perplexity: measured plans, their controls, and the estimate of the plan in view."""
    estimator = cache.estimator_of(run)
    if estimator is None:
        return
    metric = _leak(run)
    points = [Point(**point) for point in previewing.tradeoff_points(estimator, metric)]
    mine = None if found is None else found.metrics.get(metric)
    if found is not None and mine is not None:
        points.append(_point_of(metric, mine, found.metrics["ppl_nats"]))
    if not points:
        lacking = "measure a plan *With membership inference*" if metric in ON_REQUEST else "choose another way to leak"
        st.info(f"No measured plan and no estimate tells the {METRICS[metric]}: {lacking}.")
        return
    sweeps = _sweeps(run, table, estimator, metric)
    st.plotly_chart(
        tradeoff_figure(points, sweeps, y=METRICS[metric], percent=is_share(metric), theme=theme()),
        theme=None,
        key="tradeoff",
        config=CHART,
        on_select=lambda: _look(run),
        selection_mode="points",
        alt=f"{len(points)} plans by change of perplexity and {METRICS[metric]}",
    )


def _leak(run: Run) -> str:
    """Draw the heading and the picker of what is given away, and return the metric."""
    st.subheader("What does it trade?")
    st.markdown(
        "Down is safer, left is a better model. Curves: estimates of pruning more and more by one score. A click on a "
        "measured plan opens it."
    )
    chosen = st.segmented_control(
        "What is given away", list(LEAKS), format_func=LEAKS.__getitem__, default="extraction", required=True
    )
    half = "report" if "report" in light.roles_shown(run) else "calibration"
    return chosen if chosen in METRICS else f"{chosen}.{half}"


def _look(run: Run) -> None:
    keys = [key for key in state.picked_points("tradeoff") if key]
    if keys:
        state.look_at_plan(run.run_id, keys[0])


def _sweeps(run: Run, table: SampleTable, estimator: Estimator, metric: str) -> list[Sweep]:
    """Return the estimates of pruning by the map's score and by the paper's, budget by budget."""
    names = list(dict.fromkeys([table.y, "memorization"]))
    found = []
    for name in names:
        rows = cache.sweep_of(run, name, metric, BUDGETS)
        if rows:
            found.append(Sweep(f"prune by {SCORES[name].title}", *(list(part) for part in zip(*rows, strict=True))))
    return found


def _point_of(metric: str, leak: Range, change: Range) -> Point:
    low, value, high = (math.expm1(end) for end in (change.low, change.value, change.high))
    text = f"estimate: {METRICS[metric]} {with_unit(metric, leak.value)}, perplexity {value:+.1%}"
    return Point("estimate", value, leak.value, text, "", low, high, leak.low, leak.high)


def _share(column: Any, label: str, found: Range | None, *, of: str = "") -> None:
    if found is None:
        column.metric(label, "–")
        return
    points = round(100 * (found.value - found.unchanged))
    column.metric(
        label,
        f"{found.value:.0%}",
        f"{points:+d} points" if points else "0 points",
        delta_color="inverse" if points else "off",
        delta_arrow="auto" if points else "off",
        help=f"now {found.unchanged:.0%}",
    )
    column.caption(f"{of}{found.low:.0%} to {found.high:.0%}")


def _perplexity(column: Any, found: Range) -> None:
    low, value, high = (math.expm1(end) for end in (found.low, found.value, found.high))
    column.metric("Perplexity", f"{value:+.1%}", help="change against the run as it is; lower is better")
    column.caption(f"{low:+.1%} to {high:+.1%}")


def _details(found: Estimate) -> None:
    with st.expander("By how often a secret was planted, and exposure"):
        rows = [
            {
                "half": role,
                "copies": copies,
                "given away": f"{part.value:.0%} [{part.low:.0%}, {part.high:.0%}]",
                "now": f"{part.unchanged:.0%}",
            }
            for role, by_copies in found.by_copies.items()
            for copies, part in by_copies.items()
        ]
        if rows:
            st.dataframe(rows, hide_index=True)
        bits = {name: part for name, part in found.metrics.items() if name.startswith("exposure")}
        for name, part in bits.items():
            st.markdown(
                f"{METRICS[name].capitalize()}: {part.value:.1f} [{part.low:.1f}, {part.high:.1f}], now {part.unchanged:.1f}"
            )
        if not bits:
            st.caption("Exposure is estimated where the exposure audit was run.")


def _taught(found: Estimate) -> str:
    if not found.num_plans:
        return (
            "No plan of this run was measured yet, so it rests on the ladder of canaries and on a recount, which may be "
            "off as a whole: it ranks plans, but measure one before you trust its numbers."
        )
    plans = "plan" if found.num_plans == 1 else "plans"
    return f"{found.num_plans} measured {plans} of this run taught it."


def _offer_to_prepare(run: Run) -> None:
    st.markdown("**Instant estimate**")
    job = working.newest(run.run_id, "prepare")
    if job is not None and jobs.is_active(job):
        working.watch(job)
        return
    working.tell_failure(job)
    st.caption("This run was trained before estimates were prepared with it. That takes some seconds, once.")
    if st.button("Prepare it"):
        jobs.launch(
            ["prepare", str(run.files.path)],
            kind="prepare",
            run_id=run.run_id,
            runs_root=resolve_runs_root().absolute(),
            progress=run.files.previews / "prepare.jsonl",
            result=run.files.prepared / "prepared.json",
        )
        st.rerun()
