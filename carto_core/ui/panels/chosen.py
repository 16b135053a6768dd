"""The selection that the view describes, resolved; and its reading in the rail beside the map."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import streamlit as st

from carto_core.errors import SelectionError
from carto_core.plots.charts import trajectory_figure
from carto_core.plots.palette import QUADRANT_SIGNS
from carto_core.quadrants import QUADRANTS, Cuts, counts
from carto_core.rules import describe
from carto_core.store.reader import Run
from carto_core.types import Int32, SampleTable, Selection
from carto_core.ui import cache, state, texts
from carto_core.ui.shell import CHART, theme
from carto_core.ui.words import literal
from carto_core.workflows import light


@dataclass(frozen=True)
class Chosen:
    """A resolved selection and how long that took; `selection` is None where nothing is chosen."""

    selection: Selection | None
    hits: Int32 | None
    milliseconds: float

    @property
    def ids(self) -> Int32:
        """int32[n], empty where nothing is chosen."""
        return np.empty(0, np.int32) if self.selection is None else self.selection.sample_ids


def axes_of(run: Run) -> tuple[SampleTable, Cuts]:
    """Return the run's table and the cuts in view; the view takes the run's own axes where it has none."""
    table, view, saved = cache.table_of(run), state.get(), light.score_config(run)
    if view.x not in table.scores or view.y not in table.scores:
        state.put(x=table.x, y=table.y, cut_x=saved.cut_x, cut_y=saved.cut_y)
        view = state.get()
    return table, cache.cuts_of(run, x=view.x, y=view.y, cut_x=view.cut_x, cut_y=view.cut_y)


def resolve(run: Run, table: SampleTable) -> Chosen:
    """Resolve the view's selection and its search hits, saying what is wrong where a rule cannot be resolved."""
    view, began = state.get(), time.perf_counter()
    rule, filter_rule = view.selection_rule(), view.filter_rule()
    try:
        selection = None if rule is None else light.select(run, rule, table=table)
        hits = None if filter_rule is None else light.select(run, filter_rule, table=table).sample_ids
    except SelectionError as error:
        st.error(f"{literal(texts.shown(error))} The selection was cleared.")
        state.clear_selection()
        return Chosen(None, None, 0.0)
    return Chosen(selection, hits, 1000 * (time.perf_counter() - began))


def status_line(chosen: Chosen, table: SampleTable) -> str:
    """Return one line: how many samples, how they were chosen, how long it took."""
    if chosen.selection is None:
        hits = "" if chosen.hits is None else f" · {len(chosen.hits):,} search hits ringed"
        return f"Nothing selected: drag a lasso, or choose without dragging below{hits}."
    kind = chosen.selection.rule["type"].replace("_", " ")
    line = f"{kind}: {len(chosen.ids):,} of {len(table):,} samples in {max(1.0, chosen.milliseconds):.0f} ms"
    if chosen.hits is not None and not state.get().restrict:
        line += f" · {np.isin(chosen.ids, chosen.hits).sum():,} of {len(chosen.hits):,} search hits inside"
    return line


def rail(run: Run, table: SampleTable, cuts: Cuts, chosen: Chosen) -> None:
    """Draw what is in the selection: count, share, quadrants, sources, copies, canaries, trajectories."""
    st.subheader("What is in the selection?")
    ids = chosen.ids
    if chosen.selection is not None and len(ids) == 0:
        st.warning("No sample lies inside." + (" Search and filters restrict it." if state.get().restrict else ""))
    first, second, third = st.columns(3)
    first.metric("Samples", f"{len(ids):,}", help="of all training samples, planted canaries included")
    second.metric("Share", _percent(len(ids) / max(1, len(table))))
    mean = float(np.nanmean(table.scores["final_loss"][ids])) if len(ids) else float("nan")
    third.metric("Final loss", "–" if np.isnan(mean) else f"{mean:.2f}", help="mean, nats per token")
    if len(ids):
        st.markdown(_composition(run, table, cuts, ids))
        if chosen.selection is not None and chosen.selection.rule["type"] != "polygon":
            st.caption(f"Chosen by: {literal(texts.shown(describe(chosen.selection.rule)))}")
        for note in chosen.selection.notes if chosen.selection else ():
            st.caption(literal(note))
    _trajectories(run, table, ids)


def _composition(run: Run, table: SampleTable, cuts: Cuts, ids: Int32) -> str:
    quadrant = counts(cuts.assign({name: table.scores[name][ids] for name in {cuts.x, cuts.y}}))
    split = " · ".join(f"{QUADRANT_SIGNS[n]} {QUADRANTS[n].title} {c:,}" for n, c in quadrant.items() if c)
    names, sizes = np.unique(table.source[ids], return_counts=True)
    order = np.argsort(-sizes)[:5]
    sources = " · ".join(f"{literal(texts.shown(names[i])[:40])} {sizes[i]:,}" for i in order)
    copies = int((table.scores["group_size"][ids] > 1).sum())
    shown = cache.canaries_of(run).query(
        "role in @roles and inserted", local_dict={"roles": list(light.roles_shown(run))}
    )
    planted = np.isin(table.canary_id[ids], shown["canary_id"])
    secrets = len(np.unique(table.canary_id[ids][planted]))
    role = " and ".join(light.roles_shown(run))
    return (
        f"{split}\n\n**Sources** {sources}\n\n**Exact copies** {copies:,} samples have at least one\n\n"
        f"**Planted canaries** {secrets} of {len(shown)} ({role}), {int(planted.sum())} copies"
    )


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"


def _trajectories(run: Run, table: SampleTable, ids: Int32) -> None:
    epochs, losses = cache.trajectories_of(run)
    rng = np.random.default_rng(0)
    rest = np.setdiff1d(np.arange(len(table)), ids)
    some = [rng.choice(i, cache.BAND_SAMPLES, replace=False) if len(i) > cache.BAND_SAMPLES else i for i in (ids, rest)]
    st.markdown("**How its loss fell, against the rest** (median, band 10–90 %)")
    figure = trajectory_figure(epochs, selected=losses[:, some[0]], rest=losses[:, some[1]], theme=theme())
    st.plotly_chart(
        figure,
        theme=None,
        key="rail_trajectories",
        config=CHART,
        alt="Loss over training: median and 10 to 90 percent band of the selection and of the rest",
    )
