"""Rows of samples with their texts, a page at a time; a row can be chosen to read it whole."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from carto_core.quadrants import QUADRANTS, Cuts
from carto_core.store.reader import Run
from carto_core.types import Int32, SampleTable
from carto_core.ui import cache, state, texts
from carto_core.ui.shortcuts import key_of
from carto_core.workflows import light

PAGE = 50
HIDDEN = "(planted, report half: hidden until a measurement is done)"


def pick_row(run: Run, table: SampleTable, cuts: Cuts, ids: Int32, *, name: str) -> int | None:
    """Draw a page of the samples and return the id of the row that was clicked, or None.

    Args:
        run: the run.
        table: its samples.
        cuts: axes and thresholds in view.
        ids: the samples, in the order to show.
        name: makes the widgets' keys.
    """
    concealed = hidden(run, table)[ids]
    if concealed.any():
        st.caption(
            f"{int(concealed.sum()):,} planted copies of the report half are left out until a measurement is done."
        )
    ids = ids[~concealed]
    pages = max(1, -(-len(ids) // PAGE))
    page = 1
    if pages > 1:
        page = int(st.number_input(f"Page (of {pages:,})", 1, pages, 1, key=f"{name}_page_{pages}"))
    shown = ids[(page - 1) * PAGE : page * PAGE]
    key = f"{name}_rows_{hash(shown.tobytes())}"
    event = st.dataframe(
        _frame(run, table, cuts, shown),
        key=key,
        on_select="rerun",
        selection_mode="single-row",
        hide_index=True,
        height=min(420, 38 + 35 * max(1, len(shown))),
        column_config={"text": st.column_config.TextColumn(width="large")},
    )
    rows = event["selection"]["rows"]
    if not rows or rows[0] >= len(shown):
        return None
    _neighbours(key, rows[0], len(shown))
    return int(shown[rows[0]])


def _neighbours(key: str, row: int, num_rows: int) -> None:
    """Draw the buttons that pick the row before and after, so that one can read on without the mouse."""
    with st.container(horizontal=True):
        for word, to in (("Previous", row - 1), ("Next", row + 1)):
            st.button(
                f"{word} sample",
                key=f"{key}_{word}",
                disabled=not 0 <= to < num_rows,
                shortcut=key_of(word.lower()),
                on_click=state.pick_row,
                args=(key, to),
            )


def hidden(run: Run, table: SampleTable) -> np.ndarray:
    """Return bool[N]: planted samples of a role that may not be looked at yet."""
    canaries = cache.canaries_of(run)
    concealed = canaries.loc[~canaries["role"].isin(light.roles_shown(run)), "canary_id"]
    return np.isin(table.canary_id, concealed)


def _frame(run: Run, table: SampleTable, cuts: Cuts, ids: Int32) -> pd.DataFrame:
    quadrant = cuts.assign(table.scores)[ids]
    columns: dict[str, object] = {
        "text": texts.snippets(run, ids.tolist()),
        "quadrant": [QUADRANTS[q].title if q else "unknown" for q in quadrant],
        cuts.x: np.round(table.scores[cuts.x][ids].astype(float), 4),
    }
    for score in dict.fromkeys((cuts.y, "final_loss", "group_size")):
        columns[score] = np.round(table.scores[score][ids].astype(float), 4)
    columns |= {"source": texts.shown_all(table.source[ids]), "tokens": table.num_tokens[ids]}
    columns["key"] = texts.shown_all(table.key[ids])
    return pd.DataFrame(columns)
