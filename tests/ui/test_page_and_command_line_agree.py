"""An outline drawn on the map, the link of that map, and the same outline in a polygon file name the same samples."""

import json
import math
from fractions import Fraction

import numpy as np
from click.testing import CliRunner
from streamlit.testing.v1 import AppTest

from carto_core.cli import cli
from carto_core.selection import MAX_VERTICES, read_polygon_file, resolve, simplify_polygon
from carto_core.workflows import light
from tests import tiny
from tests.test_selection import make_table

NUM_POLYGONS = 1000
X, Y = "difficulty", "memorization"


def lattice(rng):
    """Corners at eighths: many samples then lie exactly on a side or in a corner."""
    return rng.integers(-8, 41, (rng.integers(3, 12), 2)) / 8


def tangle(rng):
    return rng.uniform(-1, 5, (rng.integers(3, 30), 2))


def freehand(rng, num_corners=None):
    """What a hand draws: a loop, or several, in many small strokes; it may cross itself."""
    num_corners = num_corners or int(rng.integers(30, 120))
    angle = np.linspace(0, 2 * math.pi * rng.integers(1, 4), num_corners)
    radius = rng.uniform(0.2, 2.5) + np.cumsum(rng.normal(0, 0.03, num_corners))
    return rng.uniform(0, 4, 2) + np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def box(rng):
    (a, b), (c, d) = rng.uniform(-1, 5, (2, 2))
    return np.array([[a, c], [b, c], [b, d], [a, d]])


def outlines():
    """Polygons as a browser sends them, all kinds in turn; every hundredth has thousands of corners."""
    rng = np.random.default_rng(0)
    kinds = (lattice, tangle, freehand, lattice, box)
    return [
        (freehand(rng, 2000) if i % 100 == 99 else kinds[i % len(kinds)](rng)).tolist() for i in range(NUM_POLYGONS)
    ]


def some_table():
    """400 samples: half at eighths, half anywhere, some without a place on the map."""
    rng = np.random.default_rng(1)
    points = np.concatenate([rng.integers(0, 33, (200, 2)) / 8, rng.uniform(-0.5, 4.5, (200, 2))])
    points[rng.random(points.shape) < 0.02] = math.nan
    return make_table(400, difficulty=points[:, 0], memorization=points[:, 1])


def exactly_inside(x, y, vertices):
    """Even-odd, the boundary outside, in exact arithmetic wherever rounding could decide."""
    a, b = np.array(vertices), np.roll(vertices, -1, axis=0)
    x, y = x.astype(np.float64)[:, None], y.astype(np.float64)[:, None]
    across = (b[:, 0] - a[:, 0]) * (y - a[:, 1]), (b[:, 1] - a[:, 1]) * (x - a[:, 0])
    side = np.sign(across[0] - across[1])
    for i, j in np.argwhere(np.abs(across[0] - across[1]) <= 1e-12 * (np.abs(across[0]) + np.abs(across[1]))):
        (px, py), (ax, ay), (bx, by) = ([Fraction(float(v)) for v in p] for p in ((x[i, 0], y[i, 0]), a[j], b[j]))
        left, right = (bx - ax) * (py - ay), (by - ay) * (px - ax)
        side[i, j] = (left > right) - (left < right)
    low, high = np.minimum(a, b), np.maximum(a, b)
    beside = (x >= low[:, 0]) & (x <= high[:, 0]) & (y >= low[:, 1]) & (y <= high[:, 1])
    on_boundary = ((side == 0) & beside).any(axis=1)
    crossed = ((a[:, 1] > y) != (b[:, 1] > y)) & (side == np.sign(b[:, 1] - a[:, 1]))
    return (crossed.sum(axis=1) % 2 == 1) & ~on_boundary & ~np.isnan(x[:, 0] + y[:, 0])


def drawing(polygons, x, y):
    """A page that is drawn on: every outline arrives as the chart's event and is then read back from the link."""
    from types import SimpleNamespace

    import streamlit as st

    from carto_core.ui import state

    found = []
    state.put(x=x, y=y)
    for polygon in polygons:
        outline = {"x": [p[0] for p in polygon], "y": [p[1] for p in polygon]}
        st.session_state[state.chart_key()] = SimpleNamespace(selection={"lasso": [outline], "box": []})
        state.take_outlines()
        drawn = state.get().selection_rule()
        del st.session_state["carto_view"]
        found.append((drawn, state.get().selection_rule()))
    st.session_state["found"] = found


def test_a_thousand_outlines_select_alike_on_the_page_in_its_link_and_on_the_command_line(tmp_path):
    polygons, table = outlines(), some_table()

    app = AppTest.from_function(drawing, args=(polygons, X, Y), default_timeout=300).run()

    assert not app.exception
    path, sizes = tmp_path / "lasso.json", []
    for polygon, (drawn, linked) in zip(polygons, app.session_state["found"], strict=True):
        path.write_text(json.dumps({"version": 1, "x": X, "y": Y, "polygons": [polygon]}))
        rule = read_polygon_file(path)
        assert json.dumps([drawn, linked]) == json.dumps([rule, rule])
        selected = resolve(rule, table).sample_ids
        (corners,) = rule["polygons"]
        assert len(corners) <= MAX_VERTICES
        assert selected.tolist() == np.flatnonzero(exactly_inside(*(table.scores[s] for s in (X, Y)), corners)).tolist()
        sizes.append(len(selected))
    assert np.count_nonzero(sizes) > 0.9 * NUM_POLYGONS, "hardly any outline is around nobody"
    assert len(set(sizes)) > 50


def test_a_selection_file_of_the_command_line_holds_what_the_page_selects(tmp_path):
    run = tiny.make_run(tmp_path / "tiny", num_samples=300)
    path, out = tmp_path / "lasso.json", tmp_path / "selection.json"

    for kind in (tangle, freehand, box):
        outline = kind(np.random.default_rng(2)).tolist()
        path.write_text(json.dumps({"version": 1, "x": X, "y": Y, "polygons": [outline]}))
        done = CliRunner().invoke(cli, ["select", str(run.files.path), "--polygon", str(path), "--out", str(out)])

        assert done.exit_code == 0, done.output
        on_page = light.select(run, {"type": "polygon", "x": X, "y": Y, "polygons": [simplify_polygon(outline)]})
        assert json.loads(out.read_text())["keys"] == light.load_table(run).key[on_page.sample_ids].tolist()
