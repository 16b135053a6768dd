"""What counts as memorized: the sides that a detector is to tell apart, by label, role and slice.

A label comes from planting, or from a twin run with another seed (`carto_core.probes`): never from the model that is
scored, or a score could pass by naming what it was made of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from carto_core.types import ROLES, Bool, Int32, SampleTable

if TYPE_CHECKING:
    import pandas as pd

MIN_REPEATS = 2
EXPOSED_REFERENCES = 1000
TRUTHS = (
    "extracted",
    "exposed",
    "counterfactual",
    "counterfactual_se",
    "counterfactual_accuracy",
    "counterfactual_accuracy_se",
)  # probe columns that judge, and are no scores


@dataclass(frozen=True, slots=True)
class Label:
    """One truth.

    Attributes:
        name: key in `LABELS`.
        title: short name.
        positive: sentence: what is to be found.
        negative: sentence: what it is to be told from.
        truth: the column of the twin run that it reads; None where planting alone decides.
    """

    name: str
    title: str
    positive: str
    negative: str
    truth: str | None


LABELS: dict[str, Label] = {
    label.name: label
    for label in (
        Label(
            "inserted",
            "Inserted",
            "Canaries that were inserted at least twice.",
            "Samples of the corpus that have no exact copy.",
            None,
        ),
        Label(
            "extracted",
            "Extracted",
            "Canaries and texts of the corpus that greedy decoding gives back from a twin model with another seed.",
            "Those that it does not give back.",
            "extracted",
        ),
        Label(
            "exposed",
            "Exposed",
            f"Canaries whose exposure in the twin model is at least log2({EXPOSED_REFERENCES}) bits.",
            "Other canaries, and samples of the corpus that have no exact copy.",
            "exposed",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Sides:
    """Who is to be told from whom.

    Attributes:
        positive: bool[N].
        negative: bool[N].
        unit: int32[N], rows that share one vote: the copies of a canary, or an exact-duplicate group.
    """

    positive: Bool
    negative: Bool
    unit: Int32


@dataclass(frozen=True, slots=True)
class _Rows:
    """The planted facts, row by row: role of every row, kind and repetitions of planted ones."""

    role: np.ndarray
    kind: np.ndarray
    repeats: np.ndarray
    unit: Int32


def known_labels(table: SampleTable) -> list[str]:
    """Return the labels that can be had: `inserted` always, the others once a twin was trained."""
    return [name for name, label in LABELS.items() if label.truth is None or label.truth in table.truth]


def slice_names(canaries: pd.DataFrame, label: str) -> list[str]:
    """Return the parts that quality is reported by: all, canaries inserted once, natural samples, kinds, repetitions."""
    inserted = canaries[canaries["inserted"].astype(bool)]
    kinds = [f"kind {kind}" for kind in dict.fromkeys(inserted["kind"])]
    repeats = [f"repeats {r}" for r in sorted(set(inserted["repeats"]))]
    return ["all", "once", *(["natural"] if label == "extracted" else []), *kinds, *repeats]


def sides(table: SampleTable, canaries: pd.DataFrame, *, label: str, role: str, part: str = "all") -> Sides:
    """Return the sides of one label, role and part of the positives; the negatives are the role's own throughout.

    Canaries have the role they were drawn with. Of the corpus's own samples each duplicate group belongs to one role by
    a seeded draw where the label judges them too (`extracted`); else they stand on the negative side of both.

    Args:
        table: a scored run's samples.
        canaries: the run's `canaries` table.
        label: key in `LABELS`.
        role: `calibration`, or `report` once one may look.
        part: see `slice_names`.
    """
    rows = _rows_of(table, canaries)
    of_role = rows.role == role
    positive, negative = _SIDES[label](table, rows, of_role)
    return Sides(positive & _part(table, rows, label, part), negative, rows.unit)


def _rows_of(table: SampleTable, canaries: pd.DataFrame) -> _Rows:
    planted = table.is_canary
    facts = canaries.set_index("canary_id")
    kind, role = (np.full(len(table), "", object) for _ in range(2))
    repeats = np.zeros(len(table), np.int32)
    if planted.any():
        mine = facts.loc[table.canary_id[planted].astype(np.int64)]
        kind[planted], role[planted] = mine["kind"].to_numpy(object), mine["role"].to_numpy(object)
        repeats[planted] = mine["repeats"].to_numpy()
    groups = int(table.group_id.max(initial=-1)) + 1
    drawn = np.random.default_rng([table.seed, 8]).integers(2, size=groups)
    role[~planted] = np.array(ROLES, object)[drawn[table.group_id[~planted]]]
    first_canary = groups  # numbers that no duplicate group has
    unit = np.where(planted, first_canary + np.nan_to_num(table.canary_id), table.group_id).astype(np.int32)
    return _Rows(role, kind, repeats, unit)


def _inserted(table: SampleTable, rows: _Rows, of_role: Bool) -> tuple[Bool, Bool]:
    trained = table.is_trained
    return table.is_canary & of_role & trained, alone(table.group_id, among=~table.is_canary) & trained


def _extracted(table: SampleTable, rows: _Rows, of_role: Bool) -> tuple[Bool, Bool]:
    found = table.truth["extracted"]
    return (found == 1) & of_role, (found == 0) & of_role


def _exposed(table: SampleTable, rows: _Rows, of_role: Bool) -> tuple[Bool, Bool]:
    exposed = table.truth["exposed"]
    ordinary = alone(table.group_id, among=~table.is_canary)
    return (exposed == 1) & of_role, ordinary | ((exposed == 0) & of_role)


_SIDES: dict[str, Callable[[SampleTable, _Rows, Bool], tuple[Bool, Bool]]] = {
    "inserted": _inserted,
    "extracted": _extracted,
    "exposed": _exposed,
}


def _part(table: SampleTable, rows: _Rows, label: str, part: str) -> Bool:
    """bool[N]: the rows of one part."""
    name, _, value = part.partition(" ")
    if name == "once":
        return rows.repeats == 1
    if name == "repeats":
        return rows.repeats == int(value)
    if name == "natural":
        return ~table.is_canary
    # To have been inserted says little of what stands in the corpus once: that is a part of its own.
    enough = rows.repeats >= (MIN_REPEATS if label == "inserted" else 0)
    return enough & (rows.kind == value) if name == "kind" else enough


def alone(group_id: Int32, *, among: Bool) -> Bool:
    """bool[N]: members of `among` whose group holds no other member of it."""
    _, group = np.unique(group_id, return_inverse=True)
    return among & (np.bincount(group, weights=among)[group] == 1)
