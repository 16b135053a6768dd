"""Charts as SVG that stands in the file itself: a map of dots, and estimates as dots with their intervals.

Built as a tree of elements, so that no text can be markup. Colours that depend on light or dark are CSS classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
from markupsafe import Markup

from carto_core.plots.map import axis_title, full_extent
from carto_core.plots.palette import OTHER, QUADRANT_SIGNS, Colouring
from carto_core.plots.raster import Extent, raster_png
from carto_core.quadrants import QUADRANTS, Cuts
from carto_core.scores import SCORES
from carto_core.types import Float64

Scale = Callable[[Any], Any]  # of a number, or of an array of them
MAX_DOTS = 20_000  # more, and the file grows by more than a picture of them would
ACTION_COLOURS = {"prune": "#D55E00", "reweight": "#0072B2", "upsample": "#009E73"}
MAP_WIDTH, MAP_HEIGHT = 680, 470
MAP_LEFT, MAP_RIGHT, MAP_TOP, MAP_BOTTOM = 62, 12, 34, 58
ROWS_WIDTH, ROW_HEIGHT, ROWS_LEFT, ROWS_RIGHT, ROWS_BOTTOM = 360, 40, 8, 12, 26
SYMBOLS = {
    "circle": "M-4.5,0a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0Z",
    "square": "M-4,-4H4V4H-4Z",
    "diamond": "M0,-5.5L5.5,0L0,5.5L-5.5,0Z",
    "triangle-up": "M0,-5L5,4H-5Z",
    "cross": "M-5,-1.7H-1.7V-5H1.7V-1.7H5V1.7H1.7V5H-1.7V1.7H-5Z",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of `rows_svg`.

    Attributes:
        label: what it is.
        said: its value in words.
        values: a dot each; NaN is left out.
        mean: where the bar stands; NaN for none.
        low: lower end of the interval; NaN for none.
        high: upper end.
        colour: hex.
        symbol: key in `SYMBOLS`.
    """

    label: str
    said: str
    values: Sequence[float]
    mean: float
    low: float
    high: float
    colour: str
    symbol: str


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where the map's scores lie on the drawing: `across` and `up` turn a score's value into units of the drawing."""

    cuts: Cuts
    extent: Extent
    across: Scale
    up: Scale


def rows_svg(
    rows: Sequence[Row],
    *,
    ends: tuple[float, float],
    said: Callable[[float], str],
    label: str,
    line: float | None = None,
) -> Markup:
    """Return estimates one below the other, each with its interval, and every value behind it as a dot.

    Args:
        rows: in order.
        ends: least and greatest value of the axis; an interval that goes on is cut there.
        said: writes a tick.
        label: the chart in words, for those who do not see it.
        line: where chance is.
    """
    height = len(rows) * ROW_HEIGHT + ROWS_BOTTOM
    svg = _svg(ROWS_WIDTH, height, label)
    place = _scale(ends, ROWS_LEFT, ROWS_WIDTH - ROWS_RIGHT)
    floor = height - ROWS_BOTTOM
    for value in ticks(*ends):
        _add(svg, "line", _class="grid", x1=place(value), x2=place(value), y1=0, y2=floor)
        anchor = "start" if value == ticks(*ends)[0] else "end" if place(value) > ROWS_WIDTH - 30 else "middle"
        _text(svg, said(value), place(value), floor + 17, kind="tick", anchor=anchor)
    if line is not None:
        _add(svg, "line", _class="cut", x1=place(line), x2=place(line), y1=0, y2=floor)
    for i, row in enumerate(rows):
        _row(svg, row, place, ends, top=i * ROW_HEIGHT)
    return _written(svg)


def map_svg(
    x: Float64, y: Float64, actions: np.ndarray, *, cuts: Cuts, outlines: Sequence[Sequence[Sequence[float]]]
) -> Markup:
    """Return the map: every sample, those that the plan changes in colour, cuts, quadrants by name, drawn outlines.

    Args:
        x: float64[N], difficulty axis; NaN is left out.
        y: float64[N], memorization axis.
        actions: object[N], see `export.actions_of`.
        cuts: axes and thresholds.
        outlines: polygons in the scores' units.
    """
    corners = np.array([corner for outline in outlines for corner in outline], np.float64).reshape(-1, 2)
    extent = full_extent(np.concatenate([x, corners[:, 0]]), np.concatenate([y, corners[:, 1]]))
    right, floor = MAP_WIDTH - MAP_RIGHT, MAP_HEIGHT - MAP_BOTTOM
    frame = _Frame(cuts, extent, _scale(extent[:2], MAP_LEFT, right), _scale(extent[2:], floor, MAP_TOP))
    svg = _svg(MAP_WIDTH, MAP_HEIGHT, _map_label(cuts, actions))
    _add(svg, "rect", _class="frame", x=MAP_LEFT, y=MAP_TOP, width=right - MAP_LEFT, height=floor - MAP_TOP)
    _map_axes(svg, frame)
    known = ~np.isnan(x) & ~np.isnan(y)
    for name, colour in {"keep": OTHER, **ACTION_COLOURS}.items():
        mine = known & (actions == name)
        if mine.any():
            _dots(svg, x[mine], y[mine], frame, colour=colour, faint=name == "keep")
    for outline in outlines:
        points = "L".join(f"{frame.across(a):.1f},{frame.up(b):.1f}" for a, b in outline)
        _add(svg, "path", _class="outline", d=f"M{points}Z")
    _map_cuts(svg, frame)
    return _written(svg)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return at most `most` round values from low to high, in steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _row(svg: ET.Element, row: Row, place: Scale, ends: tuple[float, float], *, top: float) -> None:
    middle = top + 28
    _text(svg, row.label, ROWS_LEFT, top + 14, kind="name")
    _text(svg, row.said, ROWS_WIDTH - ROWS_RIGHT, top + 14, kind="value", anchor="end")
    if not math.isnan(row.low):
        low, high = (place(min(max(end, ends[0]), ends[1])) for end in (row.low, row.high))
        _add(svg, "line", _class="interval", x1=low, x2=high, y1=middle, y2=middle)
    if not math.isnan(row.mean):
        _add(svg, "line", _class="mean", stroke=row.colour, x1=place(row.mean), x2=place(row.mean), y1=middle - 9, y2=middle + 9)  # fmt: skip
    for value in row.values:
        if not math.isnan(value):
            where = f"translate({place(value):.1f},{middle:.1f})"
            _add(svg, "path", d=SYMBOLS[row.symbol], fill=row.colour, fill_opacity="0.8", transform=where)


def _dots(svg: ET.Element, x: Float64, y: Float64, frame: _Frame, *, colour: str, faint: bool) -> None:
    """Draw samples as dots, or as one picture where they are too many. Dots on the same spot are drawn once."""
    spots = np.unique(np.round(np.stack([frame.across(x), frame.up(y)], axis=1), 1), axis=0)
    extent = frame.extent
    if len(spots) > MAX_DOTS:
        flat = Colouring("", np.zeros(len(x), np.int64), [colour], [""], ["circle"])
        left, right, bottom, top = (
            frame.across(extent[0]),
            frame.across(extent[1]),
            frame.up(extent[2]),
            frame.up(extent[3]),
        )
        picture = raster_png(x, y, flat, extent)
        size = {"x": left, "y": top, "width": right - left, "height": bottom - top}
        _add(svg, "image", href=picture, preserveAspectRatio="none", **size)
        return
    marks = "".join(f"M{a:g} {b:g}h0" for a, b in spots)  # a line of no length with round ends is a dot
    width, opacity = ("4", "0.5") if faint else ("5.2", "0.75")
    _add(svg, "path", _class="dots", d=marks, stroke=colour, stroke_width=width, stroke_opacity=opacity)


def _map_axes(svg: ET.Element, frame: _Frame) -> None:
    cuts, extent, across, up = frame.cuts, frame.extent, frame.across, frame.up
    floor = MAP_HEIGHT - MAP_BOTTOM
    for value in ticks(*extent[:2], most=6):
        _text(svg, f"{value:g}".replace("-", "−"), across(value), floor + 19, kind="tick", anchor="middle")
    for value in ticks(*extent[2:], most=6):
        _text(svg, f"{value:g}".replace("-", "−"), MAP_LEFT - 7, up(value) + 4, kind="tick", anchor="end")
    _text(svg, f"{axis_title(cuts.x)} →", MAP_WIDTH - MAP_RIGHT, MAP_HEIGHT - 12, kind="axis", anchor="end")
    where = "up here" if SCORES[cuts.y].memorized_when == "high" else "down here"
    _text(svg, f"{axis_title(cuts.y)}; memorized is {where}", 4, 18, kind="axis")


def _map_cuts(svg: ET.Element, frame: _Frame) -> None:
    cuts, extent, across, up = frame.cuts, frame.extent, frame.across, frame.up
    right, floor = MAP_WIDTH - MAP_RIGHT, MAP_HEIGHT - MAP_BOTTOM
    if extent[0] <= cuts.tau_x <= extent[1]:
        _add(svg, "line", _class="cut", x1=across(cuts.tau_x), x2=across(cuts.tau_x), y1=MAP_TOP, y2=floor)
    if extent[2] <= cuts.tau_y <= extent[3]:
        _add(svg, "line", _class="cut", x1=MAP_LEFT, x2=right, y1=up(cuts.tau_y), y2=up(cuts.tau_y))
    memorized_up = SCORES[cuts.y].memorized_when == "high"
    for place, (name, quadrant) in enumerate(QUADRANTS.items()):
        hard, memorized = place % 2 == 1, place >= 2
        x, anchor = (right - 8, "end") if hard else (MAP_LEFT + 8, "start")
        y = MAP_TOP + 20 if memorized == memorized_up else floor - 10
        _text(svg, f"{QUADRANT_SIGNS[name]} {quadrant.title}", x, y, kind="quadrant", anchor=anchor)


def _map_label(cuts: Cuts, actions: np.ndarray) -> str:
    return (
        f"Map of {len(actions):,} samples: {axis_title(cuts.x)} across, {axis_title(cuts.y)} upwards; "
        f"{int((actions != 'keep').sum()):,} that the plan changes are coloured."
    )


def _scale(ends: Sequence[float], start: float, stop: float) -> Scale:
    low, high = ends
    return lambda value: start + (value - low) / (high - low) * (stop - start)


def _svg(width: float, height: float, label: str) -> ET.Element:
    return ET.Element("svg", {"viewBox": f"0 0 {width} {height}", "role": "img", "aria-label": label})


def _add(parent: ET.Element, tag: str, **attributes: str | float) -> ET.Element:
    """Add an element; `_class` and `stroke_width` are the attributes `class` and `stroke-width`."""
    said = {
        name.strip("_").replace("_", "-"): value if isinstance(value, str) else f"{value:.1f}"
        for name, value in attributes.items()
    }
    return ET.SubElement(parent, tag, said)


def _text(parent: ET.Element, text: str, x: float, y: float, *, kind: str, anchor: str = "start") -> None:
    _add(parent, "text", _class=kind, x=x, y=y, text_anchor=anchor).text = text


def _written(svg: ET.Element) -> Markup:
    """Return the tree as markup; every text and attribute of it is escaped in the writing."""
    return Markup(ET.tostring(svg, encoding="unicode"))
