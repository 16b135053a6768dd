"""The verb `doctor`: look at the installation, the device, the disk and every run, and say what to mend.

Mends nothing itself. Never loads torch: that runs in a process of its own, so that a build which crashes is a finding.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Literal

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from packaging.requirements import InvalidRequirement, Requirement

from carto_core import CONTRACT_VERSION, __version__, jobs
from carto_core.errors import CartoError
from carto_core.store.reader import Run
from carto_core.store.records import records_of
from carto_core.store.rundir import disk_use, left_overs, list_runs, resolve_runs_root
from carto_core.workflows import housekeeping
from carto_core.workflows.light import is_live

State = Literal["ok", "warn", "bad"]
SECTIONS = ("installation", "device", "disk", "runs", "jobs", "dashboard")
ADDRESS = ("127.0.0.1", 8501)
REQUIREMENTS = Path(__file__).parents[2] / "requirements.txt"
COMPILED = ("duckdb", "tokenizers", "safetensors", "shapely", "orjson", "pyarrow", "scipy")
VERSIONS = ("torch", "duckdb", "streamlit", "plotly", "pandas", "numpy")
TORCH_S = 120.0
SMALL_DISK = 1e9  # bytes free below which a training may end for want of room
YOUNG_S = 60.0  # a job's folder may be without its file for so long
TORCH = """
import json, torch
a = torch.arange(64, dtype=torch.float32).reshape(8, 8)
device = "cuda" if torch.cuda.is_available() else "cpu"
good = bool(torch.equal((a.to(device) @ torch.eye(8, device=device)).cpu(), a))
name = torch.cuda.get_device_name(0) if device == "cuda" else "none"
print(json.dumps({"version": torch.__version__, "built_for": torch.version.cuda or "CPU", "cuda": name, "matmul": good}))
"""


@dataclass(frozen=True, slots=True)
class Check:
    """One finding.

    Attributes:
        section: in `SECTIONS`.
        name: what was looked at.
        state: `ok`; `warn` works, but somebody should know; `bad` does not work.
        found: what was seen, plain text.
        mend: what to do, plain text; empty where nothing is to be done.
    """

    section: str
    name: str
    state: State
    found: str
    mend: str = ""


def examine(runs_root: str | Path | None = None) -> dict[str, Any]:
    """Return what this machine has, and every finding under `checks`, JSON-ready; takes seconds."""
    root = resolve_runs_root(runs_root)
    torch = _ask_torch()
    checks = [*_installation(torch), *_device(torch), *_disk(root), *_runs(root), *_jobs(root), _dashboard()]
    return {
        "carto_version": __version__,
        "contract_version": CONTRACT_VERSION,
        "python": platform.python_version(),
        **{name: _version(name) for name in VERSIONS},
        "cuda": torch.get("cuda", "none"),
        "runs_root": str(root),
        "num_runs": len(list_runs(root)),
        "checks": [asdict(check) for check in checks],
    }


def worst(checks: list[dict[str, Any]]) -> State:
    """Return the worst state among some findings."""
    states = {check["state"] for check in checks}
    return "bad" if "bad" in states else "warn" if "warn" in states else "ok"


# Installation


def _installation(torch: dict[str, Any]) -> Iterator[Check]:
    is_new = sys.version_info >= (3, 11)
    found = f"Python {platform.python_version()}"
    yield Check(
        "installation", "python", "ok" if is_new else "bad", found, "" if is_new else "use Python 3.11 or newer"
    )
    yield from _requirements()
    for name in COMPILED:
        try:
            import_module(name)
        except Exception as error:  # noqa: BLE001 (a broken build may raise anything)
            yield Check(
                "installation", name, "bad", f"cannot be loaded: {error}", f"pip install --force-reinstall {name}"
            )
    if "error" in torch:
        mend = "pip install --force-reinstall torch, or a build for this machine"
        yield Check("installation", "torch", "bad", f"cannot be loaded: {torch['error']}", mend)
    else:
        yield Check("installation", "torch", "ok", f"torch {torch['version']}, built for {torch['built_for']}")


def _requirements() -> Iterator[Check]:
    """Compare what is installed with requirements.txt, and with what each of those packages itself asks for."""
    mend = "pip install -r requirements.txt"
    try:
        lines = [line for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    except OSError:
        yield Check("installation", "requirements", "warn", "requirements.txt is not there to compare with")
        return
    wanted = [Requirement(line) for line in lines if line.strip()]
    problems = [problem for requirement in wanted if (problem := _unmet(requirement))]
    for requirement in wanted:
        problems += [f"{requirement.name} needs {problem}" for problem in _unmet_of(requirement.name)]
    for problem in problems:
        yield Check("installation", "requirements", "bad", problem, mend)
    if not problems:
        yield Check("installation", "requirements", "ok", f"{len(wanted)} packages as requirements.txt asks")


def _unmet(requirement: Requirement) -> str:
    """Return what is wrong with one requirement; empty where it is met or not asked for here."""
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return ""
    there = _version(requirement.name)
    if there == "none":
        return f"{requirement.name} {requirement.specifier}, which is not installed"
    is_met = requirement.specifier.contains(there, prereleases=True)
    return "" if is_met else f"{requirement.name} {requirement.specifier}, and {there} is installed"


def _unmet_of(package: str) -> list[str]:
    try:
        asked = [Requirement(line) for line in requires(package) or ()]
    except (PackageNotFoundError, InvalidRequirement):
        return []
    return [problem for requirement in asked if (problem := _unmet(requirement))]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _ask_torch() -> dict[str, Any]:
    """Return what torch says of itself after a small product of matrices, or `error`."""
    command = [sys.executable, "-W", "ignore", "-c", TORCH]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=TORCH_S, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {TORCH_S:.0f} seconds"}
    try:
        return json.loads(asked.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return {"error": (asked.stderr.strip().splitlines() or [f"exit code {asked.returncode}"])[-1]}


# Device and disk


def _device(torch: dict[str, Any]) -> Iterator[Check]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = psutil.virtual_memory()
    yield Check(
        "device",
        "processor",
        "ok",
        f"{cores} cores, {memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB memory free",
    )
    yield Check("device", "cuda", "ok", torch.get("cuda", "none"))
    if "error" not in torch:
        good = torch["matmul"]
        mend = "" if good else "the device computes wrongly: update its driver, or train with --device cpu"
        yield Check(
            "device", "arithmetic", "ok" if good else "bad", "a product of matrices is right" if good else "wrong", mend
        )


def _disk(root: Path) -> Iterator[Check]:
    folder = next(path for path in (root.absolute(), *root.absolute().parents) if path.is_dir())
    free, used = shutil.disk_usage(folder).free, disk_use(root)
    is_enough = free >= max(SMALL_DISK, used / 10)
    found = f"{free / 1e9:.1f} GB free, runs use {used / 1e9:.2f} GB"
    mend = "" if is_enough else "make room, or delete runs: python -m carto_core delete RUN"
    yield Check("disk", "space", "ok" if is_enough else "warn", found, mend)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        mend = "give yourself the right to write there, or choose another folder with CARTO_RUNS"
        yield Check("disk", "writable", "bad", f"{folder} cannot be written: {error.strerror}", mend)
    else:
        yield Check("disk", "writable", "ok", f"{folder} can be written")


# Runs


def _runs(root: Path) -> Iterator[Check]:
    for files in list_runs(root):
        problems = list(_problems(Run(files)))
        yield from problems
        if not problems:
            yield Check("runs", files.run_id, "ok", "manifest, tables and files agree")
    if root.is_dir():
        for folder in sorted(root.iterdir()):
            if folder.is_dir() and not folder.name.startswith(".") and not (folder / "run.json").is_file():
                mend = f"if it is not yours to keep: rm -r {folder}"
                yield Check("runs", folder.name, "warn", "a folder without run.json, so it is no run", mend)


def _problems(run: Run) -> Iterator[Check]:
    """Yield what is wrong with one run; a look that cannot be finished is a finding too."""
    run_id = run.run_id
    for look in (_manifest, _state, _tokenizer, _tables, _left_overs):
        try:
            yield from look(run)
        except (CartoError, OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
            said = str(error) if isinstance(error, CartoError) else f"{type(error).__name__}: {error}"
            mend = f"restore it from a copy, or delete the run: python -m carto_core delete {run_id}"
            yield Check("runs", run_id, "bad", said.splitlines()[0], mend)
            if look is _manifest:
                return


def _manifest(run: Run) -> Iterator[Check]:
    manifest = run.manifest
    if manifest["run_id"] != run.run_id:
        mend = "nothing has to be done; `rename` would have noted it in its manifest"
        yield Check("runs", run.run_id, "warn", f"its folder was moved by hand, it was {manifest['run_id']}", mend)


def _state(run: Run) -> Iterator[Check]:
    if run.manifest["status"] == "running" and run.status == "interrupted":
        verb = f"seal {run.run_id}" if run.is_foreign else f"train --resume --out {run.files.path}"
        mend = f"python -m carto_core {verb}"
        yield Check("runs", run.run_id, "warn", "its manifest says running, and its process is gone", mend)
    if run.status == "complete" and not run.is_sealed:
        mend = f"restore it from a copy, or delete the run: python -m carto_core delete {run.run_id}"
        yield Check("runs", run.run_id, "bad", "it is complete, but trajectory.duckdb is gone", mend)
    if run.status == "complete" and not run.files.table("scores").is_file():
        yield Check("runs", run.run_id, "warn", "it has no scores", f"python -m carto_core score {run.run_id}")


def _tokenizer(run: Run) -> Iterator[Check]:
    wanted = run.manifest.get("tokenizer", {}).get("sha256")
    if wanted is not None and hashlib.sha256(run.files.tokenizer.read_bytes()).hexdigest() != wanted:
        mend = f"restore tokenizer.json from a copy: audits of {run.run_id} would read other tokens"
        yield Check("runs", run.run_id, "bad", "tokenizer.json is not the one that it was trained with", mend)


def _tables(run: Run) -> Iterator[Check]:
    """Compare the numbers of rows with the manifest, and open every part that the manifest of a live run names."""
    manifest = run.manifest
    wanted = {"samples": manifest["num_samples"], "validation": manifest.get("num_validation")}
    if run.is_sealed:
        wanted |= {"snapshots": manifest["num_snapshots"]}
        wanted |= {} if is_live(run) else {"scores": manifest["num_samples"]}
    elif run.has_records:
        wanted = {}  # its samples become known as they go by
        for name in records_of(run.files, manifest).parts:
            pq.read_metadata(run.files.records / name)
    else:
        for path in run.part_paths():
            pq.read_metadata(path)
    rows = _num_rows(run)
    for table, count in wanted.items():
        there = rows.get(table, 0)
        if count is not None and there != count:
            mend = f"restore the run from a copy, or delete it: python -m carto_core delete {run.run_id}"
            yield Check("runs", run.run_id, "bad", f"{table} has {there:,} rows, and run.json says {count:,}", mend)


def _num_rows(run: Run) -> dict[str, int]:
    if run.is_sealed:
        tables = run.query("select table_name, estimated_size from duckdb_tables()")  # exact where nothing was deleted
        return dict(zip(tables["table_name"], tables["estimated_size"].astype(int), strict=True))
    return run.query(
        "select (select count(*) from samples) as samples, (select count(*) from validation) as validation"
    ).to_dict("records")[0]


def _left_overs(run: Run) -> Iterator[Check]:
    found = [] if housekeeping.in_use(run.files) else left_overs(run.files.path)
    if found:
        size = sum(disk_use(path) if path.is_dir() else path.stat().st_size for path in found) / 1e6
        mend = "rm -r " + " ".join(map(str, found))
        yield Check(
            "runs",
            run.run_id,
            "warn",
            f"{len(found)} temporary files or folders of killed processes, {size:.1f} MB",
            mend,
        )


# Jobs


def _jobs(root: Path) -> Iterator[Check]:
    folder = root / ".jobs"
    known = {Path(job.folder).name for job in jobs.list_jobs(root)}
    paths = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    lost = [path for path in paths if path.name not in known and time.time() - path.stat().st_mtime > YOUNG_S]
    for path in lost:
        yield Check("jobs", path.name, "warn", "a job's folder without a readable job.json", f"rm -r {path}")
    trash = root / housekeeping.TRASH
    if trash.is_dir():
        found = f"{disk_use(trash) / 1e6:.1f} MB of runs whose deletion was cut short"
        yield Check("jobs", housekeeping.TRASH, "warn", found, f"rm -r {trash}")
    if not lost:
        yield Check("jobs", "folders", "ok", f"{len(known)} jobs, all readable")


# Dashboard


def _dashboard() -> Check:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(ADDRESS)
        except OSError:
            found = f"port {ADDRESS[1]} is taken, perhaps by a dashboard; `open` takes the next that is free"
            return Check("dashboard", "port", "ok", found)
    return Check("dashboard", "port", "ok", f"port {ADDRESS[1]} is free")
