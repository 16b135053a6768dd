"""Formats that mix sources: the kept rows by quadrant, each row as often as it is drawn, and how much of each to take.

What reads them weighs sources, not samples. So repeats are written out and exact, and a quadrant counts as much as its
rows' loss weights together: the expected composition of an epoch is the plan's, but which rows of it weigh less is lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from carto_core.errors import PlanError
from carto_core.export.outgoing import Outgoing, json_line
from carto_core.quadrants import QUADRANTS
from carto_core.store.rundir import json_text
from carto_core.types import Float64, Int32

UNKNOWN = "unknown"  # rows whose place on the map is not known
SHARD_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Source:
    """The kept rows of one quadrant.

    Attributes:
        name: the quadrant's, or `unknown`.
        sample_ids: int32[n], in the order of the corpus, each as often as the plan draws it.
        weights: float64[n], the rows' loss weights.
    """

    name: str
    sample_ids: Int32
    weights: Float64

    @property
    def is_uneven(self) -> bool:
        """Whether the rows weigh differently, so that a weight of the whole loses something."""
        return bool(np.ptp(self.weights) > 0)


def sources(outgoing: Outgoing) -> list[Source]:
    """Return the sources with something to draw, in the order of `QUADRANTS`.

    Raises:
        PlanError: nothing of the user's own is left.
    """
    own = outgoing.own
    quadrant = outgoing.scores["quadrant"].to_numpy(object)[own]
    found = []
    for name in (*QUADRANTS, UNKNOWN):
        ids = own[[(label if isinstance(label, str) else UNKNOWN) == name for label in quadrant]]
        ids = np.repeat(ids, outgoing.plan.repeats[ids])
        weights = outgoing.plan.weights[ids].astype(np.float64)
        if weights.sum() > 0:  # a weight of 0 is refused by the readers: the source is left out instead
            found.append(Source(name, ids, weights))
    if not found:
        raise PlanError("the plan leaves nothing of the corpus to train on, so there is nothing to mix")
    return found


def folded(outgoing: Outgoing) -> list[str]:
    """Return one sentence for each source that loses something."""
    kept = sources(outgoing)
    notes = [
        f"{source.name}: its rows weigh from {source.weights.min():.3g} to {source.weights.max():.3g}; a mixture weighs "
        f"sources, not samples, so all of them are drawn as if they weighed {source.weights.mean():.3g}, their mean."
        for source in kept
        if source.is_uneven
    ]
    drawn = outgoing.own[outgoing.plan.repeats[outgoing.own] > 0]
    lost = np.count_nonzero(~np.isin(drawn, np.concatenate([source.sample_ids for source in kept])))
    return notes + [f"{lost:,} rows are left out with their source, whose weights are all 0."] * bool(lost)


def write_megatron(outgoing: Outgoing, folder: Path) -> int:
    """Write `QUADRANT.jsonl` for each source and `blend.txt`, `weight prefix` a line, weights in tokens.

    A token is counted as the run counted it (`num_tokens`, at least 1 a row); the weights add up to 1.
    """
    kept = sources(outgoing)
    tokens = np.maximum(outgoing.table.num_tokens, 1)
    mass = [float((source.weights * tokens[source.sample_ids]).sum()) for source in kept]
    blend = [f"{m / sum(mass)!r} {source.name}_text_document\n" for m, source in zip(mass, kept, strict=True)]
    for source, rows in _rows(outgoing, kept):
        with (folder / f"{source.name}.jsonl").open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(map(json_line, rows))
    (folder / "blend.txt").write_text("".join(blend), encoding="utf-8")
    return sum(len(source.sample_ids) for source in kept)


def write_mosaicml(outgoing: Outgoing, folder: Path) -> int:
    """Write a streaming dataset `QUADRANT/` (shards of JSON) for each source, and `streams.json`.

    `choose` is how many rows an epoch draws: the sum of the rows' weights, at least 1. A `proportion` would be rounded.
    """
    kept = sources(outgoing)
    for source, rows in _rows(outgoing, kept):
        _write_stream(rows, folder / source.name)
    streams = {s.name: {"local": s.name, "choose": max(1, round(float(s.weights.sum())))} for s in kept}
    (folder / "streams.json").write_text(json_text({"streams": streams}), encoding="utf-8")
    return sum(len(source.sample_ids) for source in kept)


def _rows(outgoing: Outgoing, kept: Sequence[Source]) -> Iterator[tuple[Source, Iterator[dict[str, Any]]]]:
    """Yield each source and its rows, `id` and `text`."""
    texts = {row["sample_id"]: {"id": row["key"], "text": row["text"]} for row in outgoing.documents()}
    for source in kept:
        yield source, (texts[int(i)] for i in source.sample_ids)


def _write_stream(rows: Iterator[dict[str, Any]], folder: Path) -> None:
    """Write rows as MosaicML's streaming library does: shards of JSON lines, each with its offsets, and an index."""
    folder.mkdir()
    shards, lines, size = [], [], 0
    for row in rows:
        line = f"{json.dumps(row, sort_keys=True)}\n".encode()
        if lines and size + len(line) > SHARD_BYTES:
            shards.append(_write_shard(lines, folder, number=len(shards)))
            lines, size = [], 0
        lines.append(line)
        size += len(line)
    shards.append(_write_shard(lines, folder, number=len(shards)))
    (folder / "index.json").write_text(json.dumps({"version": 2, "shards": shards}, sort_keys=True), encoding="utf-8")


def _write_shard(lines: Sequence[bytes], folder: Path, *, number: int) -> dict[str, Any]:
    """Write one shard and its offsets, uint32 little-endian, and return its entry in the index."""
    about = {"version": 2, "format": "json", "compression": None, "hashes": [], "size_limit": SHARD_BYTES}
    about |= {"columns": {"id": "str", "text": "str"}, "newline": "\n"}
    offsets = np.cumsum([0, *map(len, lines)]).astype("<u4")
    contents = {
        "raw_data": (f"shard.{number:05d}.json", b"".join(lines)),
        "raw_meta": (
            f"shard.{number:05d}.json.meta",
            np.uint32(len(lines)).astype("<u4").tobytes()
            + offsets.tobytes()
            + json.dumps(about, sort_keys=True).encode(),
        ),
    }
    entry = about | {"samples": len(lines), "zip_data": None, "zip_meta": None}
    for part, (name, content) in contents.items():
        (folder / name).write_bytes(content)
        entry |= {part: {"basename": name, "bytes": len(content), "hashes": {}}}
    return entry
