"""What leaves the product: plan directories, intervention lists with their manifest, and the cleaned corpus."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from carto_core import __version__
from carto_core.errors import PlanError, SelectionError
from carto_core.interventions import plan_sha256
from carto_core.rules import FORMS, check_form
from carto_core.store import schema
from carto_core.store.reader import Run, meta_of
from carto_core.store.rundir import now, replacing, write_json
from carto_core.store.shapes import COUNT, FLAG, SHA256, TEXT, exactly, read_json
from carto_core.store.writer import write_table
from carto_core.types import Plan, SampleTable

MANIFEST_META = (
    "quadrant_x",
    "quadrant_y",
    "tau_d",
    "tau_m",
    "eps_mode",
    "eps_quantile",
    "eps",
    "burn_in",
    "score_kind",
)
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
PLAN = {"version": exactly(1), "plan_sha256": SHA256, "run_id": TEXT, "corpus_sha256": SHA256, "action": TEXT}
PLAN |= {"rule": {"type": TEXT}, "notes": [TEXT], "num_affected": COUNT, "report_seen": FLAG, "created": TEXT}
PLAN_CURE = "make the plan again: python -m carto_core plan"
SPREADSHEET_TRIGGERS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


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


def export_list(
    run: Run,
    plan: Plan,
    facts: dict[str, Any],
    *,
    table: SampleTable,
    file_format: str,
    out: str | Path,
    without_canaries: bool = False,
) -> Path:
    """Write the intervention list, the affected rows only, and then `FILE.manifest.json` beside it.

    So a list that has a manifest is the one that it speaks of, whenever the process dies.

    Args:
        run: the base run.
        plan: see `read_plan`.
        facts: its `plan.json`.
        table: of the run.
        file_format: a name in `EXPORTS`.
        out: the file to write.
        without_canaries: leave out planted keys, which do not stand in the user's own corpus.

    Raises:
        PlanError: the format is unknown.
    """
    if file_format not in EXPORTS:
        raise PlanError(f"unknown format {file_format!r}; choose one of: {', '.join(EXPORTS)}")
    rows = intervention_rows(run, plan, table, without_canaries=without_canaries)
    path = Path(out)
    manifest = path.with_name(path.name + ".manifest.json")
    with replacing(path) as temporary:
        EXPORTS[file_format](rows, temporary)
        about = _manifest(run, facts, rows, temporary)
        manifest.unlink(missing_ok=True)  # one that stands there speaks of another list
    write_json(manifest, about)
    return path


def intervention_rows(run: Run, plan: Plan, table: SampleTable, *, without_canaries: bool = False) -> pd.DataFrame:
    """Return the affected rows with the contract's columns, in order of sample_id."""
    touched = plan.affected & ~table.is_canary if without_canaries else plan.affected
    ids = np.flatnonzero(touched)
    scores = run.scores().iloc[ids]
    return pd.DataFrame(
        {
            "key": table.key[ids],
            "sample_id": ids.astype(np.int32),
            "action": actions_of(plan)[ids],
            "weight": plan.weights[ids],
            "repeat": plan.repeats[ids],
            "quadrant": scores["quadrant"].to_numpy(object),
            "difficulty": scores["difficulty"].to_numpy(np.float32),
            "memorization": scores["memorization"].to_numpy(np.float32),
            "canary_id": pd.array(table.canary_id[ids], "Int32"),
            "reason": np.array(plan.reason, object)[ids],
        }
    ).loc[:, COLUMNS]


def export_corpus(run: Run, plan: Plan, table: SampleTable, *, out: str | Path) -> Path:
    """Write the cleaned corpus as JSONL: the user's rows that the plan keeps, with `repeat` and `weight`.

    Planted canaries are left out; validation samples were never part of training and are not in it.
    """
    samples = run.samples("sample_id, key, text, source, meta")
    path = Path(out)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in samples.loc[(plan.repeats > 0) & ~table.is_canary].to_dict("records"):
            sample_id = row.pop("sample_id")
            applied = {"repeat": int(plan.repeats[sample_id]), "weight": float(str(plan.weights[sample_id]))}
            file.write(json.dumps(row | applied | {"meta": meta_of(row["meta"])}, ensure_ascii=False) + "\n")
    return path


def sampler_snippet(file_name: str) -> str:
    """Return a short program text that applies a Parquet list in a PyTorch training loop."""
    return f'''import pandas as pd
from torch.utils.data import DataLoader, WeightedRandomSampler

changes = pd.read_parquet("{file_name}").set_index("key")
repeat = pd.Series(1.0, index=keys)  # keys: your dataset's keys, in its order
repeat.update(changes["repeat"].astype(float))
sampler = WeightedRandomSampler(repeat.to_numpy(), num_samples=int(repeat.sum()), replacement=True)
loader = DataLoader(dataset, batch_size=32, sampler=sampler)

weight = pd.Series(1.0, index=keys)
weight.update(changes["weight"].astype(float))
# in the loop: loss = (weight_of_batch * loss_per_sample).sum() / weight_of_batch.sum()
'''


def _manifest(run: Run, facts: dict[str, Any], rows: pd.DataFrame, path: Path) -> dict[str, Any]:
    meta = run.meta()
    return {
        "run_id": run.run_id,
        "corpus_sha256": facts["corpus_sha256"],
        "plan_sha256": facts["plan_sha256"],
        "action": facts["action"],
        "rule": facts["rule"],
        "meta": {name: meta.get(name) for name in MANIFEST_META},
        "seed": run.manifest["seed"],
        "report_seen": facts["report_seen"],
        "carto_version": __version__,
        "num_rows": len(rows),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "created": now(),
    }


def actions_of(plan: Plan) -> np.ndarray:
    """Return object[N]: what happens to each sample, `keep`, `reweight`, `upsample` or `prune`."""
    actions = np.full(len(plan.repeats), "keep", dtype=object)
    actions[plan.weights != 1] = "reweight"
    actions[plan.repeats > 1] = "upsample"
    actions[plan.repeats == 0] = "prune"
    return actions


def _write_csv(rows: pd.DataFrame, path: Path) -> None:
    """Write CSV with every text cell that a spreadsheet would execute made harmless by a leading apostrophe."""
    harmless = rows.copy()
    for name in ("key", "reason"):
        harmless[name] = [f"'{v}" if str(v).startswith(SPREADSHEET_TRIGGERS) else v for v in rows[name]]
    harmless.to_csv(path, index=False, lineterminator="\r\n")  # so that a lone CR in a cell is quoted


def _write_jsonl(rows: pd.DataFrame, path: Path) -> None:
    """Write one JSON object a row; a float32 as the shortest decimal that gives it back."""
    lines = [json.dumps({k: _plain(v) for k, v in row.items()}, ensure_ascii=False) for row in rows.to_dict("records")]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _plain(value: Any) -> Any:
    if value is pd.NA or (isinstance(value, float | np.floating) and np.isnan(value)):
        return None
    return float(str(np.float32(value))) if isinstance(value, float | np.floating) else value


def _write_parquet(rows: pd.DataFrame, path: Path) -> None:
    pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), path)


EXPORTS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    "csv": _write_csv,
    "jsonl": _write_jsonl,
    "parquet": _write_parquet,
}
