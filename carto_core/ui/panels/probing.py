"""Probes as a job: which are missing, what they would answer, what they cost, started and watched from the page."""

from __future__ import annotations

import streamlit as st

from carto_core import jobs
from carto_core.probes import CHEAP, DEFAULT_MODELS, PROBES
from carto_core.store.reader import Run
from carto_core.store.rundir import resolve_runs_root
from carto_core.ui.panels import working
from carto_core.workflows import light

MIN_MODELS, MAX_MODELS = 4, 64


def panel(run: Run) -> None:
    """Draw what more could be known of the run, and a button that finds it out; the job, while one is at work."""
    job = working.newest(run.run_id, "probe", result=run.files.probes)
    st.markdown("**What further passes and models would tell**")
    if job is not None and jobs.is_active(job):
        working.watch(job)
        return
    working.tell_failure(job)
    missing = light.missing_probes(run)
    if not missing:
        st.caption("Every probe was run.")
    chosen = st.multiselect(
        "Probes",
        light.possible_probes(run),
        default=missing or [],
        format_func=lambda name: PROBES[name].title,
        key="probes_chosen",
    )
    models = DEFAULT_MODELS
    if "folds" in chosen:
        models = int(
            st.number_input(
                "Fold models",
                MIN_MODELS,
                MAX_MODELS,
                DEFAULT_MODELS,
                step=2,
                help="Each trains on a random half. 4 give a first idea, 8 or more say how well their verdict repeats.",
            )
        )
    st.dataframe([_row(run, name, models, missing) for name in light.possible_probes(run)], hide_index=True)
    if not chosen:
        st.caption("Choose at least one probe to run it.")
        return
    minutes = light.probe_minutes(run, chosen, models=models)
    if st.button(f"Run {len(chosen)} probes ({_minutes(minutes)})", key="run_probes"):
        _start(run, chosen, models)


def _row(run: Run, name: str, models: int, missing: list[str]) -> dict[str, str]:
    probe = PROBES[name]
    cost = "seconds" if name in CHEAP else _minutes(light.probe_minutes(run, [name], models=models))
    state_of = "not run" if name in missing else "there"
    return {"probe": probe.title, "answers": probe.question, "state": state_of, "takes": cost, "source": probe.source}


def _minutes(minutes: float) -> str:
    return "less than a minute" if minutes < 1 else f"about {minutes:.0f} min"


def _start(run: Run, chosen: list[str], models: int) -> None:
    jobs.launch(
        ["probe", str(run.files.path), *chosen, "--models", str(models)],
        kind="probe",
        run_id=run.run_id,
        runs_root=resolve_runs_root().absolute(),
        progress=run.files.probes / "progress.jsonl",
        result=run.files.probes,
    )
    st.rerun()
