"""What all charts but the map have in common: no background of their own, a legend above, colours of the theme."""

from __future__ import annotations

import plotly.graph_objects as go

from carto_core.plots.palette import Theme


def laid_out(figure: go.Figure, theme: Theme, *, x: str, y: str, height: int, room_above: int = 24) -> go.Figure:
    """Return the figure with axes, margins and legend set.

    Args:
        figure: changed in place.
        theme: light or dark.
        x: axis title.
        y: axis title.
        height: in pixels.
        room_above: pixels above the axes; from 40 on the legend stands on them and may take several lines.
    """
    axis = {"gridcolor": theme.grid, "zeroline": False, "color": theme.muted, "automargin": True}
    place = {"y": 1.02, "yanchor": "bottom"} if room_above >= 40 else {"y": 1.12}
    return figure.update_layout(
        xaxis=axis | {"title": x},
        yaxis=axis | {"title": y},
        height=height,
        margin={"l": 56, "r": 8, "t": room_above, "b": 44},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": theme.text, "size": 13},
        legend={"orientation": "h", "x": 0} | place,
        hoverlabel={"align": "left", "bgcolor": theme.paper, "font": {"color": theme.text}},
        dragmode=False,
    )
