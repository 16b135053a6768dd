"""The trade-off that a plan is about: what the model gives away against what it costs, as measured and as estimated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import plotly.graph_objects as go

from carto_core.plots.layout import laid_out
from carto_core.plots.palette import ARM_COLOURS, ARM_SYMBOLS, Theme

Kind = Literal["plan", "control", "dedup", "baseline", "estimate"]
TITLES: dict[Kind, str] = {
    "plan": "measured plan",
    "control": "its random control",
    "dedup": "one copy of each text",
    "baseline": "unchanged",
    "estimate": "estimate of this plan",
}
SWEEPS = (("#CC79A7", "dot"), ("#56B4E9", "dash"))


@dataclass(frozen=True)
class Point:
    """One model, or the mean of some.

    Attributes:
        kind: in `TITLES`.
        x: change of perplexity, share; with `low_x` and `high_x`, NaN for no interval.
        y: how much is given away, likewise.
        text: for the pointer.
        key: what a click on it means; empty for nothing.
    """

    kind: Kind
    x: float
    y: float
    text: str
    key: str = ""
    low_x: float = float("nan")
    high_x: float = float("nan")
    low_y: float = float("nan")
    high_y: float = float("nan")


@dataclass(frozen=True)
class Sweep:
    """Estimates along growing budgets of one score.

    Attributes:
        name: for the legend.
        x: change of perplexity by budget.
        y: how much is given away, by budget.
        budgets: shares of the samples.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    budgets: Sequence[float]


def tradeoff_figure(
    points: Sequence[Point], sweeps: Sequence[Sweep], *, y: str, percent: bool, theme: Theme
) -> go.Figure:
    """Return the plane of cost and leak: down is safer, left is better.

    Args:
        points: of any kinds, those of one kind in one colour and shape; `customdata` holds their keys.
        sweeps: at most two.
        y: axis title.
        percent: whether y is a share.
        theme: light or dark.
    """
    figure, tickformat = go.Figure(), ".1~%" if percent else ".1f"
    for sweep, (colour, dash) in zip(sweeps, SWEEPS, strict=False):
        figure.add_scatter(
            x=list(sweep.x), y=list(sweep.y), mode="lines+markers", name=sweep.name, line={"color": colour, "dash": dash},
            marker={"size": 6}, text=[f"{sweep.name}, prune {budget:.0%}" for budget in sweep.budgets],
            hovertemplate=f"%{{text}}: {y} %{{y:{tickformat}}}, perplexity %{{x:+.1%}}<extra></extra>",
        )  # fmt: skip
    for kind, title in TITLES.items():
        some = [point for point in points if point.kind == kind]
        if some:
            figure.add_scatter(
                x=[p.x for p in some], y=[p.y for p in some], mode="markers", name=title,
                customdata=[[p.key] for p in some], text=[p.text for p in some],
                error_x=_bars([(p.x, p.low_x, p.high_x) for p in some], theme),
                error_y=_bars([(p.y, p.low_y, p.high_y) for p in some], theme),
                marker=_marker(kind, theme), hovertemplate="%{text}<extra></extra>",
            )  # fmt: skip
    laid_out(figure, theme, x="change of perplexity", y=y, height=420, room_above=84)
    figure.update_xaxes(tickformat="+.0%", zeroline=True, zerolinecolor=theme.line)
    return figure.update_yaxes(tickformat=tickformat, rangemode="tozero")


def calibration_figure(
    cases: Sequence[tuple[str, float, float, float, float]], *, percent: bool, theme: Theme
) -> go.Figure:
    """Return what was measured over what was estimated: on the diagonal the estimate was right.

    Args:
        cases: text, estimate, its low and high end, measurement.
        percent: whether they are shares.
        theme: light or dark.
    """
    ends = [end for _, value, low, high, measured in cases for end in (value, low, high, measured)]
    low, high = min(ends), max(ends)
    figure = go.Figure()
    figure.add_scatter(
        x=[low, high], y=[low, high], mode="lines", name="estimate = measurement", hoverinfo="skip",
        line={"color": theme.muted, "dash": "dash", "width": 1.2},
    )  # fmt: skip
    figure.add_scatter(
        x=[value for _, value, *_ in cases], y=[measured for *_, measured in cases], mode="markers", name="a measured plan",
        error_x=_bars([(value, low, high) for _, value, low, high, _ in cases], theme),
        marker={"size": 11, "color": ARM_COLOURS["plan"], "symbol": ARM_SYMBOLS["plan"]},
        text=[text for text, *_ in cases], hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip
    laid_out(figure, theme, x="estimated [90 %]", y="measured", height=360, room_above=48)
    tickformat = ".0%" if percent else ".2f"
    return figure.update_xaxes(tickformat=tickformat).update_yaxes(tickformat=tickformat)


def _bars(ranges: Sequence[tuple[float, float, float]], theme: Theme) -> dict[str, object]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - value for value, _, high in ranges],
        "arrayminus": [value - low for value, low, _ in ranges],
        "color": theme.muted,
        "thickness": 1.2,
    }


def _marker(kind: Kind, theme: Theme) -> dict[str, object]:
    if kind == "estimate":
        return {"size": 15, "color": theme.text, "symbol": "star"}
    return {
        "size": 8 if kind == "control" else 12,
        "color": ARM_COLOURS[kind],
        "symbol": ARM_SYMBOLS[kind],
        "opacity": 0.6 if kind == "control" else 1,
    }
