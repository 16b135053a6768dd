"""What every page shares: the menu, the run picker, the theme, and how an error is shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from carto_core.errors import CartoError
from carto_core.masking import is_forced
from carto_core.plots.palette import DARK, LIGHT, Theme
from carto_core.store.reader import Run, open_run
from carto_core.store.rundir import readable_runs, resolve_runs_root, update_manifest
from carto_core.ui import cache, live, shortcuts, state, texts
from carto_core.ui.words import literal
from carto_core.workflows import light

MAX_SAID = 200  # characters of what an address says
PAGES = {
    "home": ("pages/home.py", "Home"),
    "map": ("pages/map.py", "Map"),
    "samples": ("pages/samples.py", "Samples"),
    "intervene": ("pages/intervene.py", "Intervene"),
    "audit": ("pages/audit.py", "Audit"),
    "compare": ("pages/compare.py", "Compare"),
    "calibration": ("pages/calibration.py", "Calibration"),
    "evidence": ("pages/evidence.py", "Evidence"),
}
# What Plotly offers beside a chart: nothing that sends it anywhere.
CHART = {"displayModeBar": False, "displaylogo": False, "showSendToCloud": False, "showEditInChartStudio": False}
MAP_CHART = CHART | {
    "displayModeBar": True,
    "scrollZoom": False,
    "modeBarButtonsToRemove": ["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "autoScale2d", "resetScale2d", "toImage"],
}
# Outlines that are drawn on the map must not swallow the mouse, or no lasso could begin inside one.
STYLE = """<style>
.stPlotlyChart .selectionlayer path, .stPlotlyChart .outline-controllers, .stPlotlyChart .outline-controllers *
  {pointer-events: none !important}
.block-container {padding-top: 2.6rem; padding-bottom: 2rem}
h1 {font-size: 1.9rem !important; padding-top: 0 !important}
h3 {font-size: 1.25rem !important}
@media (max-width: 640px) {.block-container {padding: 4rem 1rem 2rem 1rem}}
</style>"""


def run_app() -> None:
    """Draw the shell and the page that the address names. The whole of `app.py`."""
    st.set_page_config(page_title="GenDataCarto", page_icon="🗺", layout="wide")
    state.mark_shell()
    _navigation().run()


def open_page(name: str) -> Run | None:
    """Begin a page: title, run picker, address. First line of every page file.

    A direct link to a page may reach it before `app.py` has ever run in this server; then the menu is made first.

    Args:
        name: of the page.

    Returns:
        the chosen run; None after having said why there is none to show.
    """
    if not state.has_shell():
        state.mark_shell()
        _navigation()
        st.rerun()
    st.html(STYLE)
    _mask_switch()
    run = _pick_run()
    state.show_address()
    if notice := state.pop_notice():
        st.warning(notice)
    return run


def scored_run(name: str, *, waits: str = "") -> Run | None:
    """Begin a page that needs scores; says what to do where the chosen run has none yet.

    Args:
        name: of the page.
        waits: why the page waits for the end of a training, a sentence; empty where scores so far will do.
    """
    run = open_page(name)
    if run is None:
        _say_no_run()
        return None
    with told():
        if not light.is_live(run):
            return run
        taken, _ = light.snapshots_so_far(run)
        if not waits and taken >= light.MIN_LIVE:
            return run
        why = waits or f"The map appears with snapshot {light.MIN_LIVE}; so far it has {light.how_far(run)}."
        st.info(f"Run **{literal(run.run_id)}** is {run.status}. {why}")
        live.follow(run)
        if waits and taken >= light.MIN_LIVE:
            go("map", "Look at its map so far")
        go("home", "Go to Home")
    return None


def is_without_model(run: Run) -> bool:
    """Return whether a page has no model to work with, after saying why and what can be done instead."""
    if why := run.why_no_model:
        st.info(literal(f"{why[0].upper()}{why[1:]}."))
    return why is not None


def theme() -> Theme:
    """Return the colours of the theme in use; light where the browser has not said."""
    return DARK if st.context.theme.type == "dark" else LIGHT


@contextmanager
def told() -> Iterator[None]:
    """Show a mistake that is the user's to mend as one sentence; let anything else show its traceback."""
    try:
        yield
    except CartoError as error:
        st.error(literal(texts.shown(error)))


def go(page: str, label: str) -> None:
    """Draw a link to another page."""
    st.page_link(PAGES[page][0], label=label)


def _navigation():
    pages = [st.Page(path, title=title, url_path=name, default=name == "home") for name, (path, title) in PAGES.items()]
    return st.navigation(pages)


def _pick_run() -> Run | None:
    root = resolve_runs_root()
    readable, unreadable = readable_runs(root)
    ids = [files.run_id for files in readable]
    wanted = state.get().run
    if wanted in unreadable:
        st.error(literal(f"The run {wanted!r} cannot be read: {unreadable[wanted]}"))
    elif wanted and wanted not in ids:
        st.error(literal(f"There is no run {wanted[:MAX_SAID]!r} in this folder of runs; pick another."))
    if not ids:
        return None
    if wanted not in ids:
        state.put(run=ids[0])
    with st.sidebar:
        st.selectbox("Run", ids, **state.widget("run"))
        with told():
            run = open_run(state.get().run, root)
            _report_switch(run)
            shortcuts.offer()
            return run
    return None


def _mask_switch() -> None:
    with st.sidebar:
        if is_forced():
            st.caption("**Personal data are masked** on this server, in every session.")
            return
        st.toggle(
            "Mask personal data",
            help="E-mail addresses, phone and card numbers, IBANs and runs of 6 digits or more, for onlookers: on every "
            "page, in hovered texts and in reports. It knows shapes only. Searching still works on the true texts.",
            **state.mask_widget(),
        )


def _report_switch(run: Run) -> None:
    if run.is_sealed and cache.canaries_of(run).empty:
        return  # there is nothing to show or to hide
    seen = bool(run.manifest.get("report_seen"))
    st.caption("Choosing looks at **calibration** canaries only.")
    if seen:
        st.caption("Report canaries are shown: this run's manifest says so (`report_seen`).")
    elif st.button(
        "Show report canaries", help="Recorded in the run's manifest: what is chosen afterwards has seen them."
    ):
        update_manifest(run.files, report_seen=True)
        st.rerun()


def _say_no_run() -> None:
    st.title("Nothing to show yet")
    st.markdown("There is no run. Train the bundled corpus, which takes up to ten minutes:")
    st.code("python -m carto_core demo", language="bash")
    st.markdown("or your own:")
    st.code("python -m carto_core train --corpus my-corpus.jsonl --out data/runs/first", language="bash")
    go("home", "Or start it from Home")
