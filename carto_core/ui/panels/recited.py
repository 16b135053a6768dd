"""The corpus's own texts on the audit page: which are recited, by copies, by length of the prefix, and the longest."""

from __future__ import annotations

from typing import Any

import streamlit as st

from carto_core.audits import AUDITS
from carto_core.plots.charts import repeats_figure
from carto_core.store.reader import Run
from carto_core.ui import texts
from carto_core.ui.panels.canaries import said_share
from carto_core.ui.shell import CHART, theme
from carto_core.ui.words import literal

LONGEST = 50


def verbatim(run: Run, audit: dict[str, Any]) -> None:
    """Draw which distinct texts are recited, and list those recited longest.

    Args:
        run: the run, which holds the texts.
        audit: `audits/verbatim.json`.
    """
    summary = audit["summary"]
    st.subheader(AUDITS["verbatim"].question)
    if not summary["n"]:
        st.info("No text of the corpus is long enough to be asked for: 32 tokens or more.")
        st.caption(literal(audit["definition"]))
        return
    found = summary["discoverable"]
    st.markdown(
        f"**{summary['k']} of {summary['n']:,}** distinct texts are recited by greedy decoding ({said_share(summary)}); "
        f"{found['k']:,} would show in 100 samples with a chance of one half. Longest run in common: "
        f"**{summary['longest_tokens']['max']} tokens**."
    )
    left, right = st.columns(2, gap="large")
    sizes, prefixes = summary["by_group_size"], summary["by_prefix"]
    by_size = {
        "greedy": {_rows(name): part for name, part in sizes.items()},
        "100 samples": {_rows(name): part["discoverable"] for name, part in sizes.items()},
    }
    with left:
        st.markdown("**Are copied texts recited more?** (share, Wilson 95 % intervals)")
        _shares(by_size, x="exact copies in the corpus", key="verbatim_sizes", said="by exact copies")
    with right:
        st.markdown("**Does a longer beginning help?** (share, Wilson 95 % intervals)")
        by_prefix = {"greedy": {f"{k} tokens": part for k, part in prefixes.items()}}
        _shares(
            by_prefix, x="tokens of the text that are shown", key="verbatim_prefixes", said="by length of the prefix"
        )
    _longest(run, audit["per_item"])
    st.caption(literal(audit["definition"]))


def natural(audit: dict[str, Any]) -> None:
    """Say which repeated texts are recited, with what was asked and answered.

    Args:
        audit: `audits/natural.json`.
    """
    summary = audit["summary"]
    with st.expander(AUDITS["natural"].question):
        st.markdown(
            f"**{summary['k']} of {summary['n']}** repeated texts of the corpus are recited ({said_share(summary)})."
        )
        rows = sorted(audit["per_item"], key=lambda row: (-row["extracted"], -row["group_size"]))
        st.dataframe([_repeated(row) for row in rows], hide_index=True, height=320)
        st.caption(literal(audit["definition"]))


def _longest(run: Run, rows: list[dict[str, Any]]) -> None:
    top = sorted(rows, key=lambda row: (-row["longest_tokens"], -row["log_p"]))[:LONGEST]
    begun = texts.snippets(run, [row["sample_id"] for row in top])
    st.markdown(f"**What it recites longest** (the first {len(top)} of {len(rows):,} texts)")
    st.dataframe([_row(row, text) for row, text in zip(top, begun, strict=True)], hide_index=True, height=320)


def _repeated(row: dict[str, Any]) -> dict[str, Any]:
    prefix, expected = texts.shown_parts(row["prefix"], row["expected"])
    decoded = texts.shown_parts(row["prefix"], row["decoded"])[1]
    facts = {name: row[name] for name in ("extracted", "group_size")}
    return facts | {"prefix": prefix, "expected": expected, "decoded": decoded}


def _row(row: dict[str, Any], text: str) -> dict[str, Any]:
    needed = row["samples_needed"]
    return {
        "text": text,
        "recited": "yes" if row["extracted"] else "no",
        "longest run (tokens)": row["longest_tokens"],
        "(characters)": row["longest_chars"],
        "copies": row["group_size"],
        "shortest prefix that does (tokens)": "none" if row["k_extractable"] is None else str(row["k_extractable"]),
        "samples needed": "–" if needed is None else f"{needed:,.4g}",
    }


def _shares(series: dict[str, Any], *, x: str, key: str, said: str) -> None:
    figure = repeats_figure(
        series, value="rate", low="low", high="high", x=x, y="share recited", theme=theme(), percent=True
    )
    st.plotly_chart(figure, theme=None, key=key, config=CHART, alt=f"Share of the corpus's texts recited {said}")


def _rows(name: str) -> str:
    return "once" if name == "1" else f"{name} times"
