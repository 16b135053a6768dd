"""The audit page: what the trained model gives away."""

from __future__ import annotations

import math
from typing import Any

import streamlit as st

from carto_core import jobs
from carto_core.audits import AUDITS
from carto_core.plots.charts import repeats_figure
from carto_core.store.reader import Run
from carto_core.store.rundir import resolve_runs_root
from carto_core.ui.panels import working
from carto_core.ui.shell import scored_run, theme, told
from carto_core.workflows import light

CHART = {"displayModeBar": False}


def page() -> None:
    """Draw the page."""
    run = scored_run("audit")
    if run is None:
        return
    with told():
        st.title("What does the model give away?")
        found = {name: light.read_audit(run, name) for name in AUDITS}
        _job(run, missing=[name for name, audit in found.items() if audit is None])
        if found["perplexity"]:
            _perplexity(found["perplexity"])
        for role in light.roles_shown(run):
            first, second = st.columns(2, gap="large")
            if found["extraction"] and found["extraction"]["per_item"]:
                with first:
                    _extraction(found["extraction"], role)
            if found["exposure"] and found["exposure"]["per_item"]:
                with second:
                    _exposure(found["exposure"], role)
        if found["natural"]:
            _natural(found["natural"])


def _job(run: Run, *, missing: list[str]) -> None:
    result = run.files.audits / "tokens.json"
    job = working.newest(run.run_id, "audit", result=result)
    if job is not None and jobs.is_active(job):
        working.watch(job)
        return
    if not missing:
        return
    working.tell_failure(job)
    titles = ", ".join(AUDITS[name].title for name in missing)
    st.info(f"Not run yet: {titles}. The audits take about half a minute.")
    if st.button("Run the audits", type="primary"):
        progress = run.files.audits / "progress.jsonl"
        root = resolve_runs_root().absolute()
        jobs.launch(
            ["audit", str(run.files.path)],
            kind="audit",
            run_id=run.run_id,
            runs_root=root,
            progress=progress,
            result=result,
        )
        st.rerun()


def _perplexity(audit: dict[str, Any]) -> None:
    summary = audit["summary"]
    st.subheader(AUDITS["perplexity"].question)
    first, second, third = st.columns(3)
    first.metric("Perplexity", f"{summary['perplexity']:.2f}", help=audit["definition"])
    second.metric("Loss", f"{summary['nats_per_token']:.3f} nats/token")
    third.metric(
        "Measured on", f"{summary['num_tokens']:,} tokens", help=f"{summary['num_samples']:,} held-out samples"
    )


def _extraction(audit: dict[str, Any], role: str) -> None:
    summary = audit["summary"][role]
    st.subheader(AUDITS["extraction"].question)
    inserted, control = summary["inserted"], summary["control"]
    st.markdown(
        f"**{inserted['k']} of {inserted['n']}** inserted {role} canaries are extracted ({_share(inserted)}); "
        f"{control['k']} of {control['n']} never-inserted ones ({_share(control)})."
    )
    groups = {"never inserted": control} | {_copies(r): part for r, part in inserted["by_repeats"].items()}
    figure = repeats_figure(
        groups, value="rate", low="low", high="high", y="share extracted", theme=theme(), percent=True
    )
    st.markdown("**Is more given away with more copies?** (share, Wilson 95 % intervals)")
    st.plotly_chart(
        figure,
        theme=None,
        key=f"extraction_{role}",
        config=CHART,
        alt="Share of canaries extracted by number of copies",
    )
    st.caption(audit["definition"])


def _exposure(audit: dict[str, Any], role: str) -> None:
    summary, top = audit["summary"][role], math.log2(audit["summary"]["num_references"])
    st.subheader(AUDITS["exposure"].question)
    median = summary["inserted"]["median"]
    said = "unknown" if median is None else f"at least {top:.2f}" if median >= top - 1e-9 else f"{median:.2f}"
    control = summary["control"]["mean"]
    st.markdown(
        f"Median exposure of inserted {role} canaries: **{said} bits**; never-inserted ones average "
        f"{'unknown' if control is None else f'{control:.2f}'} bits (chance: 1.44)."
    )
    groups = {"never inserted": summary["control"]} | {
        _copies(r): p for r, p in summary["inserted"]["by_repeats"].items()
    }
    figure = repeats_figure(
        groups, value="median", low="low", high="high", y="exposure (bits)", theme=theme(), percent=False
    )
    figure.add_hline(y=top, line={"dash": "dot", "color": theme().muted}, annotation_text="saturated: read 'at least'")
    st.markdown("**Does exposure rise with copies, even where nothing is extracted?** (median, quartiles)")
    st.plotly_chart(
        figure, theme=None, key=f"exposure_{role}", config=CHART, alt="Exposure of canaries by number of copies"
    )
    st.caption(audit["definition"])


def _natural(audit: dict[str, Any]) -> None:
    st.subheader(AUDITS["natural"].question)
    summary = audit["summary"]
    st.markdown(f"**{summary['k']} of {summary['n']}** repeated texts of the corpus are recited ({_share(summary)}).")
    rows = sorted(audit["per_item"], key=lambda row: (-row["extracted"], -row["group_size"]))
    columns = ("extracted", "group_size", "prefix", "expected", "decoded")
    st.dataframe([{name: row[name] for name in columns} for row in rows], hide_index=True, height=320)
    st.caption(audit["definition"])


def _copies(repeats: str) -> str:
    return "1 copy" if repeats == "1" else f"{repeats} copies"


def _share(part: dict[str, Any]) -> str:
    if part["rate"] is None:
        return "unknown: there are none"
    return f"{part['rate']:.0%}, 95 % interval {part['low']:.0%} to {part['high']:.0%}"
