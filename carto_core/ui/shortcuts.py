"""The keys that press a button, and the sheet that lists them.

Single letters, because they rest while somebody types in a field, where Ctrl+Z belongs to the text. Streamlit keeps C and R.
"""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st


@dataclass(frozen=True, slots=True)
class Shortcut:
    """A key.

    Attributes:
        keys: as `st.button` takes them.
        does: in words, for the sheet.
        where: on which pages.
    """

    keys: str
    does: str
    where: str


SHORTCUTS = {
    "undo": Shortcut("Z", "Undo the last change of the selection", "Map"),
    "redo": Shortcut("Shift+Z", "Redo it", "Map"),
    "clear": Shortcut("X", "Clear the selection", "Map"),
    "previous": Shortcut("P", "Read the previous sample", "Map, Samples"),
    "next": Shortcut("N", "Read the next sample", "Map, Samples"),
    "sheet": Shortcut("H", "Show this sheet", "everywhere"),
}
MOUSE = {
    "Drag on the map": "Lasso a region",
    "Shift and drag": "Lasso one more",
    "Double click on the map": "Clear the selection",
}


def key_of(name: str) -> str:
    """Return the keys of a shortcut, for `st.button(..., shortcut=...)`."""
    return SHORTCUTS[name].keys


def offer() -> None:
    """Draw the button that opens the sheet."""
    if st.button("? Shortcuts", help="Keys that work on this dashboard", shortcut=key_of("sheet"), type="tertiary"):
        sheet()


@st.dialog("Keyboard shortcuts")
def sheet() -> None:
    """Draw the sheet."""
    rows = [{"key": s.keys.replace("+", " + "), "does": s.does, "where": s.where} for s in SHORTCUTS.values()]
    st.table([*rows, *({"key": key, "does": does, "where": "Map"} for key, does in MOUSE.items())], hide_index=True)
    st.caption("Keys rest while you type in a field. Esc closes this sheet.")
