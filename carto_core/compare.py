"""Two scored runs joined on `key`: who left a quadrant for another, who moved most, which secrets became extractable.

After a cut the next layer of samples may become exposed (privacy onion effect, arXiv 2206.10469); this is where one sees
it. Run A is the earlier one, run B the later. Pure functions; knows no file and no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from carto_core.errors import CompareError, UnknownNameError
from carto_core.quadrants import QUADRANTS, Cuts
from carto_core.scores import SCORES
from carto_core.types import Bool, Float64, SampleTable

UNKNOWN, NEW, GONE = "unknown", "new", "gone"
FROM = (*QUADRANTS, UNKNOWN, NEW)
TO = (*QUADRANTS, UNKNOWN, GONE)
HOTSPOT = "hotspot-memorized"
TOP = 20

Rows = NDArray[np.int64]
WhichCuts = Literal["own", "a"]
By = Literal["rank", "value"]


@dataclass(frozen=True)
class Joined:
    """Which samples of two runs are one and the same: those of one key and, where texts are given, of one text.

    Attributes:
        a: int64[n], rows of A that are in both runs, ascending.
        b: int64[n], the same samples' rows of B.
        only_a: int64[m], rows of A without a counterpart, ascending.
        only_b: int64[k], rows of B without one, ascending.
        num_other_text: how many shared keys stand for different texts, and therefore join nothing.
    """

    a: Rows
    b: Rows
    only_a: Rows
    only_b: Rows
    num_other_text: int = 0


@dataclass(frozen=True)
class Flow:
    """How many samples went from which place in A to which in B.

    Places are the quadrants, `unknown` for a sample without one, and at the ends `new` and `gone`: not trained on in A, or
    not in B, because the run has no such sample or never draws it.

    Attributes:
        counts: int64[6, 6], rows in the order of `FROM`, columns in that of `TO`.
        before: object[U], every sample's place in A: those in both first, then only in A, then only in B.
        after: object[U], its place in B.
        rows_a: int64[U], its row of A, -1 = none.
        rows_b: int64[U], its row of B, -1 = none.
    """

    counts: NDArray[np.int64]
    before: NDArray[np.object_]
    after: NDArray[np.object_]
    rows_a: Rows
    rows_b: Rows


@dataclass(frozen=True)
class Moves:
    """Where the samples that both runs trained on stand on the memorization axis, before and after.

    Attributes:
        a: int64[m], rows of A.
        b: int64[m], rows of B.
        rank_a: float64[m] in (0, 1), rank among these very samples in A, 1 = most memorized; ties share their mean rank.
        rank_b: float64[m], the same in B.
        value_a: float64[m], the score itself in A.
        value_b: float64[m], in B.
        change: float64[m], B's value minus A's, turned so that above 0 is more memorized.
    """

    a: Rows
    b: Rows
    rank_a: Float64
    rank_b: Float64
    value_a: Float64
    value_b: Float64
    change: Float64

    @property
    def rank_change(self) -> Float64:
        """float64[m] in (-1, 1); above 0 is more memorized than before, against the others."""
        return self.rank_b - self.rank_a


@dataclass(frozen=True)
class Comparison:
    """What changed from run A to run B.

    Attributes:
        run_a: id of A.
        run_b: id of B.
        cuts_a: axes and thresholds that A's samples are placed by.
        cuts_b: those of B's; the same axes.
        which_cuts: `own`, or `a` where B is placed by A's.
        joined: which samples are the same.
        flow: between quadrants.
        moves: on the memorization axis.
        movers: the largest changes of rank, JSON-ready, see `top_movers`.
        value_movers: the largest changes of the value itself.
        hotspots: new ones, JSON-ready, see `new_hotspots`.
        num_new_hotspots: how many samples that is, copies and those not listed included.
        canaries: by role, see `canary_changes`; empty where they cannot be compared.
        notes: sentences a person should read.
    """

    run_a: str
    run_b: str
    cuts_a: Cuts
    cuts_b: Cuts
    which_cuts: WhichCuts
    joined: Joined
    flow: Flow
    moves: Moves
    movers: list[dict[str, Any]]
    value_movers: list[dict[str, Any]]
    hotspots: list[dict[str, Any]]
    num_new_hotspots: int
    canaries: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready: counts, lists and sentences, without the arrays."""
        joined = self.joined
        return {
            "run_a": self.run_a,
            "run_b": self.run_b,
            "x": self.cuts_a.x,
            "y": self.cuts_a.y,
            "cuts": self.which_cuts,
            "cuts_a": _cuts_dict(self.cuts_a),
            "cuts_b": _cuts_dict(self.cuts_b),
            "samples": {
                "a": len(joined.a) + len(joined.only_a),
                "b": len(joined.b) + len(joined.only_b),
                "in_both": len(joined.a),
                "only_a": len(joined.only_a),
                "only_b": len(joined.only_b),
                "other_text": joined.num_other_text,
                "trained_in_both": len(self.moves.a),
            },
            "flow": {"from": list(FROM), "to": list(TO), "counts": self.flow.counts.tolist()},
            "movers": self.movers,
            "value_movers": self.value_movers,
            "new_hotspots": {"num_samples": self.num_new_hotspots, "rows": self.hotspots},
            "canaries": self.canaries,
            "notes": list(self.notes),
        }

    def lines(self, *, top: int = 5) -> list[str]:
        """Return it as a short text: the notes, what flowed where, the first movers, the canaries."""
        said = [*self.notes, f"On y: {SCORES[self.cuts_a.y].title}. Quadrants from {self.run_a} to {self.run_b}:"]
        said += [
            f"  {_title(before)} -> {_title(after)}: {self.flow.counts[i, j]:,}"
            for i, before in enumerate(FROM)
            for j, after in enumerate(TO)
            if self.flow.counts[i, j]
        ]
        said += [
            f"New hotspots: {self.num_new_hotspots:,} samples.",
            "Largest moves (rank from 0 to 1, 1 = most memorized):",
        ]
        said += [f"  {row['key']}: {row['rank_a']:.3f} -> {row['rank_b']:.3f}" for row in self.movers[:top]]
        return said + [_canary_line(role, found) for role, found in self.canaries.items()]


def join(a: SampleTable, b: SampleTable, *, texts: tuple[np.ndarray, np.ndarray] | None = None) -> Joined:
    """Return which samples two runs share.

    Args:
        a: the earlier run's samples.
        b: the later run's.
        texts: one value per row of A, and one per row of B, equal where the texts are; None trusts the keys. (The planted
            copies of two seeds have the same keys and different secrets.)

    Raises:
        CompareError: they share none.
    """
    place = pd.Index(b.key).get_indexer(pd.Index(a.key)).astype(np.int64)
    found = place >= 0
    num_keys = int(found.sum())
    if texts is not None:
        found &= texts[0] == texts[1][place]
    rows_a = np.flatnonzero(found)
    if not len(rows_a):
        shared = f"only {num_keys:,} keys, which stand for other texts" if num_keys else "none of their keys"
        raise CompareError(
            f"runs {a.run_id} ({len(a):,} samples) and {b.run_id} ({len(b):,}) share {shared}; compare runs of one corpus"
        )
    rows_b = place[rows_a]
    only_a, only_b = (
        np.setdiff1d(np.arange(len(t)), rows, assume_unique=True) for t, rows in ((a, rows_a), (b, rows_b))
    )
    return Joined(rows_a, rows_b, only_a, only_b, num_keys - len(rows_a))


def common_axes(a: SampleTable, b: SampleTable, *, x: str | None = None, y: str | None = None) -> tuple[str, str]:
    """Return the scores on x and y that both runs are placed by: those asked for, else the ones that both were cut on.

    Raises:
        CompareError: the runs were cut on different scores and none was asked for, or a run knows none of its values.
        UnknownNameError: a score that was asked for does not exist.
    """
    chosen = []
    for axis, asked, of_a, of_b in (("x", x, a.x, b.x), ("y", y, a.y, b.y)):
        if asked is not None and asked not in SCORES:
            raise UnknownNameError.of("score", asked, SCORES)
        if asked is None and of_a != of_b:
            raise CompareError(
                f"run {a.run_id} is cut on {axis} = {of_a} and run {b.run_id} on {axis} = {of_b}, which cannot be compared; "
                f"name one score for both (--{axis} {of_a}), or score one anew"
            )
        chosen.append(of_a if asked is None else asked)
        for table in (a, b):
            _require_known(table, chosen[-1])
    return chosen[0], chosen[1]


def _require_known(table: SampleTable, score: str) -> None:
    values = table.scores.get(score)
    if values is None or np.isnan(values).all():
        probe = SCORES[score].probe
        command = f"score {table.run_id}" if probe is None else f"probe {table.run_id} {probe}"
        raise CompareError(
            f"run {table.run_id} knows {SCORES[score].title} ({score}) of no sample; run: python -m carto_core {command}, or "
            "compare on another score"
        )


def quadrant_flow(a: SampleTable, b: SampleTable, joined: Joined, *, cuts_a: Cuts, cuts_b: Cuts) -> Flow:
    """Return how many samples went from each quadrant to each, were gone or are new.

    A sample that neither run trains on is in no count.
    """
    none_a, none_b = np.full(len(joined.only_b), -1), np.full(len(joined.only_a), -1)
    rows_a = np.concatenate([joined.a, joined.only_a, none_a]).astype(np.int64)
    rows_b = np.concatenate([joined.b, none_b, joined.only_b]).astype(np.int64)
    before, after = _places(a, cuts_a, rows_a, NEW), _places(b, cuts_b, rows_b, GONE)
    counts = np.array([[np.count_nonzero((before == f) & (after == t)) for t in TO] for f in FROM], np.int64)
    counts[FROM.index(NEW), TO.index(GONE)] = 0
    return Flow(counts, before, after, rows_a, rows_b)


def _places(table: SampleTable, cuts: Cuts, rows: Rows, absent: str) -> NDArray[np.object_]:
    """Return object[U]: the quadrant of each row, `unknown` without one, `absent` where it is not trained on (-1 = no row)."""
    place = np.append(cuts.assign(table.scores), absent)[rows]
    place[place == None] = UNKNOWN  # noqa: E711 (elementwise)
    place[~np.append(table.is_trained, [False])[rows]] = absent
    return place


def memorization_moves(a: SampleTable, b: SampleTable, joined: Joined, *, y: str) -> Moves:
    """Return how every sample that both runs trained on moved on the memorization axis; those of unknown score are left out.

    Ranks, because two models' scores differ in scale; among these samples alone, because a cut lifts the rank of all
    that it leaves.
    """
    sign = SCORES[y].sign
    value_a, value_b = a.scores[y][joined.a].astype(np.float64), b.scores[y][joined.b].astype(np.float64)
    keep = a.is_trained[joined.a] & b.is_trained[joined.b] & ~np.isnan(value_a) & ~np.isnan(value_b)
    value_a, value_b = value_a[keep], value_b[keep]
    rank_a, rank_b = ((rankdata(sign * value) - 0.5) / max(len(value), 1) for value in (value_a, value_b))
    return Moves(joined.a[keep], joined.b[keep], rank_a, rank_b, value_a, value_b, sign * (value_b - value_a))


def top_movers(
    a: SampleTable, moves: Moves, flow: Flow, *, by: By = "rank", concealed: Bool | None = None, top: int = TOP
) -> list[dict[str, Any]]:
    """Return the samples that moved most, one per exact-duplicate group, JSON-ready.

    Each has `key, sample_id_a, sample_id_b, copies, from, to, rank_a, rank_b, rank_change, value_a, value_b, change`. Equal
    changes are ordered by the other of the two, then by row; a sample that did not move is not listed. Ranks compare any
    two models but move most where samples lie close together; values compare models of one kind.

    Args:
        a: the earlier run's samples.
        moves: see `memorization_moves`.
        flow: see `quadrant_flow`.
        by: change of `rank`, or of the `value` itself.
        concealed: bool[N] of A, samples that may not be named; None = none.
        top: how many at most.
    """
    sizes = np.abs(moves.rank_change), np.abs(moves.change)
    first, second = sizes if by == "rank" else sizes[::-1]
    order = np.lexsort((moves.a, -second, -first))
    order = order[(first + second)[order] > 0]
    if concealed is not None:
        order = order[~concealed[moves.a[order]]]
    order, copies = _one_per_group(order, a.group_id[moves.a])
    went = _went(flow)
    return [
        {
            "key": str(a.key[moves.a[i]]),
            "sample_id_a": int(moves.a[i]),
            "sample_id_b": int(moves.b[i]),
            "copies": int(number),
            **went[int(moves.b[i])],
            "rank_a": float(moves.rank_a[i]),
            "rank_b": float(moves.rank_b[i]),
            "rank_change": float(moves.rank_change[i]),
            "value_a": float(moves.value_a[i]),
            "value_b": float(moves.value_b[i]),
            "change": float(moves.change[i]),
        }
        for i, number in zip(order[:top], copies[:top], strict=True)
    ]


def new_hotspots(
    b: SampleTable, flow: Flow, *, y: str, concealed: Bool | None = None, top: int | None = None
) -> tuple[list[dict[str, Any]], int]:
    """Return the samples that are hotspots in B and were none in A, most memorized first, one per exact-duplicate group.

    Each has `key, sample_id_a` (None where A has none), `sample_id_b, copies, from, to, value_b`.

    Args:
        b: the later run's samples.
        flow: see `quadrant_flow`.
        y: the memorization axis.
        concealed: bool[N] of B, samples that may not be named; None = none.
        top: how many at most; None = all.

    Returns:
        the rows, and how many samples there are in all, copies and concealed ones included.
    """
    new = np.flatnonzero((flow.after == HOTSPOT) & (flow.before != HOTSPOT))
    rows = flow.rows_b[new]
    order = new[np.lexsort((rows, -SCORES[y].sign * b.scores[y][rows].astype(np.float64)))]
    if concealed is not None:
        order = order[~concealed[flow.rows_b[order]]]
    order, copies = _one_per_group(order, np.append(b.group_id, -1)[flow.rows_b])
    listed = [
        {
            "key": str(b.key[flow.rows_b[i]]),
            "sample_id_a": None if flow.rows_a[i] < 0 else int(flow.rows_a[i]),
            "sample_id_b": int(flow.rows_b[i]),
            "copies": int(number),
            "from": str(flow.before[i]),
            "to": str(flow.after[i]),
            "value_b": float(b.scores[y][flow.rows_b[i]]),
        }
        for i, number in zip(order[:top], copies[:top], strict=True)
    ]
    return listed, len(new)


def canary_changes(
    a: SampleTable,
    b: SampleTable,
    joined: Joined,
    *,
    extraction_a: Sequence[Mapping[str, Any]],
    extraction_b: Sequence[Mapping[str, Any]],
    roles: Sequence[str],
) -> dict[str, Any]:
    """Return by role which planted secrets greedy decoding gives back in one run and not in the other, JSON-ready.

    A secret is the same where a planted copy of it is. Each role has `n`, `extracted_a`, `extracted_b`, the same three of
    the secrets that both runs train on under `kept`, and the lists `became` and `stopped`, whose rows have
    `canary_id_a, canary_id_b, kind, copies_a, copies_b`: copies drawn per epoch, so that 0 is a secret that was cut.

    Args:
        a: the earlier run's samples.
        b: the later run's.
        joined: see `join`; with texts, or secrets of two seeds would be taken for one.
        extraction_a: rows of A's extraction audit.
        extraction_b: of B's.
        roles: that may be looked at.
    """
    rows = _secrets(a, b, joined, extraction_a, extraction_b)
    return {role: _changes([row for row in rows if row["role"] == role]) for role in roles}


def _secrets(
    a: SampleTable,
    b: SampleTable,
    joined: Joined,
    extraction_a: Sequence[Mapping[str, Any]],
    extraction_b: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    planted = a.is_canary[joined.a] & b.is_canary[joined.b]
    pairs = dict(
        zip(a.canary_id[joined.a[planted]].astype(int), b.canary_id[joined.b[planted]].astype(int), strict=True)
    )
    found_a, found_b = ({row["canary_id"]: row for row in rows} for rows in (extraction_a, extraction_b))
    copies_a, copies_b = _copies(a), _copies(b)
    return [
        {
            "canary_id_a": int(mine),
            "canary_id_b": int(theirs),
            "kind": found_a[mine]["kind"],
            "role": found_a[mine]["role"],
            "copies_a": copies_a[mine],
            "copies_b": copies_b[theirs],
            "extracted_a": bool(found_a[mine]["extracted"]),
            "extracted_b": bool(found_b[theirs]["extracted"]),
        }
        for mine, theirs in sorted(pairs.items())
        if mine in found_a and theirs in found_b
    ]


def _changes(rows: list[dict[str, Any]]) -> dict[str, Any]:
    became = [row for row in rows if row["extracted_b"] and not row["extracted_a"]]
    stopped = [row for row in rows if row["extracted_a"] and not row["extracted_b"]]
    shown = ("canary_id_a", "canary_id_b", "kind", "copies_a", "copies_b")
    return {
        **_extracted(rows),
        "kept": _extracted([row for row in rows if row["copies_a"] and row["copies_b"]]),
        "became": [{name: row[name] for name in shown} for row in became],
        "stopped": [{name: row[name] for name in shown} for row in stopped],
    }


def _extracted(rows: list[dict[str, Any]]) -> dict[str, int]:
    return {"n": len(rows)} | {name: sum(row[name] for row in rows) for name in ("extracted_a", "extracted_b")}


def _copies(table: SampleTable) -> dict[int, int]:
    """Return by canary how many copies of it are drawn per epoch."""
    planted = table.is_canary
    repeats = np.ones(len(table), np.int64) if table.repeats is None else table.repeats.astype(np.int64)
    drawn = np.bincount(table.canary_id[planted].astype(np.int64), weights=repeats[planted])
    return {int(canary): int(drawn[canary]) for canary in np.unique(table.canary_id[planted]).astype(np.int64)}


def _one_per_group(order: NDArray[np.int64], group_id: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first of each group in `order`, and how many of `order` share its group."""
    _, first, sizes = np.unique(group_id[order], return_index=True, return_counts=True)
    in_order = np.argsort(first)
    return order[first[in_order]], sizes[in_order]


def _went(flow: Flow) -> dict[int, dict[str, str]]:
    """Return by row of B where its sample came from and went to."""
    return {
        int(row): {"from": str(before), "to": str(after)}
        for row, before, after in zip(flow.rows_b, flow.before, flow.after, strict=True)
        if row >= 0
    }


def _title(place: str) -> str:
    return QUADRANTS[place].title if place in QUADRANTS else place


def _canary_line(role: str, found: dict[str, Any]) -> str:
    kept = found["kept"]
    return (
        f"Canaries ({role}): {found['extracted_a']} of {found['n']} extractable before, {found['extracted_b']} after; of the "
        f"{kept['n']} that both trained on {kept['extracted_a']} before, {kept['extracted_b']} after "
        f"({len(found['became'])} became so, {len(found['stopped'])} stopped)."
    )


def _cuts_dict(cuts: Cuts) -> dict[str, Any]:
    return {"tau_x": cuts.tau_x, "tau_y": cuts.tau_y}
