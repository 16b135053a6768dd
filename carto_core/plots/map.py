"""The map: a raster of all samples, hoverable markers over few, quadrant lines, and outlines that can be drawn on it.

Only the outline ever comes back from the browser. The markers lie on a lower pair of axes that no lasso can select;
the outline and what can be hovered lie on an upper pair of the same extent, so that no list of points is sent up.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from carto_core.plots.palette import QUADRANT_COLOURS, QUADRANT_SIGNS, Colouring, Theme
from carto_core.plots.raster import Extent, raster_png
from carto_core.quadrants import QUADRANTS, Cuts
from carto_core.scores import SCORES
from carto_core.types import Float64

MAX_MARKERS = 5000
PADDING_X, PADDING_Y = 0.04, 0.12  # the names of the quadrants need room above and below


@dataclass(frozen=True)
class Points:
    """Some samples to mark: where, and what to say when the mouse is over them (plain text, escaped here)."""

    x: Float64
    y: Float64
    hover: list[str]


@dataclass(frozen=True)
class Marks:
    """What lies over the map: search hits or the selection (rings) and planted canaries (stars)."""

    rings: Points | None = None
    stars: Points | None = None


def full_extent(x: Float64, y: Float64) -> Extent:
    """Return what the map covers when nothing is zoomed: all known values and a margin."""
    return (*_padded(x, PADDING_X), *_padded(y, PADDING_Y))


def map_figure(
    x: Float64,
    y: Float64,
    *,
    cuts: Cuts,
    colouring: Colouring,
    counts: dict[str, int],
    extent: Extent,
    sampled: np.ndarray,
    hover: list[str],
    outlines: Sequence[Sequence[Sequence[float]]],
    marks: Marks,
    theme: Theme,
) -> go.Figure:
    """Return the map.

    Args:
        x: float64[N], values on x.
        y: float64[N], values on the memorization axis.
        cuts: axes and thresholds.
        colouring: of the N samples.
        counts: samples by quadrant.
        extent: what is shown.
        sampled: which samples get a marker, at most 5,000.
        hover: a text for each of them.
        outlines: polygons to draw, in data coordinates.
        marks: overlays.
        theme: light or dark.
    """
    figure = go.Figure()
    left, right, bottom, top = extent
    few = len(sampled) == len(x)
    figure.add_layout_image(
        source=raster_png(x, y, colouring, extent),
        xref="x", yref="y", x=left, y=top, sizex=right - left, sizey=top - bottom,
        sizing="stretch", layer="below", opacity=0.25 if few else 0.95,
    )  # fmt: skip
    _add_markers(figure, x[sampled], y[sampled], colouring, sampled, faint=not few)
    _add_marks(figure, marks, theme)
    _add_hover(figure, Points(x[sampled], y[sampled], hover), marks, extent)
    _add_cuts(figure, cuts, extent, counts, theme)
    _lay_out(figure, cuts, extent, colouring, theme)
    line = {"color": theme.text, "width": 2, "dash": "dot"}
    figure.update_layout(
        newselection={"line": line},
        selections=[
            {"type": "path", "path": _path(outline), "xref": "x2", "yref": "y2", "line": line} for outline in outlines
        ],
    )
    return figure


def describe_map(cuts: Cuts, counts: dict[str, int]) -> str:
    """Return the map in words, for those who do not see it."""
    parts = ", ".join(f"{QUADRANTS[name].title} {count}" for name, count in counts.items())
    return f"Map of {SCORES[cuts.x].title} against {SCORES[cuts.y].title}; samples by quadrant: {parts}."


def axis_title(name: str) -> str:
    """Return a score's title, unit and direction, for an axis."""
    score = SCORES[name]
    return f"{score.title} ({score.unit})"


def _add_markers(
    figure: go.Figure, x: Float64, y: Float64, colouring: Colouring, sampled: np.ndarray, *, faint: bool
) -> None:
    codes = colouring.codes[sampled]
    figure.add_scattergl(
        x=x.astype(np.float32),
        y=y.astype(np.float32),
        mode="markers",
        hoverinfo="skip",
        showlegend=False,
        marker={
            "size": 3 if faint else 6,
            "opacity": 0.5 if faint else 0.75,
            "color": np.array(colouring.colours)[codes],
            "symbol": np.array(colouring.symbols)[codes],
            "line": {"width": 0},
        },
    )
    for colour, label, symbol in zip(colouring.colours, colouring.labels, colouring.symbols, strict=True):
        if label and colouring.title != "quadrant":  # the quadrants are named on the map itself
            figure.add_scatter(
                x=[None], y=[None], mode="markers", name=html.escape(label), hoverinfo="skip",
                marker={"color": colour, "symbol": symbol, "size": 9},
            )  # fmt: skip


def _add_marks(figure: go.Figure, marks: Marks, theme: Theme) -> None:
    for points, symbol, name, size in (
        (marks.rings, "circle-open", "highlighted", 10),
        (marks.stars, "star-open", "planted canary", 11),
    ):
        if points is not None and len(points.x):
            figure.add_scatter(
                x=points.x, y=points.y, mode="markers", name=name, hoverinfo="skip",
                marker={"symbol": symbol, "size": size, "color": theme.text, "line": {"width": 1.4, "color": theme.text}},
            )  # fmt: skip


def _add_hover(figure: go.Figure, points: Points, marks: Marks, extent: Extent) -> None:
    """Put what can be hovered on the upper axes: a line of no width with gaps, which no lasso can select."""
    every = [points, *(p for p in (marks.stars,) if p is not None)]
    x = np.concatenate([p.x for p in every])
    y = np.concatenate([p.y for p in every])
    gaps_x, gaps_y = np.full(2 * len(x), np.nan, np.float32), np.full(2 * len(x), np.nan, np.float32)
    gaps_x[::2], gaps_y[::2] = x, y
    said = np.repeat(np.array([_said(text) for p in every for text in p.hover], object), 2)
    figure.add_scatter(
        x=gaps_x, y=gaps_y, mode="lines", line={"width": 0}, xaxis="x2", yaxis="y2", customdata=said,
        hovertemplate="%{customdata}<extra></extra>", showlegend=False,
    )  # fmt: skip
    # Without one selectable trace Plotly hides the lasso and box buttons, and sends no outline.
    figure.add_scatter(
        x=list(extent[:2]), y=list(extent[2:]), mode="markers", marker={"size": 1, "opacity": 0}, hoverinfo="skip",
        showlegend=False, xaxis="x2", yaxis="y2",
    )  # fmt: skip


def _said(text: str) -> str:
    """Escape what Plotly would read as markup; line breaks are ours."""
    return "<br>".join(html.escape(line, quote=False) for line in text.split("\n"))


def _add_cuts(figure: go.Figure, cuts: Cuts, extent: Extent, counts: dict[str, int], theme: Theme) -> None:
    line = {"color": theme.line, "width": 1.2, "dash": "dash"}
    if np.isfinite(cuts.tau_x):
        figure.add_shape(type="line", x0=cuts.tau_x, x1=cuts.tau_x, y0=extent[2], y1=extent[3], line=line)
    if np.isfinite(cuts.tau_y):
        figure.add_shape(type="line", x0=extent[0], x1=extent[1], y0=cuts.tau_y, y1=cuts.tau_y, line=line)
    memorized_up = SCORES[cuts.y].memorized_when == "high"
    total = max(1, sum(counts.values()))
    for place, (name, quadrant) in enumerate(QUADRANTS.items()):
        hard, memorized = place % 2 == 1, place >= 2
        up = memorized == memorized_up
        share = f"{counts[name]:,} · {counts[name] / total:.0%}"
        figure.add_annotation(
            xref="paper", yref="paper", x=0.995 if hard else 0.005, y=0.995 if up else 0.005,
            xanchor="right" if hard else "left", yanchor="top" if up else "bottom", showarrow=False,
            text=f"<b>{QUADRANT_SIGNS[name]} {quadrant.title}</b><br>{share}", align="right" if hard else "left",
            font={"size": 12, "color": theme.text}, bgcolor=_faded(theme.paper), bordercolor=QUADRANT_COLOURS[name],
            borderwidth=1.5, borderpad=3,
        )  # fmt: skip


def _lay_out(figure: go.Figure, cuts: Cuts, extent: Extent, colouring: Colouring, theme: Theme) -> None:
    x_range, y_range = list(extent[:2]), list(extent[2:])
    axis = {"showgrid": False, "zeroline": False, "color": theme.muted, "linecolor": theme.grid, "showline": True}
    above = {"visible": False, "showgrid": False, "zeroline": False}
    figure.update_layout(
        xaxis=axis | {"range": x_range, "domain": [0, 1], "title": axis_title(cuts.x)},
        yaxis=axis
        | {
            "range": y_range,
            "domain": [0, 1],
            "title": f"{axis_title(cuts.y)}, memorized: {SCORES[cuts.y].memorized_when}",
        },
        xaxis2=above | {"range": x_range, "domain": [0, 1], "anchor": "y2", "matches": "x"},
        yaxis2=above | {"range": y_range, "domain": [0, 1], "anchor": "x2", "matches": "y"},
        dragmode="lasso",
        hovermode="closest",
        height=560,
        margin={"l": 64, "r": 8, "t": 34, "b": 56},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": theme.text, "size": 13},
        legend={"orientation": "h", "y": -0.13, "x": 0, "font": {"size": 11}},
        hoverlabel={"align": "left", "bgcolor": theme.paper, "font": {"color": theme.text}},
    )


def _faded(colour: str) -> str:
    return f"rgba({int(colour[1:3], 16)},{int(colour[3:5], 16)},{int(colour[5:7], 16)},0.78)"


def _path(outline: Sequence[Sequence[float]]) -> str:
    return "M" + "L".join(f"{x!r},{y!r}" for x, y in outline) + "Z"


def _padded(values: Float64, share: float) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if len(known) == 0:
        return (0.0, 1.0)
    low, high = float(known.min()), float(known.max())
    margin = (high - low) * share or max(abs(low) * share, 0.5)
    return (low - margin, high + margin)
