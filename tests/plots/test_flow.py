import numpy as np
import pytest

from carto_core.plots.flow import DOWN, UP, Arrow, flow_figure, movers_figure, two_trajectories_figure
from carto_core.plots.palette import DARK, LIGHT
from carto_core.quadrants import Cuts

CUTS = Cuts("difficulty", "final_loss", 1.0, 0.5)


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_every_count_is_written_and_the_colour_is_the_share_of_its_row(theme):
    counts = np.array([[3, 1], [0, 4]])

    figure = flow_figure(
        counts, rows=["stable-easy", "new"], columns=["stable-easy", "gone"], run_a="<one>", run_b="two", theme=theme
    )

    (heatmap,) = figure.data
    assert np.array(heatmap.z).tolist() == [[0.75, 0.25], [0, 1]]
    written = {(a.x, a.y): a.text for a in figure.layout.annotations}
    assert written == {(0, 0): "3<br>75%", (1, 0): "<b>1<br>25%</b>", (0, 1): "0", (1, 1): "<b>4<br>100%</b>"}
    assert heatmap.x[1] == "gone"
    assert "Stable-" in heatmap.x[0]
    assert figure.layout.yaxis.title.text == "in &lt;one&gt;"
    assert figure.layout.yaxis.autorange == "reversed", "the first row is on top"


def arrows():
    return [Arrow(0, 3, 1, 1, is_up=True, text="<up>"), Arrow(2, 1, 2, 3, is_up=False, text="down")]


def test_arrows_go_from_before_to_after_and_their_heads_can_be_read():
    cloud = np.array([1.0, 2.0])

    figure = movers_figure(arrows(), cloud_x=cloud, cloud_y=cloud, cuts_a=CUTS, cuts_b=CUTS, theme=LIGHT)

    drawn = [(a.ax, a.ay, a.x, a.y, a.arrowcolor) for a in figure.layout.annotations]
    assert drawn == [(0, 3, 1, 1, UP), (2, 1, 2, 3, DOWN)]
    _, up, down = figure.data
    assert (up.marker.symbol, down.marker.symbol) == ("triangle-up", "triangle-down")
    assert list(up.customdata) == ["&lt;up&gt;"]
    assert "memorized: low" in figure.layout.yaxis.title.text
    assert len(figure.layout.shapes) == 2, "one line for each of the shared cuts"


def test_two_runs_cuts_are_told_apart_and_an_unknown_cut_is_not_drawn():
    cloud, other = np.array([1.0]), Cuts("difficulty", "final_loss", 1.5, float("nan"))

    figure = movers_figure(arrows()[:1], cloud_x=cloud, cloud_y=cloud, cuts_a=CUTS, cuts_b=other, theme=DARK)

    assert [(s.x0, s.line.dash) for s in figure.layout.shapes if s.x0 == s.x1] == [(1.0, "dot"), (1.5, "dash")]
    assert len(figure.layout.shapes) == 3


def test_a_samples_two_trainings_share_one_axis():
    before, after = ([10, 20], np.array([3.0, 2.0], np.float32)), ([10, 30], np.array([3.0, np.nan], np.float32))

    figure = two_trajectories_figure(before, after, theme=LIGHT)

    first, second = figure.data
    assert (first.name, list(first.x), list(first.y)) == ("before", [10, 20], [3.0, 2.0])
    assert (second.name, list(second.x)) == ("after", [10, 30])
    assert first.line.dash != second.line.dash
    assert first.marker.symbol != second.marker.symbol
