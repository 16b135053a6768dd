"""A selection is a rule first, ids second: JSON that the page, the command line, the URL and the export share.

Rules are resolved by pure functions against a `SampleTable`; only a text search has to be lent from outside. `RULES`
lists the types and their fields:

    {"type": "polygon", "x": SCORE, "y": SCORE, "polygons": [[[x, y], ...], ...]}
    {"type": "quadrant", "name", "x", "y", "tau_x", "tau_y"}
    {"type": "top", "by": SCORE, "q": (0, 1]}
    {"type": "keys", "keys": [...]}
    {"type": "range", "score", "low": null or number, "high": null or number}        both ends belong to it
    {"type": "filter", "source": null or [...], "min_tokens", "max_tokens", "duplicates": null or bool, "text"}
    {"type": "all", "rules": [...]}      {"type": "any", "rules": [...]}      {"type": "duplicates_of", "rule": {...}}
    {"type": "combined", "op": "add" | "subtract" | "intersect", "rules": [first, second, ...]}      see `rules`
"""

from __future__ import annotations

import heapq
import inspect
import math
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from carto_core import quadrants
from carto_core.errors import SelectionError
from carto_core.rules import OPS, Rule, canonical, check_depth, combine
from carto_core.scores import SCORES
from carto_core.store.shapes import NUMBER, TEXT, exactly, read_json
from carto_core.types import Bool, Float32, Float64, Int32, SampleTable, Selection

OUTLINES = {"version": exactly(1), "x": TEXT, "y": TEXT, "polygons": [[[NUMBER]]]}
Search = Callable[[str], Int32]

MAX_VERTICES = 64
MAX_DRAWN = 100_000  # of one polygon as it is given, before it is simplified
LARGEST = 1e100  # no score comes near it, and products of two such numbers are still numbers
_SIGNIFICANT_DIGITS = 5


def resolve(rule: Rule, table: SampleTable, *, search: Search | None = None) -> Selection:
    """Return the samples that a rule names; none is a valid answer.

    Args:
        rule: see the module.
        table: a scored run's samples.
        search: from a text to the ids of the samples that hold it; needed by filters with `text` only.

    Returns:
        A selection whose notes say what a person should know: groups skipped, ties broken.

    Raises:
        SelectionError: a type, field, axis, key or source that does not exist, a value out of range, or rules nested
            too deeply.
    """
    check_depth(rule)
    context = _Context(table, search, notes=[])
    mask = _resolve(context, rule)
    ids = np.flatnonzero(mask).astype(np.int32)
    return Selection(canonical(rule), ids, tuple(dict.fromkeys(context.notes)))


def combine_selections(op: str, first: Selection, *others: Selection) -> Selection:
    """Return the combination of selections of one run by their sample ids, which may be those of a file's keys.

    Args:
        op: `add`, `subtract` (the others from the first) or `intersect`.
        first: a selection.
        others: one or more.

    Returns:
        A selection with the notes of all parts.

    Raises:
        SelectionError: the operation is unknown, or the rules are nested too deeply.
    """
    rule = combine(op, first.rule, *(other.rule for other in others))
    ids = first.sample_ids
    for other in others:
        ids = _SET_ALGEBRA[op](ids, other.sample_ids)
    notes = [note for selection in (first, *others) for note in selection.notes]
    return Selection(rule, ids.astype(np.int32), tuple(dict.fromkeys(notes)))


def inside(x: Float32, y: Float32, polygons: Any) -> Bool:
    """Return which points lie inside any of the polygons.

    Even-odd within a polygon (so a self-intersecting one has holes), union between them; the boundary is outside,
    and NaN is never inside.

    Args:
        x: float32[N], widened to float64.
        y: float32[N].
        polygons: a list of lists of at least three finite [x, y].

    Raises:
        SelectionError: a polygon that is none.
    """
    wide_x, wide_y = x.astype(np.float64), y.astype(np.float64)
    found = np.zeros(len(wide_x), bool)
    for vertices in _polygons(polygons):
        (left, bottom), (right, top) = vertices.min(axis=0), vertices.max(axis=0)
        near = np.flatnonzero((wide_x > left) & (wide_x < right) & (wide_y > bottom) & (wide_y < top))
        polygon = shapely.Polygon(vertices)
        shapely.prepare(polygon)
        found[near] |= shapely.contains_xy(polygon, wide_x[near], wide_y[near])
    return found


def simplify_polygon(points: Any, max_vertices: int = MAX_VERTICES) -> list[list[float]]:
    """Return the polygon as it is kept: rounded to five significant digits, with at most `max_vertices` corners.

    Done once, on entry: the outline on the page, the count, the URL and the export then use the same corners. A second
    call changes nothing. Corners go in order of the least triangle with their neighbours (Visvalingam and Whyatt
    1993); those of no area (repeated, on a straight line, the tip of a spike) go anyway, which moves no boundary.

    Args:
        points: at least three finite [x, y], closed or not.
        max_vertices: at least 3.

    Raises:
        SelectionError: fewer than three points, or one that is not finite.
    """
    (vertices,) = _polygons([points])
    vertices = np.array([[_rounded(value) for value in vertex] for vertex in vertices])
    return vertices[_kept_corners(vertices, max_vertices)].tolist()


def polygon_file(rule: Rule) -> dict[str, Any]:
    """Return what a polygon file holds for a polygon rule.

    Raises:
        SelectionError: the rule is of another type.
    """
    if rule.get("type") != "polygon":
        raise SelectionError(f"only a polygon rule has a polygon file, this one is {rule.get('type')!r}")
    return {"version": 1} | {name: rule[name] for name in ("x", "y", "polygons")}


def read_polygon_file(path: str | Path) -> Rule:
    """Return the polygon rule in a file, its polygons simplified.

    Raises:
        SelectionError: the file cannot be read, is no polygon file, or holds a polygon that is none.
    """
    cure = 'a polygon file holds "version": 1, "x", "y" and "polygons", nothing else'
    fields = read_json(Path(path), OUTLINES, error=SelectionError, cure=cure)
    _check(set(fields) == set(OUTLINES), f"{path} holds other fields too; {cure}")
    polygons = [simplify_polygon(p.tolist()) for p in _polygons(fields["polygons"])]
    return {"type": "polygon", "x": fields["x"], "y": fields["y"], "polygons": polygons}


@dataclass(frozen=True)
class _Context:
    """What a rule is resolved against, and where it leaves its notes."""

    table: SampleTable
    search: Search | None
    notes: list[str]

    def axis(self, name: Any) -> Float32:
        if not isinstance(name, str) or name not in self.table.scores:
            raise SelectionError(f"unknown axis {name!r}; choose one of: {', '.join(sorted(self.table.scores))}")
        return self.table.scores[name]

    def groups(self) -> tuple[np.ndarray, np.ndarray]:
        """Return each sample's place among the duplicate groups, and the groups' sizes."""
        _, group, sizes = np.unique(self.table.group_id, return_inverse=True, return_counts=True)
        return group, sizes


def _resolve(context: _Context, rule: Any) -> Bool:
    """Return bool[N] of one rule, after checking that its fields are those of its type."""
    kind = rule.get("type") if isinstance(rule, dict) else None
    if not isinstance(kind, str) or kind not in RULES:
        raise SelectionError(f'a rule is an object with a "type" among {", ".join(RULES)}; got {_short(rule)}')
    fields = {name: value for name, value in rule.items() if name != "type"}
    try:
        inspect.signature(RULES[kind]).bind(context, **fields)
    except TypeError as error:
        raise SelectionError(f"rule of type {kind}: {error}") from None
    return RULES[kind](context, **fields)


def _polygon(context: _Context, *, x: str, y: str, polygons: Any) -> Bool:
    return inside(context.axis(x), context.axis(y), polygons)


def _quadrant(context: _Context, *, name: str, x: str, y: str, tau_x: float, tau_y: float) -> Bool:
    if name not in quadrants.QUADRANTS:
        raise SelectionError(f"unknown quadrant {name!r}; choose one of: {', '.join(quadrants.QUADRANTS)}")
    cuts = {"tau_x": _number(tau_x, "tau_x"), "tau_y": _number(tau_y, "tau_y")}
    label = quadrants.assign(context.axis(x), context.axis(y), **cuts, memorized_when=SCORES[y].memorized_when)
    return np.asarray(label == name, bool)


def _top(context: _Context, *, by: str, q: float) -> Bool:
    """The round(q N) most memorized samples, in whole duplicate groups ranked by their most memorized member.

    A group larger than what is left of the budget is skipped, and the next is tried. Groups whose score is unknown
    are never chosen. Equal groups come in an order drawn from the run's seed.
    """
    values = context.axis(by).astype(np.float64)
    share = _number(q, "q")
    budget = round(share * len(values)) if share <= 1 else 0
    if budget < 1:
        raise SelectionError(f"top: q must lie in (0, 1] and come to at least one of {len(values)} samples, got {q}")
    group, sizes = context.groups()
    value = _group_maxima(values if SCORES[by].memorized_when == "high" else -values, group)
    shuffled = np.random.default_rng([context.table.seed, 5]).permutation(len(sizes))
    ranked = np.lexsort((shuffled, -value))[: np.count_nonzero(~np.isnan(value))]
    chosen, skipped, left = _fill(sizes[ranked], budget)
    context.notes.extend(_budget_notes(skipped, left, budget) + _tie_notes(value[ranked], chosen))
    return np.isin(group, ranked[chosen])


def _group_maxima(values: Float64, group: np.ndarray) -> Float64:
    """Return the largest known value of each group; NaN where none is known."""
    maxima = np.full(group.max(initial=-1) + 1, np.nan)
    np.fmax.at(maxima, group, values)
    return maxima


def _fill(sizes: np.ndarray, budget: int) -> tuple[Bool, int, int]:
    """Return which groups fit, taken in order, how many were skipped before the budget was full, and what is left."""
    chosen = np.zeros(len(sizes), bool)
    skipped = 0
    for place, size in enumerate(sizes.tolist()):
        if budget == 0:
            break
        chosen[place] = size <= budget
        skipped += size > budget
        budget -= size if size <= budget else 0
    return chosen, skipped, budget


def _budget_notes(skipped: int, left: int, budget: int) -> list[str]:
    notes = []
    if skipped:
        notes.append(f"{skipped} duplicate groups larger than what was left of the budget were skipped.")
    if left:
        notes.append(f"The budget of {budget} samples was not filled: {budget - left} were chosen.")
    return notes


def _tie_notes(value: Float64, chosen: Bool) -> list[str]:
    tied = value == value[chosen].min(initial=np.inf)
    if chosen[tied].all():
        return []
    return [
        f"{tied.sum()} groups tie for the last {chosen[tied].sum()} places, given out in an order drawn from the seed."
    ]


def _keys(context: _Context, *, keys: list[str]) -> Bool:
    _check(
        _is_texts(keys),
        f"keys must be a list of texts, got {_short(keys)}",
    )
    place = {key: i for i, key in enumerate(context.table.key)}
    unknown = [key for key in dict.fromkeys(keys) if key not in place]
    _check(
        not unknown, f"{len(unknown)} keys are not in run {context.table.run_id}, the first: {', '.join(unknown[:5])}"
    )
    return _mask(len(context.table), [place[key] for key in keys])


def _range(context: _Context, *, score: str, low: float | None, high: float | None) -> Bool:
    values = context.axis(score).astype(np.float64)
    bottom, top = _end(low, -math.inf, "low"), _end(high, math.inf, "high")
    _check(bottom <= top, f"range of {score}: low {low} is above high {high}")
    return (values >= bottom) & (values <= top)


def _filter(
    context: _Context,
    *,
    source: list[str] | None = None,
    min_tokens: float | None = None,
    max_tokens: float | None = None,
    duplicates: bool | None = None,
    text: str | None = None,
) -> Bool:
    """Samples that pass all the conditions that are not null; `duplicates: false` keeps those without a copy."""
    table = context.table
    found = (table.num_tokens >= _end(min_tokens, 0, "min_tokens")) & (
        table.num_tokens <= _end(max_tokens, math.inf, "max_tokens")
    )
    if source is not None:
        found &= _from_sources(table, source)
    _check(duplicates in (None, True, False), f"duplicates must be true, false or null, got {_short(duplicates)}")
    if duplicates is not None:
        group, sizes = context.groups()
        found &= (sizes[group] > 1) == duplicates
    if text is not None:
        found &= _with_text(context, text)
    return found


def _from_sources(table: SampleTable, source: Any) -> Bool:
    _check(_is_texts(source), f"source must be a list of names, got {_short(source)}")
    wanted = set(source)
    unknown = sorted(wanted - set(table.source))
    _check(not unknown, f"no sample has the source {', '.join(unknown[:5])}")
    return np.fromiter((name in wanted for name in table.source), bool, count=len(table))


def _with_text(context: _Context, text: Any) -> Bool:
    _check(isinstance(text, str), f"text must be a text, got {_short(text)}")
    assert context.search is not None, "a filter by text needs a search"
    return _mask(len(context.table), context.search(text))


def _all(context: _Context, *, rules: list[Rule]) -> Bool:
    return np.logical_and.reduce(_each(context, rules))


def _any(context: _Context, *, rules: list[Rule]) -> Bool:
    return np.logical_or.reduce(_each(context, rules))


def _combined(context: _Context, *, op: str, rules: list[Rule]) -> Bool:
    _check(isinstance(op, str) and op in OPS, f"op must be one of {', '.join(OPS)}, got {_short(op)}")
    _check(isinstance(rules, list) and len(rules) > 1, f"a combination needs two rules or more, got {_short(rules)}")
    first, *others = _each(context, rules)
    for other in others:
        first = _MASK_ALGEBRA[op](first, other)
    return first


def _each(context: _Context, rules: Any) -> list[Bool]:
    _check(isinstance(rules, list) and bool(rules), f"rules must be a list of one rule or more, got {_short(rules)}")
    return [_resolve(context, rule) for rule in rules]


def _duplicates_of(context: _Context, *, rule: Rule) -> Bool:
    group_id = context.table.group_id
    return np.isin(group_id, group_id[_resolve(context, rule)])


RULES: dict[str, Callable[..., Bool]] = {
    "polygon": _polygon,
    "quadrant": _quadrant,
    "top": _top,
    "keys": _keys,
    "range": _range,
    "filter": _filter,
    "all": _all,
    "any": _any,
    "duplicates_of": _duplicates_of,
    "combined": _combined,
}

_MASK_ALGEBRA: dict[str, Callable[[Bool, Bool], Bool]] = {
    "add": np.logical_or,
    "subtract": lambda first, other: first & ~other,
    "intersect": np.logical_and,
}
_SET_ALGEBRA: dict[str, Callable[[Int32, Int32], np.ndarray]] = {
    "add": np.union1d,
    "subtract": np.setdiff1d,
    "intersect": np.intersect1d,
}


def _polygons(polygons: Any) -> list[Float64]:
    """Return each polygon as float64[V, 2], checked."""
    _check(
        isinstance(polygons, list | tuple) and bool(polygons),
        f"polygons must be a list of polygons, got {_short(polygons)}",
    )
    return [_vertices(polygon) for polygon in polygons]


def _vertices(polygon: Any) -> Float64:
    try:
        vertices = np.asarray(polygon)
    except (TypeError, ValueError, OverflowError, RecursionError):  # rows of different lengths, lists without end
        vertices = np.empty((0, 0))
    good = vertices.dtype.kind in "iuf" and vertices.ndim == 2 and vertices.shape[1] == 2
    _check(good, f"a polygon is a list of [x, y] numbers, got {_short(polygon)}")
    vertices = vertices.astype(np.float64)
    _check(len(vertices) >= 3, f"a polygon needs at least 3 vertices, got {len(vertices)}")
    _check(len(vertices) <= MAX_DRAWN, f"a polygon has at most {MAX_DRAWN:,} vertices, got {len(vertices):,}")
    good = bool((np.abs(vertices) <= LARGEST).all())
    _check(good, f"a polygon's vertices must be finite numbers of at most {LARGEST:g}, got {_short(polygon)}")
    return vertices


def _kept_corners(vertices: Float64, max_vertices: int) -> list[int]:
    """Return the places of the corners that are kept: the least triangle goes first, of equal ones the first corner's."""
    size = len(vertices)
    before, after = [(i - 1) % size for i in range(size)], [(i + 1) % size for i in range(size)]
    corners = vertices.tolist()

    def area(i: int) -> float:
        """Twice the area of the triangle that a corner makes with its two neighbours."""
        (x, y), (a, b), (c, d) = corners[i], corners[before[i]], corners[after[i]]
        return abs((a - x) * (d - y) - (b - y) * (c - x))

    present = [area(i) for i in range(size)]
    waiting = [(found, i) for i, found in enumerate(present)]
    heapq.heapify(waiting)
    left, gone = size, [False] * size
    while left > 3:
        found, i = heapq.heappop(waiting)
        if gone[i] or found != present[i]:
            continue  # it has been taken out, or measured anew
        if found > 0 and left <= max_vertices:
            break
        gone[i], left = True, left - 1
        after[before[i]], before[after[i]] = after[i], before[i]
        for j in (before[i], after[i]):
            present[j] = area(j)
            heapq.heappush(waiting, (present[j], j))
    return [i for i in range(size) if not gone[i]]


def _rounded(value: float) -> float:
    return float(f"{value:.{_SIGNIFICANT_DIGITS}g}") + 0.0  # + 0.0 turns -0.0 into 0.0


def _mask(size: int, ids: Any) -> Bool:
    mask = np.zeros(size, bool)
    mask[np.asarray(ids, np.intp)] = True
    return mask


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _number(value: Any, name: str) -> float:
    _check(NUMBER.fits(value), f"{name} must be a finite number, got {_short(value)}")
    return float(value)


def _end(value: Any, default: float, name: str) -> float:
    return default if value is None else _number(value, name)


def _check(condition: bool, message: str) -> None:  # noqa: FBT001 (a condition is what it is)
    if not condition:
        raise SelectionError(message)


def _short(value: Any) -> str:
    return reprlib.repr(value)
