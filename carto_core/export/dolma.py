"""The dolma toolkit's folder: the corpus as documents, the plan as attributes beside them, row by row."""

from __future__ import annotations

import gzip
import io
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from carto_core.export.outgoing import Outgoing, json_line, plain
from carto_core.store.rundir import json_text

SHARD_ROWS = 100_000
NAME = "carto"  # of the set of attributes, and the first word of each
IS_DROPPED = f"$.attributes[?(@.{NAME}__drop && @.{NAME}__drop[0] && @.{NAME}__drop[0][2] >= 0.5)]"
MIX = {
    "streams": [
        {
            "name": NAME,
            "documents": ["corpus/documents/*.jsonl.gz"],
            "attributes": [NAME],
            "output": {"path": "mixed"},
            "filter": {"include": [], "exclude": [IS_DROPPED]},
        }
    ],
    "processes": 1,
}


def write_dolma(outgoing: Outgoing, folder: Path) -> int:
    """Write `corpus/documents/`, `corpus/attributes/carto/` with the same files, rows and order, and `mix.json`.

    The mixer finds attributes by putting them in the place of `/documents/`, so there is a folder above.
    """
    places = folder / "corpus" / "documents", folder / "corpus" / "attributes" / NAME
    for place in places:
        place.mkdir(parents=True)
    scores = {name: outgoing.scores[name].to_numpy() for name in ("difficulty", "memorization")}
    documents = list(outgoing.documents())
    for start in range(0, len(documents), SHARD_ROWS):
        name = f"{start // SHARD_ROWS:05d}.jsonl.gz"
        with ExitStack() as stack:
            texts, attributes = (stack.enter_context(_Lines(place / name)) for place in places)
            for row in documents[start : start + SHARD_ROWS]:
                named = {"id": row["key"], "source": row["source"]}
                texts.write(named | {"text": row["text"], "metadata": row["meta"]})
                attributes.write(named | {"attributes": _attributes(outgoing, row, scores)})
    (folder / "mix.json").write_text(json_text(MIX), encoding="utf-8")
    return len(documents)


def _attributes(outgoing: Outgoing, row: dict[str, Any], scores: dict[str, np.ndarray]) -> dict[str, list[list[float]]]:
    """Return one span over the whole text for each value; none for what is unknown, and `drop` where nothing is dropped."""
    repeat, weight = (values[row["sample_id"]] for values in (outgoing.plan.repeats, outgoing.plan.weights))
    values = {"drop": 1.0 if repeat == 0 else None, "repeat": float(repeat), "weight": plain(weight)}
    values |= {name: plain(value[row["sample_id"]]) for name, value in scores.items()}
    return {f"{NAME}__{k}": [] if v is None else [[0, len(row["text"]), v]] for k, v in values.items()}


class _Lines:
    """A gzip file of JSON lines, whose bytes do not tell when it was written."""

    def __init__(self, path: Path) -> None:
        self._raw = path.open("wb")
        self._file = io.TextIOWrapper(
            gzip.GzipFile("", "wb", fileobj=self._raw, mtime=0), encoding="utf-8", newline="\n"
        )

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._raw.close()

    def write(self, value: dict[str, Any]) -> None:
        """Append one line."""
        self._file.write(json_line(value))
