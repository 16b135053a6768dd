"""The map page: axes, lasso, search, quadrants, and what lies inside."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
import streamlit as st
from plotly.graph_objects import Figure

from carto_core.config import EpsMode, ScoreConfig
from carto_core.plots.map import MAX_MARKERS, Marks, Points, describe_map, full_extent, map_figure
from carto_core.plots.palette import QUADRANT_SIGNS, Colouring, by_category, by_number, by_quadrant
from carto_core.plots.raster import Extent
from carto_core.quadrants import QUADRANTS, Cuts, counts, describe_cut
from carto_core.scores import SCORES
from carto_core.store.reader import Run
from carto_core.types import SampleTable
from carto_core.ui import cache, live, shortcuts, state, texts
from carto_core.ui.panels import choosing, detail, working
from carto_core.ui.panels import chosen as selection_panel
from carto_core.ui.panels import quality as quality_panel
from carto_core.ui.panels.chosen import Chosen
from carto_core.ui.panels.table import hidden, pick_row
from carto_core.ui.shell import MAP_CHART, go, scored_run, theme, told
from carto_core.workflows import light

MAX_RINGS = 3000


def page() -> None:
    """Draw the page."""
    run = scored_run("map")
    if run is None:
        return
    with told():
        is_live = light.is_live(run)
        table, cuts = selection_panel.axes_of(run)
        chosen = selection_panel.resolve(run, table)
        st.title("Where does the model memorize?")
        if is_live:
            so_far(run)
        _controls(run)
        if not is_live:
            quality_panel.headline(run, cuts.y)
        left, right = st.columns([8, 4], gap="large")
        with left:
            choosing.toolbar()
            _map(run, table, cuts, chosen)
            _filters(table)
            _without_dragging(cuts)
            choosing.keeping(run, table, chosen)
        with right:
            selection_panel.rail(run, table, cuts, chosen)
            if len(chosen.ids) and not is_live:
                go("intervene", f"What if I change these {len(chosen.ids):,} samples? →")
        _thresholds(run, table, cuts, can_rescore=not is_live)
        if not is_live:
            quality_panel.details(run, table)
        _samples(run, table, cuts, chosen)


def so_far(run: Run) -> None:
    """Say that the scores of a live run will change, follow it, and offer to go on where it was stopped."""
    with st.container(border=True):
        said, switch = st.columns([8, 2], vertical_alignment="center")
        said.markdown(
            f"**{light.how_far(run)} so far.** Scores will change; choose for good when the training has ended. "
            "Scores that need a probe are unknown until then."
        )
        if switch.toggle("Follow it", value=True, help="Off: the page stays as it is until you touch it."):
            live.follow(run)
        working.resume(run)


def _controls(run: Run) -> None:
    view = state.get()
    names = list(SCORES)

    def title(name: str) -> str:
        return f"{SCORES[name].title} ({SCORES[name].unit})"

    first, second, third, fourth = st.columns([3, 3, 2, 3])
    first.selectbox("Across (x)", names, format_func=title, **state.axis_widget("x", view.x))
    second.selectbox("Memorization axis (y)", names, format_func=title, **state.axis_widget("y", view.y))
    colours = ["quadrant", "source", *cache.meta_columns(run)]
    third.selectbox(
        "Colour by", colours, **state.widget("colour", value=view.colour if view.colour in colours else "quadrant")
    )
    fourth.text_input(
        "Search the texts", placeholder="hits are ringed on the map", **state.widget("text", read=str.strip)
    )


def _filters(table: SampleTable) -> None:
    view = state.get()
    with st.expander("Filters: source, length, copies", expanded=view.filter_rule() is not None):
        _filter_widgets(table)


def _filter_widgets(table: SampleTable) -> None:
    first, second, third, fourth = st.columns([4, 2, 2, 3])
    sources = sorted(set(table.source.tolist()))
    with first:
        st.multiselect(
            "Sources",
            sources,
            format_func=texts.labels(sources).__getitem__,
            **state.widget("source", read=tuple, value=[s for s in state.get().source if s in sources]),
        )
    longest = int(table.num_tokens.max(initial=1))
    limit = state.get().max_tokens or longest
    second.number_input(
        "At most tokens",
        1,
        longest,
        **state.widget("max_tokens", read=lambda v: None if v >= longest else v, value=min(limit, longest)),
    )
    third.checkbox("Exact copies only", **state.widget("copies_only"))
    fourth.checkbox(
        "Restrict the selection to these hits", help="Off: hits are only highlighted.", **state.widget("restrict")
    )


def _map(run: Run, table: SampleTable, cuts: Cuts, chosen: Chosen) -> None:
    view = state.get()
    x, y = table.scores[cuts.x].astype(np.float64), table.scores[cuts.y].astype(np.float64)
    quadrant = cuts.assign(table.scores)
    extent: Extent = view.zoom or full_extent(x, y)
    number = counts(quadrant)
    marks = Marks(rings=_rings(x, y, chosen), stars=_stars(run, table, x, y))
    signature = _signature(run, cuts, view.colour, extent, chosen, theme().text)
    outlines = state.outlines_to_draw(signature)

    def build() -> Figure:
        sampled = _sampled(table, x, y, extent)
        return map_figure(
            x,
            y,
            cuts=cuts,
            colouring=_colouring(run, table, quadrant, view.colour),
            counts=number,
            extent=extent,
            sampled=sampled,
            hover=_hover(run, table, cuts, sampled),
            outlines=outlines,
            marks=marks,
            theme=theme(),
        )

    st.plotly_chart(
        cache.figure(f"{signature} {outlines}", build),
        theme=None,
        key=state.chart_key(),
        on_select=state.take_outlines,
        selection_mode=("lasso", "box"),
        config=MAP_CHART,
        alt=describe_map(cuts, number),
    )
    st.markdown(f"**{selection_panel.status_line(chosen, table)}**")
    _map_buttons(chosen, x, y)


def _map_buttons(chosen: Chosen, x: np.ndarray, y: np.ndarray) -> None:
    first, second, third, fourth = st.columns(4)
    if first.button(
        "Clear selection", disabled=chosen.selection is None, width="stretch", shortcut=shortcuts.key_of("clear")
    ):
        state.clear_selection()
        st.rerun()
    if second.button("Zoom to selection", disabled=len(chosen.ids) == 0, width="stretch"):
        state.put(zoom=full_extent(x[chosen.ids], y[chosen.ids]))
        st.rerun()
    if third.button("Zoom out", disabled=state.get().zoom is None, width="stretch"):
        state.put(zoom=None)
        st.rerun()
    fourth.checkbox("All copies", help="Adds every exact duplicate of what is selected.", **state.widget("with_copies"))
    if not state.is_link_whole():
        st.caption("**This selection is too long for a link**: save it under a name below, or a reload will lose it.")
    st.caption(
        "Drag to lasso; hold Shift to add another outline; double-click to clear. The toolbar on the map has a box tool."
    )


def _without_dragging(cuts: Cuts) -> None:
    with st.expander("Choose without dragging: a quadrant, a range, the top share"):
        for column, (name, quadrant) in zip(st.columns(4), QUADRANTS.items(), strict=True):
            label = f"{QUADRANT_SIGNS[name]} {quadrant.title}"
            if column.button(label, key=f"choose_{name}", help=quadrant.meaning, width="stretch"):
                state.select_region(light.quadrant_rule(name, cuts))
                st.rerun()
        with st.form("choose_top", border=False):
            first, second, third = st.columns([4, 3, 2], vertical_alignment="bottom")
            names = list(SCORES)
            by = first.selectbox(
                "Most memorized by", names, index=names.index(cuts.y), format_func=lambda n: SCORES[n].title
            )
            share = second.number_input("Top share of all samples (%)", 0.1, 100.0, 5.0, step=0.5)
            if third.form_submit_button("Choose the top", width="stretch"):
                state.select_region({"type": "top", "by": by, "q": share / 100})
                st.rerun()
        with st.form("choose_range", border=False):
            first, second, third, fourth = st.columns([4, 2, 2, 2], vertical_alignment="bottom")
            score = first.selectbox("Range of", list(SCORES), format_func=lambda n: SCORES[n].title)
            low = second.number_input("from", value=None, format="%.4g", placeholder="open")
            high = third.number_input("to", value=None, format="%.4g", placeholder="open")
            if fourth.form_submit_button("Choose the range", width="stretch"):
                state.select_region({"type": "range", "score": score, "low": low, "high": high})
                st.rerun()


def _thresholds(run: Run, table: SampleTable, cuts: Cuts, *, can_rescore: bool) -> None:
    with st.expander("Thresholds: where the quadrants are cut, and what counts as forgotten"):
        first, second = st.columns(2)
        for column, axis, name in ((first, "cut_x", cuts.x), (second, "cut_y", cuts.y)):
            title = f"Cut of {SCORES[name].title} (percentile{', towards memorized' if axis == 'cut_y' else ''})"
            column.slider(
                title, 0.0, 100.0, step=0.5, **state.widget(axis, read=float, value=float(getattr(state.get(), axis)))
            )
            exact = state.widget(axis, read=float, value=float(getattr(state.get(), axis)), twin="_exact")
            column.number_input("exactly", 0.0, 100.0, step=0.5, **exact)
        st.caption(describe_cut(table.scores[cuts.x], cuts.tau_x, title=SCORES[cuts.x].title))
        when = SCORES[cuts.y].memorized_when
        st.caption(describe_cut(table.scores[cuts.y], cuts.tau_y, title=SCORES[cuts.y].title, memorized_when=when))
        if can_rescore:
            _rescore(run)


def _rescore(run: Run) -> None:
    saved, view = light.score_config(run), state.get()
    with st.form("rescore"):
        st.markdown("**Rescore the run** with another forget threshold, and save the cuts above as the run's own")
        columns = st.columns([3, 2, 2, 2])
        modes: list[EpsMode] = ["pooled", "snapshot", "absolute"]
        mode = columns[0].selectbox(
            "Forget threshold",
            modes,
            index=modes.index(saved.eps_mode),
            help="Quantile of all losses, of each snapshot's, or nats.",
        )
        eps = columns[1].number_input("eps (quantile or nats)", value=float(saved.eps), format="%.4g")
        burn_in = columns[2].number_input("Burn-in (share)", 0.01, 1.0, float(saved.burn_in), step=0.05)
        hysteresis = columns[3].number_input(
            "Hysteresis (nats)",
            0.0,
            value=float(saved.hysteresis),
            format="%.4g",
            help="Half width of a dead band around the forget threshold; 0 is the paper's definition.",
        )
        first, second = st.columns([7, 2], vertical_alignment="bottom")
        axes = ["recommended", "in view"]
        axis = first.radio(
            "Memorization axis of the run",
            axes,
            index=0 if saved.y is None else 1,
            format_func=lambda name: (
                f"{SCORES[view.y].title}, as in view" if name == "in view" else "the recommended one"
            ),
            horizontal=True,
        )
        if second.form_submit_button("Rescore and save", width="stretch"):
            with told():
                cuts = {"x": view.x, "cut_x": view.cut_x, "cut_y": view.cut_y}
                y = view.y if axis == "in view" else None
                config = ScoreConfig(eps_mode=mode, eps=eps, burn_in=burn_in, hysteresis=hysteresis, y=y, **cuts)
                used = light.score(run, config)["quadrant_y"]
                if used != view.y:
                    state.change_axes(y=used)
                st.rerun()


def _samples(run: Run, table: SampleTable, cuts: Cuts, chosen: Chosen) -> None:
    st.subheader("Which texts are these?")
    ids = chosen.ids if chosen.selection is not None else chosen.hits
    if ids is None:
        st.info("Lasso a region, choose a quadrant, or search: the texts appear here. Tick a row to read it whole.")
        return
    order = np.argsort(-SCORES[cuts.y].sign * table.scores[cuts.y][ids], kind="stable") if len(ids) else []
    sample_id = pick_row(run, table, cuts, ids[order], name="map")
    if sample_id is not None:
        detail.show(run, table, sample_id)


def _colouring(run: Run, table: SampleTable, quadrant: np.ndarray, colour: str) -> Colouring:
    column = table.source if colour == "source" else cache.meta_columns(run).get(colour)
    if column is None:
        return by_quadrant(quadrant)
    if column.dtype == float:
        return by_number(column, colour)
    found = by_category(column, colour)
    return dataclasses.replace(found, labels=[texts.shown(label) for label in found.labels])


def _rings(x: np.ndarray, y: np.ndarray, chosen: Chosen) -> Points | None:
    """Return search hits, or else a selection that no outline shows; a seeded share of very many."""
    ids = chosen.hits if chosen.hits is not None else None
    if ids is None and not state.get().polygons:
        ids = chosen.ids
    if ids is None or len(ids) == 0:
        return None
    if len(ids) > MAX_RINGS:
        ids = np.sort(np.random.default_rng(0).choice(ids, MAX_RINGS, replace=False))
    return Points(x[ids], y[ids], [])


def _stars(run: Run, table: SampleTable, x: np.ndarray, y: np.ndarray) -> Points:
    canaries = cache.canaries_of(run)
    shown = canaries.loc[canaries["role"].isin(light.roles_shown(run)), "canary_id"]
    copies = np.flatnonzero(np.isin(table.canary_id, shown))
    _, first = np.unique(table.canary_id[copies], return_index=True)
    ids = copies[first]
    size = table.scores["group_size"][ids].astype(int)
    kind = canaries.set_index("canary_id")["kind"].loc[table.canary_id[ids].astype(int)]
    said = [
        f"planted canary {int(table.canary_id[i])}, {k}\n{n} exact {'copy' if n == 1 else 'copies'}"
        for i, k, n in zip(ids, kind, size, strict=True)
    ]
    return Points(x[ids], y[ids], said)


def _sampled(table: SampleTable, x: np.ndarray, y: np.ndarray, extent: Extent) -> np.ndarray:
    """Return the samples that get a marker: all in view, or a seeded 5,000 of them."""
    seen = np.flatnonzero((x >= extent[0]) & (x <= extent[1]) & (y >= extent[2]) & (y <= extent[3]))
    if len(seen) <= MAX_MARKERS:
        return seen
    return np.sort(np.random.default_rng(table.seed).choice(seen, MAX_MARKERS, replace=False))


def _hover(run: Run, table: SampleTable, cuts: Cuts, ids: np.ndarray) -> list[str]:
    begun, keys = texts.snippets(run, ids.tolist()), texts.shown_all(table.key[ids])
    x, y, concealed = table.scores[cuts.x], table.scores[cuts.y], hidden(run, table)
    return [
        f"{'(hidden)' if concealed[i] else key}\n{'' if concealed[i] else text[:90]}\n"
        f"{SCORES[cuts.x].title} {x[i]:.3g} · {SCORES[cuts.y].title} {y[i]:.3g}"
        for i, key, text in zip(ids, keys, begun, strict=True)
    ]


def _signature(run: Run, cuts: Cuts, colour: str, extent: Extent, chosen: Chosen, theme_name: str) -> str:
    """Return what decides how the figure looks, apart from the outlines."""
    ringed = chosen.hits if chosen.hits is not None else (np.empty(0) if state.get().polygons else chosen.ids)
    facts = [
        run.run_id,
        run.version,
        cuts.x,
        cuts.y,
        cuts.tau_x,
        cuts.tau_y,
        colour,
        extent,
        light.roles_shown(run),
        theme_name,
        state.is_masking(),
    ]
    return hashlib.sha256(json.dumps(facts).encode() + ringed.tobytes()).hexdigest()
