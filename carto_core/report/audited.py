"""The run's audits in one line each, of the halves that may be looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from carto_core.audits import ATTACK_TITLES, AUDITS
from carto_core.report.commands import command
from carto_core.report.facts import Facts
from carto_core.report.words import HALVES, between, number, percent

Summary = dict[str, Any]
CHANCE = 0.5


def audit_lines(facts: Facts) -> list[dict[str, Any]]:
    """Return every audit with its title, question, findings and definition; the command where it was not run."""
    return [_audit(facts, name, audit) for name, audit in facts.audits.items()]


def _audit(facts: Facts, name: str, audit: dict[str, Any] | None) -> dict[str, Any]:
    words = {"title": AUDITS[name].title, "question": AUDITS[name].question}
    if audit is None:
        return words | {"findings": [], "definition": None, "command": command("audit", facts.run_id, name)}
    findings = _FINDINGS[name](audit["summary"], facts.roles) if name in _FINDINGS else []
    return words | {"findings": findings, "definition": audit["definition"], "command": None}


def _counted(part: Summary) -> str:
    if not part.get("n"):
        return "none to ask"
    return f"{part['k']} of {part['n']} ({percent(part['rate'])}; {between(part['low'], part['high'], percent)})"


def _perplexity(summary: Summary, roles: tuple[str, ...]) -> list[str]:
    interval = summary.get("intervals", {}).get("perplexity", {})
    ends = between(interval.get("low"), interval.get("high"), number)
    return [
        f"{number(summary['perplexity'])} per token ({ends}), on {summary['num_tokens']:,} tokens of "
        f"{summary['num_samples']:,} held-out samples"
    ]


def _extraction(summary: Summary, roles: tuple[str, ...]) -> list[str]:
    return [
        f"{HALVES[role].capitalize()}: {_counted(summary[role]['inserted'])} given away; "
        f"of secrets that were never inserted, {_counted(summary[role]['control'])}"
        for role in roles
    ]


def _exposure(summary: Summary, roles: tuple[str, ...]) -> list[str]:
    return [
        f"{HALVES[role].capitalize()}: {_spread(summary[role]['inserted'])}; never inserted: {_spread(summary[role]['control'])}"
        for role in roles
    ]


def _spread(part: Summary) -> str:
    if not part.get("n"):
        return "none to ask"
    return (
        f"median {part['median']:.2f} bits over {part['n']} secrets "
        f"(the middle half lies between {part['low']:.2f} and {part['high']:.2f})"
    )


def _natural(summary: Summary, roles: tuple[str, ...]) -> list[str]:
    return [f"{_counted(summary)} repeated texts of the corpus are recited"]


def _verbatim(summary: Summary, roles: tuple[str, ...]) -> list[str]:
    text = f"{_counted(summary)} distinct texts are recited"
    longest = (summary.get("longest_tokens") or {}).get("max")
    return [text + ("" if longest is None else f"; the longest run recited is {longest} tokens")]


def _membership(summary: Summary, roles: tuple[str, ...]) -> list[str]:
    tried = {name: attack for name, attack in summary["attacks"].items() if attack["status"] == "run"}
    lines = [f"{ATTACK_TITLES.get(name, str(name))}: {_area(attack)}" for name, attack in tried.items()]
    missing = [ATTACK_TITLES.get(name, str(name)) for name in summary["attacks"] if name not in tried]
    return lines + ([f"Not run: {', '.join(missing)}"] if missing else [])


def _area(attack: Summary) -> str:
    area = attack["auc"]
    if area["value"] is None:
        return area["note"] or "cannot be said"
    low, high = area["low"], area["high"]
    chance = (
        ""
        if low is None
        else "; below chance"
        if high < CHANCE
        else "; above chance"
        if low > CHANCE
        else "; at chance"
    )
    return f"AUC {area['value']:.3f} ({between(low, high, '{:.3f}'.format)}{chance})"


def _tokens(summary: Summary, roles: tuple[str, ...]) -> list[str]:
    return [f"Recorded for {summary['num_tokens']:,} tokens of {summary['num_samples']:,} samples"]


_FINDINGS: dict[str, Callable[[Summary, tuple[str, ...]], list[str]]] = {
    "perplexity": _perplexity,
    "extraction": _extraction,
    "exposure": _exposure,
    "natural": _natural,
    "verbatim": _verbatim,
    "membership": _membership,
    "tokens": _tokens,
}
