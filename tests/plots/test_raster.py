import base64
import io

import numpy as np
import pytest
from PIL import Image

from carto_core.plots.palette import Colouring
from carto_core.plots.raster import raster_png

RED, BLUE = (255, 0, 0), (0, 0, 255)
UNIT = (0.0, 1.0, 0.0, 1.0)


def two_colours(codes):
    return Colouring("class", np.array(codes, int), ["#FF0000", "#0000FF"], ["a", "b"], ["circle", "square"])


def pixels(x, y, codes, extent=UNIT):
    address = raster_png(np.array(x, float), np.array(y, float), two_colours(codes), extent)
    image = Image.open(io.BytesIO(base64.b64decode(address.removeprefix("data:image/png;base64,"))))
    assert image.mode == "P"
    return np.asarray(image.convert("RGBA")).astype(int)


def drawn(image):
    return np.argwhere(image[..., 3] > 0)


@pytest.mark.parametrize(
    ("x", "y", "row", "column"), [(0.01, 0.99, 0, 0), (0.99, 0.01, -1, -1), (0.01, 0.01, -1, 0), (1.0, 1.0, 0, -1)]
)
def test_a_lone_sample_is_one_visible_cell_in_the_right_corner(x, y, row, column):
    image = pixels([x], [y], [0])

    height, width = image.shape[:2]
    assert drawn(image).tolist() == [[row % height, column % width]]
    assert tuple(image[row, column, :3]) == RED
    assert image[row, column, 3] >= 90


def test_unknown_and_outside_samples_are_left_out():
    image = pixels([0.5, np.nan, 2.0, 0.5, -0.1], [0.5, 0.5, 0.5, np.nan, 0.5], [0] * 5)

    assert len(drawn(image)) == 1


def test_a_cell_has_the_colour_of_most_of_its_samples():
    image = pixels([0.5] * 5, [0.5] * 5, [0, 1, 1, 0, 1])

    assert {tuple(image[r, c, :3]) for r, c in drawn(image)} == {BLUE}


def test_a_denser_cell_is_more_opaque():
    image = pixels([0.2] * 50 + [0.8], [0.5] * 51, [0] * 51)

    (dense, lone) = sorted(drawn(image).tolist(), key=lambda place: place[1])
    assert image[*dense, 3] > image[*lone, 3]


def test_no_samples_give_an_empty_picture():
    assert len(drawn(pixels([], [], []))) == 0


def test_every_sample_counts_however_many_there_are():
    """A hundred thousand on one place, one elsewhere: the one is seen, and the picture stays small."""
    x, y = np.full(100_001, 0.25), np.full(100_001, 0.25)
    x[-1] = y[-1] = 0.75

    address = raster_png(x, y, two_colours(np.zeros(len(x))), UNIT)

    assert len(drawn(pixels(x, y, np.zeros(len(x))))) == 2
    assert len(address) < 500_000


def test_the_extent_zooms():
    x, y = [0.45, 0.55, 0.9], [0.5, 0.5, 0.5]

    image = pixels(x, y, [0, 0, 0], extent=(0.4, 0.6, 0.4, 0.6))

    columns = sorted(c / image.shape[1] for _, c in drawn(image))
    assert len(columns) == 2
    assert columns == pytest.approx([0.25, 0.75], abs=0.02)
