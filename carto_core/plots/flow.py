"""Two runs beside each other: the flow between quadrants, the samples that moved most, and one sample's two trajectories."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from carto_core.plots.layout import laid_out
from carto_core.plots.map import axis_title
from carto_core.plots.palette import CATEGORIES, OTHER, QUADRANT_SIGNS, Theme
from carto_core.quadrants import QUADRANTS, Cuts
from carto_core.scores import SCORES
from carto_core.types import Float32, Float64

UP, DOWN = CATEGORIES[5], CATEGORIES[0]  # vermillion and blue: told apart by everybody, and by the arrow's head
BEFORE, AFTER = OTHER, CATEGORIES[5]


def flow_figure(
    counts: np.ndarray, *, rows: Sequence[str], columns: Sequence[str], run_a: str, run_b: str, theme: Theme
) -> go.Figure:
    """Return the flow matrix as a heatmap: a row per place in A, a column per place in B, every count written out.

    Colour is the share of the row, so that a small quadrant's flow is seen as well as a large one's.

    Args:
        counts: int64[r, c].
        rows: places in A, quadrant names or other words, the first on top.
        columns: places in B.
        run_a: id of A.
        run_b: id of B.
        theme: light or dark.
    """
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = go.Figure(
        go.Heatmap(
            z=share,
            x=[_place(name) for name in columns],
            y=[_place(name) for name in rows],
            zmin=0,
            zmax=1,
            colorscale=[[0, _rgba(DOWN, 0.04)], [1, _rgba(DOWN, 0.75)]],
            showscale=False,
            xgap=3,
            ygap=3,
            customdata=counts,
            hovertemplate="%{y} → %{x}: %{customdata:,} samples, %{z:.0%} of the row<extra></extra>",
        )
    )
    for i, j in np.ndindex(counts.shape):
        text = f"{counts[i, j]:,}<br>{share[i, j]:.0%}" if counts[i, j] else "0"
        moved = counts[i, j] and rows[i] != columns[j]
        colour = theme.text if counts[i, j] else theme.muted
        figure.add_annotation(
            x=j, y=i, text=f"<b>{text}</b>" if moved else text, showarrow=False, font={"color": colour, "size": 13}
        )
    laid_out(
        figure,
        theme,
        x=f"in {html.escape(run_b)} (samples)",
        y=f"in {html.escape(run_a)}",
        height=110 + 62 * len(rows),
        room_above=8,
    )
    figure.update_xaxes(showgrid=False, title_standoff=12)
    return figure.update_yaxes(showgrid=False, title_standoff=8, autorange="reversed")


@dataclass(frozen=True)
class Arrow:
    """One sample's way over the map; `text` is said when the mouse is over its head (plain, escaped here)."""

    x_a: float
    y_a: float
    x_b: float
    y_b: float
    is_up: bool
    text: str


def movers_figure(
    arrows: Sequence[Arrow], *, cloud_x: Float64, cloud_y: Float64, cuts_a: Cuts, cuts_b: Cuts, theme: Theme
) -> go.Figure:
    """Return arrows from where samples were to where they are, over the other samples as a faint cloud.

    Args:
        arrows: the samples that moved most, in the scores' own units.
        cloud_x: float64[m], where other samples are in B, on x.
        cloud_y: float64[m], on the memorization axis.
        cuts_a: A's thresholds, drawn dotted.
        cuts_b: B's, drawn dashed.
        theme: light or dark.
    """
    figure = go.Figure()
    figure.add_scattergl(
        x=cloud_x.astype(np.float32), y=cloud_y.astype(np.float32), mode="markers", hoverinfo="skip",
        name="other samples, after", marker={"size": 4, "color": OTHER, "opacity": 0.35},
    )  # fmt: skip
    for is_up, colour, symbol, name in (
        (True, UP, "triangle-up", "more memorized"),
        (False, DOWN, "triangle-down", "less memorized"),
    ):
        some = [arrow for arrow in arrows if arrow.is_up == is_up]
        if not some:
            continue
        figure.add_scatter(
            x=[arrow.x_b for arrow in some], y=[arrow.y_b for arrow in some], mode="markers", name=name,
            marker={"size": 10, "color": colour, "symbol": symbol},
            customdata=[html.escape(arrow.text, quote=False) for arrow in some],
            hovertemplate="%{customdata}<extra></extra>",
        )  # fmt: skip
        for arrow in some:
            figure.add_annotation(
                x=arrow.x_b, y=arrow.y_b, ax=arrow.x_a, ay=arrow.y_a, xref="x", yref="y", axref="x", ayref="y",
                text="", showarrow=True, arrowhead=2, arrowsize=1.1, arrowwidth=1.6, arrowcolor=colour, standoff=4,
            )  # fmt: skip
    _add_thresholds(figure, cuts_a, cuts_b, theme)
    when = SCORES[cuts_a.y].memorized_when
    y = f"{axis_title(cuts_a.y)}, memorized: {when}"
    return laid_out(figure, theme, x=axis_title(cuts_a.x), y=y, height=440, room_above=44)


def _add_thresholds(figure: go.Figure, cuts_a: Cuts, cuts_b: Cuts, theme: Theme) -> None:
    """Draw A's cuts dotted and B's dashed; one dashed line where they are the same."""
    lines = (
        [(cuts_a, "dot", theme.muted), (cuts_b, "dash", theme.line)]
        if cuts_a != cuts_b
        else [(cuts_b, "dash", theme.line)]
    )
    for cuts, dash, colour in lines:
        line = {"color": colour, "width": 1.2, "dash": dash}
        if np.isfinite(cuts.tau_x):
            figure.add_vline(x=cuts.tau_x, line=line)
        if np.isfinite(cuts.tau_y):
            figure.add_hline(y=cuts.tau_y, line=line)


def two_trajectories_figure(
    before: tuple[Sequence[float], Float32], after: tuple[Sequence[float], Float32], *, theme: Theme
) -> go.Figure:
    """Return one sample's loss over the optimizer steps of two runs.

    Args:
        before: steps of A's snapshots, and float32[S] of losses, NaN = not seen.
        after: the same of B.
        theme: light or dark.
    """
    figure = go.Figure()
    for name, (steps, losses), colour, symbol, dash in (
        ("before", before, BEFORE, "circle", "dot"),
        ("after", after, AFTER, "triangle-up", "solid"),
    ):
        figure.add_scatter(
            x=list(steps), y=losses, mode="lines+markers", name=name, marker={"symbol": symbol, "size": 7},
            line={"color": colour, "width": 2.5, "dash": dash},
            hovertemplate=f"{name}, step %{{x:,}}: %{{y:.3f}} nats/token<extra></extra>",
        )  # fmt: skip
    return laid_out(figure, theme, x="optimizer step", y="loss (nats/token)", height=300, room_above=44)


def _place(name: str) -> str:
    return f"{QUADRANT_SIGNS[name]} {QUADRANTS[name].title.replace('-', '-<br>')}" if name in QUADRANTS else name


def _rgba(colour: str, opacity: float) -> str:
    return f"rgba({int(colour[1:3], 16)},{int(colour[3:5], 16)},{int(colour[5:7], 16)},{opacity})"
