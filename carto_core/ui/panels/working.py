"""A job on the screen: progress with its rate and remaining time, cancel, and the log when it has failed."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import streamlit as st

from carto_core import jobs
from carto_core.jobs import Job
from carto_core.store.reader import Run
from carto_core.ui import live, texts
from carto_core.ui.shell import told
from carto_core.ui.words import literal

POLL_S = 1.0


def newest(run_id: str, kind: str, *, result: Path | None = None) -> Job | None:
    """Return the newest job of a kind on a run, and for one result if that is given; None where there is none."""
    found = jobs.list_jobs(run_id=run_id, kind=kind)
    return next((job for job in found if result is None or job.result == str(result)), None)


def watch(job: Job, *, reached: Callable[[], object] | None = None) -> None:
    """Draw a job that is under way and poll it; the whole page is drawn anew when it ends.

    Args:
        job: under way.
        reached: how far its result is, cheap to ask for; when that changes the page is drawn anew too.
    """
    before = None if reached is None else reached()

    @st.fragment(run_every=POLL_S)
    def poll() -> None:
        if not jobs.is_active(job) or (reached is not None and reached() != before):
            st.rerun()
        line = jobs.progress_of(job)
        if line is None:
            st.progress(0.0, text=f"{literal(job.kind)}: starting …")
        else:
            share = live.share_done(line)
            st.progress(share, text=f"{literal(line.get('stage', job.kind))}: {share:.0%}{live.pace(line)}")
        if st.button("Cancel", key=f"cancel_{job.job_id}"):
            with told():
                jobs.cancel(job)

    poll()


def tell_failure(job: Job | None) -> None:
    """Say that a job was cancelled or failed, with its log; nothing for one that is done, under way or absent."""
    if job is None:
        return
    ended = jobs.state_of(job)
    if ended == "cancelled":
        st.info(f"The {literal(job.kind)} was cancelled; what it had finished is kept.")
    elif ended == "failed":
        st.error(f"The {literal(job.kind)} failed. {literal(texts.shown(jobs.reason(job)))} Its last words:")
        st.code(texts.shown(jobs.log_tail(job)) or "(it said nothing)", language="text")


def resume(run: Run) -> None:
    """Offer to go on with a training that was stopped, by a click or from a shell; nothing while it trains.

    The loop of a recording is not ours to start again: what it left can be sealed.
    """
    kind, label = ("seal", "Seal what was recorded") if run.is_foreign else ("train", "Resume the training")
    job = newest(run.run_id, kind)
    if run.status in ("running", "complete") or (job is not None and jobs.is_active(job)):
        return
    command = ["seal", str(run.files.path)] if run.is_foreign else ["train", "--resume", "--out", str(run.files.path)]
    first, second = st.columns([2, 7], vertical_alignment="center")
    if first.button(label, key=f"resume_{run.run_id}", type="primary", width="stretch"):
        with told():
            start(run, command)
            st.rerun()
    second.code(f"python -m carto_core {shlex.join(command)}", language="bash")


def start(run: Run, command: list[str]) -> Job:
    """Start a training, or the sealing of a recording, as a job on a run that may not be there yet."""
    return jobs.launch(
        command,
        kind=command[0],
        run_id=run.run_id,
        runs_root=run.files.path.parent,
        progress=run.files.progress,
        result=run.files.database,
    )
