import numpy as np
import pytest

from carto_core.plots.palette import (
    ARM_COLOURS,
    ARM_SYMBOLS,
    CATEGORIES,
    DARK,
    LIGHT,
    OTHER,
    QUADRANT_COLOURS,
    QUADRANT_SIGNS,
    QUADRANT_SYMBOLS,
    by_category,
    by_number,
    by_quadrant,
)
from carto_core.preview.arms import ARMS
from carto_core.quadrants import QUADRANTS


def luminance(colour):
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_quadrant_colours_stand_out_from_both_papers(theme):
    assert min(contrast(colour, theme.paper) for colour in QUADRANT_COLOURS.values()) >= 3


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_words_are_legible_on_both_papers(theme):
    assert min(contrast(theme.text, theme.paper), contrast(theme.muted, theme.paper)) >= 4.5


def test_every_quadrant_has_a_colour_and_a_second_cue_of_its_own():
    for cues in (QUADRANT_COLOURS, QUADRANT_SYMBOLS, QUADRANT_SIGNS):
        assert list(cues) == list(QUADRANTS)
        assert len(set(cues.values())) == len(QUADRANTS)


def test_every_arm_has_a_colour_and_a_second_cue_of_its_own():
    for cues in (ARM_COLOURS, ARM_SYMBOLS):
        assert list(cues) == list(ARMS)
        assert len(set(cues.values())) == len(ARMS)


def test_grey_is_no_class():
    assert OTHER not in {*QUADRANT_COLOURS.values(), *CATEGORIES}


def test_a_sample_without_a_quadrant_is_grey_and_not_in_the_legend():
    colouring = by_quadrant(np.array(["noisy-outlier", None, "stable-easy"], object))

    assert [colouring.colours[c] for c in colouring.codes] == ["#CC79A7", OTHER, "#009E73"]
    assert colouring.labels[-1] == ""


def test_the_most_frequent_categories_get_the_colours_and_the_rest_are_other():
    values = np.array([f"source {i}" for i in range(9) for _ in range(20 - i)])

    colouring = by_category(values, "source")

    assert colouring.labels == [*(f"source {i}" for i in range(7)), "other"]
    assert {colouring.colours[c] for c in colouring.codes[values == "source 8"]} == {OTHER}


def test_few_categories_leave_no_other():
    colouring = by_category(np.array(["b", "a", "b"], object), "source")

    assert colouring.labels == ["b", "a", ""]
    assert colouring.codes.tolist() == [0, 1, 0]


def test_a_quantity_goes_from_its_lowest_to_its_highest_colour_and_unknown_is_grey():
    colouring = by_number(np.array([1990.0, 2020.0, np.nan]), "year")

    assert colouring.codes.tolist() == [0, 11, 12]
    assert (colouring.labels[0], colouring.labels[11]) == ("1990", "2020")
    assert colouring.colours[12] == OTHER


@pytest.mark.parametrize("values", [[np.nan, np.nan], [7.0, 7.0], []])
def test_a_quantity_without_spread_is_no_error(values):
    colouring = by_number(np.array(values), "year")

    assert len(colouring.codes) == len(values)
