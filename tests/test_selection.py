import json
import math
import time

import numpy as np
import pytest
import shapely

from carto_core.errors import SelectionError
from carto_core.selection import inside, polygon_file, read_polygon_file, resolve, simplify_polygon
from carto_core.types import SampleTable

NAN = math.nan
SQUARE = [[0, 0], [4, 0], [4, 4], [0, 4]]
CONCAVE = [[0, 0], [4, 0], [4, 4], [2, 1], [0, 4]]
BOW_TIE = [[0, 0], [4, 4], [4, 0], [0, 4]]
STAR = [[math.cos(4 * math.pi * i / 5), math.sin(4 * math.pi * i / 5)] for i in range(5)]
ROUND_TWICE = SQUARE + SQUARE


def make_table(num_samples=10, *, seed=0, group_id=None, **scores):
    """A table whose scores are 0, 1, 2, ... unless given."""
    ramp = np.arange(num_samples, dtype=np.float32)
    columns = {name: np.float32(values) for name, values in scores.items()}
    return SampleTable(
        run_id="tiny",
        corpus_sha256="0" * 64,
        seed=seed,
        key=np.array([f"k{i}" for i in range(num_samples)], object),
        source=np.array(["a", "b"] * (num_samples // 2) + ["a"] * (num_samples % 2), object),
        group_id=np.arange(num_samples, dtype=np.int32) if group_id is None else np.int32(group_id),
        num_tokens=np.arange(num_samples, dtype=np.int32) * 10,
        canary_id=np.full(num_samples, NAN),
        scores={"difficulty": ramp, "memorization": ramp, "final_loss": ramp} | columns,
        x="difficulty",
        y="memorization",
        tau_x=4.0,
        tau_y=4.0,
    )


def ids(rule, table=None, **kwargs):
    return resolve(rule, table or make_table(), **kwargs).sample_ids.tolist()


def polygon(*polygons, x="difficulty", y="memorization"):
    return {"type": "polygon", "x": x, "y": y, "polygons": list(polygons)}


def slow_inside(x, y, vertices):
    """Even-odd by counting the edges that a ray to the right crosses, one point at a time."""
    crossings = 0
    for (ax, ay), (bx, by) in zip(vertices, [*vertices[1:], vertices[0]], strict=True):
        if (ay > y) != (by > y) and x < ax + (y - ay) * (bx - ax) / (by - ay):
            crossings += 1
    return crossings % 2 == 1


def random_points(count=3000, *, low=-2.0, high=6.0):
    return np.random.default_rng(0).uniform(low, high, (2, count)).astype(np.float32)


def box_of(vertices):
    (left, bottom), (right, top) = np.min(vertices, axis=0), np.max(vertices, axis=0)
    return [[left, bottom], [right, bottom], [right, top], [left, top]]


@pytest.mark.parametrize("vertices", [SQUARE, CONCAVE, BOW_TIE, STAR, ROUND_TWICE], ids=lambda v: f"{len(v)} corners")
def test_inside_agrees_with_counting_crossings(vertices):
    x, y = random_points()

    expected = [slow_inside(float(px), float(py), vertices) for px, py in zip(x, y, strict=True)]

    assert inside(x, y, [vertices]).tolist() == expected


@pytest.mark.parametrize("seed", range(10))
def test_inside_agrees_with_counting_crossings_on_random_tangles(seed):
    vertices = np.random.default_rng(seed).uniform(-2, 6, (15, 2)).tolist()
    x, y = random_points(500)

    expected = [slow_inside(float(px), float(py), vertices) for px, py in zip(x, y, strict=True)]

    assert inside(x, y, [vertices]).tolist() == expected


@pytest.mark.parametrize("vertices", [CONCAVE, BOW_TIE, STAR], ids=["concave", "bow tie", "star"])
def test_a_polygon_is_not_its_bounding_box(vertices):
    x, y = random_points()

    found = inside(x, y, [vertices])

    assert 0 < found.sum() < inside(x, y, [box_of(vertices)]).sum()


def test_the_notch_of_a_concave_polygon_is_outside():
    assert inside(np.float32([2, 1]), np.float32([3, 1]), [CONCAVE]).tolist() == [False, True]


def test_polygons_are_united_even_where_they_overlap():
    shifted = [[2, 2], [6, 2], [6, 6], [2, 6]]
    points = np.float32([1, 3, 5, 1]), np.float32([1, 3, 5, 5])

    assert inside(*points, [SQUARE, shifted]).tolist() == [True, True, True, False]


def test_the_boundary_is_outside_and_so_is_nan():
    x, y = np.float32([0, 4, 2, 4, NAN, 2]), np.float32([0, 2, 4, 4, 2, NAN])

    assert not inside(x, y, [SQUARE]).any()


def test_a_slanted_boundary_is_outside_too():
    assert inside(np.float32([2, 1.9]), np.float32([2, 1.9]), [[[0, 0], [4, 0], [0, 4]]]).tolist() == [False, True]


def test_a_coordinate_is_widened_before_it_is_compared():
    edge = [[0, 0], [0.1, 0], [0.1, 1], [0, 1]]  # float32 0.1 lies just right of it

    assert not inside(np.float32([0.1]), np.float32([0.5]), [edge]).any()


def test_a_polygon_without_area_holds_nobody():
    assert not inside(np.float32([1]), np.float32([1]), [[[0, 0], [2, 2], [1, 1]]]).any()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([[[0, 0], [1, 1]]], "at least 3 vertices, got 2"),
        ([[[0, 0], [1, NAN], [1, 1]]], "finite"),
        ([[[0, 0], [1, math.inf], [1, 1]]], "finite"),
        ([[[0, 0], [1], [1, 1]]], "list of"),
        ([[[0, 0, 0], [1, 1, 1], [1, 0, 1]]], "list of"),
        ([["a", "b", "c"]], "list of"),
        ([], "list of polygons"),
        ("polygon", "list of polygons"),
        (None, "list of polygons"),
    ],
)
def test_what_is_no_polygon_is_the_users_mistake(bad, message):
    with pytest.raises(SelectionError, match=message):
        resolve({"type": "polygon", "x": "difficulty", "y": "memorization", "polygons": bad}, make_table())


def wiggly_circle(num_vertices=300):
    rng = np.random.default_rng(1)
    angle = np.linspace(0, 2 * math.pi, num_vertices, endpoint=False)
    radius = 3 + 0.05 * rng.random(num_vertices)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).tolist()


@pytest.mark.parametrize("vertices", [wiggly_circle(), CONCAVE, STAR, ROUND_TWICE, [[0, 0], [1, 1], [0, 0], [2, 2]]])
@pytest.mark.parametrize("max_vertices", [64, 12, 3])
def test_simplifying_twice_changes_nothing(vertices, max_vertices):
    once = simplify_polygon(vertices, max_vertices)

    assert simplify_polygon(once, max_vertices) == once
    assert 3 <= len(once) <= max(max_vertices, 3)


def slowly_simplified(points, max_vertices):
    """The definition: as long as there are too many corners, or one of no area, the least triangle's goes."""
    corners = [[float(f"{v:.5g}") for v in point] for point in points]
    while len(corners) > 3:
        here = np.array(corners)
        before, after = np.roll(here, 1, axis=0) - here, np.roll(here, -1, axis=0) - here
        areas = np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0])
        if areas.min() > 0 and len(corners) <= max_vertices:
            break
        del corners[int(np.argmin(areas))]
    return corners


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("max_vertices", [64, 12, 3])
def test_corners_go_in_the_order_of_the_definition(seed, max_vertices):
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 5, (40, 2)).tolist() if seed % 2 else rng.normal(size=(90, 2)).tolist()

    assert simplify_polygon(points, max_vertices) == slowly_simplified(points, max_vertices)


def test_a_polygon_of_10_000_vertices_is_simplified_in_a_moment():
    angle = np.linspace(0, 2 * math.pi, 10_000, endpoint=False)
    began = time.perf_counter()

    kept = simplify_polygon(np.stack([np.cos(angle), np.sin(angle)], axis=1).tolist())

    assert len(kept) == 64
    assert time.perf_counter() - began < 5


def test_simplifying_keeps_the_shape():
    x, y = random_points(low=-4, high=4)

    before, after = inside(x, y, [wiggly_circle()]), inside(x, y, [simplify_polygon(wiggly_circle())])

    assert (before != after).mean() < 0.005


def test_rounding_keeps_five_digits_at_any_scale():
    got = simplify_polygon([[0.000123456789, -0.0], [123.456789, 0], [50, 0.00098765432]])

    assert got == [[0.00012346, 0.0], [123.46, 0.0], [50.0, 0.00098765]]
    assert "-0.0" not in json.dumps(got)


def test_repeated_and_straight_corners_go_and_the_boundary_stays():
    closed = [[0, 0], [2, 0], [2, 0], [4, 0], [4, 4], [0, 4], [0, 0]]

    got = simplify_polygon(closed)

    assert sorted(got) == sorted([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0]])


def test_a_polygon_file_comes_back_as_the_rule_it_was_made_from(tmp_path):
    rule = polygon(simplify_polygon(CONCAVE))
    path = tmp_path / "lasso.json"
    path.write_text(json.dumps(polygon_file(rule)))

    assert read_polygon_file(path) == rule
    assert set(json.loads(path.read_text())) == {"version", "x", "y", "polygons"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"version": 2, "x": "a", "y": "b", "polygons": []}',
        '{"version": 1, "x": "a", "y": "b", "polygons": []}',
    ],
)
def test_what_is_no_polygon_file_is_the_users_mistake(text, tmp_path):
    path = tmp_path / "lasso.json"
    path.write_text(text)

    with pytest.raises(SelectionError):
        read_polygon_file(path)


def test_a_missing_polygon_file_is_the_users_mistake(tmp_path):
    with pytest.raises(SelectionError, match=r"absent\.json"):
        read_polygon_file(tmp_path / "absent.json")


def test_a_polygon_rule_picks_what_lies_inside():
    selection = resolve(polygon([[0.5, 0.5], [3.5, 0.5], [3.5, 3.5], [0.5, 3.5]]), make_table())

    assert selection.sample_ids.tolist() == [1, 2, 3]
    assert selection.sample_ids.dtype == np.int32


def test_a_lasso_around_nothing_is_an_empty_selection():
    assert ids(polygon([[100, 100], [101, 100], [101, 101]])) == []


def test_a_quadrant_rule_uses_its_own_cuts_and_the_scores_direction():
    rule = {
        "type": "quadrant",
        "name": "hotspot-memorized",
        "x": "difficulty",
        "y": "final_loss",
        "tau_x": 8,
        "tau_y": 3,
    }

    assert ids(rule) == [0, 1, 2]


def test_top_takes_the_rounded_share_of_all_samples():
    assert ids({"type": "top", "by": "memorization", "q": 0.26}) == [7, 8, 9]
    assert ids({"type": "top", "by": "memorization", "q": 1}) == list(range(10))


def test_top_by_a_low_score_takes_the_lowest():
    assert ids({"type": "top", "by": "final_loss", "q": 0.2}) == [0, 1]


def test_top_takes_whole_groups_by_their_maximum():
    table = make_table(memorization=[9, 0, 5, 4, 1, 1, 1, 1, 1, 1], group_id=[0, 0, 1, 2, 3, 4, 5, 6, 7, 8])

    assert ids({"type": "top", "by": "memorization", "q": 0.3}, table) == [0, 1, 2]


def test_a_group_that_would_pass_the_budget_is_skipped_and_counted():
    table = make_table(memorization=[9, 8, 8, 8, 7, 6, 0, 0, 0, 0], group_id=[0, 1, 1, 1, 2, 3, 4, 5, 6, 7])

    selection = resolve({"type": "top", "by": "memorization", "q": 0.3}, table)

    assert selection.sample_ids.tolist() == [0, 4, 5]
    assert selection.notes == ("1 duplicate groups larger than what was left of the budget were skipped.",)


def test_ties_for_the_last_place_are_broken_by_the_seed_and_counted():
    tied = [1] * 10
    rule = {"type": "top", "by": "memorization", "q": 0.3}

    drawn = [resolve(rule, make_table(memorization=tied, seed=seed)) for seed in (1, 1, 2, 3, 4)]

    assert drawn[0].sample_ids.tolist() == drawn[1].sample_ids.tolist()
    assert len({tuple(s.sample_ids.tolist()) for s in drawn}) > 1
    assert drawn[0].notes == ("10 groups tie for the last 3 places, given out in an order drawn from the seed.",)


def test_ties_that_all_fit_are_not_mentioned():
    table = make_table(memorization=[5, 5, 5, 0, 1, 2, 3, 4, 4, 4])

    assert resolve({"type": "top", "by": "memorization", "q": 0.3}, table).notes == ()


def test_an_unknown_score_is_never_among_the_top():
    table = make_table(memorization=[NAN] * 8 + [0, 1])

    selection = resolve({"type": "top", "by": "memorization", "q": 0.5}, table)

    assert selection.sample_ids.tolist() == [8, 9]
    assert selection.notes == ("The budget of 5 samples was not filled: 2 were chosen.",)


@pytest.mark.parametrize("q", [0, -0.1, 1.01, 0.01, "half", None, True, NAN])
def test_a_share_outside_its_range_is_the_users_mistake(q):
    with pytest.raises(SelectionError, match="q must"):
        resolve({"type": "top", "by": "memorization", "q": q}, make_table())


def test_keys_name_samples_and_the_first_five_unknown_are_named():
    assert ids({"type": "keys", "keys": ["k7", "k2", "k7"]}) == [2, 7]
    with pytest.raises(SelectionError, match=r"6 keys are not in run tiny, the first: x0, x1, x2, x3, x4$"):
        resolve({"type": "keys", "keys": ["k1", *[f"x{i}" for i in range(6)]]}, make_table())


def test_both_ends_of_a_range_belong_to_it():
    assert ids({"type": "range", "score": "difficulty", "low": 2, "high": 4}) == [2, 3, 4]
    assert ids({"type": "range", "score": "difficulty", "low": 8, "high": None}) == [8, 9]
    assert ids({"type": "range", "score": "difficulty", "low": None, "high": 0}) == [0]
    assert ids({"type": "range", "score": "difficulty", "low": 3, "high": 3}) == [3]
    assert ids({"type": "range", "score": "difficulty", "low": 9, "high": 1e100}) == [9]


def test_an_unknown_score_is_in_no_range():
    table = make_table(difficulty=[NAN] * 9 + [1])

    assert ids({"type": "range", "score": "difficulty", "low": None, "high": None}, table) == [9]


def test_a_filter_keeps_what_passes_all_its_conditions():
    everything = {
        "type": "filter",
        "source": None,
        "min_tokens": None,
        "max_tokens": None,
        "duplicates": None,
        "text": None,
    }

    assert ids(everything) == list(range(10))
    assert ids(everything | {"source": ["a"], "min_tokens": 20, "max_tokens": 60}) == [2, 4, 6]


def test_a_filter_knows_duplicates_from_singles():
    table = make_table(group_id=[0, 1, 1, 2, 3, 4, 5, 6, 7, 8])

    assert ids({"type": "filter", "duplicates": True}, table) == [1, 2]
    assert ids({"type": "filter", "duplicates": False}, table) == [0, *range(3, 10)]


def test_a_filter_by_text_asks_the_search_it_was_lent():
    found = {"code": np.int32([3, 8])}

    assert ids({"type": "filter", "text": "code"}, search=found.__getitem__) == [3, 8]


def test_all_intersects_and_any_unites():
    low, high = ({"type": "range", "score": "difficulty", "low": a, "high": b} for a, b in ((0, 5), (4, 7)))

    assert ids({"type": "all", "rules": [low, high]}) == [4, 5]
    assert ids({"type": "any", "rules": [low, high]}) == list(range(8))


def test_duplicates_of_adds_every_copy_and_nothing_else():
    table = make_table(group_id=[0, 1, 1, 2, 3, 4, 5, 6, 7, 1])

    assert ids({"type": "duplicates_of", "rule": {"type": "keys", "keys": ["k2", "k4"]}}, table) == [1, 2, 4, 9]


def test_a_selection_keeps_its_own_copy_of_the_rule():
    rule = {"type": "keys", "keys": ["k1"]}

    selection = resolve(rule, make_table())
    rule["keys"].append("k2")

    assert selection.rule == {"type": "keys", "keys": ["k1"]}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (None, "type"),
        ([], "type"),
        ({}, "type"),
        ({"type": "lasso"}, "type"),
        ({"type": ["keys"]}, "type"),
        ({"type": "top", "by": "memorization"}, "missing a required argument: 'q'"),
        ({"type": "top", "by": "memorization", "q": 0.1, "seed": 1}, "unexpected keyword argument 'seed'"),
        ({"type": "top", "by": "memory", "q": 0.1}, "unknown axis 'memory'"),
        ({"type": "top", "by": ["memorization"], "q": 0.1}, "unknown axis"),
        ({"type": "polygon", "x": "screen", "y": "memorization", "polygons": [SQUARE]}, "unknown axis 'screen'"),
        (
            {"type": "quadrant", "name": "hot", "x": "difficulty", "y": "memorization", "tau_x": 0, "tau_y": 0},
            "unknown quadrant",
        ),
        (
            {
                "type": "quadrant",
                "name": "stable-easy",
                "x": "difficulty",
                "y": "memorization",
                "tau_x": NAN,
                "tau_y": 0,
            },
            "tau_x must be a finite number",
        ),
        ({"type": "range", "score": "difficulty", "low": 2, "high": 1}, "low 2 is above high 1"),
        ({"type": "range", "score": "difficulty", "low": "2", "high": None}, "low must be a finite number"),
        ({"type": "keys", "keys": "k1"}, "list of texts"),
        ({"type": "keys", "keys": [1]}, "list of texts"),
        ({"type": "filter", "source": ["nowhere"]}, "no sample has the source nowhere"),
        ({"type": "filter", "source": "a"}, "list of names"),
        ({"type": "filter", "duplicates": "yes"}, "true, false or null"),
        ({"type": "filter", "text": 5}, "text must be"),
        ({"type": "all", "rules": []}, "one rule or more"),
        ({"type": "any", "rules": [{"type": "nothing"}]}, "type"),
        ({"type": "duplicates_of", "rule": "k1"}, "type"),
    ],
)
def test_a_bad_rule_is_the_users_mistake(rule, message):
    with pytest.raises(SelectionError, match=message):
        resolve(rule, make_table(), search=lambda text: np.int32([]))


def test_corners_of_any_size_are_simplified_without_a_warning():
    huge = [[1e99, 0], [-1e99, 1e99], [0, -1e99], [1e100, -1e100], [-1e100, 1e100]]

    assert len(simplify_polygon(huge, 3)) == 3


@pytest.mark.parametrize(
    "bad", [[["0", "0"], ["1", "0"], ["0", "1"]], [[None, 0], [1, 0], [0, 1]], [[0, 0], [1], [0, 1]]]
)
def test_a_polygon_is_of_numbers_and_its_like_is_shown(bad):
    with pytest.raises(SelectionError, match=r"^a polygon is a list of \[x, y\] numbers, got \[\["):
        simplify_polygon(bad)


def test_a_polygon_that_is_not_finite_is_shown():
    with pytest.raises(
        SelectionError, match=r"must be finite numbers of at most 1e\+100, got \[\[0, 0\], \[1, inf\], \[1, 1\]\]$"
    ):
        inside(np.float32([0]), np.float32([0]), [[[0, 0], [1, math.inf], [1, 1]]])


def test_only_points_in_the_box_of_a_polygon_are_looked_at_closely(monkeypatch):
    looked_at = []
    monkeypatch.setattr(shapely, "contains_xy", lambda polygon, x, y: looked_at.append((x, y)) or np.ones(len(x), bool))

    inside(np.float32([2, 2, 2, 0, 4, -1, 5, 2]), np.float32([2, 0, 4, 2, 2, 2, 2, 5]), [SQUARE])

    ((x, y),) = looked_at
    assert (x.tolist(), y.tolist()) == ([2], [2])


def test_a_run_of_one_group_has_a_top():
    assert ids({"type": "top", "by": "memorization", "q": 1}, make_table(2, group_id=[7, 7])) == [0, 1]


def test_a_filter_holds_copies_against_its_other_conditions_too():
    table = make_table(group_id=[0, 1, 1, 2, 3, 4, 5, 6, 7, 7])

    assert ids({"type": "filter", "duplicates": True, "min_tokens": 20, "max_tokens": 80}, table) == [2, 8]
    assert ids({"type": "filter", "text": "any", "min_tokens": 20}, search=lambda text: np.int32([1, 2])) == [2]


QUADRANT = {"type": "quadrant", "name": "stable-easy", "x": "difficulty", "y": "memorization", "tau_x": 0}
AXES = "difficulty, final_loss, memorization"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            {"type": "lasso"},
            'a rule is an object with a "type" among polygon, quadrant, top, keys, range, filter, all, any, '
            "duplicates_of, combined; got {'type': 'lasso'}",
        ),
        ({"type": "top", "by": "memory", "q": 0.1}, f"unknown axis 'memory'; choose one of: {AXES}"),
        (
            {"type": "top", "by": "memorization", "q": 10**400},
            f"q must be a finite number, got {10**17}...{'0' * 19}",
        ),
        (
            {"type": "top", "by": "memorization", "q": 1e100},
            "top: q must lie in (0, 1] and come to at least one of 10 samples, got 1e+100",
        ),
        (
            {"type": "top", "by": "memorization", "q": 2},
            "top: q must lie in (0, 1] and come to at least one of 10 samples, got 2",
        ),
        (QUADRANT | {"tau_y": None}, "tau_y must be a finite number, got None"),
        (
            QUADRANT | {"tau_y": 0, "name": "hot"},
            "unknown quadrant 'hot'; choose one of: stable-easy, ambiguous-hard, hotspot-memorized, noisy-outlier",
        ),
        ({"type": "range", "score": "difficulty", "low": None, "high": "2"}, "high must be a finite number, got '2'"),
        ({"type": "range", "score": "difficulty", "low": True, "high": 2}, "low must be a finite number, got True"),
        ({"type": "range", "score": "difficulty", "low": 2, "high": 1}, "range of difficulty: low 2 is above high 1"),
        ({"type": "keys", "keys": [1]}, "keys must be a list of texts, got [1]"),
        ({"type": "filter", "min_tokens": "2"}, "min_tokens must be a finite number, got '2'"),
        ({"type": "filter", "max_tokens": "2"}, "max_tokens must be a finite number, got '2'"),
        ({"type": "filter", "source": list("uvwxyz")}, "no sample has the source u, v, w, x, y"),
        ({"type": "filter", "source": "a"}, "source must be a list of names, got 'a'"),
        ({"type": "filter", "duplicates": "yes"}, "duplicates must be true, false or null, got 'yes'"),
        ({"type": "filter", "text": 5}, "text must be a text, got 5"),
        ({"type": "all", "rules": []}, "rules must be a list of one rule or more, got []"),
        (polygon([[0, 0], [1, 1]]), "a polygon needs at least 3 vertices, got 2"),
        (polygon(), "polygons must be a list of polygons, got []"),
    ],
)
def test_a_refusal_names_the_field_and_shows_what_was_given(rule, message):
    with pytest.raises(SelectionError) as refused:
        resolve(rule, make_table())

    assert str(refused.value) == message


def test_only_a_polygon_rule_has_a_polygon_file():
    with pytest.raises(SelectionError, match=r"^only a polygon rule has a polygon file, this one is 'keys'$"):
        polygon_file({"type": "keys", "keys": []})
