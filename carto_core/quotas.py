"""Whom a cut hits: its effect by group, near copies it leaves behind, and a quota that keeps it from erasing a group."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carto_core.errors import SelectionError
from carto_core.types import Bool, Float32, Float64, Int32, Plan, SampleTable, Selection

Labels = NDArray[np.object_]
UNKNOWN = "unknown"
STARVED_SHARE = 0.5
STARVED_ROWS = 10


@dataclass(frozen=True, slots=True)
class GroupEffect:
    """What a plan does to one group of samples.

    Attributes:
        grouping: what groups are made by: `source`, `length`, or a column of the user's.
        group: the group's name.
        num_samples: before the plan.
        num_affected: not trained on exactly as before.
        num_removed: never drawn.
        removed: share of the samples that is never drawn.
        removed_tokens: share of the tokens that is never drawn.
        starved: whether more than the stated share of the samples would go, of a group large enough to tell.
    """

    grouping: str
    group: str
    num_samples: int
    num_affected: int
    num_removed: int
    removed: float
    removed_tokens: float
    starved: bool


@dataclass(frozen=True, slots=True)
class Remaining:
    """Near duplicates that a cut leaves behind.

    Attributes:
        outside: int32[n], samples outside the selection, in a near-duplicate group with one inside.
        touched: int32[m], selected samples that have such a one.
    """

    outside: Int32
    touched: Int32


def groupings(table: SampleTable, columns: Mapping[str, Labels] | None = None) -> dict[str, Labels]:
    """Return each sample's group by source, by quartile of length, and by each of the user's columns.

    Planted samples are in no group (None): they are not the user's. An unknown value is the group `unknown`.

    Args:
        table: the run's samples.
        columns: object[N] by name, such as years or parties; None or NaN is unknown.
    """
    mine = ~table.is_canary
    found = {"source": table.source, "length": _length_quartiles(table.num_tokens, mine)} | dict(columns or {})
    return {name: _labels(values, mine) for name, values in found.items()}


def group_effect(
    plan: Plan,
    table: SampleTable,
    groups: Mapping[str, Labels],
    *,
    share: float = STARVED_SHARE,
    min_rows: int = STARVED_ROWS,
) -> list[GroupEffect]:
    """Return what the plan does to each group, groupings in their order and groups by name.

    Args:
        plan: of the same samples.
        table: the run's samples.
        groups: labels object[N] by grouping, None = in none; see `groupings`.
        share: a group is starved when more than this share of its samples would go.
        min_rows: smaller groups are never called starved.
    """
    removed = plan.repeats == 0
    effects = []
    for grouping, labels in groups.items():
        for group in _names(labels):
            rows = labels == group
            count, gone = int(rows.sum()), int((rows & removed).sum())
            effects.append(
                GroupEffect(
                    grouping=grouping,
                    group=group,
                    num_samples=count,
                    num_affected=int((rows & plan.affected).sum()),
                    num_removed=gone,
                    removed=gone / count,
                    removed_tokens=_share(table.num_tokens, rows & removed, rows),
                    starved=count >= min_rows and gone / count > share,
                )
            )
    return effects


def remaining_near_duplicates(selection: Selection, near_group_id: Int32) -> Remaining:
    """Return the near duplicates outside a selection, and the selected samples that they repeat.

    Args:
        selection: the samples to be cut.
        near_group_id: int32[N], see `corpus.near_duplicates`.
    """
    inside = np.zeros(len(near_group_id), bool)
    inside[selection.sample_ids] = True
    outside = ~inside & np.isin(near_group_id, near_group_id[inside])
    touched = inside & np.isin(near_group_id, near_group_id[outside])
    return Remaining(np.flatnonzero(outside).astype(np.int32), np.flatnonzero(touched).astype(np.int32))


def group_quality(loss: Float32, labels: Labels) -> dict[str, float]:
    """Return exp(-mean loss) of every group, in [0, 1]; 0 where no loss is known, which protects most.

    Args:
        loss: float32[N], nats per token, NaN = unknown.
        labels: object[N], None = in no group.
    """
    known = ~np.isnan(loss)
    rows = {group: known & (labels == group) for group in _names(labels)}
    return {
        group: math.exp(-max(0.0, float(loss[mine].mean(dtype=np.float64)))) if mine.any() else 0.0
        for group, mine in rows.items()
    }


def kept_counts(sizes: Mapping[str, int], quality: Mapping[str, float], *, keep: int) -> dict[str, int]:
    """Return how many samples of each group stay, after DRoP (Vysogorets, Ahuja, Kempe, ICLR 2025, algorithm 1).

    The share that is kept grows with 1 - quality, so the counts are proportional to size x (1 - quality); a group of
    which everything would be kept passes what it cannot use on to the others, until none overflows. Where only groups of
    quality 1 are left to take it, they take alike shares. Counts are rounded by largest remainder, so they add up.

    Args:
        sizes: samples in each group, at least 1.
        quality: in [0, 1], how well the model does on a group; the better, the more may go.
        keep: samples to keep in all, from 0 to all.

    Raises:
        SelectionError: a group has no quality, a quality lies outside [0, 1], or `keep` is out of range.
    """
    size = np.array(list(sizes.values()), np.float64)
    need = 1 - np.array([_quality(quality, group) for group in sizes])
    if not 0 <= keep <= size.sum():
        raise SelectionError(f"quotas: cannot keep {keep:,} of {int(size.sum()):,} samples")
    density, left, open_ = np.zeros(len(size)), float(keep), np.ones(len(size), bool)
    while left > 1e-9 and open_.any():
        pull = np.where(open_, need, 0.0)
        pull = pull if pull.any() else open_.astype(np.float64)
        density += left * pull / (size * pull).sum()
        full = open_ & (density >= 1)
        left = float(((density - 1) * size)[full].sum())
        density[full] = 1.0
        open_ &= ~full
    return dict(zip(sizes, _rounded(density * size, keep), strict=True))


def apply_quotas(
    selection: Selection,
    table: SampleTable,
    labels: Labels,
    quality: Mapping[str, float],
    *,
    budget: int,
    ranking: Float32 | None = None,
) -> Selection:
    """Return the part of a selection that its groups' quotas let be cut.

    A group gives up at most what `kept_counts` does not keep of it when `budget` of all grouped samples are to go.
    Exact copies within a group go together: one that would pass the quota is skipped, and the next is tried. Selected
    samples in no group stay selected. With everything selected and no copies this is DRoP, random within a group.

    Args:
        selection: what may be cut.
        table: the run's samples.
        labels: object[N], each sample's group, None = in none.
        quality: see `kept_counts`.
        budget: samples to cut in all, at least 1.
        ranking: float32[N], the highest are cut first, unknown ones last; None draws at random with the run's seed.

    Returns:
        A selection by keys, which resolves to the same samples again; its notes say what the quotas held back.

    Raises:
        SelectionError: see `kept_counts`; the budget is not from 1 to the number of grouped samples.
    """
    sizes = {group: int((labels == group).sum()) for group in _names(labels)}
    total = sum(sizes.values())
    if not 1 <= budget <= total:
        raise SelectionError(f"quotas: the budget must lie between 1 and the {total:,} grouped samples, got {budget:,}")
    kept = kept_counts(sizes, quality, keep=total - budget)
    chosen = np.zeros(len(table), bool)
    chosen[selection.sample_ids] = True
    cut = chosen & np.array([label is None for label in labels], bool)
    order, skipped = _order(table, ranking), 0
    for group, size in sizes.items():
        candidates = order[chosen[order] & (labels[order] == group)]
        taken, passed = _take(candidates, table.group_id, quota=size - kept[group])
        cut[taken] = True
        skipped += passed
    ids = np.flatnonzero(cut).astype(np.int32)
    notes = [
        *selection.notes,
        f"Quotas let {len(ids):,} of {len(selection.sample_ids):,} selected samples go; asked for were {budget:,}.",
    ]
    if skipped:
        notes.append(f"{skipped} sets of copies would pass their group's quota and were skipped.")
    return Selection({"type": "keys", "keys": [str(key) for key in table.key[ids]]}, ids, tuple(notes))


def _order(table: SampleTable, ranking: Float32 | None) -> NDArray[np.intp]:
    """Return all sample ids, sets of copies together, those to be cut first in front."""
    _, place = np.unique(table.group_id, return_inverse=True)
    shuffled = np.random.default_rng([table.seed, 6]).permutation(int(place.max(initial=-1)) + 1)
    worth = np.full(len(shuffled), -np.inf)
    if ranking is not None:
        np.fmax.at(worth, place, ranking.astype(np.float64))
    return np.lexsort((np.arange(len(place)), shuffled[place], -worth[place]))


def _take(candidates: NDArray[np.intp], group_id: Int32, *, quota: int) -> tuple[list[int], int]:
    """Return the first whole sets of copies among the ordered candidates that fit, and how many did not."""
    taken: list[int] = []
    skipped = 0
    starts = np.flatnonzero(np.diff(group_id[candidates], prepend=-1))
    for copies in np.split(candidates, starts[1:]):
        room = quota - len(taken)
        if room > 0 and len(copies) <= room:
            taken += copies.tolist()
        else:
            skipped += int(room > 0)
    return taken, skipped


def _rounded(counts: Float64, total: int) -> list[int]:
    """Round counts that add up to `total` to whole ones that do: largest remainders go up, the first on a tie."""
    whole = np.floor(counts + 1e-9)
    missing = total - int(whole.sum())
    whole[np.argsort(-(counts - whole), kind="stable")[:missing]] += 1
    return whole.astype(int).tolist()


def _quality(quality: Mapping[str, float], group: str) -> float:
    value = quality.get(group)
    if value is None or not 0 <= value <= 1:
        raise SelectionError(f"quotas: the quality of group {group!r} must be a number from 0 to 1, got {value}")
    return float(value)


def _length_quartiles(num_tokens: Int32, mine: Bool) -> Labels:
    """Return labels such as `9 to 17 tokens`, by the quartiles of the user's own samples; equal lengths share one."""
    edges = np.quantile(num_tokens[mine], [0.25, 0.5, 0.75]) if mine.any() else np.zeros(3)
    bucket = np.searchsorted(edges, num_tokens)
    labels = np.full(len(num_tokens), None, object)
    for level in range(4):
        rows = mine & (bucket == level)
        if rows.any():
            labels[rows] = f"{num_tokens[rows].min()} to {num_tokens[rows].max()} tokens"
    return labels


def _labels(values: Labels, mine: Bool) -> Labels:
    """Return the values as texts; None where a sample is not the user's."""
    known = (UNKNOWN if v is None or (isinstance(v, float) and math.isnan(v)) else str(v) for v in values)
    return np.array([label if own else None for label, own in zip(known, mine, strict=True)] + [None], object)[:-1]


def _names(labels: Labels) -> list[str]:
    """Return the groups in order, numbers within names by their value."""
    names = {str(label) for label in labels if label is not None}
    return sorted(names, key=lambda name: [int(p) if i % 2 else p for i, p in enumerate(re.split(r"(\d+)", name))])


def _share(num_tokens: Int32, part: Bool, whole: Bool) -> float:
    return float(num_tokens[part].sum() / max(1, int(num_tokens[whole].sum())))
