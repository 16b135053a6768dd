"""A run whose training goes on: where it is, in words, and pages that follow it."""

from __future__ import annotations

from datetime import datetime

import streamlit as st

from carto_core.errors import CartoError
from carto_core.store.reader import Run
from carto_core.store.rundir import last_progress

POLL_S = 2.0
ENDED = {"interrupted": "was interrupted", "failed": "failed", "cancelled": "was cancelled", "complete": "is complete"}


def follow(run: Run) -> None:
    """Say where a live run is, and draw the page anew when it has another snapshot or another state."""
    before = _stage(run)

    @st.fragment(run_every=POLL_S)
    def poll() -> None:
        if _stage(run) != before:
            st.rerun()
        line = last_progress(run.files.progress)
        if run.status == "running" and line is not None:
            share = share_done(line)
            st.progress(share, text=f"{line['stage']}: {share:.0%}{pace(line)}")
        else:
            st.caption(f"The training {ENDED.get(run.status, 'begins')}.")

    poll()


def share_done(line: dict) -> float:
    """Return the share of a progress line, in [0, 1]."""
    return min(1.0, max(0.0, float(line["done"]) / max(float(line["total"]), 1e-9)))


def pace(line: dict) -> str:
    """Return rate and remaining time of a progress line in words; empty where they are not known."""
    rate, eta_s = line.get("rate"), line.get("eta_s")
    if not rate or eta_s is None:
        return ""
    return f" · {rate:.3g} a second · about {duration(eta_s)} left"


def duration(seconds: float) -> str:
    """Return a time that people can compare: seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def moment(created: str) -> str:
    """Return when something began, in the time of this place, with the date where it was another day."""
    try:
        began = datetime.fromisoformat(created).astimezone()
    except ValueError:
        return created
    is_today = began.date() == datetime.now().astimezone().date()
    return f"{began:%H:%M}" if is_today else f"{began:%Y-%m-%d %H:%M}"


def _stage(run: Run) -> tuple:
    try:
        return run.version, run.status, run.files.table("scores").is_file()
    except CartoError:
        return ()
