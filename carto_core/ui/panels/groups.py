"""Whom a plan hits, on the intervene page: what it takes from each group, the near copies it leaves, and a quota on it."""

from __future__ import annotations

import numpy as np
import streamlit as st

from carto_core.quotas import (
    STARVED_ROWS,
    STARVED_SHARE,
    GroupEffect,
    Labels,
    apply_quotas,
    group_effect,
    group_quality,
    groupings,
    remaining_near_duplicates,
)
from carto_core.scores import SCORES
from carto_core.store.reader import Run
from carto_core.types import Plan, SampleTable, Selection
from carto_core.ui import cache, state, texts
from carto_core.ui.panels.table import hidden
from carto_core.workflows import light

MAX_GROUPS = 40  # a column of more values names its rows rather than groups of them
MAX_LISTED = 20


def protect(run: Run, table: SampleTable, selection: Selection) -> Selection:
    """Offer to cap by quota what each group gives up, and return what may then be pruned.

    Args:
        run: a scored run.
        table: its samples.
        selection: what would be pruned.
    """
    first, second = st.columns([4, 3], vertical_alignment="bottom")
    is_on = first.toggle(
        "Protect groups (quota)",
        value=state.recall("protect") is True,
        key="protect",
        help="After DRoP (ICLR 2025): a group gives up the less, the worse the model does on it; copies go together.",
    )
    state.remember("protect", is_on)
    if not is_on:
        return selection
    labels_by = _groupings(run, table)
    names, kept = list(labels_by), state.recall("protect_by", "source")
    by = second.selectbox("Groups by", names, index=names.index(kept) if kept in names else 0, key="protect_by")
    state.remember("protect_by", by)
    labels = labels_by[by]
    y = state.get().y
    within = apply_quotas(
        selection,
        table,
        labels,
        group_quality(table.scores["final_loss"], labels),
        budget=min(len(selection.sample_ids), int(sum(label is not None for label in labels))),
        ranking=SCORES[y].sign * table.scores[y],
    )
    st.caption(f"Within a group the most memorized by {SCORES[y].title} go first.")
    return within


def effects(run: Run, table: SampleTable, plan: Plan) -> None:
    """Draw what the plan does to each source, length and column of the user's; starved groups come first."""
    labels = _groupings(run, table)
    found = group_effect(plan, table, labels)
    starved = [effect for effect in found if effect.starved]
    st.subheader("Whom does it hit?")
    if starved:
        names = ", ".join(f"{e.grouping} {texts.shown(e.group)}" for e in starved[:5])
        more = f" and {len(starved) - 5} more" if len(starved) > 5 else ""
        st.warning(f"More than {STARVED_SHARE:.0%} of these groups would go:")
        st.text(names + more)  # the corpus's own words, hence as plain text
    else:
        st.caption(f"No group of {STARVED_ROWS} rows or more loses over {STARVED_SHARE:.0%} of them.")
    order = sorted(found, key=lambda e: (not e.starved, -e.removed, -e.num_affected))
    share = st.column_config.ProgressColumn(format="percent", min_value=0, max_value=1)
    st.dataframe(
        [_row(effect) for effect in order],
        hide_index=True,
        height=min(330, 38 + 35 * max(1, len(order))),
        column_config={"rows removed": share, "tokens removed": share},
    )
    left_out = [name for name in cache.meta_columns(run) if name not in labels]
    if left_out:
        st.caption(
            f"Columns of more than {MAX_GROUPS} values are left out: {len(left_out)}. Planted canaries are in no group."
        )


def near_copies(run: Run, table: SampleTable, plan: Plan) -> None:
    """Say which near duplicates of what is removed would remain, and list them."""
    if not (plan.repeats == 0).any():
        return
    near_group = light.near_groups(run)
    if near_group is None:
        st.caption("Whether near copies of the removed texts remain is not known yet. Run:")
        st.code(f"python -m carto_core probe {run.run_id} near_duplicates", language="bash")
        return
    removed = Selection(plan.rule, np.flatnonzero(plan.repeats == 0).astype(np.int32))
    remaining = remaining_near_duplicates(removed, near_group)
    if not len(remaining.outside):
        st.caption("No near copy of a removed text remains (5-word shingles, Jaccard 0.7 or more).")
        return
    st.warning(
        f"{len(remaining.outside):,} near copies would remain in training, of {len(remaining.touched):,} of the "
        f"{len(removed.sample_ids):,} removed samples: the model may still learn these texts."
    )
    shown = remaining.outside[~hidden(run, table)[remaining.outside]][:MAX_LISTED]
    begun = texts.snippets(run, shown.tolist())
    rows = [{"remaining text": text, "key": texts.shown(table.key[i])} for i, text in zip(shown, begun, strict=True)]
    st.dataframe(rows, hide_index=True)


def _groupings(run: Run, table: SampleTable) -> dict[str, Labels]:
    columns = {name: _as_labels(values) for name, values in cache.meta_columns(run).items()}
    few = {name: labels for name, labels in columns.items() if len(set(labels.tolist())) <= MAX_GROUPS}
    return groupings(table, few)


def _as_labels(values: np.ndarray) -> Labels:
    """Return a column as texts, whole numbers without a point; unknown is None."""
    if values.dtype != float:
        return np.array([value or None for value in values] + [None], object)[:-1]
    return np.array([None if np.isnan(v) else f"{v:g}" for v in values] + [None], object)[:-1]


def _row(effect: GroupEffect) -> dict[str, object]:
    return {
        "groups by": effect.grouping,
        "group": texts.shown(effect.group),
        "rows": effect.num_samples,
        "changed": effect.num_affected,
        "rows removed": effect.removed,
        "tokens removed": effect.removed_tokens,
        "reading": "starved" if effect.starved else "",
    }
