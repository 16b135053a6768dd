"""The calibration page: every measured plan's estimate, made as if it had not been measured, beside the measurement."""

from __future__ import annotations

import math
from typing import Any

import streamlit as st

from carto_core.plots.tradeoff import calibration_figure
from carto_core.preview.effects import METRICS
from carto_core.preview.estimate import CONFIDENCE
from carto_core.store.reader import Run
from carto_core.ui import cache
from carto_core.ui.shell import CHART, go, is_without_model, scored_run, theme, told

WAITS = "Estimates are set beside measurements of the trained run: they wait for the end of the training."


def page() -> None:
    """Draw the page."""
    run = scored_run("calibration", waits=WAITS)
    if run is None:
        return
    with told():
        st.title("How often was the estimate right?")
        if is_without_model(run):
            return
        if cache.estimator_of(run) is None:
            st.info("This run is not prepared for estimates yet; the Intervene page does so in some seconds.")
            go("intervene", "Go to Intervene")
            return
        cases = cache.cases_of(run)
        if not cases:
            st.info(
                "No plan of this run was measured yet. Measure one, and its estimate stands here beside what came out."
            )
            go("intervene", "Go to Intervene")
            return
        _headline(run, cases)
        _charts(cases)
        st.dataframe([_row(case) for case in cases], hide_index=True)


def _headline(run: Run, cases: list[dict[str, Any]]) -> None:
    inside, plans = sum(case["inside"] for case in cases), len({case["plan_sha256"] for case in cases})
    estimator = cache.estimator_of(run)
    st.markdown(
        f"**{inside} of {len(cases)}** measurements of {plans} plan{'s' * (plans != 1)} lay inside their {CONFIDENCE:.0%} interval. "
        "Each estimate is made as if its own plan had not been measured."
    )
    for name, factor in (estimator.widths if estimator else {}).items():
        kind = "perplexity" if name == "ppl_nats" else "extraction and exposure"
        wide = "wider" if factor > 1 else "narrower"
        st.caption(f"Intervals of {kind} are {max(factor, 1 / factor):.2f} times {wide} on this run than they began.")


def _charts(cases: list[dict[str, Any]]) -> None:
    metrics = list(dict.fromkeys(case["metric"] for case in cases if not case["metric"].startswith("exposure")))
    columns = [
        column for _ in range(0, len(metrics), 2) for column in st.columns(2)
    ]  # four in a row leave none any room
    for column, metric in zip(columns, metrics, strict=False):
        some = [case for case in cases if case["metric"] == metric]
        title = "change of validation loss (nats per token)" if metric == "ppl_nats" else METRICS[metric]
        column.markdown(f"**{title[0].upper()}{title[1:]}**")
        figure = calibration_figure(
            [
                (f"plan {c['plan_sha256'][:8]}: {_said(c)}", c["estimated"], c["low"], c["high"], c["measured"])
                for c in some
            ],
            percent=metric != "ppl_nats",
            theme=theme(),
        )
        column.plotly_chart(
            figure,
            theme=None,
            key=f"calibration_{metric}",
            config=CHART,
            alt=f"{title}: estimated and measured, {len(some)} plans",
        )


def _row(case: dict[str, Any]) -> dict[str, str]:
    return {
        "plan": case["plan_sha256"][:8],
        "metric": "perplexity, change" if case["metric"] == "ppl_nats" else METRICS[case["metric"]],
        "estimated": f"{_value(case, 'estimated')} [{_value(case, 'low')}, {_value(case, 'high')}]",
        "measured": _value(case, "measured"),
        "inside": "yes" if case["inside"] else "no",
    }


def _said(case: dict[str, Any]) -> str:
    return f"estimated {_value(case, 'estimated')}, measured {_value(case, 'measured')}"


def _value(case: dict[str, Any], name: str) -> str:
    if case["metric"] == "ppl_nats":
        return f"{math.expm1(case[name]):+.1%}"
    return f"{case[name]:.2f}" if case["metric"].startswith("exposure") else f"{case[name]:.1%}"
