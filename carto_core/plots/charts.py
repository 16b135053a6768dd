"""The smaller charts: trajectories, audits by repetitions, arms of a measurement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from carto_core.plots.palette import ARM_COLOURS, ARM_SYMBOLS, CATEGORIES, OTHER, Theme
from carto_core.types import Float32

SELECTED, CONTROL = CATEGORIES[5], CATEGORIES[0]


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
    return _laid_out(figure, theme, x="epoch", y="loss (nats/token)", height=260)


def repeats_figure(
    groups: dict[str, dict[str, Any]], *, value: str, low: str, high: str, y: str, theme: Theme, percent: bool
) -> go.Figure:
    """Return one value with its interval per number of repetitions; 0 stands for never inserted.

    Args:
        groups: by label, in order; each holds the three named fields, None where unknown.
        value: field of the point.
        low: field of the interval's lower end.
        high: field of the upper end.
        y: axis title.
        theme: light or dark.
        percent: whether y is a share.
    """
    known = {label: g for label, g in groups.items() if g.get(value) is not None}
    points = np.array([g[value] for g in known.values()], float)
    figure = go.Figure()
    figure.add_scatter(
        x=list(known),
        y=points,
        mode="markers",
        marker={"size": 11, "color": [OTHER if label.startswith("never") else SELECTED for label in known]},
        error_y={
            "type": "data",
            "symmetric": False,
            "array": np.array([g[high] for g in known.values()], float) - points,
            "arrayminus": points - np.array([g[low] for g in known.values()], float),
            "color": theme.muted,
        },
        showlegend=False,
    )
    _laid_out(figure, theme, x="copies in the training data", y=y, height=300)
    figure.update_xaxes(type="category")
    return figure.update_yaxes(tickformat=".0%", range=[-0.03, 1.03]) if percent else figure


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
    _laid_out(figure, theme, x="", y=y, height=270)
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


def _laid_out(figure: go.Figure, theme: Theme, *, x: str, y: str, height: int) -> go.Figure:
    axis = {"gridcolor": theme.grid, "zeroline": False, "color": theme.muted}
    return figure.update_layout(
        xaxis=axis | {"title": x},
        yaxis=axis | {"title": y},
        height=height,
        margin={"l": 56, "r": 8, "t": 24, "b": 44},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": theme.text, "size": 13},
        legend={"orientation": "h", "y": 1.12, "x": 0},
        dragmode=False,
    )


def _faded(colour: str) -> str:
    return f"rgba({int(colour[1:3], 16)},{int(colour[3:5], 16)},{int(colour[5:7], 16)},0.18)"
