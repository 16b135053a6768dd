"""The only file that touches session state and the address bar.

What a person has set up is one frozen `View`, kept under one key and written into the URL, so that a copied link shows
the same thing. Widgets are mirrors of it: before each is drawn it gets the view's value, and when it changes the
view takes the widget's. A chart's selection event is an edge, not a state, and is copied out at once. What was
selected before is kept for this session, so that every change of the selection can be taken back.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import streamlit as st

from carto_core import masking
from carto_core.errors import SelectionError
from carto_core.interventions import DEFAULT_ALPHA, DEFAULT_GAMMA
from carto_core.rules import OPS, Rule, check_form, combine, describe
from carto_core.selection import MAX_VERTICES, simplify_polygon
from carto_core.store.shapes import COUNT, FLAG, NUMBER, OBJECT, TEXT, Kind, among, maybe, parse_json, problem_of
from carto_core.ui.history import History
from carto_core.ui.words import literal

Polygon = list[list[float]]
_VIEW, _NOTICE, _HISTORY, _MODE, _PLAN = "carto_view", "notice", "history", "mode", "plan_looked_at"
_MASK = "mask"  # in the session, and in the address, so that a reload or a link shows nothing that was hidden
REPLACE = "replace"
MODES = (REPLACE, *OPS)
ACTIONS = ("prune", "reweight", "upsample", "policy")
POLICIES = ("quadrants", "deduplicate")
MAX_UNPACKED = 2**20  # bytes of JSON; what is longer is cut, and then no JSON
MAX_LINK = 30_000  # characters; a server refuses an address of about twice that


_ZOOM = Kind("null or from, to, from, to", lambda value: value is None or _is_zoom(value))
_PERCENTILE = Kind("a percentile", lambda value: NUMBER.fits(value) and 0 <= value <= 100)
_WEIGHT = Kind("a weight from 0.05 to 0.95", lambda value: NUMBER.fits(value) and 0.05 <= value <= 0.95)
_TIMES = Kind("a number from 2 to 10", lambda value: COUNT.fits(value) and 2 <= value <= 10)
_LENGTH = Kind("a number of tokens", lambda value: COUNT.fits(value) and value >= 1)
LINK = {f"{name}?": TEXT for name in ("x", "y", "colour", "text", "other", "compared_on")}
LINK |= {f"{name}?": FLAG for name in ("copies_only", "restrict", "with_copies", "same_cuts")}
LINK |= {f"{name}?": _PERCENTILE for name in ("cut_x", "cut_y")}
LINK |= {"polygons?": [[[NUMBER]]], "region?": maybe(OBJECT), "source?": [TEXT], "max_tokens?": maybe(_LENGTH)}
LINK |= {"zoom?": _ZOOM, "action?": among(*ACTIONS), "policy?": among(*POLICIES)}
LINK |= {f"{name}?": _WEIGHT for name in ("weight", "alpha")} | {f"{name}?": _TIMES for name in ("times", "gamma")}


def _is_zoom(value: Any) -> bool:
    good = isinstance(value, list) and len(value) == 4 and all(NUMBER.fits(part) for part in value)
    return good and value[0] < value[1] and value[2] < value[3]


@dataclass(frozen=True)
class View:
    """What is on the screen.

    Attributes:
        run: run id; empty before one is chosen.
        x: score on x; empty means the run's saved one, likewise y and the cuts.
        y: score on the memorization axis.
        cut_x: percentile that cuts x.
        cut_y: percentile that cuts y.
        colour: `quadrant`, `source`, or a column of `meta`.
        polygons: outlines in score units, of the axes in view.
        region: a rule that no outlines say (quadrant, range, top, combined); None where polygons or nothing is chosen.
        text: searched phrase.
        source: only these; empty means all.
        max_tokens: longest; None means any.
        copies_only: only exact duplicates.
        restrict: whether the selection keeps only the hits of search and filters.
        with_copies: whether the selection takes all copies of what it holds.
        zoom: x from, x to, y from, y to; None shows everything.
        action: what is to be done with the selection, a name in `ACTIONS`.
        policy: what `policy` does with all samples, a name in `POLICIES`.
        weight: loss weight of a down-weighted sample.
        times: how often an up-sampled sample is drawn.
        alpha: the policy's weight of hotspots.
        gamma: the policy's repeats of hard samples.
        other: id of the run that `run` is compared with; empty takes the likeliest.
        compared_on: score on the memorization axis of that comparison; empty takes the run's saved one.
        same_cuts: whether both runs are placed by the thresholds of `run`.
    """

    run: str = ""
    x: str = ""
    y: str = ""
    cut_x: float = 75.0
    cut_y: float = 75.0
    colour: str = "quadrant"
    polygons: tuple[Any, ...] = ()
    region: Rule | None = None
    text: str = ""
    source: tuple[str, ...] = ()
    max_tokens: int | None = None
    copies_only: bool = False
    restrict: bool = False
    with_copies: bool = False
    zoom: tuple[float, float, float, float] | None = None
    action: str = ACTIONS[0]
    policy: str = POLICIES[0]
    weight: float = 0.5
    times: int = 2
    alpha: float = DEFAULT_ALPHA
    gamma: int = DEFAULT_GAMMA
    other: str = ""
    compared_on: str = ""
    same_cuts: bool = False

    def filter_rule(self) -> Rule | None:
        """Return the rule of search and filters, or None where none is set."""
        fields = {
            "text": self.text or None,
            "source": list(self.source) or None,
            "max_tokens": self.max_tokens,
            "duplicates": True if self.copies_only else None,
        }
        given = {name: value for name, value in fields.items() if value is not None}
        return {"type": "filter", **given} if given else None

    def chosen_rule(self) -> Rule | None:
        """Return the rule of the outlines or of the region, before search hits and copies; None where there is neither."""
        if self.polygons:
            return {"type": "polygon", "x": self.x, "y": self.y, "polygons": [list(p) for p in self.polygons]}
        return self.region

    def selection_rule(self) -> Rule | None:
        """Return the rule of the selection, or None where nothing is chosen."""
        rule = self.chosen_rule()
        hits = self.filter_rule()
        if self.restrict and hits is not None:
            rule = hits if rule is None else {"type": "all", "rules": [rule, hits]}
        return rule if rule is None or not self.with_copies else {"type": "duplicates_of", "rule": rule}


def get() -> View:
    """Return the present view: this session's, else the one in the address, else an empty one."""
    if _VIEW not in st.session_state:
        st.session_state[_VIEW] = _from_address()
    return st.session_state[_VIEW]


def put(**changes: Any) -> None:
    """Change some fields of the view and write it into the address bar; a changed selection is a step that can be undone."""
    before = get()
    view = dataclasses.replace(before, **changes)
    if view.run != before.run:
        other = "" if view.other == view.run else view.other
        view = View(run=view.run, other=other, compared_on=view.compared_on, same_cuts=view.same_cuts)
        remember(_HISTORY, None)
        _new_chart()
    elif view.selection_rule() != before.selection_rule():
        remember(_HISTORY, recall(_HISTORY, None) or History((before,)))
        remember(_HISTORY, recall(_HISTORY).stepped(view))
    st.session_state[_VIEW] = view
    show_address()


def show_address() -> None:
    """Write the view into the address bar, where a page switch has dropped it; a selection too long for it stays out."""
    view = get()
    packed = _packed(view)
    if len(packed) > MAX_LINK:
        packed = _packed(dataclasses.replace(view, polygons=(), region=None))
    wanted = {"run": view.run, "view": packed, _MASK: "1" if is_masking() else ""}
    for name, value in wanted.items():
        if value and st.query_params.get(name) != value:
            st.query_params[name] = value
        elif not value and name in st.query_params:
            del st.query_params[name]


def widget(
    field: str, *, read: Callable[[Any], Any] = lambda value: value, value: Any = None, twin: str = ""
) -> dict[str, Any]:
    """Return `key` and `on_change` of a widget that mirrors a field of the view.

    Args:
        field: of `View`.
        read: from the widget's value to the field's.
        value: what the widget shows, where that is not the field itself.
        twin: tells a second widget of the same field from the first.
    """
    key = f"mirror_{field}{twin}"
    st.session_state[key] = getattr(get(), field) if value is None else value

    def take() -> None:
        put(**{field: read(st.session_state[key])})

    return {"key": key, "on_change": take}


def is_link_whole() -> bool:
    """Return whether the address can hold the whole view."""
    return len(_packed(get())) <= MAX_LINK


def mode() -> str:
    """Return what the next selection does to the present one: a name in `MODES`."""
    return recall(_MODE, REPLACE)


def mode_widget() -> dict[str, Any]:
    """Return `key` and `on_change` of the control that sets it."""
    st.session_state["mirror_mode"] = mode()
    return {"key": "mirror_mode", "on_change": lambda: remember(_MODE, st.session_state["mirror_mode"])}


def is_masking() -> bool:
    """Return whether personal data are hidden: by the server, which a page cannot undo, else by this session's switch."""
    if recall(_MASK) is None:
        remember(_MASK, st.query_params.get(_MASK) == "1")
    return masking.is_forced() or recall(_MASK)


def mask_widget() -> dict[str, Any]:
    """Return `key` and `on_change` of that switch."""
    st.session_state["mirror_mask"] = is_masking()
    return {"key": "mirror_mask", "on_change": lambda: remember(_MASK, st.session_state["mirror_mask"])}


def select_region(rule: Rule) -> None:
    """Choose by a rule that needs no dragging, in the mode that is set; outlines go.

    What the mode combines is what was chosen, or the hits where the selection is those alone; restricting to hits and
    taking copies along go on, and hold for the combination.
    """
    view = get()
    present = view.chosen_rule() or (view.filter_rule() if view.restrict else None)
    try:
        put(region=rule if mode() == REPLACE or present is None else combine(mode(), present, rule), polygons=())
    except SelectionError as error:
        notify(f"The selection stays as it was: {literal(error)}")
    _new_chart()


def select_saved(rule: Rule) -> None:
    """Choose by the whole rule of a selection, in the mode that is set; polygons come back as outlines."""
    if mode() != REPLACE:
        select_region(rule)
        return
    alone: dict[str, Any] = {"restrict": False, "with_copies": False}
    if rule["type"] == "polygon":
        axes = {name: rule[name] for name in ("x", "y")}
        alone |= {"polygons": tuple(rule["polygons"]), "region": None} | axes | _zoom_for(axes)
    else:
        alone |= {"polygons": (), "region": rule}
    put(**alone)
    _new_chart()


def undo() -> None:
    """Take the last change of the selection back; axes and filters follow where the selection needs them."""
    _travel(-1)


def redo() -> None:
    """Make the change again that was taken back last."""
    _travel(1)


def before_and_after() -> tuple[str | None, str | None]:
    """Return in words what undo and redo would select, plain text; None where there is no such step."""
    history = recall(_HISTORY)
    states = (None, None) if history is None else (history.previous, history.next)
    words = [None if state is None else describe(state.selection_rule()) for state in states]
    return words[0], words[1]


def clear_selection() -> None:
    """Choose nothing; search, filters and axes stay."""
    put(region=None, polygons=(), restrict=False, with_copies=False)
    _new_chart()


def change_axes(**axes: str) -> None:
    """Put another score on an axis: outlines were drawn in the old scores' units and go, the zoom too."""
    put(**axes, polygons=(), zoom=None)
    _new_chart()


def axis_widget(field: str, value: str) -> dict[str, Any]:
    """Return `key` and `on_change` of the picker of an axis."""
    key = f"mirror_{field}"
    st.session_state[key] = value
    return {"key": key, "on_change": lambda: change_axes(**{field: st.session_state[key]})}


def chart_key() -> str:
    """Return the map's key; a new one forgets what the browser still shows as selected."""
    return f"map_{st.session_state.get('carto_chart', 0)}"


def take_outlines() -> None:
    """Copy the outlines of the map's event into the view.

    The event lists all outlines that the browser shows, so they replace the old ones. In another mode only those that
    are new count, and the chart is built anew, for it no longer shows what is selected.
    """
    event = st.session_state[chart_key()].selection
    polygons = [list(zip(o["x"], o["y"], strict=True)) for o in event["lasso"]]
    polygons += [_corners(box) for box in event["box"]]
    kept: list[Polygon] = []
    for polygon in polygons:
        try:
            kept.append(simplify_polygon(polygon))
        except SelectionError:
            continue  # a click that was no drag
    view = get()
    if mode() == REPLACE or not polygons or view.selection_rule() is None:
        put(polygons=tuple(kept), region=None)
        return
    new = [polygon for polygon in kept if polygon not in [list(old) for old in view.polygons]]
    if mode() == "add" and view.polygons:
        put(polygons=(*view.polygons, *new))
    elif new:
        select_region({"type": "polygon", "x": view.x, "y": view.y, "polygons": new})
    _new_chart()


def outlines_to_draw(signature: str) -> tuple[Any, ...]:
    """Return the outlines that the figure itself must draw.

    The browser shows what was just drawn there. Only when the figure changes for another reason, and is therefore built
    anew, must the outlines be in it; while it stays the same, adding them would rebuild it and lose a double click.
    """
    drawn = st.session_state.get("carto_drawn")
    if drawn is None or drawn[0] != (signature, chart_key()):
        st.session_state["carto_drawn"] = drawn = ((signature, chart_key()), get().polygons)
    return drawn[1]


def pick_row(key: str, row: int | None) -> None:
    """Tick one row of a table of this key, or none."""
    rows = [] if row is None else [row]
    st.session_state[key] = {"selection": {"rows": rows, "columns": [], "cells": []}}


def picked_row(key: str) -> int | None:
    """Return the row that is ticked in a table of this key, or None."""
    state = st.session_state.get(key)
    return state["selection"]["rows"][0] if state and state["selection"]["rows"] else None


def picked_points(key: str) -> list[Any]:
    """Return the first of the custom data of every point that was clicked on in a chart of this key; none without any."""
    picked = [point.get("customdata") for point in st.session_state[key]["selection"]["points"]]
    return [data[0] for data in picked if data]


def look_at_plan(run_id: str, plan_sha256: str | None) -> None:
    """Show an earlier plan of a run in place of the present selection's, or none."""
    remember(_PLAN, None if plan_sha256 is None else (plan_sha256, run_id, get().selection_rule()))


def plan_looked_at(run_id: str) -> str | None:
    """Return the hash of the earlier plan of this run that is shown; None once another selection was made."""
    picked = recall(_PLAN)
    return picked[0] if picked is not None and picked[1:] == (run_id, get().selection_rule()) else None


def remember(name: str, value: Any) -> None:
    """Keep a value of this session that is not part of a link."""
    st.session_state[f"carto_keep_{name}"] = value


def recall(name: str, default: Any = None) -> Any:
    """Return what `remember` kept."""
    return st.session_state.get(f"carto_keep_{name}", default)


def mark_shell() -> None:
    """Note that `app.py` has run in this session."""
    st.session_state["carto_shell"] = True


def has_shell() -> bool:
    """Return whether `app.py` has run in this session."""
    return bool(st.session_state.get("carto_shell"))


def _travel(steps: int) -> None:
    history = recall(_HISTORY)
    if history is None:
        return
    moved = history.moved(steps)
    remember(_HISTORY, moved)
    st.session_state[_VIEW] = dataclasses.replace(get(), **_selecting(moved.states[moved.place]))
    show_address()
    _new_chart()


def _selecting(view: View) -> dict[str, Any]:
    """Return the fields of a view that its selection rests on, and nothing else of it."""
    names = ["polygons", "region", "restrict", "with_copies"]
    names += ["text", "source", "max_tokens", "copies_only"] if view.restrict else []
    found = {name: getattr(view, name) for name in names}
    if view.polygons:
        axes = {"x": view.x, "y": view.y}
        found |= axes | _zoom_for(axes)
    return found


def _zoom_for(axes: dict[str, str]) -> dict[str, None]:
    """Return the zoom as it must change with the axes: it stays where they stay."""
    return {} if (get().x, get().y) == (axes["x"], axes["y"]) else {"zoom": None}


def _new_chart() -> None:
    st.session_state["carto_chart"] = st.session_state.get("carto_chart", 0) + 1


def _corners(box: Any) -> list[tuple[float, float]]:
    (a, b), (c, d) = box["x"], box["y"]
    return [(a, c), (b, c), (b, d), (a, d)]


def _packed(view: View) -> str:
    """Return what differs from an empty view, compressed; empty where nothing does."""
    default = View()
    changed = {
        f.name: getattr(view, f.name)
        for f in dataclasses.fields(View)
        if f.name != "run" and getattr(view, f.name) != getattr(default, f.name)
    }
    text = json.dumps(changed, separators=(",", ":"))
    return base64.urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode().rstrip("=") if changed else ""


def _from_address() -> View:
    """Return the view in the address; one that cannot be read is left out, and said so."""
    run = st.query_params.get("run", "")
    packed = st.query_params.get("view", "")
    if not packed:
        return View(run=run)
    try:
        return unpacked(packed, run=run)
    except (ValueError, SelectionError):
        notify("The link's view could not be read, so the map starts afresh.")
        return View(run=run)


def unpacked(packed: str, *, run: str = "") -> View:
    """Return the view that a link, which anybody may have written, holds: only what a page could have written.

    Raises:
        ValueError: it is not packed as a page does, or a field cannot be.
        SelectionError: its region is no rule, or a polygon is none.
    """
    if len(packed) > MAX_LINK:
        raise ValueError("the view in the link is longer than a page writes one")
    try:
        squeezed = base64.b64decode(packed + "=" * (-len(packed) % 4), altchars=b"-_", validate=True)
        fields = parse_json(zlib.decompressobj().decompress(squeezed, MAX_UNPACKED).decode())
    except (RecursionError, zlib.error):
        raise ValueError("the view in the link cannot be unpacked") from None
    if problem := problem_of(fields, LINK):
        raise ValueError(problem)
    known = {f.name for f in dataclasses.fields(View)} - {"run"}
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items() if k in known}
    view = View(run=run, **given)
    if view.region is not None:
        check_form(view.region)
    for polygon in view.polygons:
        if len(polygon) > MAX_VERTICES:
            raise ValueError(f"a page writes no polygon of more than {MAX_VERTICES} vertices")
        simplify_polygon(polygon)
    return view


def notify(message: str) -> None:
    """Keep a message, Markdown, that the next page drawn shows once."""
    remember(_NOTICE, message)


def pop_notice() -> str | None:
    """Return a message to show once, or None."""
    notice = recall(_NOTICE)
    remember(_NOTICE, None)
    return notice
