"""All samples as one small picture: any number of points at the same price, in any browser."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from carto_core.plots.palette import Colouring
from carto_core.types import Float64

Extent = tuple[float, float, float, float]  # x from, x to, y from, y to
MIN_CELLS, MAX_CELLS = 90, 600
FAINTEST = 90  # of 255: a single sample in a cell stays visible


def raster_png(x: Float64, y: Float64, colouring: Colouring, extent: Extent) -> str:
    """Return a PNG data address: each cell in the colour of most of its samples, denser cells more opaque.

    Args:
        x: float64[N]; NaN and what lies outside the extent is left out.
        y: float64[N].
        colouring: of the same N samples.
        extent: what the picture covers.
    """
    left, right, bottom, top = extent
    width = int(np.clip(np.sqrt(len(x)) * 1.2, MIN_CELLS, MAX_CELLS))
    height = max(1, round(width * 0.7))
    shown = (x >= left) & (x <= right) & (y >= bottom) & (y <= top)
    column = np.minimum(((x[shown] - left) / (right - left) * width).astype(int), width - 1)
    row = np.minimum(((y[shown] - bottom) / (top - bottom) * height).astype(int), height - 1)
    num_codes = len(colouring.colours)
    cell = (row * width + column) * num_codes + colouring.codes[shown]
    counts = np.bincount(cell, minlength=height * width * num_codes).reshape(height, width, num_codes)
    return _png(counts, colouring.colours)


def _png(counts: np.ndarray, colours: list[str]) -> str:
    total = counts.sum(2)
    levels = 255 // len(colours)  # index 0 is the empty cell
    depth = np.log1p(total) / max(np.log1p(total.max()), 1e-9)
    level = np.minimum((depth * levels).astype(int), levels - 1)
    index = np.where(total > 0, 1 + counts.argmax(2) * levels + level, 0).astype(np.uint8)
    image = Image.fromarray(index[::-1], mode="P")
    image.putpalette([0, 0, 0, *(part for colour in colours for part in _rgb(colour) * levels)])
    alpha = [0, *(int(FAINTEST + (255 - FAINTEST) * i / max(levels - 1, 1)) for _ in colours for i in range(levels))]
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=bytes(alpha), compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
