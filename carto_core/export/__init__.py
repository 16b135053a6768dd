"""What leaves the product: plan directories, a plan in the format of the tool that applies it, and the cleaned corpus."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from carto_core import __version__
from carto_core.errors import PlanError
from carto_core.export.formats import EXPORTS, Format
from carto_core.export.outgoing import COLUMNS, Outgoing, actions_of, export_corpus
from carto_core.export.plans import read_plan, read_plan_json, write_plan
from carto_core.store.rundir import now, replacing, replacing_folder, write_json, writing
from carto_core.store.shapes import read_json

__all__ = [
    "COLUMNS",
    "EXPORTS",
    "Format",
    "Outgoing",
    "actions_of",
    "export_corpus",
    "export_plan",
    "find_format",
    "manifest_of",
    "read_plan",
    "read_plan_json",
    "write_plan",
]

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


def find_format(name: str) -> Format:
    """Return a format by its name.

    Raises:
        PlanError: there is none.
    """
    if name not in EXPORTS:
        raise PlanError(f"unknown format {name!r}; choose one of: {', '.join(EXPORTS)}")
    return EXPORTS[name]


def export_plan(outgoing: Outgoing, facts: dict[str, Any], *, file_format: str, out: str | Path) -> Path:
    """Write a plan in one of the formats, with a manifest, and return its path.

    A file is written first and then its manifest beside it, a folder with its manifest in it at once. So what has a
    manifest is what it speaks of, whenever the process dies.

    Args:
        outgoing: the plan, see `read_plan`.
        facts: its `plan.json`.
        file_format: a name in `EXPORTS`.
        out: the file or folder to write; an earlier one is replaced.

    Raises:
        PlanError: the format is unknown or carries nothing of the plan, or `out` is a folder that holds something else.
    """
    form, path = find_format(file_format), Path(out)
    about: dict[str, Any] = {"format": form.name, "notes": form.notes(outgoing)}
    if form.is_folder:
        _require_replaceable(path)
        with replacing_folder(path) as temporary:
            about["num_rows"] = form.write(outgoing, temporary)
            files = {name: _sha256(temporary / name) for name in _names(temporary)}
            sums = "".join(f"{digest}  {name}\n" for name, digest in files.items())
            about |= {"sha256": hashlib.sha256(sums.encode()).hexdigest(), "files": files}
            write_json(manifest_of(temporary), _manifest(outgoing, facts, about))
        return path
    with replacing(path) as temporary:
        about["num_rows"] = form.write(outgoing, temporary)
        about["sha256"] = _sha256(temporary)
        manifest_of(path).unlink(missing_ok=True)  # one that stands there speaks of another list
    write_json(manifest_of(path), _manifest(outgoing, facts, about))
    return path


def manifest_of(path: Path) -> Path:
    """Return where the manifest of a file or folder is."""
    return path / "manifest.json" if path.is_dir() else path.with_name(f"{path.name}.manifest.json")


def _require_replaceable(path: Path) -> None:
    """Raise PlanError where a folder would take the place of what is no earlier export."""
    with writing(path):
        free = not path.exists() or (path.is_dir() and not any(path.iterdir()))
        if not free and not _is_export(path):
            raise PlanError(
                f"{path} is there and is not, or not only, an earlier export; choose another --out, or take it away first"
            )


def _is_export(path: Path) -> bool:
    """Return whether a folder holds what its manifest names, and nothing else."""
    try:
        about = read_json(manifest_of(path), {"files": {}}, error=PlanError, cure="it is no export")
    except PlanError:
        return False
    return sorted(about["files"]) == _names(path)


def _names(folder: Path) -> list[str]:
    """Return the files under a folder as relative paths in order, but for its manifest."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    return sorted(name for name in found if name != "manifest.json")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _manifest(outgoing: Outgoing, facts: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    meta = outgoing.run.meta()
    return {
        "run_id": outgoing.run.run_id,
        "corpus_sha256": facts["corpus_sha256"],
        "plan_sha256": facts["plan_sha256"],
        "action": facts["action"],
        "rule": facts["rule"],
        "meta": {name: meta.get(name) for name in MANIFEST_META},
        "seed": outgoing.run.manifest["seed"],
        "report_seen": facts["report_seen"],
        "carto_version": __version__,
        **about,
        "created": now(),
    }
