"""Take a plan away: choose the tool that will apply it, read what it does not carry, download, see how it is applied."""

from __future__ import annotations

import dataclasses
import functools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import streamlit as st

from carto_core.export import EXPORTS, Format, Outgoing, manifest_of
from carto_core.masking import is_forced
from carto_core.store.reader import Run
from carto_core.ui.shell import told
from carto_core.ui.words import literal
from carto_core.workflows import light, lineage

BY_COMMAND = " From this server only by command: python -m carto_core export ..."


def box(outgoing: Outgoing, plan_dir: Path) -> None:
    """Draw the choice of a format and what can be downloaded."""
    st.subheader("Take the list with you")
    first, second = st.columns([3, 3], vertical_alignment="bottom")
    name = first.selectbox(
        "Format", list(EXPORTS), format_func=lambda name: EXPORTS[name].title, index=list(EXPORTS).index("parquet")
    )
    form = EXPORTS[name]
    without = second.checkbox(
        "Leave out planted canaries",
        help="Their keys do not exist in your own corpus. A format that holds the corpus, or follows its rows, never has them.",
    )
    st.caption(f"For {form.reader}. Writes {form.writes}. {form.how}")
    files, corpus = st.columns([2, 1])
    taken = functools.partial(lineage.note_export, plan_dir)
    with told():  # a plan may do nothing that the format has a word for
        for note in form.notes(dataclasses.replace(outgoing, without_canaries=without)):
            st.warning(literal(note))
        write = functools.partial(light.export, outgoing.run, plan_dir, file_format=name, without_canaries=without)
        with files:
            draw = _folder if form.is_folder else functools.partial(_list, num_rows=int(outgoing.plan.affected.sum()))
            draw(form, write, taken)
    corpus.download_button(
        "Cleaned corpus (JSONL)",
        lambda: _cleaned(outgoing.run, plan_dir),
        "cleaned.jsonl",
        on_click=taken,
        width="stretch",
        disabled=is_forced(),
        help=f"The true texts, never masked: they are to be trained on.{BY_COMMAND * is_forced()}",
    )
    with st.expander("How to apply it"):
        st.code(form.applied(form.out), language=form.language)


def _list(form: Format, write: Callable[..., Path], taken: Callable[[], None], *, num_rows: int) -> None:
    """Draw the downloads of a file and its manifest, from one and the same writing."""
    with tempfile.TemporaryDirectory() as folder:
        path = write(out=Path(folder) / form.out)
        made = path.read_bytes(), manifest_of(path).read_bytes()
    first, second = st.columns(2)
    label = f"Intervention list ({num_rows:,} rows planned)"
    first.download_button(label, made[0], form.out, on_click=taken, width="stretch")
    second.download_button(
        "Its manifest", made[1], manifest_of(Path(form.out)).name, on_click="ignore", width="stretch"
    )


def _folder(form: Format, write: Callable[..., Path], taken: Callable[[], None]) -> None:
    """Draw the download of a folder, which is written when it is asked for: it holds the corpus."""
    st.download_button(
        f"{form.title}: the folder (ZIP)",
        lambda: zipped(form, write),
        f"{form.out}.zip",
        mime="application/zip",
        on_click=taken,
        width="stretch",
        disabled=is_forced(),
        help=f"The true texts, never masked, and a manifest.{BY_COMMAND * is_forced()}",
    )


def zipped(form: Format, write: Callable[..., Path]) -> bytes:
    """Return a ZIP that holds the folder that `write(out=...)` writes."""
    with tempfile.TemporaryDirectory() as folder:
        write(out=Path(folder) / form.out)
        return Path(shutil.make_archive(f"{folder}/{form.out}", "zip", folder, form.out)).read_bytes()


def _cleaned(run: Run, plan_dir: Path) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return light.export(run, plan_dir, file_format="jsonl", out=Path(folder) / "c.jsonl", corpus=True).read_bytes()
