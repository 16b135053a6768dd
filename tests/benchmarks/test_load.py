"""A few people at once on two runs: no error, each sees the samples of their own outline, and an idle page does not grow."""

import asyncio

import numpy as np
import pytest

from benchmarks import load
from tests.tiny import make_run


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("load")
    runs = [make_run(folder / name, num_samples=300, seed=seed) for seed, name in enumerate("ab")]
    how = {"sessions": 4, "browsers": 0, "interactions": 3, "think_s": 0.01, "polls": 20, "rounds": 1}
    with load.watched_job(runs[0]):
        return asyncio.run(load.measure(runs, **how))


def test_nobody_meets_an_error_or_anothers_selection(found):
    """Each answer is compared with the session's own outline on its own run; the two runs hold different counts."""
    assert found["wrong"] == []
    assert (found["one"]["n"], found["many"]["n"]) == (3, 12)


def test_the_figures_hang_together(found):
    assert found["ratio_of_medians"] == found["many"]["median_s"] / found["one"]["median_s"]
    assert 0 < found["many"]["median_s"] <= found["many"]["worst_s"]


def test_a_page_that_watches_a_job_does_not_grow(found):
    sizes = found["memory_mib_while_polled"]["sizes"]

    assert len(sizes) == 10
    assert sizes[-1] - sizes[0] < 10


def test_an_outline_holds_what_a_sum_of_angles_says():
    rng = np.random.default_rng(0)
    ground = load.Ground("a", rng.random(500), rng.random(500))
    triangle = [(0.1, 0.1), (0.9, 0.2), (0.4, 0.8)]

    def angle(x, y):
        corners = [np.arctan2(b - y, a - x) for a, b in triangle]
        turns = [(b - a + np.pi) % (2 * np.pi) - np.pi for a, b in zip(corners, corners[1:] + corners[:1], strict=True)]
        return abs(sum(turns))

    assert ground.inside(triangle) == sum(angle(x, y) > np.pi for x, y in zip(ground.x, ground.y, strict=True))


def test_a_slope_is_that_of_the_later_half():
    points = [(done, 300.0 + min(done, 500)) for done in range(1001)]

    found = load._slope(points)

    assert (found["start"], found["half"], found["end"]) == (300.0, 800.0, 800.0)
    assert abs(found["mib_per_1000"]) < 1e-9
