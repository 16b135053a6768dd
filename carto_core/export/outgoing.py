"""What a format writes from: a plan of one run, and whose rows leave."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from carto_core.store.reader import Run, meta_of
from carto_core.store.rundir import replacing
from carto_core.types import Bool, Int32, Plan, SampleTable

COLUMNS = [
    "key",
    "sample_id",
    "action",
    "weight",
    "repeat",
    "quadrant",
    "difficulty",
    "memorization",
    "canary_id",
    "reason",
]


@dataclass(frozen=True)
class Outgoing:
    """A plan on its way out.

    Attributes:
        run: the base run.
        plan: see `read_plan`.
        table: of the run.
        without_canaries: lists leave out planted keys, which do not stand in the user's own corpus. What holds the
            corpus, or follows its rows, never has them.
    """

    run: Run
    plan: Plan
    table: SampleTable
    without_canaries: bool = False

    @property
    def listed(self) -> Bool:
        """bool[N]: samples that a list may name."""
        return ~self.table.is_canary if self.without_canaries else np.ones(len(self.table), bool)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The affected rows with the contract's columns, in order of sample_id."""
        ids = np.flatnonzero(self.plan.affected & self.listed)
        scores = self.scores.iloc[ids]
        return pd.DataFrame(
            {
                "key": self.table.key[ids],
                "sample_id": ids.astype(np.int32),
                "action": actions_of(self.plan)[ids],
                "weight": self.plan.weights[ids],
                "repeat": self.plan.repeats[ids],
                "quadrant": scores["quadrant"].to_numpy(object),
                "difficulty": scores["difficulty"].to_numpy(np.float32),
                "memorization": scores["memorization"].to_numpy(np.float32),
                "canary_id": pd.array(self.table.canary_id[ids], "Int32"),
                "reason": np.array(self.plan.reason, object)[ids],
            }
        ).loc[:, COLUMNS]

    @cached_property
    def dropped(self) -> pd.DataFrame:
        """`id, reason` of the rows that the plan prunes, in order of sample_id."""
        rows = self.rows.loc[self.rows["repeat"] == 0, ["key", "reason"]]
        return rows.rename(columns={"key": "id"}).reset_index(drop=True)

    @property
    def own(self) -> Int32:
        """int32[n]: the user's own samples, in the order of the corpus."""
        return np.flatnonzero(~self.table.is_canary).astype(np.int32)

    @cached_property
    def scores(self) -> pd.DataFrame:
        """`scores` of the run, in order of sample_id."""
        return self.run.scores()

    def documents(self) -> Iterator[dict[str, Any]]:
        """Yield `sample_id, key, text, source, meta` of the user's own samples, in the order of the corpus."""
        samples = self.run.samples("sample_id, key, text, source, meta")
        for row in samples.loc[~self.table.is_canary].to_dict("records"):
            yield row | {"meta": meta_of(row["meta"])}


def actions_of(plan: Plan) -> np.ndarray:
    """Return object[N]: what happens to each sample, `keep`, `reweight`, `upsample` or `prune`."""
    actions = np.full(len(plan.repeats), "keep", dtype=object)
    actions[plan.weights != 1] = "reweight"
    actions[plan.repeats > 1] = "upsample"
    actions[plan.repeats == 0] = "prune"
    return actions


def export_corpus(run: Run, plan: Plan, table: SampleTable, *, out: str | Path) -> Path:
    """Write the cleaned corpus as JSONL: the user's rows that the plan keeps, with `repeat` and `weight`.

    Planted canaries are left out; validation samples were never part of training and are not in it.
    """
    path = Path(out)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in Outgoing(run, plan, table).documents():
            sample_id = row.pop("sample_id")
            if plan.repeats[sample_id] > 0:
                meta = row.pop("meta")
                applied = {"repeat": int(plan.repeats[sample_id]), "weight": plain(plan.weights[sample_id])}
                file.write(json_line(row | applied | {"meta": meta}))
    return path


def json_line(value: dict[str, Any]) -> str:
    """Return one line of JSONL."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """Return a cell as JSON has it: unknown is None, a float32 the shortest decimal that gives it back."""
    if value is pd.NA or (isinstance(value, float | np.floating) and np.isnan(value)):
        return None
    return float(str(np.float32(value))) if isinstance(value, float | np.floating) else value
