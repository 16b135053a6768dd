"""What plans did to retrained models on the corpora of the project's own benchmark: part of the evidence page."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import streamlit as st

from carto_core.corpus.catalog import CATALOG
from carto_core.plots.charts import Bar, side_by_side_figure
from carto_core.preview.effects import mean_of, part_of_oracles, smallest_p
from carto_core.scores import SCORES
from carto_core.tasks import TASKS
from carto_core.ui.shell import CHART, theme

EXTRACTION, LOSS, MEMBERSHIP = "extraction.report", "ppl_nats", "membership_auc"
POLICIES = {
    "recommended": "recommended score",
    "memorization": "memorization, the paper's literal score",
    "difficulty": "difficulty",
    "oracle": "an oracle that knows the secrets",
    "deduplicate": "one copy of each text",
    "quadrants": "the paper's quadrant policy",
    "half_hotspots": "hotspots by the recommended score",
    "half_hotspots_literal": "hotspots by the paper's literal score",
    "half_canaries": "an oracle that knows the secrets",
}
CLAIMED = ("memorization", "recommended")
CUTS = {"tenth": "a tenth, or a policy", "shares": "{}", "epochs": "a tenth, or a policy; equal epochs"}
Line = dict[str, Any]


def panel(key: str, corpora: dict[str, Any]) -> None:
    """Draw every corpus in one chart, what that shows in words, and one corpus in detail.

    Args:
        key: of the widgets.
        corpora: by name, those that hold lines.
    """
    every = [line for facts in corpora.values() for line in facts["lines"]]
    cuts = [cut for cut in CUTS if any(_cut(line) == cut for line in every)]
    shares = " or ".join(
        f"{share:.0%}" for share in sorted({line["share"] for line in every if _cut(line) == "shares"})
    )
    cut = _choice("What is cut", cuts, lambda cut: CUTS[cut].format(shares), key=f"evidence_cut_{key}")
    names = dict.fromkeys((*CATALOG, *corpora))  # so that a corpus has one colour, wherever it was measured
    lines = {n: [line for line in corpora.get(n, {"lines": []})["lines"] if _cut(line) == cut] for n in names}
    _overview(f"{key}_{cut}", lines)
    lines = {name: found for name, found in lines.items() if found}
    for reading in _readings(lines):
        st.markdown(f"- {reading}")
    name = _choice("Corpus in detail", list(lines), str, key=f"evidence_corpus_{key}_{'_'.join(lines)}")
    _corpus(name, corpora[name], lines[name])


def _choice(title: str, options: list[str], said: Callable[[str], str], *, key: str) -> str:
    """Return what is chosen; the first of the options, undrawn, where there is no other."""
    if len(options) == 1:
        return options[0]
    chosen = st.segmented_control(title, options, default=options[0], required=True, format_func=said, key=key)
    return chosen or options[0]


def _cut(line: Line) -> str:
    if line["equal"] == "epochs":
        return "epochs"
    return "tenth" if line["share"] in (None, 0.10) else "shares"


def _overview(key: str, lines: dict[str, list[Line]]) -> None:
    """Draw what every plan did beyond its control, a row a plan, the corpora side by side."""
    bars = {name: [bar for line in found if not math.isnan((bar := _bar(line)).value)] for name, found in lines.items()}
    known = [bar for found in bars.values() for bar in found]
    if not known:
        return
    st.markdown("**Plan minus random control: extraction of report canaries** (left of the line: less is given away)")
    lowest = min(known, key=lambda bar: bar.value)
    st.plotly_chart(
        side_by_side_figure(bars, x="difference in share", line=0.0, theme=theme(), percent=True),
        theme=None,
        key=f"evidence_{key}",
        config=CHART,
        alt=f"Difference in extraction between plan and random control on {', '.join(filter(bars.get, bars))}, {len(known)} lines; the lowest "
        f"is {lowest.label} with {lowest.value:+.0%}",
    )


def _corpus(name: str, facts: dict[str, Any], lines: list[Line]) -> None:
    st.markdown(f"#### Corpus {name}")
    seeds = sorted({len(line["seeds"]) for line in lines})
    recommended = facts.get("recommended") or {}
    st.caption(
        f"{_model(facts)}{facts['num_samples']:,} samples, {facts['device']}, {' or '.join(map(str, seeds))} seeds a line, "
        f"with which p is at least {smallest_p(seeds[-1]):.3f}."
        + (f" {recommended['reason']}" if recommended.get("reason") else "")
    )
    said = [_against_claim(line) for line in lines if line["share"] == 0.10 and line["policy"] in CLAIMED]
    said += [part for line in lines if line["policy"] == "recommended" for part in _against_oracle(line, lines)]
    for reading in said:
        st.markdown(f"- {reading}")
    st.dataframe([_row(line) for line in lines], hide_index=True)


def _model(facts: dict[str, Any]) -> str:
    model = facts.get("config", {}).get("model")
    return f"{TASKS[model['task']].title}, {model['layers']} x {model['hidden']}; " if model else ""


def _bar(line: Line) -> Bar:
    found = _effect(line, EXTRACTION, "control")
    value, low, high = (_or_nan(found.get(end)) for end in ("estimate", "low", "high"))
    return Bar(_label(line), value, low, high)


def _readings(lines: dict[str, list[Line]]) -> list[str]:
    """Say in words which plans were shown to do more than a random cut, on which corpora, and which were not."""
    every = [(name, line) for name, found in lines.items() for line in found]
    said = []
    for side, words in (
        (-1, "Shown to lower extraction more than the random control does"),
        (1, "Shown to raise it against the control"),
        (0, "Not shown to differ from the control"),
    ):
        on: dict[str, list[str]] = {}
        for name, line in every:
            if _sign(_effect(line, EXTRACTION, "control")) == side:
                on.setdefault(_label(line), []).append(name)
        told = [f"**{label}**" + (f" ({', '.join(names)})" if len(lines) > 1 else "") for label, names in on.items()]
        if told or side < 0:
            said.append(f"{words}: {'; '.join(told) or 'none'}.")
    return said


def _against_claim(line: Line) -> str:
    """Put one line beside the paper's numbers, in the paper's own terms: relative to the unchanged model."""
    plan, unchanged = (mean_of(line["arms"][arm], EXTRACTION) for arm in ("plan", "baseline"))
    extraction, loss = _effect(line, EXTRACTION, "baseline"), _effect(line, LOSS, "baseline")
    change = "unknown" if not unchanged or math.isnan(unchanged) else f"{plan / unchanged - 1:+.0%}"
    return (
        f"{_title(line)}: extraction **{change}** against unchanged, in shares {_difference(extraction)} (the paper: below "
        f"-40 %), perplexity "
        f"**{_percent(loss)}** (the paper: +0.5 %)."
    )


def _against_oracle(line: Line, lines: list[Line]) -> list[str]:
    """Put one line beside the oracle's of the same share, where there is one that lowers extraction."""
    part = part_of_oracles(line, lines)
    if math.isnan(part):
        return []
    return [
        f"{_title(line)}: **{part:.0%}** of what the oracle takes away. Of its {line['num_affected']:,} rows a twin "
        f"model recites {line['num_recited_rows']:,}; {line['num_canary_rows']:,} are canary copies, the others the corpus's own."
    ]


def _row(line: Line) -> dict[str, str]:
    rates = {arm: mean_of(seeds, EXTRACTION) for arm, seeds in line["arms"].items()}
    extraction, loss = _effect(line, EXTRACTION, "control"), _effect(line, LOSS, "control")
    score = SCORES[line["score"]].title if line["score"] in SCORES else ""
    return {
        "chosen by": _policy(line),
        "score": score,
        "share": "–" if line["share"] is None else f"{line['share']:.0%}",
        "equal": line["equal"],
        "rows changed": f"{line['num_affected']:,}",
        "of these canary copies": f"{line['num_canary_rows']:,}",
        "extraction: plan": _rate(rates["plan"]),
        "control": _rate(rates["control"]),
        "unchanged": _rate(rates["baseline"]),
        "plan - control [95 %]": _difference(extraction),
        "p": _p(extraction),
        "perplexity, plan - control [95 %]": _percent(loss),
        "p (perplexity)": _p(loss),
        "perplexity, plan - unchanged [95 %]": _percent(_effect(line, LOSS, "baseline")),
        **_membership(line),
        "seeds": str(len(line["seeds"])),
    }


def _membership(line: Line) -> dict[str, str]:
    """Return the columns of membership inference, where it was asked for."""
    found = _effect(line, MEMBERSHIP, "control")
    if not found:
        return {}
    means = {arm: mean_of(seeds, MEMBERSHIP) for arm, seeds in line["arms"].items()}
    return {
        "membership AUC: plan": _rate(means["plan"], digits=3),
        "control (AUC)": _rate(means["control"], digits=3),
        "plan - control (AUC) [95 %]": _difference(found, digits=3),
    }


def _title(line: Line) -> str:
    policy = _policy(line)
    if line["policy"] == "recommended" and line["score"] in SCORES:
        policy = f"recommended ({SCORES[line['score']].title})"
    return policy + ("" if line["share"] is None else f" {line['share']:.0%}")


def _label(line: Line) -> str:
    """Return what a line is called beside those of other corpora, whose recommended score may be another."""
    return _policy(line) + (f" {line['share']:.0%}" if _cut(line) == "shares" else "")


def _policy(line: Line) -> str:
    return POLICIES.get(line["policy"], str(line["policy"]))


def _effect(line: Line, metric: str, against: str) -> dict[str, Any]:
    return next((e for e in line["effects"] if (e["metric"], e["against"]) == (metric, against)), {})


def _sign(effect: dict[str, Any]) -> int:
    """Return which side of 0 the whole interval lies on; 0 where it covers it, or there is none."""
    low, high = _or_nan(effect.get("low")), _or_nan(effect.get("high"))
    return -1 if high < 0 else 1 if low > 0 else 0


def _difference(effect: dict[str, Any], *, digits: int = 2) -> str:
    value, low, high = (_or_nan(effect.get(name)) for name in ("estimate", "low", "high"))
    return "unknown" if math.isnan(value) else f"{value:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def _percent(effect: dict[str, Any]) -> str:
    value, low, high = (_or_nan(effect.get(f"{name}_percent")) for name in ("estimate", "low", "high"))
    return "unknown" if math.isnan(value) else f"{value:+.1f} % [{low:+.1f}, {high:+.1f}]"


def _p(effect: dict[str, Any]) -> str:
    p = _or_nan(effect.get("p"))
    return "–" if math.isnan(p) else f"{p:.3f}"


def _rate(value: float, *, digits: int = 2) -> str:
    return "unknown" if math.isnan(value) else f"{value:.{digits}f}"


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)
