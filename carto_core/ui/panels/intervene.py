"""The intervene page: a selection becomes a plan, the plan is measured, the list is downloaded."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from carto_core import jobs
from carto_core.export import Outgoing
from carto_core.plots.charts import arms_figure
from carto_core.preview.arms import ARMS, expected_minutes
from carto_core.preview.effects import (
    METRICS,
    is_share,
    metric_of,
    mixed_devices,
    read_measurement,
    read_partial,
    reading,
)
from carto_core.preview.estimate import Estimate
from carto_core.quadrants import Cuts
from carto_core.report.document import report_html
from carto_core.store.reader import Run
from carto_core.store.rundir import resolve_runs_root
from carto_core.types import Plan, SampleTable
from carto_core.ui import cache, state
from carto_core.ui.panels import chosen as selection_panel
from carto_core.ui.panels import cleaning, estimate, exporting, groups, plans, quality, working
from carto_core.ui.panels.chosen import Chosen
from carto_core.ui.shell import CHART, go, is_without_model, scored_run, theme, told
from carto_core.ui.words import literal
from carto_core.workflows import light, lineage
from carto_core.workflows.reporting import gather

# One chooses by the calibration half, so what is reported is the other.
SHOWN = ("extraction.report", "ppl_nats", "natural_extraction", "exposure.report", "membership_tpr")
STOP_AT = 0.05
STOP_FLAG = ["--stop-at", str(STOP_AT)]
ACTIONS = {"prune": "Prune", "reweight": "Down-weight", "upsample": "Up-sample", "policy": "Policy"}
POLICIES = {"quadrants": "The paper's four quadrants", "deduplicate": "One copy of each text"}

WAITS = "A plan is made of scores that are settled: it waits for the end of the training."


def page() -> None:
    """Draw the page."""
    run = scored_run("intervene", waits=WAITS)
    if run is None:
        return
    with told():
        table, cuts = selection_panel.axes_of(run)
        chosen = selection_panel.resolve(run, table)
        st.title("What if these samples were changed?")
        quality.headline(run, cuts.y)
        quality.details(run, table)
        left, right = st.columns([5, 7], gap="large")
        earlier = plans.looked_at(run)
        with left:
            plan = _plan(run, table, cuts, chosen) if earlier is None else plans.again(run, table, earlier)
            if plan is not None:
                _summary(run, table, plan)
        plan_dir = None
        if plan is not None:
            plan_dir = lineage.save_draft(run, plan, table) if earlier is None else earlier.folder
            with right:
                found = _answers(run, table, plan, plan_dir)
            _below(run, table, plan, plan_dir, found)
        plans.lineage_of(run, plan_dir)
        cleaning.in_rounds(run, table)


def _answers(run: Run, table: SampleTable, plan: Plan, plan_dir: Path) -> Estimate | None:
    """Draw estimate and measurement side by side, and return the estimate."""
    if is_without_model(run):
        return None
    found = estimate.card(run, plan, plan_dir)
    with told():  # a run that was itself trained under a plan cannot be measured, but its lists can be taken
        _measured(run, plan_dir)
    _report(run, plan_dir, table)
    return found


def _below(run: Run, table: SampleTable, plan: Plan, plan_dir: Path, found: Estimate | None) -> None:
    """Draw what needs the page's whole width."""
    estimate.tradeoff(run, table, found)
    go("calibration", "How often was the estimate right?")
    groups.effects(run, table, plan)
    groups.near_copies(run, table, plan)
    exporting.box(Outgoing(run, plan, table), plan_dir)


def _plan(run: Run, table: SampleTable, cuts: Cuts, chosen: Chosen) -> Plan | None:
    st.subheader("The intervention")
    st.markdown(selection_panel.status_line(chosen, table))
    action = st.segmented_control(
        "What to do",
        state.ACTIONS,
        format_func=ACTIONS.__getitem__,
        required=True,
        **state.widget("action"),
    )
    if action == "policy":
        return _policy(run, table, cuts)
    if chosen.selection is None or len(chosen.ids) == 0:
        st.info("Choose samples on the Map first, by lasso or by quadrant; or take a policy, which needs no selection.")
        go("map", "Go to the Map")
        return None
    selection = groups.protect(run, table, chosen.selection) if action == "prune" else chosen.selection
    return light.plan_action(run, selection, action=action, factor=_factor(action), table=table)


def _factor(action: str) -> float | None:
    if action == "reweight":
        return st.slider(
            "Loss weight of the selection",
            0.05,
            0.95,
            step=0.05,
            help="1 would change nothing",
            **state.widget("weight"),
        )
    if action == "upsample":
        return float(st.slider("Times an epoch", 2, 10, **state.widget("times")))
    return None


def _policy(run: Run, table: SampleTable, cuts: Cuts) -> Plan | None:
    policy = st.radio(
        "For the whole corpus", state.POLICIES, format_func=POLICIES.__getitem__, **state.widget("policy")
    )
    go("evidence", "What they did on four corpora")
    if policy == "deduplicate":
        st.caption(
            "Of every text in the corpus that stands there word for word more than once, the first copy stays and the others "
            "go. What is repeated in other words, or in another context, this does not see."
        )
        with told():
            return light.plan_deduplicate(run, table=table)
        return None
    st.caption(
        "The paper's plan: hard samples more often, hotspots at less weight, noisy outliers out, at the map's cuts."
    )
    first, second = st.columns(2)
    alpha = first.slider("Weight of hotspots (alpha)", 0.05, 0.95, step=0.05, **state.widget("alpha"))
    gamma = second.slider("Repeats of hard samples (gamma)", 2, 10, **state.widget("gamma"))
    return light.plan_policy(run, alpha=alpha, gamma=gamma, cuts=cuts, table=table)


def _summary(run: Run, table: SampleTable, plan: Plan) -> None:
    """Say what the plan touches; planted canaries of the roles that may be looked at only."""
    touched = np.flatnonzero(plan.affected)
    before = int(table.num_tokens.sum())
    after = int((table.num_tokens * plan.repeats).sum())
    first, second = st.columns(2)
    first.metric(
        "Samples changed",
        f"{len(touched):,}",
        f"{len(touched) / len(table):.1%} of all",
        delta_color="off",
        delta_arrow="off",
    )
    second.metric("Tokens an epoch", f"{after:,}", f"{after / before - 1:+.1%}", delta_color="off")
    canaries = cache.canaries_of(run)
    shown = canaries.loc[canaries["role"].isin(light.roles_shown(run)) & canaries["inserted"], "canary_id"]
    planted = np.isin(table.canary_id[touched], shown)
    st.caption(
        f"Touches copies of {len(np.unique(table.canary_id[touched][planted]))} of {len(shown)} planted canaries "
        f"({' and '.join(light.roles_shown(run))}), and {len(np.unique(table.source[touched]))} sources."
    )
    for note in plan.notes:
        (st.warning if note.startswith("Warning") else st.caption)(literal(note))


def _measured(run: Run, plan_dir: Path) -> None:
    st.subheader("What does it really do?")
    folder = light.measurement_dir(run, plan_dir)
    job = working.newest(run.run_id, "measure", result=folder / "measure.json")
    measured, partial = read_measurement(folder), read_partial(folder)
    if job is not None and jobs.is_active(job):
        working.watch(job, reached=lambda: (read_partial(folder) or {}).get("finished"))
    else:
        if measured is None:
            working.tell_failure(job)
        _offer(run, plan_dir, folder, again=measured is not None)
    if measured is not None:
        if measured.get("stopped_early"):
            st.caption(
                f"Stopped early, after {len({arm['seed'] for arm in measured['arms']})} seeds: the interval was narrow enough."
            )
        _result(run, measured)
    elif partial is not None:
        st.caption(f"So far: {partial['finished']} of {partial['wanted']} retrains. Intervals shrink as seeds come in.")
        _result(run, partial)


def _offer(run: Run, plan_dir: Path, folder: Path, *, again: bool) -> None:
    first, second = st.columns([2, 3], vertical_alignment="bottom")
    seeds = int(first.number_input("Seeds", 1, 20, 3, help="Retrains of each arm; an interval needs at least 2."))
    early = st.checkbox(
        f"Stop early, once plan and control are told apart to within {STOP_AT:.0%}",
        help="After 3 seeds or more. An interval at which one stops because it is narrow is somewhat too narrow.",
    )
    oracle = st.checkbox(
        "With an oracle of the same size",
        disabled=not np.any(cache.canaries_of(run)["inserted"]),
        help="Retrains without as many rows, chosen by one who knows the canaries of both halves: what a detector could hope for.",
    )
    membership = st.checkbox(
        "With membership inference",
        help="Attacks every retrain by its losses: how many of this run's training texts, those too that a plan prunes, are found "
        "when at most 1 % of others are taken for such? Retrains that were measured without this are trained anew.",
    )
    arms = light.measurement_arms(run, plan_dir, seeds=seeds, oracle=oracle, membership=membership)
    minutes = expected_minutes(run, arms)
    label = "Measure again" if again else "Measure it"
    cost = f"about {max(1, round(minutes))} min" if minutes else "all arms are there: seconds"
    if second.button(f"{label} ({cost})", type="secondary" if again else "primary", width="stretch"):
        lineage.settled(plan_dir)
        jobs.launch(
            [
                "measure",
                str(run.files.path),
                str(plan_dir),
                "--seeds",
                str(seeds),
                *(STOP_FLAG if early else []),
                *(["--oracle"] * oracle),
                *(["--membership"] * membership),
            ],
            kind="measure",
            run_id=run.run_id,
            runs_root=resolve_runs_root().absolute(),
            progress=folder / "progress.jsonl",
            result=folder / "measure.json",
        )
        st.rerun()
    if not again:
        st.caption(
            "Retrains from scratch under the plan, under a random control of the same size and length, without exact "
            "duplicates, and unchanged; equal optimizer steps, each seed paired. Arms that were trained before are reused. "
            "Afterwards the report canaries are shown, and the run's manifest says so."
        )


def _result(run: Run, measured: dict[str, Any]) -> None:
    arms = measured["arms"]
    st.markdown("**Every retrain is a point; the line is the mean**")
    for row in (SHOWN[:2], SHOWN[2:4], SHOWN[4:]):
        for column, metric in zip(st.columns(2), row, strict=False):
            there = [arm for arm in ARMS if any(a["arm"] == arm for a in arms)]
            values = {arm: [metric_of(a, metric) for a in arms if a["arm"] == arm] for arm in there}
            if all(math.isnan(v) for seeds in values.values() for v in seeds):
                continue
            column.caption(METRICS[metric])
            figure = arms_figure(values, y="", theme=theme(), percent=is_share(metric))
            column.plotly_chart(
                figure,
                theme=None,
                key=f"arms_{metric}",
                config=CHART,
                alt=f"{METRICS[metric]} of every retrain by arm",
            )
    st.markdown("**Effect of the plan**, paired over seeds, 95 % t intervals")
    rows = [_effect_row(e) for e in measured["effects"] if e["arm"] == "plan" and e["metric"] in SHOWN]
    st.markdown("\n".join(["| metric | against | difference | reading |", "| --- " * 4 + "|", *rows]))
    st.markdown(_verdict(measured["effects"]))
    if note := mixed_devices(arms):
        st.caption(note)


def _effect_row(effect: dict[str, Any]) -> str:
    """Return one row of a Markdown table, which wraps: a data frame hides its last column, the reading, in half a page."""
    low, high = ("?" if effect[name] is None else f"{effect[name]:+.3f}" for name in ("low", "high"))
    difference = "unknown" if effect["estimate"] is None else f"{effect['estimate']:+.3f} [{low}, {high}]"
    return f"| {METRICS[effect['metric']]} | {effect['against']} | {difference} | {reading(effect)} |"


def _verdict(effects: list[dict[str, Any]]) -> str:
    """Say in words whether the plan does more than a random cut of its size."""
    against = next(
        e for e in effects if (e["arm"], e["against"], e["metric"]) == ("plan", "control", "extraction.report")
    )
    shown = reading(against)
    if shown == "lower":
        return "**The plan lowers extraction of report canaries more than a random choice of its size does.**"
    if shown == "higher":
        return "**The plan raises extraction of report canaries against a random choice of its size. Do not apply it for privacy.**"
    if against["low"] is None:
        return "**Too little for a verdict yet**: an interval needs two seeds of plan and control."
    return "**Not shown to do more than a random choice of its size.** More seeds narrow the interval."


def _report(run: Run, plan_dir: Path, table: SampleTable) -> None:
    masked = state.is_masking()
    st.download_button(
        "Download the report",
        lambda: report_html(gather(run, plan_dir, table=table, masked=masked)),
        f"report-{run.run_id}-{plan_dir.name}.html",
        mime="text/html",
        on_click="ignore",
        help="One file about this run and plan, with what was measured. It holds no sample's text, and needs no network.",
    )
