"""Every score beside every truth, on the corpora of the project's own benchmark: part of the evidence page."""

from __future__ import annotations

from functools import partial
from typing import Any

import streamlit as st

from carto_core.scores import SCORES
from carto_core.scores.agreement import MEASURES

RECITED = "what a twin model gives back (AUC)"


def panel(corpora: dict[str, Any]) -> None:
    """Draw one table, a row a score and a column a corpus, against the truth that is asked for."""
    cells = {RECITED: _auc} | {title: partial(_spearman, measure=measure) for measure, title in MEASURES.items()}
    known = [
        truth
        for truth, cell in cells.items()
        if truth == RECITED or any(cell(facts, name) for facts in corpora.values() for name in facts["scores"])
    ]
    truth = st.segmented_control("Against", known, default=RECITED, required=True, key="evidence_truth") or RECITED
    if truth == RECITED:
        st.markdown(
            "**AUC against what a twin model gives back** (extracted; report half; 0.5 is chance, 95 % intervals)"
        )
    else:
        st.markdown(f"**Rank correlation with {truth}** (Spearman, all samples, 95 % intervals)")
    rows = _by_score(corpora, cells[truth])
    st.dataframe(rows, hide_index=True, height=38 + 35 * max(1, len(rows)))
    for name, facts in corpora.items():
        st.caption(f"{name}: {_said_of(facts)}")


def _by_score(corpora: dict[str, Any], cell: Any) -> list[dict[str, str]]:
    names = [name for name in SCORES if any(name in facts["scores"] for facts in corpora.values())]
    return [
        {"score": SCORES[name].title + (" (baseline)" if SCORES[name].is_baseline else "")}
        | {corpus: cell(facts, name) or "–" for corpus, facts in corpora.items()}
        for name in names
    ]


def _auc(facts: dict[str, Any], name: str) -> str:
    quality = facts["scores"].get(name, {}).get("quality", {})
    found = quality.get("extracted", {}).get("report", {}).get("all", {})
    auc = found.get("auc")
    if auc is None:
        return ""
    few = "; too few" if "too few" in found.get("note", "") else ""
    return f"{auc['value']:.2f} [{auc['low']:.2f}, {auc['high']:.2f}]{few}"


def _spearman(facts: dict[str, Any], name: str, *, measure: str) -> str:
    found = facts["scores"].get(name, {}).get(measure, {}).get("among_all", {})
    if found.get("value") is None:
        return ""
    return f"{found['value']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}]"


def _said_of(facts: dict[str, Any]) -> str:
    recommended, folds = facts.get("recommended") or {}, facts.get("folds") or {}
    said = recommended.get("reason", "no score was recommended.")
    if folds.get("ceiling") is not None:
        said += (
            f" {folds['models']} fold models; no score can be expected above the noise ceiling {folds['ceiling']:.2f}."
        )
    return said
