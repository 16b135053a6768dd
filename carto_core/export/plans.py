"""Plan directories: a plan as files that do not change, named by what it does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from carto_core.errors import PlanError, SelectionError
from carto_core.interventions import plan_sha256
from carto_core.rules import FORMS, check_form
from carto_core.store import schema
from carto_core.store.reader import Run
from carto_core.store.rundir import now, write_json
from carto_core.store.shapes import COUNT, FLAG, SHA256, TEXT, exactly, read_json
from carto_core.store.writer import write_table
from carto_core.types import Plan, SampleTable

PLAN = {"version": exactly(1), "plan_sha256": SHA256, "run_id": TEXT, "corpus_sha256": SHA256, "action": TEXT}
PLAN |= {"rule": {"type": TEXT}, "notes": [TEXT], "num_affected": COUNT, "report_seen": FLAG, "created": TEXT}
PLAN_CURE = "make the plan again: python -m carto_core plan"


def write_plan(run: Run, plan: Plan, table: SampleTable, *, out: str | Path | None = None) -> Path:
    """Write `plan.parquet` and `plan.json` and return their directory, by default `RUN/plans/HASH`.

    A plan does not change: where the same rows lie there already, as on every rerun of a page, all is left as it was
    first made. So `report_seen` tells whether the report canaries had been looked at then, and `rule` what first gave
    these rows. A damaged directory is made anew, and keeps of its `plan.json` what can be read.
    """
    digest = plan_sha256(plan, table)
    folder = Path(out) if out is not None else run.files.plans / digest[:16]
    if _is_whole(folder, digest, plan, table):
        return folder
    rows = pa.table(
        {
            "sample_id": np.arange(len(table), dtype=np.int32),
            "key": table.key.tolist(),
            "repeat": plan.repeats,
            "weight": plan.weights,
            "reason": plan.reason,
        },
        schema=schema.PLAN,
    )
    write_table(rows, folder / "plan.parquet")
    facts = {
        "version": 1,
        "plan_sha256": digest,
        "run_id": run.run_id,
        "corpus_sha256": table.corpus_sha256,
        "action": plan.action,
        "rule": plan.rule,
        "notes": list(plan.notes),
        "num_affected": int(plan.affected.sum()),
        "report_seen": bool(run.manifest.get("report_seen", False)),
        "created": now(),
    }
    write_json(folder / "plan.json", facts | _first_made(folder, digest))
    return folder


def _is_whole(folder: Path, digest: str, plan: Plan, table: SampleTable) -> bool:
    """Return whether this very plan of this run lies in the folder, its rows unchanged."""
    try:
        facts = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
        rows = pq.read_table(folder / "plan.parquet")
        return (
            table.is_named(facts["run_id"])
            and (facts["corpus_sha256"], facts["plan_sha256"]) == (table.corpus_sha256, digest)
            and np.array_equal(rows["repeat"].to_numpy(), plan.repeats)
            and np.array_equal(rows["weight"].to_numpy(), plan.weights)
            and rows["key"].to_pylist() == table.key.tolist()
        )
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return False


def _first_made(folder: Path, digest: str) -> dict[str, Any]:
    """Return when the same plan was first written here, and what had been seen by then; empty if it was not."""
    try:
        before = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
        same = before["plan_sha256"] == digest
        return {name: before[name] for name in ("report_seen", "created")} if same else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def read_plan(folder: str | Path, table: SampleTable) -> tuple[Plan, dict[str, Any]]:
    """Return a plan and its `plan.json`.

    Raises:
        PlanError: a file is missing or damaged, or the plan belongs to another run or corpus.
    """
    folder = Path(folder)
    facts = read_plan_json(folder)
    try:
        rows = pq.read_table(folder / "plan.parquet").to_pydict()
        plan = Plan(
            repeats=np.array(rows["repeat"], np.int32),
            weights=np.array(rows["weight"], np.float32),
            reason=rows["reason"],
            rule=facts["rule"],
            action=facts["action"],
            notes=tuple(facts["notes"]),
        )
        run_id, digest = facts["run_id"], facts["plan_sha256"]
        owner = facts["corpus_sha256"], rows["key"]
    except (OSError, ValueError, KeyError, TypeError, OverflowError, pa.ArrowException) as error:
        raise PlanError(f"{folder} is not a readable plan directory: {error!r}; {PLAN_CURE}") from None
    if not table.is_named(run_id) or owner != (table.corpus_sha256, table.key.tolist()):
        raise PlanError(f"the plan in {folder} was made for another run ({run_id}), not for {table.run_id}")
    if plan_sha256(plan, table) != digest:
        raise PlanError(f"{folder}/plan.parquet does not match the hash in plan.json; make the plan again")
    if (plan.repeats < 0).any() or not (np.isfinite(plan.weights) & (plan.weights >= 0)).all():
        raise PlanError(f"{folder}/plan.parquet holds repeats or weights that are below 0 or no number; {PLAN_CURE}")
    return plan, facts


def read_plan_json(folder: Path) -> dict[str, Any]:
    """Return a plan directory's `plan.json`.

    Raises:
        PlanError: it is missing or damaged, or of another version.
    """
    facts = read_json(folder / "plan.json", PLAN, error=PlanError, cure=PLAN_CURE)
    try:
        if facts["rule"]["type"] in FORMS:  # the rows decide, also those of a rule that a later program knows
            check_form(facts["rule"])
    except SelectionError as error:
        raise PlanError(f"{folder / 'plan.json'}: {error}; {PLAN_CURE}") from None
    return facts
