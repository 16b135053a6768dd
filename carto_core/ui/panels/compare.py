"""The compare page: what changed from one run to another, above all whether a cut exposed the next layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import streamlit as st

from carto_core.compare import FROM, GONE, NEW, TO, Comparison
from carto_core.plots.flow import Arrow, flow_figure, movers_figure, two_trajectories_figure
from carto_core.quadrants import QUADRANTS
from carto_core.scores import SCORES
from carto_core.store.reader import Run
from carto_core.store.rundir import readable_runs, resolve_runs_root
from carto_core.types import SampleTable
from carto_core.ui import cache, state, texts
from carto_core.ui.shell import CHART, MAX_SAID, go, scored_run, theme, told
from carto_core.ui.words import literal
from carto_core.workflows import light
from carto_core.workflows.comparing import likeliest_other

MAX_CLOUD = 4000  # of more the cloud would look the same
MAX_LISTED = 100
SHOWN_ARROWS = 12
MOVED_BY = {"rank": "rank", "value": "the value itself"}

WAITS = "A comparison needs two settled maps: it waits for the end of the training."


def page() -> None:
    """Draw the page."""
    run = scored_run("compare", waits=WAITS)
    if run is None:
        return
    with told():
        st.title("What changed after the cut?")
        others = [Run(files) for files in readable_runs()[0] if files.run_id != run.run_id]
        others = [other for other in others if not light.is_live(other)]
        if not others:
            _say_no_other(run)
            return
        other = _pick(run, others)
        before, after = cache.table_of(run), cache.table_of(other)
        found = _compared(run, other, before, after)
        _headline(found)
        _flow(run, other, found)
        first, second = st.columns([7, 5], gap="large")
        with first:
            _movers(before, after, found)
        with second:
            _canaries(run, found)
        _hotspots(other, found)
        _one_sample(run, other, found)


def _say_no_other(run: Run) -> None:
    st.info(
        f"There is no second run to compare **{literal(run.run_id)}** with. Cutting what a model memorizes may expose the samples "
        "behind it: train the same corpus under a plan, then look here for what came up."
    )
    plans = sorted(run.files.plans.glob("*/plan.json"), key=lambda path: path.stat().st_mtime)
    out = resolve_runs_root() / f"{run.run_id}-after"
    st.markdown("**Next**, from a shell (as long as the run itself took, on the same machine):")
    st.code(
        f"python -m carto_core retrain {run.run_id} {plans[-1].parent if plans else 'PLAN_DIR'} --out {out}\n"
        f"python -m carto_core audit {out}",
        language="bash",
    )
    st.caption(
        "Or let it go in rounds, each by the map that the last one left, each measured beside a random cut, until little is "
        "given away or a fifth of the samples is gone: **Clean in rounds** on the Intervene page, or from a shell "
        f"python -m carto_core clean {literal(run.run_id)}"
    )
    if not plans:
        st.caption("PLAN_DIR is a plan: choose samples on the Map, and Intervene writes one.")
    go("intervene", "Go to Intervene")


def _pick(run: Run, others: list[Run]) -> Run:
    """Draw the two pickers and return run B."""
    by_id = {other.run_id: other for other in others}
    wanted = state.get().other
    if wanted and wanted not in by_id:
        st.error(literal(f"There is no trained run {wanted[:MAX_SAID]!r} to compare with; pick another."))
    chosen = wanted if wanted in by_id else likeliest_other(run, others).run_id
    if chosen != wanted:
        state.put(other=chosen)
    first, second, third = st.columns([4, 4, 2], vertical_alignment="bottom")
    first.selectbox("Before (A)", [run.run_id, *by_id], **state.widget("run", twin="_before"))
    second.selectbox("After (B)", list(by_id), **state.widget("other", value=chosen))
    third.button("Swap A and B", on_click=lambda: state.put(run=chosen, other=run.run_id), width="stretch")
    return by_id[chosen]


def _compared(run: Run, other: Run, before: SampleTable, after: SampleTable) -> Comparison:
    """Draw how to compare, and return the comparison."""
    known = [name for name in before.scores if _is_known(before, name) and _is_known(after, name)]
    y = state.get().compared_on
    y = y if y in known else before.y if before.y in known else known[0]
    first, second = st.columns([4, 6], vertical_alignment="bottom")
    first.selectbox(
        "Memorization axis, of both",
        known,
        format_func=lambda name: SCORES[name].title,
        **state.widget("compared_on", value=y),
    )
    second.toggle(
        f"Cut both where {literal(run.run_id)} is",
        **state.widget("same_cuts"),
        help="Each run's own percentiles always leave the same share beyond them, so some samples always move up.",
    )
    if (before.x, before.y) != (after.x, after.y):
        st.caption(
            f"{literal(run.run_id)} is cut on {SCORES[before.x].title} and {SCORES[before.y].title}, {literal(other.run_id)} on "
            f"{SCORES[after.x].title} and {SCORES[after.y].title}; here both are placed by {SCORES[before.x].title} and "
            f"{SCORES[y].title}."
        )
    return cache.comparison_of(run, other, x=before.x, y=y, cuts="a" if state.get().same_cuts else "own")


def _is_known(table: SampleTable, name: str) -> bool:
    return name in table.scores and not np.isnan(table.scores[name]).all()


def _headline(found: Comparison) -> None:
    flow = found.flow
    first, second, third, fourth = st.columns(4)
    first.metric("In both runs", f"{len(found.joined.a):,}", help="samples of one key and one text")
    second.metric(
        "Gone", f"{_column(found, GONE):,}", help=literal(f"trained on in {found.run_a}, not in {found.run_b}")
    )
    third.metric("New hotspots", f"{found.num_new_hotspots:,}", help="hotspot after, and not before")
    left = int(((flow.before == "hotspot-memorized") & ~np.isin(flow.after, ["hotspot-memorized", GONE])).sum())
    fourth.metric("No longer hotspots", f"{left:,}", help="hotspot before, trained on in both, and no hotspot after")
    for note in found.notes:
        st.caption(literal(note))


def _column(found: Comparison, name: str) -> int:
    return int(found.flow.counts[:, TO.index(name)].sum())


def _flow(run: Run, other: Run, found: Comparison) -> None:
    st.subheader("Where did each quadrant's samples go?")
    st.markdown("Read along a row: the share of a quadrant before that is where afterwards. What stayed is not bold.")
    counts = found.flow.counts
    rows = [i for i, name in enumerate(FROM) if name in QUADRANTS or counts[i].any()]
    columns = [j for j, name in enumerate(TO) if name in QUADRANTS or counts[:, j].any()]
    figure = flow_figure(
        counts[np.ix_(rows, columns)],
        rows=[FROM[i] for i in rows],
        columns=[TO[j] for j in columns],
        run_a=run.run_id,
        run_b=other.run_id,
        theme=theme(),
    )
    moved = "; ".join(
        f"{_place(FROM[i])} to {_place(TO[j])} {counts[i, j]}" for i in rows for j in columns if counts[i, j]
    )
    st.plotly_chart(figure, theme=None, key="flow", config=CHART, alt=f"Samples by quadrant before and after. {moved}.")


def _place(name: str) -> str:
    return QUADRANTS[name].title if name in QUADRANTS else name


def _movers(before: SampleTable, after: SampleTable, found: Comparison) -> None:
    cuts = found.cuts_a
    st.subheader("Who moved most?")
    if not found.movers:
        st.info("No sample changed its place on the memorization axis.")
        return
    by = st.segmented_control(
        "Largest change of",
        list(MOVED_BY),
        format_func=MOVED_BY.__getitem__,
        default="rank",
        key="moved_by",
        help="Ranks compare any two models, and move most where samples lie close together; values compare models of a kind.",
    )
    movers = found.value_movers if by == "value" else found.movers
    st.markdown(
        f"Arrows from before to after, of the {min(SHOWN_ARROWS, len(movers))} samples that moved most on "
        f"{SCORES[cuts.y].title}; lines are the cuts{' (dotted before, dashed after)' if cuts != found.cuts_b else ''}."
    )
    arrows = [
        Arrow(
            x_a=float(before.scores[cuts.x][row["sample_id_a"]]),
            y_a=row["value_a"],
            x_b=float(after.scores[cuts.x][row["sample_id_b"]]),
            y_b=row["value_b"],
            is_up=row["change"] > 0 if by == "value" else row["rank_change"] > 0,
            text=f"{texts.shown(row['key'])}: rank {row['rank_a']:.2f} to {row['rank_b']:.2f}, {row['value_a']:.3g} to {row['value_b']:.3g}",
        )
        for row in movers[:SHOWN_ARROWS]
    ]
    cloud = found.moves.b
    if len(cloud) > MAX_CLOUD:
        cloud = np.random.default_rng(0).choice(cloud, MAX_CLOUD, replace=False)
    figure = movers_figure(
        arrows,
        cloud_x=after.scores[cuts.x][cloud].astype(np.float64),
        cloud_y=after.scores[cuts.y][cloud].astype(np.float64),
        cuts_a=cuts,
        cuts_b=found.cuts_b,
        theme=theme(),
    )
    ups = sum(arrow.is_up for arrow in arrows)
    st.plotly_chart(
        figure,
        theme=None,
        key="movers",
        config=CHART,
        alt=f"Largest moves from {found.run_a} to {found.run_b} on {SCORES[cuts.x].title} and {SCORES[cuts.y].title}: "
        f"{ups} samples are more memorized, {len(arrows) - ups} less",
    )
    with st.expander(f"The {len(movers)} largest moves as a table"):
        st.dataframe([_mover_row(row) for row in movers], hide_index=True)
        st.caption("Rank: among the samples that both runs trained on; 1 is the most memorized.")


def _mover_row(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "key": texts.shown(row["key"]),
        "rank before": f"{row['rank_a']:.3f}",
        "rank after": f"{row['rank_b']:.3f}",
        "change": f"{row['rank_change']:+.3f}",
        "value before": f"{row['value_a']:.4g}",
        "value after": f"{row['value_b']:.4g}",
        "quadrant before": _place(row["from"]),
        "quadrant after": _place(row["to"]),
        "copies": row["copies"],
    }


def _canaries(run: Run, found: Comparison) -> None:
    st.subheader("Which secrets became extractable?")
    if not found.canaries:
        st.caption("Not known: see the note above.")
        return
    canaries = cache.canaries_of(run).set_index("canary_id")
    for role, part in found.canaries.items():
        kept = part["kept"]
        st.markdown(
            f"Of the {kept['n']} {role} canaries that both runs trained on, greedy decoding gives back "
            f"**{kept['extracted_a']} before, {kept['extracted_b']} after**; of all {part['n']}, those that were cut "
            f"included, {part['extracted_a']} before and {part['extracted_b']} after."
        )
        rows = [(row, "became extractable") for row in part["became"]] + [(row, "stopped") for row in part["stopped"]]
        if not rows:
            st.caption("None changed.")
            continue
        st.dataframe(
            [
                {
                    "what": said,
                    "secret": texts.shown_parts(*canaries.loc[row["canary_id_a"], ["prefix", "secret"]])[1],
                    "kind": row["kind"],
                    "copies": f"{row['copies_a']} → {row['copies_b']}",
                }
                for row, said in rows
            ],
            hide_index=True,
        )
    st.caption(
        "Copies: drawn per epoch; 0 after is a secret that was cut. A change of seed alone changes some of these too."
    )


def _hotspots(other: Run, found: Comparison) -> None:
    st.subheader("Which samples are new hotspots?")
    if not found.num_new_hotspots:
        st.info(literal(f"No sample that was no hotspot in {found.run_a} is one in {found.run_b}."))
        return
    shown = found.hotspots[:MAX_LISTED]
    begun = texts.snippets(other, [row["sample_id_b"] for row in shown])
    st.markdown(f"{found.num_new_hotspots:,} samples, copies included; the most memorized on top.")
    st.dataframe(
        [
            {
                "text": text,
                "before": _place(row["from"]),
                f"{SCORES[found.cuts_b.y].title} after": f"{row['value_b']:.4g}",
                "copies": row["copies"],
                "key": texts.shown(row["key"]),
            }
            for row, text in zip(shown, begun, strict=True)
        ],
        hide_index=True,
        height=min(420, 38 + 35 * max(1, len(shown))),
        column_config={"text": st.column_config.TextColumn(width="large")},
    )
    if len(found.hotspots) > MAX_LISTED:
        st.caption(f"The first {MAX_LISTED} of {len(found.hotspots):,} different texts.")


def _one_sample(run: Run, other: Run, found: Comparison) -> None:
    rows = {row["sample_id_b"]: row for row in [*found.movers, *found.value_movers, *found.hotspots[:MAX_LISTED]]}
    if not rows:
        return
    st.subheader("How was one sample learned, before and after?")
    label = texts.labels(row["key"] for row in rows.values())
    chosen = st.selectbox(
        "Sample (the largest moves first, then new hotspots)", list(rows), format_func=lambda i: label[rows[i]["key"]]
    )
    if chosen is None:
        return
    row = rows[chosen]
    first, second = st.columns([7, 5], gap="large")
    with first:
        st.markdown("**Its loss in both trainings** (lower is better known)")
        figure = two_trajectories_figure(
            cache.trajectory_of(run, row["sample_id_a"]), cache.trajectory_of(other, row["sample_id_b"]), theme=theme()
        )
        st.plotly_chart(
            figure,
            theme=None,
            key="two_trajectories",
            config=CHART,
            alt="Loss of the chosen sample over the steps of both runs",
        )
    with second:
        st.markdown(f"{_place(row['from'])} before, **{_place(row['to'])}** after")
        st.text(texts.text_of(other, chosen))
        if row["from"] == NEW:
            st.caption(f"{literal(found.run_a)} did not train on it.")
