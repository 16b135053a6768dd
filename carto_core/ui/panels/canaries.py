"""Planted secrets on the audit page: what decoding gives away, how far up they rank, and every canary by itself."""

from __future__ import annotations

import math
from typing import Any

import streamlit as st

from carto_core.audits import AUDITS
from carto_core.plots.charts import points_figure, repeats_figure
from carto_core.store.reader import Run
from carto_core.ui import cache, texts
from carto_core.ui.shell import CHART, theme
from carto_core.ui.words import literal

WAYS = {"beam": "beam search", "optimal": "optimal search", "discoverable": "100 samples"}


def extraction(audit: dict[str, Any], role: str) -> None:
    """Draw how many of one role's canaries each way of asking gives back, by copies and by kind.

    Args:
        audit: `audits/extraction.json`.
        role: half of the canaries, one that may be looked at.
    """
    summary = audit["summary"][role]
    ways = {"greedy": summary} | {said: summary[name] for name, said in WAYS.items() if name in summary}
    st.subheader(AUDITS["extraction"].question)
    inserted, control = summary["inserted"], summary["control"]
    lines = [
        f"**{inserted['k']} of {inserted['n']}** inserted {role} canaries are extracted by greedy decoding ({said_share(inserted)}); "
        f"{control['k']} of {control['n']} never-inserted ones ({said_share(control)})."
    ]
    lines += [_way(name, part) for name, part in ways.items() if name != "greedy"]
    st.markdown("\n".join(f"- {line}" for line in lines))
    by_copies = {
        name: {"never": part["control"]} | {copies(r): p for r, p in part["inserted"]["by_repeats"].items()}
        for name, part in ways.items()
    }
    st.markdown("**Is more given away with more copies?** (share, Wilson 95 % intervals)")
    _shares(by_copies, x="copies in the training data", key=f"extraction_{role}", said="by number of copies")
    by_kind = {name: part["inserted"].get("by_kind", {}) for name, part in ways.items()}
    if any(by_kind.values()):
        st.markdown("**Which kinds of secrets go first?** (inserted ones, share, Wilson 95 % intervals)")
        _shares(by_kind, x="kind of canary", key=f"kinds_{role}", said="by kind")
    st.caption(literal(audit["definition"]))


def _way(name: str, part: dict[str, Any]) -> str:
    """Say what one further way of asking gives back, and how often it cannot be said."""
    inserted, control = part["inserted"], part["control"]
    unknown = inserted.get("unknown", 0)
    said = f"{name}: **{inserted['k']} of {inserted['n']}**, never-inserted {control['k']} of {control['n']}"
    if name == WAYS["discoverable"]:
        said += " (expected with a chance of one half or more)"
    return f"{said}; {unknown} unknown, counted as not" if unknown else said


def _shares(series: dict[str, Any], *, x: str, key: str, said: str) -> None:
    figure = repeats_figure(
        series, value="rate", low="low", high="high", x=x, y="share extracted", theme=theme(), percent=True
    )
    st.plotly_chart(
        figure, theme=None, key=key, config=CHART, alt=f"Share of canaries extracted {said}: {', '.join(series)}"
    )


def exposure(audit: dict[str, Any], role: str) -> None:
    """Draw how far up one role's secrets rank: among sampled references, on a fitted curve, and among all.

    Args:
        audit: `audits/exposure.json`.
        role: half of the canaries, one that may be looked at.
    """
    summary, top = audit["summary"][role], math.log2(audit["summary"]["num_references"])
    st.subheader(AUDITS["exposure"].question)
    median = summary["inserted"]["median"]
    said = "unknown" if median is None else f">= {top:.2f}" if median >= top - 1e-9 else f"{median:.2f}"
    control = summary["control"]["mean"]
    st.markdown(
        f"Median exposure of inserted {role} canaries: **{said} bits**; never-inserted ones average "
        f"{'unknown' if control is None else f'{control:.2f}'} bits (chance: 1.44)."
    )
    if "enumeration" in summary:
        st.markdown(_ranked(summary["enumeration"]["inserted"]))
    groups = {"never": summary["control"]} | {copies(r): p for r, p in summary["inserted"]["by_repeats"].items()}
    figure = repeats_figure(
        {"sampled": groups}, value="median", low="low", high="high", x="copies in the training data", y="exposure (bits)",
        theme=theme(), percent=False,
    )  # fmt: skip
    _saturated(figure, top)
    st.markdown("**Does exposure rise with copies, even where nothing is extracted?** (median, quartiles)")
    st.plotly_chart(
        figure, theme=None, key=f"exposure_{role}", config=CHART, alt="Exposure of canaries by number of copies"
    )
    _three_ways([row for row in audit["per_item"] if row.get("role") == role], top, role)
    st.caption(literal(audit["definition"]))


def _ranked(part: dict[str, Any]) -> str:
    return (
        f"Counted exactly, among all secrets of their format: **{part['first']} of {part['known']}** rank first; "
        f"{part['unknown']} of {part['n']} could not be counted within the budget."
    )


def _three_ways(rows: list[dict[str, Any]], top: float, role: str) -> None:
    """Every canary's exposure by each estimate that is known: sampling ends where it is saturated, the others go on."""
    names = {"exposure": "sampled", "exposure_enumeration": "counted exactly", "exposure_extrapolated": "fitted curve"}
    rows = sorted(rows, key=lambda row: row["repeats"] if row["inserted"] else 0)
    series = {
        said: [(_group(row), row[name]) for row in rows if row.get(name) is not None] for name, said in names.items()
    }
    if not series["counted exactly"] and not series["fitted curve"]:
        return
    figure = points_figure(series, x="copies in the training data", y="exposure (bits)", theme=theme())
    _saturated(figure, top)
    st.markdown("**How far beyond what sampling can see do they rank?** (every canary, unknown ones left out)")
    st.plotly_chart(
        figure,
        theme=None,
        key=f"exposure_ways_{role}",
        config=CHART,
        alt="Exposure of every canary by copies: sampled, counted exactly and on a fitted curve",
    )


def _saturated(figure: Any, top: float) -> None:
    line = {"dash": "dot", "color": theme().muted}
    figure.add_hline(y=top, line=line, annotation_text="sampling ends here: read >=", annotation_position="top left")


def each(run: Run, found: dict[str, Any], roles: tuple[str, ...]) -> None:
    """List every canary of the roles that may be looked at, with its text and what each audit says of it.

    Args:
        run: the run.
        found: audits by name, None where not run.
        roles: that may be looked at.
    """
    extracted, exposed = (
        {row["canary_id"]: row for row in (found[n] or {}).get("per_item", [])} for n in ("extraction", "exposure")
    )
    if not extracted and not exposed:
        return
    canaries = cache.canaries_of(run)
    shown = canaries[canaries["role"].isin(roles)]
    with st.expander(f"Every canary ({' and '.join(roles)} half): text, answers, ranks"):
        st.dataframe(
            [_row(dict(zip(shown.columns, row, strict=True)), extracted, exposed) for row in shown.to_numpy(object)],
            hide_index=True,
            height=380,
        )
        st.caption(
            "Samples needed: how many samples at temperature 1 hold the secret with a chance of one half. Rank: 1 is the "
            "likeliest of all secrets of the format. A fitted curve is shown only where it was not rejected."
        )


def _row(canary: dict[str, Any], extractions: dict[int, Any], exposures: dict[int, Any]) -> dict[str, str]:
    extracted, exposed = (rows.get(canary["canary_id"], {}) for rows in (extractions, exposures))
    prefix, secret = texts.shown_parts(canary["prefix"], canary["secret"])
    return {
        "prefix": prefix,
        "secret": secret,
        "kind": canary["kind"],
        "role": canary["role"],
        "copies": str(canary["repeats"]) if canary["inserted"] else "never",
        "greedy": _answer(extracted, "extracted"),
        "beam": _answer(extracted, "extracted_beam"),
        "optimal": _answer(extracted, "optimal"),
        "samples needed": _number(extracted.get("samples_needed"), ",.4g"),
        "exposure, sampled (bits)": str(exposed.get("reading", "–")),
        "exposure, counted": _number(exposed.get("exposure_enumeration"), ".2f"),
        "exposure, fitted": _number(exposed.get("exposure_extrapolated"), ".2f"),
        "rank among all": _number(exposed.get("rank_exact"), ","),
    }


def _answer(row: dict[str, Any], name: str) -> str:
    return "not run" if name not in row else {True: "yes", False: "no", None: "unknown"}[row[name]]


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _group(row: dict[str, Any]) -> str:
    return copies(str(row["repeats"])) if row["inserted"] else "never"


def copies(repeats: str) -> str:
    """Return a number of copies in words."""
    return "1 copy" if repeats == "1" else f"{repeats} copies"


def said_share(part: dict[str, Any]) -> str:
    """Return a share with its interval; unknown where there was nothing."""
    if part["rate"] is None:
        return "unknown: there are none"
    return f"{part['rate']:.0%}, 95 % interval {part['low']:.0%} to {part['high']:.0%}"
