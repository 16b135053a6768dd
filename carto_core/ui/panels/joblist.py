"""The list of jobs: what is at work and how far, what waits for what, what has ended and how."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import streamlit as st

from carto_core import jobs
from carto_core.errors import CartoError
from carto_core.jobs import Job
from carto_core.store.reader import Run
from carto_core.store.rundir import list_runs
from carto_core.ui import live
from carto_core.ui.shell import told
from carto_core.ui.words import literal
from carto_core.workflows import light

POLL_S = 1.0
SIGNS = {"queued": "⏳", "running": "▶", "done": "✓", "failed": "✗", "cancelled": "■"}
SHOWN = 10  # ended ones


def listing(root: Path) -> None:
    """Draw all jobs of a folder of runs, newest first; only this list is drawn anew while something works.

    The page is drawn anew when a job or a run has come, changed its state or gone, or a run has enough snapshots for a map.
    """
    states, runs = before = _seen(root)
    is_busy = "running" in [*states.values(), *runs.values()] or "queued" in states.values()

    @st.fragment(run_every=POLL_S if is_busy else None)
    def draw() -> None:
        if _seen(root) != before:
            st.rerun()
        found = jobs.list_jobs(root)
        ended = [job for job in found if not jobs.is_active(job)]
        for job in found:
            if job not in ended:
                _active(job)
        if ended:
            _ended(root, ended)

    if states:
        st.subheader("Jobs")
    draw()


def _seen(root: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return the states of jobs and runs: what the rest of the page depends on."""
    runs = {}
    for run in map(Run, list_runs(root)):
        with suppress(CartoError):
            runs[run.run_id] = run.status
            runs[f"{run.run_id}/map"] = str(min(light.MIN_LIVE, run.version[1]))
    return {job.job_id: jobs.state_of(job) for job in jobs.list_jobs(root)}, runs


def _active(job: Job) -> None:
    state, line = jobs.state_of(job), jobs.progress_of(job)
    with st.container(border=True):
        said, button = st.columns([8, 2], vertical_alignment="center")
        said.markdown(f"{SIGNS.get(state, '')} {_title(job)} · {state} · started {live.moment(job.created)}")
        is_asked = jobs.is_asked_to_stop(job)
        label = "Stop at once" if is_asked else "Cancel"
        if button.button(label, key=f"stop_{job.job_id}", width="stretch"):
            with told():
                jobs.cancel(job)
                st.rerun()
        if line is None:
            st.progress(0.0, text="starting …")
        elif state == "queued":
            st.progress(0.0, text=literal(str(line["stage"])))
        else:
            st.progress(live.share_done(line), text=_far(line))
        if is_asked:
            st.caption("It was asked to stop and ends at its next safe point; what it has finished is kept.")
        _log(job)


def _ended(root: Path, ended: list[Job]) -> None:
    with st.expander(f"Ended jobs ({len(ended)})"):
        for job in ended[:SHOWN]:
            state = jobs.state_of(job)
            st.markdown(f"{SIGNS[state]} {_title(job)} · {state} · started {live.moment(job.created)}")
            if state == "failed":
                st.error(literal(jobs.reason(job)))
                _log(job)
        if len(ended) > SHOWN:
            st.caption(f"and {len(ended) - SHOWN:,} older ones")
        if st.button("Clear the list", help="Removes the ended jobs' logs; what they made stays."):
            jobs.forget_ended(root)
            st.rerun()


def _title(job: Job) -> str:
    return f"**{literal(job.kind)}**" + (f" of **{literal(job.run_id)}**" if job.run_id else "")


def _far(line: dict) -> str:
    """Return a progress line in words: the stage, how much of how much, the pace."""
    done, total = float(line["done"]), float(line["total"])
    count = f" {done:,.0f} of {total:,.0f}" if total > 1 else ""
    return f"{literal(str(line['stage']))}:{count} ({live.share_done(line):.0%}){live.pace(line)}"


def _log(job: Job) -> None:
    with st.expander("Log"):
        st.code(jobs.log_tail(job) or "(it has said nothing)", language="text", wrap_lines=True)
        st.caption(f"{literal(str(job.log))}")
