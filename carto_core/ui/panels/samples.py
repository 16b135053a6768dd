"""The samples page: every text, or those of the selection, sorted by any score."""

from __future__ import annotations

import numpy as np
import streamlit as st

from carto_core.scores import SCORES
from carto_core.ui import state
from carto_core.ui.panels import chosen as selection_panel
from carto_core.ui.panels import detail
from carto_core.ui.panels.map import so_far
from carto_core.ui.panels.table import pick_row
from carto_core.ui.shell import scored_run, told
from carto_core.workflows import light


def page() -> None:
    """Draw the page."""
    run = scored_run("samples")
    if run is None:
        return
    with told():
        table, cuts = selection_panel.axes_of(run)
        chosen = selection_panel.resolve(run, table)
        st.title("Read the samples")
        if light.is_live(run):
            so_far(run)
        first, second, third = st.columns([3, 4, 3])
        first.text_input("Search the texts", **state.widget("text", read=str.strip))
        scopes = {"All": np.arange(len(table)), "Selection": chosen.ids, "Search hits": chosen.hits}
        known = {f"{name} ({len(ids):,})": ids for name, ids in scopes.items() if ids is not None}
        scope = second.radio("Show", list(known), horizontal=True)
        by = third.selectbox(
            "Sort by", list(SCORES), index=list(SCORES).index(cuts.y), format_func=lambda n: SCORES[n].title
        )
        ids = known[scope]
        if len(ids) == 0:
            st.info("Nothing here. Choose a region on the Map, or show all samples.")
            return
        values = SCORES[by].sign * table.scores[by][ids]
        order = np.argsort(np.where(np.isnan(values), np.inf, -values), kind="stable")
        st.caption(
            f"Most memorized first by {SCORES[by].title}. Higher means: {SCORES[by].higher_means} Tick a row to read it."
        )
        sample_id = pick_row(run, table, cuts, ids[order].astype(np.int32), name="samples")
        if sample_id is not None:
            detail.show(run, table, sample_id)
