"""The audit page: what the trained model gives away."""

from __future__ import annotations

from typing import Any

import streamlit as st

from carto_core import jobs
from carto_core.audits import AUDITS
from carto_core.store.reader import Run
from carto_core.store.rundir import resolve_runs_root
from carto_core.ui.panels import canaries, membership, recited, working
from carto_core.ui.shell import is_without_model, scored_run, told
from carto_core.ui.words import literal
from carto_core.workflows import light

WAITS = "The audits ask the trained model: they wait for the end of the training."


def page() -> None:
    """Draw the page."""
    run = scored_run("audit", waits=WAITS)
    if run is None:
        return
    with told():
        st.title("What does the model give away?")
        found = {name: light.read_audit(run, name) for name in AUDITS}
        _job(run, missing=[name for name, audit in found.items() if audit is None])
        if found["perplexity"]:
            _perplexity(found["perplexity"])
        _canaries(run, found)
        if found["verbatim"]:
            recited.verbatim(run, found["verbatim"])
        if found["natural"]:
            recited.natural(found["natural"])
        if found["membership"]:
            membership.membership(run, found["membership"])


def _canaries(run: Run, found: dict[str, Any]) -> None:
    roles = light.roles_shown(run)
    for role in roles:
        first, second = st.columns(2, gap="large")
        if found["extraction"] and found["extraction"]["per_item"]:
            with first:
                canaries.extraction(found["extraction"], role)
        if found["exposure"] and found["exposure"]["per_item"]:
            with second:
                canaries.exposure(found["exposure"], role)
    canaries.each(run, found, roles)


def _job(run: Run, *, missing: list[str]) -> None:
    result = run.files.audits / "tokens.json"
    job = working.newest(run.run_id, "audit", result=result)
    if job is not None and jobs.is_active(job):
        working.watch(job)
        return
    if not missing:
        return
    if is_without_model(run):
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
    intervals = summary.get("intervals", {})
    st.subheader(AUDITS["perplexity"].question)
    first, second, third, fourth = st.columns(4)
    first.metric("Perplexity a token", f"{summary['perplexity']:.2f}", help=literal(audit["definition"]))
    first.caption(_interval(intervals.get("perplexity")))
    for column, title, name, why in (
        (second, "Perplexity a word", "word_perplexity", "Compares models with different tokenizers."),
        (third, "Bits per byte", "bits_per_byte", "Compares models with different tokenizers."),
    ):
        known: dict[str, Any] = intervals.get(name) or {"value": None}
        column.metric(title, "–" if known["value"] is None else _number(known["value"]), help=why)
        column.caption(_interval(known))
    fourth.metric("Loss (nats/token)", f"{summary['nats_per_token']:.3f}")
    fourth.caption(f"on {summary['num_tokens']:,} tokens of {summary['num_samples']:,} held-out samples")
    if window := summary.get("window"):
        st.caption(
            f"Read in windows of {window['context']} tokens, stride {window['stride']}, each begun with {literal(window['bos'])}; "
            f"predicted: {literal(window['predicted'])}. Tokenizer {summary.get('tokenizer_sha256', 'unknown')[:12]}: perplexity a token compares "
            "models of this tokenizer and window alone. 95 % intervals by bootstrap over groups of duplicate texts."
        )


def _interval(part: dict[str, Any] | None) -> str:
    if part is None or part.get("value") is None:
        return "not measured by this run's audit: audit again"
    if part["low"] is None:
        return "no interval: one group of texts"
    return f"95 % interval {_number(part['low'])} to {_number(part['high'])}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if 1000 <= value < 1e9 else f"{value:.4g}"
