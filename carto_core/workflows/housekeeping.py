"""The verbs `rename` and `delete`: what a run takes on the disk, under another name, or gone.

A run's id is its folder's name, so renaming the folder is the whole of it; what was written under the old id (plans,
measurements) stays, and `formerly` in the manifest says that it is this run's. A folder that is deleted first moves to
`.trash`, so that a kill in between leaves no half of a run.
"""

from __future__ import annotations

import secrets
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from carto_core import jobs
from carto_core.errors import RunError
from carto_core.store.reader import Run
from carto_core.store.rundir import RunDir, disk_use, run_status, update_manifest
from carto_core.workflows import lineage
from carto_core.workflows.naming import new_run_name
from carto_core.workflows.progress import device_holder

TRASH = ".trash"


@dataclass(frozen=True, slots=True)
class Holdings:
    """What goes with a run, and what would be left without it.

    Attributes:
        num_bytes: on the disk; 0 for a link, whose target stays.
        num_plans: that somebody kept.
        num_measured: measured plans.
        num_selections: saved ones.
        retrains: ids of the runs that were trained under its plans; they stay.
        link_to: what the folder is a link to; empty where it is none.
    """

    num_bytes: int
    num_plans: int
    num_measured: int
    num_selections: int
    retrains: tuple[str, ...]
    link_to: str


def holdings(run: Run) -> Holdings:
    """Return what a run holds; a manifest that cannot be read hides its plans and retrains, not its size."""
    files, plans, retrains = run.files, [], []
    with suppress(RunError):
        plans, retrains = lineage.list_plans(run), lineage.retrains(run)
    is_link = files.path.is_symlink()
    return Holdings(
        num_bytes=0 if is_link else disk_use(files.path),
        num_plans=len(plans),
        num_measured=len(list(files.previews.glob("*/measure.json"))),
        num_selections=len(list(files.selections.glob("[!.]*.json"))),
        retrains=tuple(files.run_id for files in retrains),
        link_to=str(files.path.resolve()) if is_link else "",
    )


def in_use(files: RunDir) -> str:
    """Return in words, plain text, what works on a run at this moment; empty where nothing does."""
    with suppress(RunError):
        if run_status(files) == "running":
            return "it is being trained"
    root = files.path.parent
    for job in jobs.list_jobs(root, run_id=files.run_id):
        if jobs.is_active(job):
            return f"its job {job.kind} is under way"
    holder = device_holder(root)
    if holder is not None and holder.get("run") == files.run_id:
        return f"its {holder.get('work')} is under way (process {holder.get('pid')})"
    return ""


def rename_run(run: Run, name: str) -> Run:
    """Give a run another id, and return it under that; a kill in between leaves it whole, under one of the two.

    Raises:
        RunError: the name cannot be one, or a process works on the run.
        RunExists: something of this name is there already.
    """
    old = run.files
    root = old.path.parent
    name = new_run_name(name, root)
    _require_idle(old)
    formerly, retrains = [*run.formerly, old.run_id], lineage.retrains(run)
    new = RunDir(old.path.rename(root / name))
    update_manifest(new, run_id=name, formerly=[run_id for run_id in formerly if run_id != name])
    for retrain in retrains:
        update_manifest(retrain, parent_run=name)
    jobs.move_run(old.path, new.path)
    return Run(new)


def delete_run(run: Run) -> Holdings:
    """Remove a run with all that lies in its folder, and return what that was; what a link points to stays.

    Raises:
        RunError: a process works on the run.
    """
    files = run.files
    _require_idle(files)
    held, root = holdings(run), files.path.parent
    trash = root / TRASH
    trash.mkdir(exist_ok=True)
    files.path.rename(trash / f"{files.run_id}-{secrets.token_hex(4)}")  # of a link, the link alone
    empty_trash(root)
    for job in jobs.list_jobs(root, run_id=files.run_id):
        jobs.forget(job)
    return held


def empty_trash(runs_root: Path) -> None:
    """Remove what is being deleted, also by a process that was killed at it."""
    shutil.rmtree(runs_root / TRASH, ignore_errors=True)


def _require_idle(files: RunDir) -> None:
    if why := in_use(files):
        raise RunError(f"run {files.run_id} cannot be changed now: {why}; cancel that or wait for its end")
