"""The evidence page: measured effects and judged detectors of the project's own benchmarks, beside the paper's claims."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st

from carto_core.errors import CartoError
from carto_core.plots.charts import Bar, intervals_figure
from carto_core.preview.effects import mean_of, part_of_oracles, smallest_p
from carto_core.scores import SCORES
from carto_core.scores.agreement import MEASURES
from carto_core.tasks import TASKS
from carto_core.ui.shell import CHART, open_page, theme, told

RESULTS = Path(__file__).parents[3] / "docs" / "results"
COMMANDS = {
    "paper_table.json": "python -m benchmarks.paper_table --experiments 1",
    "half_weight.json": "python -m benchmarks.paper_table --experiments 2",
    "detectors.json": "python -m benchmarks.detectors",
}
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
CLAIM = (
    "The paper's claims (GenDataCarto, arXiv 2509.00083): **more than 40 % less canary extraction** at 10 % pruned, for at "
    "most **0.5 % more perplexity**; in its LSTM experiment extraction falls from 100 % to 40 % at 5 % pruned. Both are "
    "against the unchanged model; below, a random cut of the same size stands beside."
)


def page() -> None:
    """Draw the page; it needs no run."""
    open_page("evidence")
    st.title("What was measured, and what does it show?")
    with told():
        st.markdown(CLAIM)
        _effects(
            "paper_table.json",
            "Does pruning what the score points at lower extraction more than a random cut does?",
            "Every line retrains an LSTM with planted secrets from scratch: under the plan, under a random cut of the same "
            "number of rows and length, and unchanged, paired by seed.",
        )
        _effects(
            "half_weight.json",
            "Does half the weight on hotspots lower it?",
            "The paper's second experiment: a transformer of GPT-2's architecture, from scratch, 3 epochs. Its size and "
            "device stand below. Hotspots count half; the random control halves as many random rows.",
        )
        _detectors(read("detectors.json"))


def read(name: str) -> dict[str, Any] | None:
    """Return the corpora of one results file, by name; None where it is not there.

    Raises:
        CartoError: it cannot be read.
    """
    path = RESULTS / name
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))["corpora"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CartoError(f"{path.name} cannot be read ({error}); make it anew with: {COMMANDS[name]}") from None


def _missing(name: str, what: str) -> None:
    st.info(f"{what} It trains many models; what is finished is kept and shown here.")
    st.code(COMMANDS[name], language="bash")


def _effects(file: str, question: str, what: str) -> None:
    st.subheader(question)
    corpora = read(file)
    lines = {name: facts["lines"] for name, facts in (corpora or {}).items() if facts.get("lines")}
    if not lines or corpora is None:
        _missing(file, "No measurement is kept here yet. Make one:")
        return
    st.caption(
        f"{what} Scores are chosen on calibration canaries, effects are those on report canaries. Intervals are paired 95 % "
        "t intervals, p is an exact sign-flip test; with many lines some will pass 0.05 by chance alone."
    )
    for name, of_corpus in lines.items():
        _corpus(f"{file}_{name}", name, corpora[name], of_corpus)


def _corpus(key: str, name: str, facts: dict[str, Any], lines: list[dict[str, Any]]) -> None:
    st.markdown(f"#### Corpus {name}")
    seeds = sorted({len(line["seeds"]) for line in lines})
    recommended = facts.get("recommended") or {}
    st.caption(
        f"{_model(facts)}{facts['num_samples']:,} samples, {facts['device']}, {' or '.join(map(str, seeds))} seeds a line, "
        f"with which p is at least {smallest_p(seeds[-1]):.3f}."
        + (f" {recommended['reason']}" if recommended.get("reason") else "")
    )
    for reading in _readings(lines):
        st.markdown(f"- {reading}")
    bars = [_bar(line) for line in lines]
    known = sorted((bar for bar in bars if not math.isnan(bar.value)), key=lambda bar: bar.value)
    if known:
        st.markdown(
            "**Plan minus random control: extraction of report canaries** (left of the line: less is given away)"
        )
        st.plotly_chart(
            intervals_figure(known, x="difference in share", line=0.0, theme=theme(), percent=True),
            theme=None,
            key=f"evidence_{key}",
            config=CHART,
            alt=f"Difference in extraction between plan and random control on {name}, {len(known)} lines; the lowest is "
            f"{known[0].label} with {known[0].value:+.0%}",
        )
    st.dataframe([_row(line) for line in lines], hide_index=True)


def _model(facts: dict[str, Any]) -> str:
    model = facts.get("config", {}).get("model")
    return f"{TASKS[model['task']].title}, {model['layers']} x {model['hidden']}; " if model else ""


def _bar(line: dict[str, Any]) -> Bar:
    found = _effect(line, EXTRACTION, "control")
    value, low, high = (_or_nan(found.get(end)) for end in ("estimate", "low", "high"))
    return Bar(_title(line), value, low, high)


def _readings(lines: list[dict[str, Any]]) -> list[str]:
    """Say in words what the lines show, what they do not, and how the claim fares at the paper's own share."""
    less = [_title(line) for line in lines if _sign(_effect(line, EXTRACTION, "control")) < 0]
    more = [_title(line) for line in lines if _sign(_effect(line, EXTRACTION, "control")) > 0]
    unclear = [_title(line) for line in lines if _sign(_effect(line, EXTRACTION, "control")) == 0]
    said = [f"Shown to lower extraction more than a random cut: **{'; '.join(less) or 'none'}**."]
    if more:
        said.append(f"Shown to raise it against a random cut: **{'; '.join(more)}**.")
    if unclear:
        said.append(f"Not shown to differ from a random cut: {'; '.join(unclear)}.")
    said += [_against_claim(line) for line in lines if line["share"] == 0.10 and line["policy"] in CLAIMED]
    return said + [
        reading for line in lines if line["policy"] == "recommended" for reading in _against_oracle(line, lines)
    ]


def _against_claim(line: dict[str, Any]) -> str:
    """Put one line beside the paper's numbers, in the paper's own terms: relative to the unchanged model."""
    plan, unchanged = (mean_of(line["arms"][arm], EXTRACTION) for arm in ("plan", "baseline"))
    extraction, loss = _effect(line, EXTRACTION, "baseline"), _effect(line, LOSS, "baseline")
    change = "unknown" if not unchanged or math.isnan(unchanged) else f"{plan / unchanged - 1:+.0%}"
    return (
        f"{_title(line)}: extraction **{change}** against unchanged, in shares {_difference(extraction)} (the paper: below "
        f"-40 %), perplexity "
        f"**{_percent(loss)}** (the paper: +0.5 %)."
    )


def _against_oracle(line: dict[str, Any], lines: list[dict[str, Any]]) -> list[str]:
    """Put one line beside the oracle's of the same share, where there is one that lowers extraction."""
    part = part_of_oracles(line, lines)
    if math.isnan(part):
        return []
    return [
        f"{_title(line)}: **{part:.0%}** of what the oracle takes away. Of its {line['num_affected']:,} rows a twin "
        f"model recites {line['num_recited_rows']:,}; {line['num_canary_rows']:,} are canary copies, the others the corpus's own."
    ]


def _row(line: dict[str, Any]) -> dict[str, str]:
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


def _membership(line: dict[str, Any]) -> dict[str, str]:
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


def _title(line: dict[str, Any]) -> str:
    policy = _policy(line)
    if line["policy"] == "recommended" and line["score"] in SCORES:
        policy = f"recommended ({SCORES[line['score']].title})"
    share = "" if line["share"] is None else f" {line['share']:.0%}"
    return f"{policy}{share}" + (", equal epochs" if line["equal"] == "epochs" else "")


def _policy(line: dict[str, Any]) -> str:
    return POLICIES.get(line["policy"], str(line["policy"]))


def _effect(line: dict[str, Any], metric: str, against: str) -> dict[str, Any]:
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


def _detectors(corpora: dict[str, Any] | None) -> None:
    st.subheader("Which score finds what a model gives away, on which corpus?")
    if not corpora:
        _missing("detectors.json", "No comparison of detectors is kept here yet. Make one:")
        return
    st.markdown("**AUC against what a twin model gives back** (extracted; report half; 0.5 is chance, 95 % intervals)")
    _whole(_by_score(corpora, _auc))
    for measure, title in MEASURES.items():
        cell = partial(_spearman, measure=measure)
        if any(cell(facts, name) for facts in corpora.values() for name in facts["scores"]):
            st.markdown(f"**Rank correlation with {title}** (Spearman, all samples, 95 % intervals)")
            _whole(_by_score(corpora, cell))
    for name, facts in corpora.items():
        st.caption(f"{name}: {_said_of(facts)}")


def _whole(rows: list[dict[str, str]]) -> None:
    st.dataframe(rows, hide_index=True, height=38 + 35 * max(1, len(rows)))


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
