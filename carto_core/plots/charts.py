"""The smaller charts: trajectories, audits by group, arms of a measurement, estimates with their intervals."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from carto_core.plots.layout import laid_out
from carto_core.plots.palette import ARM_COLOURS, ARM_SYMBOLS, CATEGORIES, OTHER, Theme
from carto_core.types import Float32

SELECTED = CATEGORIES[5]
SERIES = (CATEGORIES[5], CATEGORIES[0], CATEGORIES[2], CATEGORIES[3])
SYMBOLS = ("circle", "square", "diamond", "triangle-up")
LABEL_WIDTH = 24  # characters
LEGEND_ROOM = 56  # pixels: on a phone the names of series take two lines
ROW_SPREAD = 0.54  # of a row that series stand in side by side


def trajectory_figure(
    steps: Sequence[float], *, selected: Float32 | None, rest: Float32, theme: Theme, single: str | None = None
) -> go.Figure:
    """Return loss over training: median and 10/90 band of the selection against the rest.

    Args:
        steps: epochs of the snapshots, length S.
        selected: float32[S, k], or None.
        rest: float32[S, m].
        theme: light or dark.
        single: name of the one sample that `selected` then holds.
    """
    figure = go.Figure()
    _add_band(figure, steps, rest, OTHER, "the rest")
    if selected is not None and single is None and selected.shape[1]:
        _add_band(figure, steps, selected, SELECTED, "selection")
    elif selected is not None and single is not None:
        figure.add_scatter(
            x=list(steps), y=selected[:, 0], mode="lines+markers", name=single, line={"color": SELECTED, "width": 2.5}
        )
    return laid_out(figure, theme, x="epoch", y="loss (nats/token)", height=260)


def repeats_figure(
    series: dict[str, dict[str, dict[str, Any]]],
    *,
    value: str,
    low: str,
    high: str,
    x: str,
    y: str,
    theme: Theme,
    percent: bool,
) -> go.Figure:
    """Return one value with its interval per group, one series of markers beside the other.

    Args:
        series: by name, then by group, in order; each holds the three named fields, None where unknown. A name of one
            series alone is not shown.
        value: field of the point.
        low: field of the interval's lower end.
        high: field of the upper end.
        x: axis title.
        y: axis title.
        theme: light or dark.
        percent: whether y is a share.
    """
    labels = list(dict.fromkeys(label for groups in series.values() for label in groups))
    figure = go.Figure()
    for i, (name, groups) in enumerate(series.items()):
        known = {label: g for label, g in groups.items() if g.get(value) is not None}
        points = np.array([g[value] for g in known.values()], float)
        figure.add_scatter(
            x=[labels.index(label) + 0.18 * (i - (len(series) - 1) / 2) for label in known],
            y=points,
            mode="markers",
            name=name,
            marker={"size": 11, "color": SERIES[i], "symbol": SYMBOLS[i]},
            error_y={
                "type": "data",
                "symmetric": False,
                "array": np.array([g[high] for g in known.values()], float) - points,
                "arrayminus": points - np.array([g[low] for g in known.values()], float),
                "color": theme.muted,
            },
            text=[html.escape(label) for label in known],
            hovertemplate="%{text}: %{y:.3g}<extra>" + name + "</extra>",
            showlegend=len(series) > 1,
        )
    laid_out(figure, theme, x=x, y=y, height=320)
    figure.update_xaxes(
        tickvals=list(range(len(labels))),
        ticktext=[html.escape(label) for label in labels],
        range=[-0.5, len(labels) - 0.5],
    )
    return figure.update_yaxes(tickformat=".0%", range=[-0.03, 1.03]) if percent else figure


def points_figure(series: dict[str, list[tuple[str, float]]], *, x: str, y: str, theme: Theme) -> go.Figure:
    """Return every item of every series as a point over its group: what an average would hide.

    Args:
        series: by name, (group, value) of each item, at most as many series as there are `SERIES`.
        x: axis title.
        y: axis title.
        theme: light or dark.
    """
    labels = list(dict.fromkeys(label for items in series.values() for label, _ in items))
    figure = go.Figure()
    for i, (name, items) in enumerate(series.items()):
        figure.add_scatter(
            x=[labels.index(label) + 0.22 * (i - (len(series) - 1) / 2) for label, _ in items],
            y=[value for _, value in items],
            mode="markers",
            name=name,
            marker={"size": 9, "color": SERIES[i], "symbol": SYMBOLS[i], "opacity": 0.7},
            text=[html.escape(label) for label, _ in items],
            hovertemplate="%{text}: %{y:.3g}<extra>" + name + "</extra>",
        )
    laid_out(figure, theme, x=x, y=y, height=320)
    return figure.update_xaxes(
        tickvals=list(range(len(labels))),
        ticktext=[html.escape(label) for label in labels],
        range=[-0.5, len(labels) - 0.5],
    )


@dataclass(frozen=True)
class Bar:
    """An estimate and its interval, one line of a figure; `is_baseline` for what is only compared with."""

    label: str
    value: float
    low: float
    high: float
    is_baseline: bool = False


def intervals_figure(bars: Sequence[Bar], *, x: str, line: float, theme: Theme, percent: bool = False) -> go.Figure:
    """Return estimates as dots with their intervals, one below the other, the first on top, and a line to compare with.

    Args:
        bars: in order; NaN bounds draw no interval.
        x: axis title.
        line: where chance, or no effect, is.
        theme: light or dark.
        percent: whether x is a share.
    """
    figure = go.Figure()
    for is_baseline in (False, True):
        some = [(len(bars) - 1 - i, bar) for i, bar in enumerate(bars) if bar.is_baseline == is_baseline]
        if not some:
            continue
        figure.add_scatter(
            x=[bar.value for _, bar in some],
            y=[place for place, _ in some],
            mode="markers",
            name="plain baseline" if is_baseline else "detector",
            marker={
                "size": 11,
                "color": OTHER if is_baseline else SELECTED,
                "symbol": "square-open" if is_baseline else "circle",
                "line": {"width": 2},
            },
            error_x=_error([bar for _, bar in some]) | {"color": theme.muted},
            text=[f"{bar.label}: {bar.value:.3g} [{bar.low:.3g}, {bar.high:.3g}]" for _, bar in some],
            hovertemplate="%{text}<extra></extra>",
            showlegend=any(bar.is_baseline for bar in bars),
        )
    return _rows(figure, [bar.label for bar in bars], x=x, line=line, theme=theme, percent=percent)


def side_by_side_figure(
    series: Mapping[str, Sequence[Bar]], *, x: str, line: float, theme: Theme, percent: bool = False
) -> go.Figure:
    """Return estimates with their intervals, a row a label and the series beside each other in it; the lowest mean on top.

    Args:
        series: by name; beyond as many as there are `SERIES`, colours come again. Not every one needs every label, and
            one without any keeps its colour for itself. A name of one series alone is not shown.
        x: axis title.
        line: where no effect is.
        theme: light or dark.
        percent: whether x is a share.
    """
    found: dict[str, list[float]] = {}
    for bar in (bar for bars in series.values() for bar in bars):
        found.setdefault(bar.label, []).append(bar.value)
    labels = sorted(found, key=lambda label: float(np.mean(found[label])))
    shown = [name for name, bars in series.items() if bars]
    step = ROW_SPREAD / max(1, len(shown) - 1)
    figure = go.Figure()
    for i, (name, bars) in enumerate(series.items()):
        if name not in shown:
            continue
        above = step * ((len(shown) - 1) / 2 - shown.index(name))
        colour, symbol = SERIES[i % len(SERIES)], SYMBOLS[i % len(SYMBOLS)]
        values = np.array([bar.value for bar in bars])
        figure.add_scatter(
            x=values,
            y=[len(labels) - 1 - labels.index(bar.label) + above for bar in bars],
            mode="markers",
            name=name,
            marker={"size": 10, "color": colour, "symbol": symbol},
            error_x=_error(bars) | {"color": colour, "thickness": 1.5, "width": 3},
            text=[f"{name}, {bar.label}: {bar.value:.3g} [{bar.low:.3g}, {bar.high:.3g}]" for bar in bars],
            hovertemplate="%{text}<extra></extra>",
            showlegend=len(shown) > 1,
        )
    room = LEGEND_ROOM if len(shown) > 1 else 24
    row = 16 * len(shown)
    return _rows(figure, labels, x=x, line=line, theme=theme, percent=percent, row=row, room_above=room)


def _error(bars: Sequence[Bar]) -> dict[str, Any]:
    values = np.array([bar.value for bar in bars])
    return {
        "type": "data",
        "symmetric": False,
        "array": np.array([bar.high for bar in bars]) - values,
        "arrayminus": values - np.array([bar.low for bar in bars]),
    }


def _rows(
    figure: go.Figure,
    labels: Sequence[str],
    *,
    x: str,
    line: float,
    theme: Theme,
    percent: bool,
    row: int = 0,
    room_above: int = 24,
) -> go.Figure:
    """Return the figure with a named row a label, the first on top, of `row` pixels or what the names need."""
    figure.add_vline(x=line, line={"color": theme.line, "width": 1.2, "dash": "dash"})
    # a long name on one line would leave a phone no room for the chart
    names = [textwrap.wrap(label, LABEL_WIDTH) for label in reversed(labels)]
    row = max(row, 12 + 12 * max(map(len, names), default=1))
    laid_out(figure, theme, x=x, y="", height=86 + room_above + row * len(labels), room_above=room_above)
    ticks = {"tickvals": list(range(len(labels))), "ticktext": ["<br>".join(lines) for lines in names]}
    figure.update_yaxes(**ticks, range=[-0.7, len(labels) - 0.3], automargin=True)
    return figure.update_xaxes(tickformat="+.0%") if percent else figure


def arms_figure(values: dict[str, list[float]], *, y: str, theme: Theme, percent: bool) -> go.Figure:
    """Return every seed of every arm as a point, and each arm's mean as a line.

    Args:
        values: by arm, one value a seed; NaN is left out.
        y: axis title.
        theme: light or dark.
        percent: whether y is a share.
    """
    figure = go.Figure()
    for place, (arm, seeds) in enumerate(values.items()):
        spread = np.linspace(-0.14, 0.14, len(seeds)) if len(seeds) > 1 else [0.0]
        figure.add_scatter(
            x=[place + s for s in spread], y=seeds, mode="markers", name=arm, showlegend=False,
            marker={"size": 10, "color": ARM_COLOURS[arm], "symbol": ARM_SYMBOLS[arm]},
            hovertemplate=f"{arm}: %{{y:.3g}}<extra></extra>",
        )  # fmt: skip
        known = [value for value in seeds if not np.isnan(value)]
        if known:
            mean, line = float(np.mean(known)), {"color": ARM_COLOURS[arm], "width": 2.5}
            figure.add_shape(type="line", x0=place - 0.3, x1=place + 0.3, y0=mean, y1=mean, line=line)
    laid_out(figure, theme, x="", y=y, height=270)
    figure.update_xaxes(tickvals=list(range(len(values))), ticktext=list(values))
    return figure.update_yaxes(tickformat=".0%", rangemode="tozero") if percent else figure


def _add_band(figure: go.Figure, steps: Sequence[float], losses: Float32, colour: str, name: str) -> None:
    if losses.shape[1] == 0 or np.isnan(losses).all():
        return
    seen = ~np.isnan(losses).all(axis=1)
    low, middle, high = np.full((3, len(losses)), np.nan)
    low[seen], middle[seen], high[seen] = np.nanquantile(losses[seen], [0.1, 0.5, 0.9], axis=1)
    x = list(steps)
    figure.add_scatter(
        x=[*x, *x[::-1]], y=np.concatenate([high, low[::-1]]), fill="toself", mode="lines", fillcolor=_faded(colour),
        line={"width": 0}, hoverinfo="skip", showlegend=False,
    )  # fmt: skip
    figure.add_scatter(x=x, y=middle, mode="lines", name=f"{name}: median", line={"color": colour, "width": 2.5})


def _faded(colour: str) -> str:
    return f"rgba({int(colour[1:3], 16)},{int(colour[3:5], 16)},{int(colour[5:7], 16)},0.18)"
