import numpy as np
import pytest

from carto_core.plots.charts import arms_figure, repeats_figure, trajectory_figure
from carto_core.plots.palette import DARK, LIGHT

EPOCHS = [1.0, 2.0, 3.0]


def losses(count, start=3.0):
    return np.array([np.linspace(start - t, start + 2 - t, count) for t in range(3)], np.float32)


def line(figure, words):
    return next(trace for trace in figure.data if trace.name is not None and words in trace.name)


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_trajectories_show_the_medians_of_selection_and_rest(theme):
    figure = trajectory_figure(EPOCHS, selected=losses(5), rest=losses(9, start=5.0), theme=theme)

    assert list(line(figure, "selection").y) == pytest.approx([4, 3, 2])
    assert list(line(figure, "rest").y) == pytest.approx([6, 5, 4])


def test_the_band_goes_from_the_tenth_to_the_ninetieth_percentile():
    figure = trajectory_figure(EPOCHS, selected=None, rest=losses(11), theme=LIGHT)

    (band,) = [trace for trace in figure.data if trace.fill == "toself"]
    assert list(band.y) == pytest.approx([4.8, 3.8, 2.8, 1.2, 2.2, 3.2])


def test_unknown_losses_are_left_out_of_the_band():
    holed = losses(5)
    holed[1, :4] = np.nan

    figure = trajectory_figure(EPOCHS, selected=holed, rest=losses(9), theme=LIGHT)

    assert list(line(figure, "selection").y) == pytest.approx([4, 4, 2])


def test_a_snapshot_that_saw_nothing_of_the_selection_is_a_gap():
    holed = losses(5)
    holed[1] = np.nan

    figure = trajectory_figure(EPOCHS, selected=holed, rest=losses(9), theme=LIGHT)

    assert np.isnan(line(figure, "selection").y[1])


@pytest.mark.parametrize("selected", [None, np.empty((3, 0), np.float32)])
def test_no_selection_shows_the_rest_alone(selected):
    figure = trajectory_figure(EPOCHS, selected=selected, rest=losses(9), theme=LIGHT)

    assert [trace.name for trace in figure.data if trace.name] == ["the rest: median"]


def test_one_sample_is_drawn_as_itself():
    figure = trajectory_figure(EPOCHS, selected=losses(1), rest=losses(9), single="demo/7", theme=LIGHT)

    assert list(line(figure, "demo/7").y) == pytest.approx([3, 2, 1])


def test_an_interval_reaches_from_low_to_high():
    groups = {"never": {"rate": 0.0, "low": 0.0, "high": 0.1}, "8": {"rate": 0.75, "low": 0.5, "high": 0.9}}

    (points,) = repeats_figure(groups, value="rate", low="low", high="high", y="share", theme=LIGHT, percent=True).data

    assert list(points.x) == ["never", "8"]
    assert list(points.y) == [0.0, 0.75]
    assert list(points.error_y.array) == pytest.approx([0.1, 0.15])
    assert list(points.error_y.arrayminus) == pytest.approx([0.0, 0.25])


def test_an_unknown_group_is_left_out():
    groups = {"never": {"rate": None, "low": None, "high": None}, "2": {"rate": 0.5, "low": 0.2, "high": 0.8}}

    (points,) = repeats_figure(groups, value="rate", low="low", high="high", y="share", theme=LIGHT, percent=True).data

    assert list(points.x) == ["2"]


def test_every_seed_of_every_arm_is_a_point():
    values = {
        "baseline": [0.5, 0.4, 0.6],
        "plan": [0.1, 0.2, 0.0],
        "control": [0.5, 0.5, 0.5],
        "dedup": [0.0, 0.1, 0.0],
    }

    figure = arms_figure(values, y="canary extraction", theme=DARK, percent=True)

    assert {trace.name: list(trace.y) for trace in figure.data} == values
    means = [shape.y0 for shape in figure.layout.shapes]
    assert means == pytest.approx([0.5, 0.1, 0.5, 0.1 / 3])


def test_an_arm_whose_value_is_unknown_is_no_error():
    figure = arms_figure({"baseline": [0.5], "plan": [float("nan")]}, y="share", theme=LIGHT, percent=True)

    assert len(figure.data) == 2
