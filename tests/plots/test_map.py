import re

import numpy as np
import pytest

from carto_core.plots.map import Marks, Points, axis_title, describe_map, full_extent, map_figure
from carto_core.plots.palette import DARK, LIGHT, by_quadrant
from carto_core.quadrants import QUADRANTS, Cuts
from carto_core.scores import SCORES

NASTY = "<script>alert(1)</script> & <b>bold</b>\n%{x} &lt;"
OUTLINE = [[0.1, 0.1], [0.30000001, 0.1], [1e-7, 0.37]]


def figure(*, theme=LIGHT, y_name="memorization", outlines=(), marks=None, hover=None, count=40):
    rng = np.random.default_rng(0)
    x, y = rng.random(count), rng.random(count)
    cuts = Cuts("difficulty", y_name, 0.5, 0.5)
    quadrant = cuts.assign({"difficulty": x.astype(np.float32), y_name: y.astype(np.float32)})
    return map_figure(
        x,
        y,
        cuts=cuts,
        colouring=by_quadrant(quadrant),
        counts={name: int((quadrant == name).sum()) for name in QUADRANTS},
        extent=full_extent(x, y),
        sampled=np.arange(count),
        hover=hover or ["text"] * count,
        outlines=outlines,
        marks=marks or Marks(),
        theme=theme,
    )


def points_in(trace):
    return int(np.isfinite(np.array([np.nan if v is None else v for v in trace.x], float)).sum())


def test_no_trace_that_a_lasso_could_select_holds_points():
    """The outline is drawn on x2/y2: whatever is selectable there is sent back, 114 bytes a point."""
    marks = Marks(
        rings=Points(np.array([0.5]), np.array([0.5]), ["a"]), stars=Points(np.array([0.1]), np.array([0.2]), ["b"])
    )

    upper = [trace for trace in figure(marks=marks).data if trace.xaxis == "x2"]

    selectable = [trace for trace in upper if "markers" in trace.mode]
    assert upper
    assert sum(points_in(trace) for trace in selectable) <= 2, "the two corners that keep the lasso alive"


def test_the_two_pairs_of_axes_cover_the_same():
    layout = figure().layout

    assert layout.xaxis.range == layout.xaxis2.range
    assert layout.yaxis.range == layout.yaxis2.range
    assert (layout.xaxis2.matches, layout.yaxis2.matches) == ("x", "y")
    assert layout.xaxis2.overlaying is None


def test_hovered_text_is_escaped():
    hovered = figure(hover=[NASTY] * 40, count=40).data
    said = [text for trace in hovered if trace.customdata is not None for text in trace.customdata]

    assert set(said) == {
        "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &lt;b&gt;bold&lt;/b&gt;<br>%{x} &amp;lt;",
    }


def test_hover_names_the_sample_under_the_mouse():
    marks = Marks(stars=Points(np.array([0.1]), np.array([0.2]), ["the canary"]))

    trace = next(
        t for t in figure(marks=marks, hover=[f"sample {i}" for i in range(40)]).data if t.customdata is not None
    )

    at = {(float(x), float(y)): said for x, y, said in zip(trace.x, trace.y, trace.customdata, strict=True) if x == x}
    rng = np.random.default_rng(0)
    x, y = rng.random(40).astype(np.float32), rng.random(40).astype(np.float32)
    assert at[float(x[7]), float(y[7])] == "sample 7"
    assert at[float(np.float32(0.1)), float(np.float32(0.2))] == "the canary"
    assert np.isnan(trace.x[1::2]).all()


def test_outlines_are_drawn_exactly_as_they_are_kept():
    (drawn,) = figure(outlines=[OUTLINE]).layout.selections

    assert (drawn.xref, drawn.yref) == ("x2", "y2")
    assert re.fullmatch("M.*Z", drawn.path)
    assert [[float(v) for v in corner.split(",")] for corner in drawn.path[1:-1].split("L")] == OUTLINE


def test_the_same_inputs_give_the_same_bytes():
    """A figure that changes by one byte is drawn anew in the browser, and forgets its selection."""
    assert figure(outlines=[OUTLINE]).to_json() == figure(outlines=[OUTLINE]).to_json()


@pytest.mark.parametrize(("y_name", "memorized_is_up"), [("memorization", True), ("final_loss", False)])
def test_each_quadrant_is_named_in_its_own_corner(y_name, memorized_is_up):
    labels = {
        re.sub(r"<b>. (.*)</b>.*", r"\1", a.text): (a.xanchor, a.yanchor)
        for a in figure(y_name=y_name).layout.annotations
    }

    memorized, other = ("top", "bottom") if memorized_is_up else ("bottom", "top")
    assert labels == {
        "Stable-Easy": ("left", other),
        "Ambiguous-Hard": ("right", other),
        "Hotspot-Memorized": ("left", memorized),
        "Noisy-Outlier": ("right", memorized),
    }


def test_quadrant_labels_carry_count_and_share():
    texts = [a.text for a in figure().layout.annotations]

    counts = [int(re.search(r">(\d+) · ", text).group(1)) for text in texts]
    shares = [int(re.search(r"· (\d+)%", text).group(1)) for text in texts]
    assert sum(counts) == 40
    assert shares == [round(100 * c / 40) for c in counts]


@pytest.mark.parametrize("name", SCORES)
def test_an_axis_says_title_and_unit(name):
    assert SCORES[name].title in axis_title(name)
    assert SCORES[name].unit in axis_title(name)


def test_the_map_is_told_in_words_with_its_counts():
    counts = dict.fromkeys(QUADRANTS, 0) | {"hotspot-memorized": 312}

    said = describe_map(Cuts("difficulty", "final_loss", 1.0, 1.0), counts)

    assert "Hotspot-Memorized 312" in said
    assert "Difficulty" in said
    assert "Final loss" in said


def test_the_lasso_is_the_default_tool():
    assert figure().layout.dragmode == "lasso"


def test_nothing_in_a_figure_points_to_another_host():
    assert "http" not in figure(theme=DARK).to_json().replace("http://www.w3.org", "")


@pytest.mark.parametrize("values", [[], [np.nan, np.nan], [3.0, 3.0]])
def test_an_extent_is_never_empty(values):
    x0, x1, y0, y1 = full_extent(np.array(values), np.array(values))

    assert x0 < x1
    assert y0 < y1
