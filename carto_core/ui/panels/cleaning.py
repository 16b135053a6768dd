"""Cleaning in rounds on the intervene page: what it would cost, where it is, what each round found."""

from __future__ import annotations

from typing import Any

import numpy as np
import streamlit as st

from carto_core import jobs
from carto_core.scores import SCORES
from carto_core.store.reader import Run
from carto_core.store.rundir import resolve_runs_root
from carto_core.types import SampleTable
from carto_core.ui import cache, state
from carto_core.ui.panels import working
from carto_core.ui.shell import PAGES, told
from carto_core.workflows import rounds


def in_rounds(run: Run, table: SampleTable) -> None:
    """Draw the guided loop: cut, look what the cut exposed, cut again, each round measured."""
    st.subheader("Clean in rounds")
    if "parent_run" in run.manifest:
        st.caption(f"This run was trained under a plan; clean its base run, {run.manifest['parent_run']}.")
        return
    if run.is_foreign:
        st.caption("A round retrains the model, which another program trained.")
        return
    canaries = cache.canaries_of(run)
    if not np.any((canaries["role"] == "calibration") & canaries["inserted"]):
        st.caption("This run has no planted canaries, so nothing would tell when it is clean.")
        return
    st.markdown(
        "Cutting what a model memorizes may expose the samples behind it. A round cuts the most memorized samples, "
        "retrains over several seeds beside a random cut of the same size, and looks at the new map; it ends once few "
        "calibration canaries are given away or the budget is spent. The report half tells what that was worth."
    )
    job = working.newest(run.run_id, "clean")
    if job is not None and jobs.is_active(job):
        working.watch(job, reached=lambda: len((rounds.read_cleaning(run) or {"rounds": ()})["rounds"]))
    else:
        working.tell_failure(job)
        _offer(run, table)
    _found(run)


def _offer(run: Run, table: SampleTable) -> None:
    first, second, third, fourth = st.columns(4)
    step = first.slider("Cut a round (%)", 1, 20, round(100 * rounds.DEFAULT_STEP)) / 100
    budget = second.slider("Budget (%)", 1, 50, round(100 * rounds.DEFAULT_BUDGET), help="cut at most") / 100
    target = third.slider("Target (%)", 0, 50, round(100 * rounds.DEFAULT_TARGET), help="canaries given away") / 100
    seeds = int(fourth.number_input("Seeds a round", 1, 20, rounds.DEFAULT_SEEDS))
    with told():
        rounds.check_settings(step=step, budget=budget, target=target, seeds=seeds)
        minutes = rounds.cleaning_minutes(run, step=step, budget=budget, seeds=seeds)
        most = rounds.most_rounds(step=step, budget=budget)
        asked = st.button(
            f"Start: at most {most} rounds (about {max(1, round(minutes))} min at most)",
            help=f"By {SCORES[table.y].title}, the map's memorization axis. What was trained before is reused.",
        )
        if asked:
            settings = {"by": table.y, "step": step, "budget": budget, "target": target, "seeds": seeds}
            jobs.launch(
                ["clean", str(run.files.path), *(text for n, v in settings.items() for text in (f"--{n}", str(v)))],
                kind="clean",
                run_id=run.run_id,
                runs_root=resolve_runs_root().absolute(),
                progress=rounds.progress_file(run),
                result=rounds.cleaning_file(run),
            )
            st.rerun()


def _found(run: Run) -> None:
    content = rounds.read_cleaning(run)
    if content is None or not content["rounds"]:
        return
    said = f"{content['ended'][:1].upper()}{content['ended'][1:]}." if content["ended"] else "Not ended yet."
    st.markdown(f"**The last cleaning**, by {SCORES[content['by']].title}, {content['seeds']} seeds a round. {said}")
    st.dataframe([_row(one) for one in content["rounds"]], hide_index=True)
    st.caption("Shares of report canaries that the retrains give away; perplexity against the unchanged corpus.")
    last = content["rounds"][-1]["map_of"]
    if last != run.run_id and st.button(f"Compare with {last}", help="What came up after the cuts"):
        state.put(other=last)
        st.switch_page(PAGES["compare"][0])


def _row(one: dict[str, Any]) -> dict[str, str]:
    given = {arm: one["means"][arm]["extraction.report"] for arm in ("plan", "control", "baseline")}
    plan, control, unchanged = ("unknown" if share is None else f"{share:.0%}" for share in given.values())
    return {
        "round": str(one["round"]),
        "by the map of": one["map_of"],
        "cut so far": f"{one['num_affected']:,} ({one['share']:.1%})",
        "given away": plan,
        "after a random cut": control,
        "unchanged": unchanged,
        "perplexity": f"{rounds.price(one):+.1%}",
    }
