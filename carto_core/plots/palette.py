"""Colours that colour-blind people can tell apart, by the name of what they stand for. One set for both themes.

Okabe-Ito; checked for pairwise distance under simulated deuteranopia, protanopia and tritanopia.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import plotly.colors

from carto_core.quadrants import QUADRANTS

QUADRANT_COLOURS = {
    "stable-easy": "#009E73",
    "ambiguous-hard": "#0072B2",
    "hotspot-memorized": "#D55E00",
    "noisy-outlier": "#CC79A7",
}
QUADRANT_SYMBOLS = {
    "stable-easy": "circle",
    "ambiguous-hard": "square",
    "hotspot-memorized": "triangle-up",
    "noisy-outlier": "diamond",
}
QUADRANT_SIGNS = {"stable-easy": "●", "ambiguous-hard": "■", "hotspot-memorized": "▲", "noisy-outlier": "◆"}
MAX_LABEL = 40  # characters of a value in a legend
CATEGORIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#B8A600")
OTHER = "#8A8F98"
ARM_COLOURS = {"baseline": "#8A8F98", "plan": "#D55E00", "control": "#0072B2", "dedup": "#009E73", "oracle": "#CC79A7"}
ARM_SYMBOLS = {"baseline": "circle", "plan": "triangle-up", "control": "square", "dedup": "diamond", "oracle": "cross"}


@dataclass(frozen=True, slots=True)
class Theme:
    """The few colours that depend on light or dark."""

    text: str
    muted: str
    grid: str
    line: str
    paper: str


LIGHT = Theme(text="#1A1D24", muted="#5B616E", grid="#E3E6EB", line="#3A3F4A", paper="#FFFFFF")
DARK = Theme(text="#F2F4F8", muted="#A9B0BD", grid="#2A303B", line="#C9CFDA", paper="#0E1117")


@dataclass(frozen=True)
class Colouring:
    """How samples are coloured: each has a code, each code a colour and a label.

    Attributes:
        title: what the colours stand for.
        codes: int64[N], index into `colours`.
        colours: hex.
        labels: one per colour, for the legend; empty strings are left out of it.
        symbols: one per colour, the second cue; all circles where colour is not a category.
    """

    title: str
    codes: np.ndarray
    colours: list[str]
    labels: list[str]
    symbols: list[str]


def by_quadrant(quadrant: np.ndarray) -> Colouring:
    """Colour by quadrant name; a sample without one is grey."""
    names = list(QUADRANTS)
    codes = np.full(len(quadrant), len(names))
    for code, name in enumerate(names):
        codes[quadrant == name] = code
    return Colouring(
        "quadrant",
        codes,
        [*(QUADRANT_COLOURS[n] for n in names), OTHER],
        [*(f"{QUADRANT_SIGNS[n]} {QUADRANTS[n].title}" for n in names), ""],
        [*(QUADRANT_SYMBOLS[n] for n in names), "circle"],
    )


def by_category(values: np.ndarray, title: str) -> Colouring:
    """Colour by the most frequent values; the rest are grey and called other."""
    words = np.array([*map(str, values), ""], object)[:-1]  # texts of one width would take the longest one's
    names, counts = np.unique(words, return_counts=True)
    top = names[np.argsort(-counts, kind="stable")][: len(CATEGORIES)]
    codes = np.full(len(values), len(top))
    for code, name in enumerate(top):
        codes[words == name] = code
    rest = "other" if len(names) > len(top) else ""
    symbols = ["circle", "square", "diamond", "triangle-up", "cross", "x", "triangle-down"][: len(top)]
    return Colouring(
        title,
        codes,
        [*CATEGORIES[: len(top)], OTHER],
        [*(name[:MAX_LABEL] for name in top), rest],
        [*symbols, "circle"],
    )


def by_number(values: np.ndarray, title: str, *, levels: int = 12) -> Colouring:
    """Colour a quantity on cividis, low dark to high bright; unknown is grey."""
    known = ~np.isnan(values)
    low, high = (np.min(values[known]), np.max(values[known])) if known.any() else (0.0, 1.0)
    place = np.zeros(len(values))
    place[known] = (values[known] - low) / (high - low or 1.0)
    codes = np.where(known, np.minimum((place * levels).astype(int), levels - 1), levels)
    sampled = plotly.colors.sample_colorscale("Cividis", np.linspace(0, 1, levels).tolist(), colortype="rgb")
    colours = [_hex(str(colour)) for colour in sampled]
    labels = [""] * levels
    labels[0], labels[-1] = f"{low:g}", f"{high:g}"
    return Colouring(title, codes, [*colours, OTHER], [*labels, ""], ["circle"] * (levels + 1))


def _hex(colour: str) -> str:
    red, green, blue = (round(float(part)) for part in colour[4:-1].split(","))
    return f"#{red:02x}{green:02x}{blue:02x}"
