"""The run's plans on the intervene page: which there are, what became of them, and one to look at again."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from carto_core.export import read_plan
from carto_core.store.reader import Run
from carto_core.types import Plan, SampleTable
from carto_core.ui import state, texts
from carto_core.ui.shell import told
from carto_core.ui.words import literal
from carto_core.workflows import lineage
from carto_core.workflows.lineage import PlanRecord
from carto_core.workflows.naming import MAX_NAME


def looked_at(run: Run) -> PlanRecord | None:
    """Return the earlier plan that was picked in the list, or None: another selection brings the page back to itself."""
    picked = state.plan_looked_at(run.run_id)
    return None if picked is None else lineage.find_plan(run, picked)


def again(run: Run, table: SampleTable, record: PlanRecord) -> Plan:
    """Draw what an earlier plan is, with the way back to the present selection, and return it.

    Raises:
        PlanError: the plan's files are damaged.
    """
    st.subheader("An earlier plan")
    st.markdown(
        f"**{literal(record.name) or record.plan_sha256[:8]}** · {literal(record.action)}: "
        f"{literal(texts.shown(record.words))}"
    )
    st.caption(f"Plan {record.plan_sha256[:16]} of run {literal(run.run_id)}, made {literal(_when(record.created))}.")
    st.button("Back to the present selection", on_click=state.look_at_plan, args=(run.run_id, None))
    return read_plan(record.folder, table)[0]


def lineage_of(run: Run, present: Path | None) -> None:
    """Draw the list of the run's plans and the name of the present one.

    Args:
        run: a scored run.
        present: directory of the plan that the page shows; None where there is none.
    """
    records = lineage.list_plans(run, present=present)
    st.subheader("Plans of this run")
    if not records:
        st.caption("None yet. A plan stays here once it is measured, exported or named.")
        return
    shown = next((record for record in records if record.folder == present), None)
    if shown is not None:
        _name(run, shown)
    key = f"plans_{run.run_id}_{len(records)}_{present}"
    st.dataframe(
        [_row(record, is_present=record.folder == present) for record in records],
        key=key,
        hide_index=True,
        on_select=lambda: _look(run, records, key),
        selection_mode="single-row",
        height=min(330, 38 + 35 * len(records)),
        column_config={"rule": st.column_config.TextColumn(width="medium")},
    )
    st.caption("Tick a row to look at that plan again. A plan never changes: the hash is that of its rows.")


def _name(run: Run, record: PlanRecord) -> None:
    with st.form(f"name_{record.plan_sha256}", border=False):
        first, second = st.columns([4, 2], vertical_alignment="bottom")
        name = first.text_input("Name of this plan", value=record.name, max_chars=MAX_NAME, placeholder="none yet")
        if second.form_submit_button("Name it", width="stretch"):
            with told():
                lineage.name_plan(run, record.folder, name)
                st.rerun()


def _look(run: Run, records: list[PlanRecord], key: str) -> None:
    row = state.picked_row(key)
    state.look_at_plan(run.run_id, None if row is None else records[row].plan_sha256)


def _row(record: PlanRecord, *, is_present: bool) -> dict[str, object]:
    return {
        "plan": record.plan_sha256[:8] + (" (shown)" if is_present else ""),
        "name": record.name,
        "action": record.action,
        "rule": texts.shown(record.words),
        "rows": record.num_rows,
        "made": _when(record.created),
        "measured": "yes" if record.is_measured else "no",
        "exported": _when(record.exported) or "no",
        "used by": ", ".join(record.used_by),
    }


def _when(time: str) -> str:
    """Return an ISO time to the minute, in UTC."""
    return f"{time[:10]} {time[11:16]} UTC" if time else ""
