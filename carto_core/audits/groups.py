"""Rows of per-canary audits, cut the way every one of them is reported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from carto_core.corpus.canaries import Canary

Row = dict[str, Any]


def facts_of(canary: Canary) -> Row:
    """Return what every row says of its canary."""
    return {
        "canary_id": canary.canary_id,
        "kind": canary.kind,
        "role": canary.role,
        "repeats": canary.repeats,
        "inserted": canary.inserted,
    }


def by_insertion(rows: list[Row], reduce: Callable[[list[Row]], Row]) -> dict[str, Row]:
    """Return `reduce` of the inserted canaries, also by repetitions and by kind, and of the controls, also by kind."""
    inserted, control = ([row for row in rows if row["inserted"] == which] for which in (True, False))
    by_repeats = {str(repeats): part for repeats, part in _split(inserted, "repeats", reduce).items()}
    return {
        "inserted": reduce(inserted) | {"by_repeats": by_repeats, "by_kind": _split(inserted, "kind", reduce)},
        "control": reduce(control) | {"by_kind": _split(control, "kind", reduce)},
    }


def _split(rows: list[Row], column: str, reduce: Callable[[list[Row]], Row]) -> dict[Any, Row]:
    return {value: reduce([r for r in rows if r[column] == value]) for value in sorted({r[column] for r in rows})}
