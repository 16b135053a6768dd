"""How the next selection meets the present one, undo and redo, and selections that were saved under a name."""

from __future__ import annotations

import streamlit as st

from carto_core.store.reader import Run
from carto_core.types import SampleTable
from carto_core.ui import state, texts
from carto_core.ui.panels.chosen import Chosen
from carto_core.ui.shell import told
from carto_core.ui.shortcuts import key_of
from carto_core.ui.words import literal
from carto_core.workflows import saved
from carto_core.workflows.naming import MAX_NAME

MODES = {"replace": "Replace", "add": "Add", "subtract": "Subtract", "intersect": "Intersect"}


def toolbar() -> None:
    """Draw the mode of the next selection, undo and redo."""
    before, after = state.before_and_after()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.segmented_control(
            "The next selection",
            list(MODES),
            format_func=MODES.__getitem__,
            required=True,
            help="What a lasso, a quadrant, a range, a top share or a loaded selection does to the present one.",
            **state.mode_widget(),
        )
        st.button(
            "Undo",
            disabled=before is None,
            help="Nothing to undo yet" if before is None else f"Back to: {literal(texts.shown(before))}",
            shortcut=key_of("undo"),
            on_click=state.undo,
        )
        st.button(
            "Redo",
            disabled=after is None,
            help="Nothing to redo" if after is None else f"Forward to: {literal(texts.shown(after))}",
            shortcut=key_of("redo"),
            on_click=state.redo,
        )


def keeping(run: Run, table: SampleTable, chosen: Chosen) -> None:
    """Draw what saves the selection under a name, and the list of those that were saved."""
    found = saved.list_saved(run)
    with st.expander(f"Saved selections ({len(found)})"):
        _save(run, table, chosen)
        if found:
            _list(run, table, found)
        else:
            st.caption("None yet. A saved selection stays with the run, and other pages and the command line read it.")


def _save(run: Run, table: SampleTable, chosen: Chosen) -> None:
    with st.form("save_selection", border=False, clear_on_submit=True):
        first, second = st.columns([4, 2], vertical_alignment="bottom")
        name = first.text_input("Save this selection as", max_chars=MAX_NAME, placeholder="a name")
        is_asked = second.form_submit_button("Save", disabled=chosen.selection is None, width="stretch")
    if is_asked and chosen.selection is not None:
        with told():
            path = saved.save_selection(run, chosen.selection, name, table=table)
            st.toast(f"Saved as {literal(path.stem)}")
            st.rerun()


def _list(run: Run, table: SampleTable, found: list[saved.Saved]) -> None:
    by_name = {entry.name: entry for entry in found}
    name = st.selectbox("Saved so far", list(by_name))
    if name is None:
        return
    entry = by_name[name]
    number = "" if entry.num_samples is None else f"{entry.num_samples:,} samples: "
    st.caption(f"{number}{literal(texts.shown(entry.words))}")
    first, second, third = st.columns(3)
    if first.button("Load", width="stretch", disabled=entry.num_samples is None, help=_load_help()):
        with told():
            _load(run, table, name)
            st.rerun()
    with second.popover("Rename …", width="stretch"):
        new = st.text_input("New name", value=name, max_chars=MAX_NAME, key=f"rename_{name}")
        if st.button("Rename", disabled=new.strip() == name):
            with told():
                saved.rename_saved(run, name, new)
                st.rerun()
    with third.popover("Delete …", width="stretch"):
        st.caption("The file goes for good; the samples and the present selection stay.")
        if st.button("Delete it"):
            with told():
                saved.delete_saved(run, name)
                st.rerun()


def _load(run: Run, table: SampleTable, name: str) -> None:
    """Choose what a file names: by its rule, or by its keys where the rule has come to mean something else."""
    selection = saved.load_saved(run, name, table=table)
    if saved.still_names(run, selection, table=table):
        state.select_saved(selection.rule)
        return
    keys = table.key[selection.sample_ids].tolist()
    state.select_saved({"type": "keys", "keys": keys})
    state.notify(
        f"The scores have changed since {literal(name)} was saved, so its rule now names other samples; "
        f"these are the {len(keys):,} that were saved."
    )


def _load_help() -> str:
    words = {
        "replace": "Replaces",
        "add": "Is added to",
        "subtract": "Is taken from",
        "intersect": "Is intersected with",
    }
    return f"{words[state.mode()]} the present selection."
