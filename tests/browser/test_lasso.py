"""The main job through a real mouse: lasso a concave region, search, add another, follow the link, export, recompute."""

import json

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from carto_core.config import ScoreConfig
from tests.browser.dashboard import chromium, serving, settled, visitor, watched
from tests.tiny import make_run

X, Y = "difficulty", "consolidation"
# In shares of the plot area, from its lower left corner. A U, and a triangle in its notch.
CONCAVE = [
    (0.10, 0.06),
    (0.90, 0.06),
    (0.90, 0.60),
    (0.70, 0.60),
    (0.70, 0.16),
    (0.30, 0.16),
    (0.30, 0.60),
    (0.10, 0.60),
]
ADDED = [(0.40, 0.22), (0.60, 0.22), (0.50, 0.40)]
PIXELS = 2.0  # how far a corner may lie from where the mouse was


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    make_run(folder / "runs" / "tiny", num_samples=600, config=ScoreConfig(x=X, y=Y), probes=True)
    with serving(folder / "runs", folder) as address, chromium() as browser:
        yield folder / "runs" / "tiny", address, browser


def test_exported_keys_are_exactly_those_inside_what_the_mouse_drew(dashboard, tmp_path):
    run, address, browser = dashboard
    context = visitor(browser, viewport={"width": 1440, "height": 1400})
    outside = watched(context)
    page = context.new_page()
    open_map(page, f"{address}/map?run=tiny")

    drawn = [lasso(page, CONCAVE)]
    assert_status(page, run)
    search(page, "river")
    drawn.append(lasso(page, ADDED, shift=True))
    assert_status(page, run)
    page_link, said = page.url, status(page)
    context.close()

    context = visitor(browser, viewport={"width": 1440, "height": 1400})
    outside += watched(context)
    page = context.new_page()
    open_map(page, page_link)
    assert status(page).rsplit(" in ", 1)[0] == said.rsplit(" in ", 1)[0]
    assert page.get_by_label("Search the texts").input_value() == "river"
    rows, manifest = export(page, tmp_path)
    context.close()

    polygons = polygons_of(manifest["rule"])
    assert_lies_where_the_mouse_went(polygons, drawn)
    assert sorted(rows) == keys_inside(run, polygons)
    assert manifest["num_rows"] == len(rows)
    # The picture must be able to tell a polygon from its box, or the test would prove nothing.
    boxes = [boxed(polygon) for polygon in polygons]
    assert 0 < len(keys_inside(run, polygons)) < len(keys_inside(run, boxes))
    assert not outside, f"asked other hosts: {outside[:5]}"


def test_a_double_click_clears_and_a_plain_lasso_replaces(dashboard):
    run, address, browser = dashboard
    context = visitor(browser, viewport={"width": 1440, "height": 1400})
    page = context.new_page()
    open_map(page, f"{address}/map?run=tiny")
    lasso(page, CONCAVE)

    second = lasso(page, ADDED)
    assert_status(page, run)
    assert_lies_where_the_mouse_went(outlines(page), [second])

    box = plot_area(page)
    page.mouse.dblclick(box["x"] + 0.5 * box["width"], box["y"] + 0.1 * box["height"])
    page.get_by_text("Nothing selected").wait_for()
    context.close()


def test_a_lasso_can_begin_inside_an_outline_that_is_drawn(dashboard):
    run, address, browser = dashboard
    context = visitor(browser, viewport={"width": 1440, "height": 1400})
    page = context.new_page()
    open_map(page, f"{address}/map?run=tiny")
    lasso(page, [(0.05, 0.05), (0.95, 0.05), (0.95, 0.95), (0.05, 0.95)])
    search(page, "stone")  # the figure is built anew, with the outline in it

    inner = lasso(page, ADDED)

    assert_status(page, run)
    assert_lies_where_the_mouse_went(outlines(page), [inner])
    context.close()


def test_hovering_shows_the_text_as_text(dashboard):
    """Sample 0 holds a script tag; Plotly takes some markup in hovered text for its own."""
    run, address, browser = dashboard
    context = visitor(browser, viewport={"width": 1440, "height": 1400})
    page = context.new_page()
    alarms = []
    page.on("dialog", lambda dialog: (alarms.append(dialog.message), dialog.dismiss()))
    open_map(page, f"{address}/map?run=tiny")
    with duckdb.connect(str(run / "trajectory.duckdb"), read_only=True) as con:
        where = con.execute(f"select {X}, {Y} from scores where sample_id = 0").fetchall()[0]

    x, y = to_pixels(page, [where])[0]
    page.mouse.move(x - 6, y - 6)
    page.mouse.move(x, y, steps=4)

    page.locator(".hoverlayer text", has_text="<script>alert(1)</script> & <b>bold</b>").wait_for()
    assert page.locator(".hoverlayer script").count() == 0
    assert not alarms
    context.close()


@pytest.mark.parametrize("name", ["", "map", "samples", "intervene", "audit", "evidence"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_every_page_without_scrolling_sideways(dashboard, name, scheme):
    _, address, browser = dashboard
    context = visitor(browser, viewport={"width": 390, "height": 844}, color_scheme=scheme)
    outside = watched(context)
    page = context.new_page()

    page.goto(f"{address}/{name}?run=tiny")
    page.get_by_test_id("stHeading").first.wait_for()
    settled(page)

    assert page.get_by_test_id("stException").count() == 0
    main = page.get_by_test_id("stMain").evaluate("e => [e.scrollWidth, e.clientWidth]")
    assert main[0] <= main[1]
    assert not outside
    context.close()


# The page


def open_map(page, address):
    page.goto(address)
    page.locator(".stPlotlyChart .nsewdrag[data-subplot=x2y2]").first.wait_for(state="attached")
    settled(page)


def plot_area(page):
    return page.locator(".stPlotlyChart .nsewdrag[data-subplot=x2y2]").first.bounding_box()


def lasso(page, shares, *, shift=False):
    """Drag through the corners and return them in score units, as the axes on the screen say, and a pixel's size."""
    area, (x0, x1, y0, y1) = plot_area(page), axes(page)
    path = [(area["x"] + x * area["width"], area["y"] + (1 - y) * area["height"]) for x, y in shares]
    before = page.url
    if shift:
        page.keyboard.down("Shift")
    page.mouse.move(*path[0])
    page.mouse.down()
    for corner in path[1:]:
        page.mouse.move(*corner, steps=6)
    page.mouse.up()
    if shift:
        page.keyboard.up("Shift")
    page.wait_for_function("before => location.href !== before", arg=before)
    settled(page)
    corners = [[x0 + x * (x1 - x0), y0 + y * (y1 - y0)] for x, y in shares]
    return corners, [(x1 - x0) / area["width"], (y1 - y0) / area["height"]]


def search(page, phrase):
    box = page.get_by_label("Search the texts")
    before = page.url
    box.fill(phrase)
    box.press("Enter")
    page.wait_for_function("before => location.href !== before", arg=before)
    settled(page)


def status(page):
    return page.get_by_text(" samples in ").first.inner_text()


def assert_status(page, run):
    """The number on the page is that of the samples inside what the browser shows."""
    assert f"{len(keys_inside(run, outlines(page))):,} of 600 samples" in status(page)


def export(page, folder):
    page.get_by_text("What if I change these").click()
    page.get_by_role("button", name="Intervention list").wait_for()
    settled(page)
    saved = {}
    for label in ("Intervention list", "Its manifest"):
        with page.expect_download() as download:
            page.get_by_role("button", name=label).click()
        saved[label] = folder / download.value.suggested_filename
        download.value.save_as(saved[label])
    keys = pq.read_table(saved["Intervention list"])["key"].to_pylist()
    return keys, json.loads(saved["Its manifest"].read_text())


# Pixels and score units, from the axes that the browser drew


def axes(page):
    return page.evaluate(
        "() => { const l = document.querySelector('.js-plotly-plot')._fullLayout;"
        " return [...l.xaxis2.range, ...l.yaxis2.range]; }"
    )


def outlines(page):
    """Return the outlines as the browser has them, in score units."""
    paths = page.evaluate("() => document.querySelector('.js-plotly-plot')._fullLayout.selections.map(s => s.path)")
    corners = [[corner.split(",") for corner in path.strip("MZ").split("L")] for path in paths]
    return [[[float(x), float(y)] for x, y in outline] for outline in corners]


def to_pixels(page, scores):
    area, (x0, x1, y0, y1) = plot_area(page), axes(page)
    return [
        (area["x"] + (x - x0) / (x1 - x0) * area["width"], area["y"] + (y1 - y) / (y1 - y0) * area["height"])
        for x, y in scores
    ]


# What should have come out, by other means than the product's own


def polygons_of(rule):
    assert (rule["type"], rule["x"], rule["y"]) == ("polygon", X, Y)
    return rule["polygons"]


def keys_inside(run, polygons):
    with duckdb.connect(str(run / "trajectory.duckdb"), read_only=True) as con:
        rows = con.execute(
            f"select key, {X}::DOUBLE, {Y}::DOUBLE from samples join scores using (sample_id)"
        ).fetchall()
    return sorted(key for key, x, y in rows if any(crosses_odd(x, y, polygon) for polygon in polygons))


def crosses_odd(x, y, polygon):
    """Even-odd rule: a ray to the right crosses the outline an odd number of times."""
    odd = False
    for (ax, ay), (bx, by) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        if (ay > y) != (by > y) and x < ax + (y - ay) * (bx - ax) / (by - ay):
            odd = not odd
    return odd


def boxed(polygon):
    (left, bottom), (right, top) = np.min(polygon, axis=0).tolist(), np.max(polygon, axis=0).tolist()
    return [[left, bottom], [right, bottom], [right, top], [left, top]]


def assert_lies_where_the_mouse_went(polygons, drawn):
    """Every corner that the mouse turned at is a corner of the outline, and the outline covers the same ground."""
    assert len(polygons) == len(drawn)
    for polygon, (corners, pixel) in zip(polygons, drawn, strict=True):
        for corner in corners:
            off = np.abs((np.array(polygon) - corner) / pixel).max(axis=1).min()
            assert off <= PIXELS, f"the nearest corner to {corner} is {off:.1f} pixels off"
        assert area_of(polygon) == pytest.approx(area_of(corners), rel=0.05)


def area_of(polygon):
    x, y = np.array(polygon).T
    return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
