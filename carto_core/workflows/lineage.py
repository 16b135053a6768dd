"""Where plans come from and what became of them: names, exports, measurements, and the runs that were trained with them.

A plan directory's `plan.json` and `plan.parquet` never change. What is learnt later lies beside them: `about.json`
(`name`, `exported`), and the mark of a draft, which a page made for a slider's position that nobody may have wanted.
"""

from __future__ import annotations

import json
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carto_core.errors import DiskError, PlanError, RunError
from carto_core.export import read_plan_json, write_plan
from carto_core.rules import describe
from carto_core.store.reader import Run
from carto_core.store.rundir import RunDir, list_runs, now, read_manifest, write_json
from carto_core.types import Plan, SampleTable
from carto_core.workflows.naming import checked_name

ABOUT, DRAFT = "about.json", "draft"
DRAFT_AGE_S = 600.0  # a draft that no page has drawn for so long is nobody's


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """A plan of a run as a list shows it.

    Attributes:
        folder: its directory.
        plan_sha256: its content hash.
        name: given by somebody; empty where nobody did.
        words: its rule, plain text.
        rule: the selection's rule, or the policy.
        action: `prune`, `reweight`, `upsample` or `policy`.
        num_rows: how many samples it changes.
        created: ISO 8601, UTC.
        is_measured: whether its retrains are done.
        exported: when its list was last taken away; empty where never.
        used_by: ids of the runs that were trained with it.
    """

    folder: Path
    plan_sha256: str
    name: str
    words: str
    rule: dict[str, Any]
    action: str
    num_rows: int
    created: str
    is_measured: bool
    exported: str
    used_by: tuple[str, ...]


def save_draft(run: Run, plan: Plan, table: SampleTable) -> Path:
    """Write a plan that is only looked at so far, and return its directory; old drafts that nobody used go.

    Args:
        run: the base run.
        plan: what a page shows at this moment.
        table: of the run.
    """
    there = {path.parent for path in run.files.plans.glob("*/plan.json")}
    folder = write_plan(run, plan, table)
    if folder not in there:
        (folder / DRAFT).touch()
        drop_drafts(run, keep=folder)
    elif (folder / DRAFT).is_file():
        (folder / DRAFT).touch()  # somebody still looks at it
    return folder


def settled(folder: Path) -> Path:
    """Return a plan's directory, no longer a draft."""
    (folder / DRAFT).unlink(missing_ok=True)
    return folder


def drop_drafts(run: Run, *, keep: Path, age_s: float = DRAFT_AGE_S) -> list[Path]:
    """Delete the drafts that nobody named, exported, measured or trained with, and return what was deleted.

    A plan made on the command line is no draft and stays, whatever its age.

    Args:
        run: whose plans.
        keep: the one in view.
        age_s: how long since a page last drew it.
    """
    users = _users(run)
    dropped = []
    for mark in list(run.files.plans.glob(f"*/{DRAFT}")):
        with suppress(OSError):  # another page may be deleting it too
            if mark.parent != keep and time.time() - mark.stat().st_mtime >= age_s and not _is_used(run, mark, users):
                shutil.rmtree(mark.parent)
                dropped.append(mark.parent)
    return dropped


def list_plans(run: Run, *, present: Path | None = None) -> list[PlanRecord]:
    """Return the run's plans that were named, exported, measured or trained with, and the present one; newest first.

    A directory that cannot be read is passed over.
    """
    users = _users(run)
    found = [_record(run, path.parent, users) for path in run.files.plans.glob("*/plan.json")]
    kept = [
        record
        for record in found
        if record is not None
        and (record.folder == present or _is_kept(run, record) or not (record.folder / DRAFT).is_file())
    ]
    return sorted(kept, key=lambda record: (record.created, record.plan_sha256), reverse=True)


def find_plan(run: Run, digest: str) -> PlanRecord | None:
    """Return the run's plan of this content hash, or None."""
    folder = run.files.plans / digest[:16]
    return _record(run, folder, _users(run)) if (folder / "plan.json").is_file() else None


def name_plan(run: Run, folder: Path, name: str) -> None:
    """Name a plan, in a file beside it; an empty name takes the old one away.

    Raises:
        PlanError: the name cannot be one, or another plan of the run has it.
    """
    name = checked_name(name, error=PlanError) if name.strip() else ""
    others = [record.name for record in list_plans(run) if record.folder != folder]
    if name and name in others:
        raise PlanError(f"another plan of run {run.run_id} is named {name!r}; choose another name")
    _note(folder, name=name)


def note_export(folder: str | Path) -> None:
    """Note that a plan's list, or the corpus that it leaves, was taken away.

    What was taken from a run that cannot be written is taken all the same, and not noted.
    """
    with suppress(DiskError):
        _note(Path(folder), exported=now())


def _note(folder: Path, **facts: str) -> None:
    write_json(folder / ABOUT, _about(folder) | facts)


def _about(folder: Path) -> dict[str, Any]:
    content = _read_json(folder / ABOUT)
    return content if content is not None else {}


def _record(run: Run, folder: Path, users: dict[str, tuple[str, ...]]) -> PlanRecord | None:
    about = _about(folder)
    try:
        facts = read_plan_json(folder)
        digest = str(facts["plan_sha256"])
        return PlanRecord(
            folder=folder,
            plan_sha256=digest,
            name=str(about.get("name", "")),
            words=describe(facts["rule"]),
            rule=facts["rule"],
            action=str(facts["action"]),
            num_rows=int(facts["num_affected"]),
            created=str(facts["created"]),
            is_measured=(run.files.previews / digest[:16] / "measure.json").is_file(),
            exported=str(about.get("exported", "")),
            used_by=users.get(digest, ()),
        )
    except PlanError:
        return None


def _is_kept(run: Run, record: PlanRecord) -> bool:
    return bool(
        record.name or record.exported or record.used_by or (run.files.previews / record.plan_sha256[:16]).is_dir()
    )


def _is_used(run: Run, mark: Path, users: dict[str, tuple[str, ...]]) -> bool:
    """Return whether a draft has become more than one; what cannot be read is left alone."""
    record = _record(run, mark.parent, users)
    return record is None or _is_kept(run, record)


def _users(run: Run) -> dict[str, tuple[str, ...]]:
    """Return by plan hash the runs beside this one whose manifest names this run and that plan."""
    found: dict[str, tuple[str, ...]] = {}
    for files in retrains(run):
        digest = str(read_manifest(files).get("plan_sha256"))
        found[digest] = (*found.get(digest, ()), files.run_id)
    return found


def retrains(run: Run) -> list[RunDir]:
    """Return the runs beside this one that were trained under a plan of it; one that cannot be read is passed over."""
    found, ids = [], (run.run_id, *run.formerly)
    for files in list_runs(run.files.path.parent):
        with suppress(RunError):
            if read_manifest(files).get("parent_run") in ids and files != run.files:
                found.append(files)
    return found


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
