"""The home page: the runs, how they stand, what to do next."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from carto_core import jobs
from carto_core.store.reader import Run
from carto_core.store.rundir import last_progress, list_runs, resolve_runs_root
from carto_core.ui import state
from carto_core.ui.panels import working
from carto_core.ui.shell import open_page, told
from carto_core.workflows import light
from carto_core.workflows.demo import DEMO_RUN


def page() -> None:
    """Draw the page."""
    open_page("home")
    st.title("GenDataCarto")
    st.markdown(
        "See which training samples your model finds hard and which it memorizes, and **measure** what happens to secrets "
        "and to perplexity when you change them."
    )
    with told():
        runs = [Run(files) for files in list_runs()]
        _demo_job(runs)
        if not runs:
            _first_steps()
        for run in runs:
            _card(run)
        if runs:
            with st.expander("Train another run"):
                _commands()


def _first_steps() -> None:
    st.subheader("There is no run yet")
    st.markdown(
        "1. **Train the bundled corpus** with the button: a few minutes on one core.\n"
        "2. Open **Map** and lasso what looks memorized.\n"
        "3. Open **Intervene**, measure what removing it does, download the list."
    )
    if st.button("Train the bundled demo", type="primary"):
        root = resolve_runs_root().absolute()
        jobs.launch(
            ["demo", "--no-open"],
            kind="demo",
            run_id=DEMO_RUN,
            runs_root=root,
            progress=root / DEMO_RUN / "progress.jsonl",
            result=root / DEMO_RUN / "audits" / "tokens.json",
        )
        st.rerun()
    _commands()


def _commands() -> None:
    st.markdown("Your own corpus (JSONL, Parquet, CSV or plain text), from a shell:")
    st.code(
        "python -m carto_core train --corpus my-corpus.jsonl --text-column text --out data/runs/first\n"
        "python -m carto_core audit first",
        language="bash",
    )


def _demo_job(runs: list[Run]) -> None:
    job = working.newest(DEMO_RUN, "demo")
    if job is not None and jobs.is_active(job):
        working.watch(job)
    elif not any(run.run_id == DEMO_RUN and run.status == "complete" for run in runs):
        working.tell_failure(job)


def _card(run: Run) -> None:
    manifest, status = run.manifest, run.status
    with st.container(border=True):
        first, second, third, fourth = st.columns([4, 2, 2, 2])
        first.subheader(run.run_id)
        first.caption(
            f"{manifest['config']['model']['task']} on {Path(manifest['config']['corpus']['path']).name}, {manifest['created']}"
        )
        second.metric("State", status)
        third.metric("Samples", f"{manifest['num_samples']:,}")
        fourth.metric("On disk", _size(run.files.path))
        st.markdown(_what_next(run, status))
        if run.is_sealed and st.button(
            "Open its map", key=f"open_{run.run_id}", type="primary" if run.run_id == state.get().run else "secondary"
        ):
            state.put(run=run.run_id)
            st.switch_page("pages/map.py")


def _what_next(run: Run, status: str) -> str:
    if status == "running":
        line = last_progress(run.files.progress) or {"stage": "starting", "done": 0, "total": 1}
        return f"Training: {line['stage']} {float(line['done']) / max(float(line['total']), 1e-9):.0%}. Reload to see more."
    if status != "complete":
        error = run.manifest.get("error") or "its process ended without a word"
        return f"It is {status}: {error}. Continue: `python -m carto_core train --resume --out {run.files.path}`"
    if light.read_audit(run, "extraction") is None:
        return "Next: run the audits on the **Audit** page."
    if "twin" in light.missing_probes(run):
        return (
            "Next: lasso a hotspot on the **Map**; its detectors are judged best by a twin model, which the Map trains."
        )
    return "Next: lasso a hotspot on the **Map**, then **Intervene**."


def _size(folder: Path) -> str:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{size / 1e6:.1f} MB"
