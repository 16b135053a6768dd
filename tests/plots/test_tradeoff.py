"""The two figures of estimates against measurements."""

import math

import pytest

from carto_core.plots.palette import LIGHT
from carto_core.plots.tradeoff import TITLES, Point, Sweep, calibration_figure, tradeoff_figure


def test_every_kind_is_one_trace_with_its_points_and_keys():
    points = [
        Point("plan", 0.1, 0.2, "one", "abc", 0.05, 0.2, 0.1, 0.4),
        Point("plan", 0.0, 0.3, "two", "def"),
        Point("baseline", 0.0, 0.5, "unchanged"),
    ]

    figure = tradeoff_figure(
        points, [Sweep("by a score", [0, 0.1], [0.5, 0.2], [0.01, 0.1])], y="given away", percent=True, theme=LIGHT
    )

    traces = {trace.name: trace for trace in figure.data}
    assert set(traces) == {"by a score", TITLES["plan"], TITLES["baseline"]}
    plan = traces[TITLES["plan"]]
    assert [data[0] for data in plan.customdata] == ["abc", "def"]
    assert plan.error_x.array[0] == pytest.approx(0.1)
    assert plan.error_x.arrayminus[0] == pytest.approx(0.05)
    assert plan.error_y.array[0] == pytest.approx(0.2)
    assert math.isnan(plan.error_y.array[1]), "one seed has no interval"
    assert "prune 10%" in traces["by a score"].text[1]


@pytest.mark.parametrize(("percent", "said"), [(True, ".1~%"), (False, ".1f")])
def test_the_leak_is_told_in_its_own_unit(percent, said):
    sweep = Sweep("by a score", [0, 0.1], [7.5, 2.0], [0.01, 0.1])

    figure = tradeoff_figure([], [sweep], y="exposure", percent=percent, theme=LIGHT)

    assert figure.layout.yaxis.tickformat == said
    assert f"exposure %{{y:{said}}}" in figure.data[0].hovertemplate


def test_the_diagonal_spans_all_that_is_shown():
    cases = [("one", 0.2, 0.1, 0.3, 0.25), ("two", 0.5, 0.4, 0.6, 0.9)]

    line, dots = calibration_figure(cases, percent=True, theme=LIGHT).data

    assert list(line.x) == list(line.y) == [0.1, 0.9]
    assert list(dots.x) == [0.2, 0.5]
    assert list(dots.y) == [0.25, 0.9]
    assert dots.error_x.array[1] == pytest.approx(0.1)
