import numpy as np
import pytest

from carto_core.plots.charts import (
    Bar,
    arms_figure,
    intervals_figure,
    points_figure,
    repeats_figure,
    side_by_side_figure,
    trajectory_figure,
)
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


def shares(series):
    fields = {"value": "rate", "low": "low", "high": "high"}
    return repeats_figure(series, **fields, x="copies", y="share", theme=LIGHT, percent=True)


def test_an_interval_reaches_from_low_to_high():
    groups = {"never": {"rate": 0.0, "low": 0.0, "high": 0.1}, "8": {"rate": 0.75, "low": 0.5, "high": 0.9}}

    figure = shares({"greedy": groups})

    (points,) = figure.data
    assert list(figure.layout.xaxis.ticktext) == ["never", "8"]
    assert list(points.x) == [0, 1]
    assert list(points.y) == [0.0, 0.75]
    assert list(points.error_y.array) == pytest.approx([0.1, 0.15])
    assert list(points.error_y.arrayminus) == pytest.approx([0.0, 0.25])
    assert not points.showlegend


def test_an_unknown_group_keeps_its_place_and_has_no_point():
    groups = {"never": {"rate": None, "low": None, "high": None}, "2": {"rate": 0.5, "low": 0.2, "high": 0.8}}

    (points,) = shares({"greedy": groups}).data

    assert list(points.x) == [1]


def test_series_stand_side_by_side_and_differ_in_colour_and_shape():
    group = {"8": {"rate": 0.5, "low": 0.2, "high": 0.8}}

    greedy, beam, optimal = shares({"greedy": group, "beam": group, "optimal": group}).data

    assert greedy.x[0] < beam.x[0] < optimal.x[0]
    assert beam.x[0] == 0
    assert all(trace.showlegend for trace in (greedy, beam, optimal))
    assert len({(t.marker.color) for t in (greedy, beam, optimal)}) == 3
    assert len({(t.marker.symbol) for t in (greedy, beam, optimal)}) == 3


def test_every_item_is_a_point_over_its_group():
    series = {"sampled": [("never", 1.0), ("8 copies", 9.5)], "exact": [("8 copies", 17.0), ("8 copies", 12.0)]}

    figure = points_figure(series, x="copies", y="bits", theme=DARK)

    sampled, exact = figure.data
    assert list(figure.layout.xaxis.ticktext) == ["never", "8 copies"]
    assert list(sampled.y) == [1.0, 9.5]
    assert list(exact.y) == [17.0, 12.0]
    assert [round(x) for x in exact.x] == [1, 1]


def test_estimates_stand_below_each_other_the_first_on_top():
    bars = [Bar("best", 0.9, 0.8, 0.95), Bar("copies", 0.7, 0.6, 0.8, is_baseline=True), Bar("worst", 0.4, 0.3, 0.5)]

    figure = intervals_figure(bars, x="AUC", line=0.5, theme=LIGHT)

    detectors, baselines = figure.data
    labels = list(figure.layout.yaxis.ticktext)
    assert [labels[y] for y in detectors.y] == ["best", "worst"]
    assert [labels[y] for y in baselines.y] == ["copies"]
    assert detectors.y[0] > baselines.y[0] > detectors.y[1]
    assert list(detectors.error_x.array) == pytest.approx([0.05, 0.1])
    assert list(detectors.error_x.arrayminus) == pytest.approx([0.1, 0.1])
    assert detectors.marker.symbol != baselines.marker.symbol
    assert figure.layout.shapes[0].x0 == figure.layout.shapes[0].x1 == 0.5


def test_a_long_name_is_broken_so_that_a_phone_has_room_for_the_chart():
    name = "an oracle that knows the secrets 10%"

    figure = intervals_figure([Bar(name, 0.6, 0.5, 0.7)], x="AUC", line=0.5, theme=LIGHT)

    (shown,) = figure.layout.yaxis.ticktext
    assert shown.replace("<br>", " ") == name
    assert max(map(len, shown.split("<br>"))) <= 24
    assert figure.layout.height > intervals_figure([Bar("one", 0, 0, 0)], x="AUC", line=0.5, theme=LIGHT).layout.height


def test_an_estimate_without_an_interval_is_drawn_all_the_same():
    (points,) = intervals_figure([Bar("one", 0.6, float("nan"), float("nan"))], x="AUC", line=0.5, theme=DARK).data

    assert list(points.x) == [0.6]
    assert not points.showlegend


def test_series_stand_side_by_side_in_a_row_the_lowest_on_top():
    series = {
        "demo": [Bar("copies", 0.1, 0.0, 0.2), Bar("score", -0.3, -0.5, -0.2)],
        "mail": [],
        "man": [Bar("score", -0.1, -0.2, 0.1)],
    }

    figure = side_by_side_figure(series, x="difference", line=0.0, theme=LIGHT, percent=True)

    demo, man = figure.data
    assert list(figure.layout.yaxis.ticktext) == ["copies", "score"]
    assert [round(y) for y in demo.y] == [0, 1]
    assert [round(y) for y in man.y] == [1]
    assert man.y[0] < demo.y[1], "one below the other"
    assert list(demo.error_x.array) == pytest.approx([0.1, 0.1])
    assert list(demo.error_x.arrayminus) == pytest.approx([0.1, 0.2])
    assert (demo.showlegend, man.showlegend) == (True, True)
    assert len({demo.marker.color, man.marker.color}) == len({demo.marker.symbol, man.marker.symbol}) == 2
    (alone,) = side_by_side_figure(series | {"demo": []}, x="", line=0.0, theme=LIGHT).data
    assert (alone.marker.color, alone.marker.symbol) == (man.marker.color, man.marker.symbol), (
        "not by who else is there"
    )
    assert (list(alone.y), alone.showlegend) == ([0], False)
    assert figure.layout.xaxis.tickformat == "+.0%"


def test_a_fifth_series_is_drawn_all_the_same():
    series = {name: [Bar("score", 0.1, 0.0, 0.2)] for name in "abcde"}

    assert len(side_by_side_figure(series, x="", line=0.0, theme=DARK).data) == 5


def test_one_series_alone_is_not_named():
    (only,) = side_by_side_figure({"demo": [Bar("score", 1, 0, 2)]}, x="", line=0.0, theme=DARK).data

    assert not only.showlegend


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
