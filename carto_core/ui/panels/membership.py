"""Membership inference on the audit page: one line an attack, nothing flipped and nothing left out."""

from __future__ import annotations

from typing import Any

import streamlit as st

from carto_core.audits import ATTACK_TITLES, AUDITS
from carto_core.plots.charts import Bar, intervals_figure
from carto_core.store.reader import Run
from carto_core.ui.shell import CHART, theme
from carto_core.ui.words import literal

RATES = {"tpr_at_fpr_0.01": "TPR at 1 % FPR", "tpr_at_fpr_0.001": "TPR at 0.1 % FPR"}
CHANCE = 0.5


def membership(run: Run, audit: dict[str, Any]) -> None:
    """Draw the attacks on one model.

    Args:
        run: the run, named in the command that fills what is missing.
        audit: `audits/membership.json`.
    """
    summary = audit["summary"]
    attacks = summary["attacks"]
    st.subheader(AUDITS["membership"].question)
    st.markdown(
        f"**{summary['num_members']:,}** members against **{summary['num_nonmembers']:,}** texts that it never saw. "
        f"{_left_out(summary.get('left_out', {}))}"
    )
    known = {n: a["auc"] for n, a in attacks.items() if a["status"] == "run" and a["auc"]["value"] is not None}
    if known:
        order = sorted(known, key=lambda n: -known[n]["value"])
        bars = [_bar(name, known[name]) for name in order]
        st.markdown("**Does any attack do better than a coin?** (AUC, 95 % intervals; the line is a coin)")
        st.plotly_chart(
            intervals_figure(bars, x="AUC", line=CHANCE, theme=theme()),
            theme=None,
            key="membership_chart",
            config=CHART,
            alt=f"AUC of {len(bars)} membership attacks; the highest is {bars[0].label} with {bars[0].value:.2f}",
        )
    if attacks:
        st.dataframe([_row(run, name, attack) for name, attack in attacks.items()], hide_index=True)
    st.caption(literal(audit["definition"]))


def _row(run: Run, name: str, attack: dict[str, Any]) -> dict[str, str]:
    facts = {"attack": ATTACK_TITLES.get(name, str(name)), "AUC [95 %]": "–"}
    if attack["status"] != "run":
        command = attack["command"].replace(" RUN ", f" {run.run_id} ")
        facts |= {"reading": f"not run: needs fold models; {command}, then audit again"}
        return facts | dict.fromkeys(RATES.values(), "–")
    notes = [attack["note"]] if attack["note"] else []
    facts |= {"AUC [95 %]": _said(attack["auc"]), "reading": "; ".join([_reading(attack), *notes])}
    return facts | {title: _said(attack[rate]) for rate, title in RATES.items()}


def _reading(attack: dict[str, Any]) -> str:
    """Return the attack's AUC in words; one below chance is said to be so, never turned round."""
    low, high = attack["auc"]["low"], attack["auc"]["high"]
    if attack["flag"] == "below_chance" or (high is not None and high < CHANCE):
        return "below chance (shown as it is, not flipped)"
    if low is None:
        return "cannot be said"
    return "above chance" if low > CHANCE else "at chance"


def _said(figures: dict[str, Any]) -> str:
    if figures["value"] is None:
        return figures["note"] or "unknown"
    if figures["low"] is None:
        return f"{figures['value']:.3f}"
    return f"{figures['value']:.3f} [{figures['low']:.3f}, {figures['high']:.3f}]"


def _left_out(reasons: dict[str, int]) -> str:
    parts = [f"{count:,} {reason.replace('_', ' ')}" for reason, count in reasons.items() if count]
    return literal(f"Left out: {', '.join(parts)}.") if parts else ""


def _bar(name: str, auc: dict[str, Any]) -> Bar:
    value, low, high = (_or_nan(auc[end]) for end in ("value", "low", "high"))
    return Bar(ATTACK_TITLES.get(name, str(name)), value, low, high)


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
