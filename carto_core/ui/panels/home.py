"""The home page: start a run, the jobs at work, the runs and how they stand, what to do next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from carto_core import jobs
from carto_core.store.reader import Run
from carto_core.store.rundir import RunDir, disk_use, readable_runs, resolve_runs_root
from carto_core.ui import live, state
from carto_core.ui.panels import joblist, training, working
from carto_core.ui.shell import open_page, told
from carto_core.ui.words import literal
from carto_core.workflows import doctor, housekeeping, light
from carto_core.workflows.demo import DEMO_RUN

SIGNS = {"ok": "✓", "warn": "⚠", "bad": "✗"}


def page() -> None:
    """Draw the page."""
    open_page("home")
    st.title("GenDataCarto")
    st.markdown(
        "See which training samples your model finds hard and which it memorizes, and **measure** what happens to secrets "
        "and to perplexity when you change them."
    )
    with told():
        root = resolve_runs_root().absolute()
        readable, unreadable = readable_runs(root)
        runs = [Run(files) for files in readable]
        if not runs:
            _first_steps(root)
        joblist.listing(root)
        training.panel(root)
        if runs or unreadable:
            st.subheader("Runs")
        for run in runs:
            with st.container(border=True), told():
                _card(run)
        for name, problem in unreadable.items():
            with st.container(border=True), told():
                st.warning(f"**{literal(name)}** cannot be read: {literal(problem)}")
                _manage(Run(RunDir(root / name)))
        _doctor(root)


def _first_steps(root: Path) -> None:
    st.subheader("There is no run yet")
    st.markdown(
        "1. **Train the bundled corpus** with the button: a few minutes on one core.\n"
        "2. Open **Map** and lasso what looks memorized.\n"
        "3. Open **Intervene**, measure what removing it does, download the list."
    )
    is_busy = any(jobs.is_active(job) for job in jobs.list_jobs(root))
    if st.button("Train the bundled demo", type="primary", disabled=is_busy):
        jobs.launch(
            ["demo", "--no-open"],
            kind="demo",
            run_id=DEMO_RUN,
            runs_root=root,
            progress=root / DEMO_RUN / "progress.jsonl",
            result=root / DEMO_RUN / "audits" / "tokens.json",
        )
        st.rerun()


def _card(run: Run) -> None:
    name, size = st.columns([8, 2], vertical_alignment="center")
    name.markdown(f"#### {literal(run.run_id)}")
    size.caption(f"{disk_use(run.files.path) / 1e6:,.1f} MB on disk")
    try:
        _facts(run)
    finally:
        _manage(run)  # also where its manifest cannot be read: it can still be deleted


def _facts(run: Run) -> None:
    manifest, status = run.manifest, run.status
    st.caption(
        f"**{status}** · {manifest['num_samples']:,} samples · {literal(_made_of(manifest))} · "
        f"begun {literal(live.moment(str(manifest['created'])))}"
    )
    st.markdown(_what_next(run, status))
    working.resume(run)
    if not light.is_live(run) or light.snapshots_so_far(run)[0] >= light.MIN_LIVE:
        label = "Open its map so far" if light.is_live(run) else "Open its map"
        kind = "primary" if run.run_id == state.get().run and status == "complete" else "secondary"
        if st.button(label, key=f"open_{run.run_id}", type=kind):
            state.put(run=run.run_id)
            st.switch_page("pages/map.py")


def _made_of(manifest: dict[str, Any]) -> str:
    if origin := manifest.get("origin"):
        return f"recorded by {origin['by']}" if origin["kind"] == "recorded" else origin["by"]
    return f"{manifest['config']['model']['task']} on {Path(manifest['config']['corpus']['path']).name}"


def _what_next(run: Run, status: str) -> str:
    if run.is_foreign:
        return _what_next_of_foreign(run, status)
    if status == "running":
        return "It is being trained; its map grows as snapshots come."
    if status == "failed":
        return f"The training failed: {literal(str(run.manifest.get('error')))}."
    if status != "complete":
        return f"The training was {status}; what it had finished is kept."
    if light.read_audit(run, "extraction") is None:
        return "Next: run the audits on the **Audit** page."
    if "twin" in light.missing_probes(run):
        return (
            "Next: lasso a hotspot on the **Map**; its detectors are judged best by a twin model, which the Map trains."
        )
    return "Next: lasso a hotspot on the **Map**, then **Intervene**."


def _what_next_of_foreign(run: Run, status: str) -> str:
    if status == "running":
        return "It is being recorded; its map grows as snapshots come."
    if status != "complete":
        why = f" ({run.manifest['error']})" if run.manifest.get("error") else ""
        return literal(f"The recording was {status}{why}; the snapshots that it had finished are kept.")
    return "Next: lasso a hotspot on the **Map**, then **Intervene** and export the list for your own training."


def _manage(run: Run) -> None:
    """Draw rename and delete, each behind a click."""
    with st.container(horizontal=True):
        with st.popover("Rename …", key=f"rename_{run.run_id}", on_change="rerun") as box:
            if box.open:
                _rename(run)
        with st.popover("Delete …", key=f"delete_{run.run_id}", on_change="rerun") as box:
            if box.open:
                _delete(run)


def _rename(run: Run) -> None:
    new = st.text_input("New name", run.run_id, key=f"new_name_{run.run_id}", live=True)
    if st.button("Rename", key=f"do_rename_{run.run_id}", disabled=new.strip() == run.run_id):
        with told():
            renamed = housekeeping.rename_run(run, new)
            if state.get().run == run.run_id:
                state.put(run=renamed.run_id)
            st.rerun()


def _delete(run: Run) -> None:
    if why := housekeeping.in_use(run.files):
        st.info(f"It cannot be deleted now: {literal(why)}.")
        return
    held = housekeeping.holdings(run)
    st.markdown(
        f"A link; its files in {literal(held.link_to)} stay."
        if held.link_to
        else f"**{held.num_bytes / 1e6:,.1f} MB** go for good, with {held.num_plans} plans, {held.num_measured} "
        f"measurements and {held.num_selections} saved selections."
    )
    if held.retrains:
        st.markdown(f"Its retrains stay: {literal(', '.join(held.retrains))}. They lose what they are compared with.")
    typed = st.text_input("Type its name to delete it", key=f"typed_{run.run_id}", live=True)
    if st.button("Delete it", key=f"do_delete_{run.run_id}", type="primary", disabled=typed != run.run_id):
        with told():
            housekeeping.delete_run(run)
            st.rerun()


def _doctor(root: Path) -> None:
    with st.expander("Doctor: installation, device, disk, every run"):
        if st.button("Check everything", help="Takes some seconds."):
            with st.spinner("Looking …"):
                state.remember("doctor", doctor.examine(root))
        found = state.recall("doctor")
        if found is None:
            return
        checks = sorted(found["checks"], key=lambda check: "bwo".index(check["state"][0]))
        bad = sum(check["state"] != "ok" for check in checks)
        st.markdown(f"**{bad} of {len(checks)} need a look.**" if bad else f"**All {len(checks)} are in order.**")
        rows = [
            {
                "": SIGNS[c["state"]],
                "what": f"{c['section']}: {c['name']}",
                "found": c["found"],
                "what to do": c["mend"],
            }
            for c in checks
        ]
        widths = {"": st.column_config.TextColumn(width=30), "found": st.column_config.TextColumn(width="large")}
        st.dataframe(rows, hide_index=True, column_config=widths)
