"""A run's directory: where its files are, its manifest, its progress, and whether its process still lives.

Knows files and processes; knows nothing of DuckDB, torch or Streamlit.
"""

from __future__ import annotations

import glob
import hashlib
import json
import math
import os
import platform
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from carto_core.errors import DiskError, RunError, RunExists, RunNotFound
from carto_core.store.manifest import read_run_json
from carto_core.store.shapes import NUMBER, SECONDS, TEXT, Kind, maybe, parse_json, problem_of

DEFAULT_RUNS_ROOT = Path("data/runs")
TAIL_BYTES = 65_536
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
PROGRESS = {
    "time": TEXT,
    "stage?": TEXT,
    "done": SECONDS,
    "total": Kind("a number above 0", lambda value: NUMBER.fits(value) and value > 0),
    "rate?": maybe(SECONDS),
    "eta_s?": maybe(NUMBER),
}
LINKED = (
    "it is a link, and a run is listed only where it lies in this folder itself: move it here, or give its own path"
)


@dataclass(frozen=True, slots=True)
class RunDir:
    """Paths inside one run directory. Making one touches no file."""

    path: Path

    @property
    def run_id(self) -> str:
        """The directory's own name."""
        return self.path.name

    @property
    def manifest(self) -> Path:
        """`run.json`."""
        return self.path / "run.json"

    @property
    def progress(self) -> Path:
        """`progress.jsonl`, appended."""
        return self.path / "progress.jsonl"

    @property
    def parts(self) -> Path:
        """Parquet parts while the run is live."""
        return self.path / "parts"

    @property
    def records(self) -> Path:
        """What another program's training loop saw, until it is sealed; see `store.records`."""
        return self.path / "records"

    @property
    def database(self) -> Path:
        """The sealed `trajectory.duckdb`."""
        return self.path / "trajectory.duckdb"

    @property
    def tokenizer(self) -> Path:
        """The frozen tokenizer, written before training."""
        return self.path / "tokenizer.json"

    @property
    def checkpoints(self) -> Path:
        """The last complete checkpoint."""
        return self.path / "checkpoints"

    @property
    def audits(self) -> Path:
        """One JSON file per audit, and tokens.parquet."""
        return self.path / "audits"

    @property
    def probes(self) -> Path:
        """Columns that took extra passes or models, one Parquet file a probe; and what they were made of."""
        return self.path / "probes"

    @property
    def plans(self) -> Path:
        """One directory per plan, named by its hash."""
        return self.path / "plans"

    @property
    def selections(self) -> Path:
        """Selections that were given a name, one file each."""
        return self.path / "selections"

    @property
    def previews(self) -> Path:
        """One directory per measured plan, and the cache of arms."""
        return self.path / "previews"

    @property
    def prepared(self) -> Path:
        """What instant estimates are made from."""
        return self.path / "prepared"

    @property
    def folds(self) -> Path:
        """Losses of models that were trained on parts of the samples."""
        return self.probes / "models" / "folds.parquet"

    def table(self, name: str) -> Path:
        """Parquet file of a table that is written once (`samples`, `validation`, `canaries`) or a twin (`scores`)."""
        return self.path / f"{name}.parquet"


def resolve_runs_root(runs_root: str | Path | None = None) -> Path:
    """Return the folder of runs: the argument, else the environment's CARTO_RUNS, else data/runs."""
    return Path(runs_root or os.environ.get("CARTO_RUNS") or DEFAULT_RUNS_ROOT)


def find_run(run: str | Path, runs_root: str | Path | None = None) -> RunDir:
    """Return the run directory that `run` names: a path, or a run id under the runs root.

    An id names a directory of the runs root itself: no id leads out of it, and a link in it is no run.

    Raises:
        RunNotFound: neither exists; the message names both places and the ids that are there.
    """
    root = resolve_runs_root(runs_root)
    for candidate in (Path(run), *_of_id(root, str(run))):
        if str(run) and _is_file(candidate / "run.json"):
            return _entry(candidate)
    known = ", ".join(r.run_id for r in list_runs(root)) or "none yet"
    raise RunNotFound(f"no run {str(run)!r}: neither a run directory nor a run id under {root} (there: {known})")


def list_runs(runs_root: str | Path | None = None) -> list[RunDir]:
    """Return the runs under the root, newest first; an absent root has none."""
    root = resolve_runs_root(runs_root)
    if not root.is_dir():
        return []
    found = [_entry(p.parent) for p in root.glob("[!.]*/run.json") if not p.parent.is_symlink() and _is_file(p)]
    return sorted(found, key=lambda r: (r.manifest.stat().st_mtime, r.run_id), reverse=True)


def readable_runs(runs_root: str | Path | None = None) -> tuple[list[RunDir], dict[str, str]]:
    """Return the runs under the root whose `run.json` can be read, newest first, and why the others cannot, by name."""
    readable, unreadable = [], {}
    for run in list_runs(runs_root):
        try:
            read_manifest(run)
            readable.append(run)
        except RunError as error:
            unreadable[run.run_id] = str(error)
    root = resolve_runs_root(runs_root)
    linked = [path.parent for path in root.glob("*/run.json") if path.parent.is_symlink()] if root.is_dir() else []
    return readable, unreadable | {path.name: LINKED for path in linked}


def _entry(path: Path) -> RunDir:
    """Return a run by the name that its folder has here: what a link points to may have another."""
    return RunDir(Path(os.path.abspath(path)))  # noqa: PTH100 (Path.absolute would keep `..`)


@contextmanager
def making_run(out: str | Path) -> Iterator[RunDir]:
    """Yield a run directory under a temporary name; on success it is there as `out`, whole, on failure nowhere.

    So a run that is there can be resumed, whenever the process that made it died.

    Raises:
        RunExists: `out` is there already (an existing run is never written over).
        DiskError: it cannot be written.
    """
    path = Path(out).absolute()
    _require_new(path, out)
    with writing(path), beside(path) as temporary:
        temporary.mkdir()
        yield RunDir(temporary)
        try:
            temporary.rename(path)
        except OSError:
            _require_new(path, out)  # somebody else was quicker
            raise


def _require_new(path: Path, out: str | Path) -> None:
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunExists(f"{out} exists already; choose another --out, or add --resume to continue that run")


def create_run(out: str | Path, manifest: dict[str, Any]) -> RunDir:
    """Make a new run directory with its manifest and nothing else.

    Raises:
        RunExists, DiskError: see `making_run`.
    """
    with making_run(out) as run:
        write_json(run.manifest, manifest)
    return RunDir(Path(out).absolute())


def read_manifest(run: RunDir) -> dict[str, Any]:
    """Return `run.json`.

    Raises:
        RunNotFound: there is none.
        RunCorrupt: see `manifest.read_run_json`.
    """
    if not run.manifest.exists():
        raise RunNotFound(f"{run.path} has no run.json")
    return read_run_json(run.manifest, is_sealed=run.database.is_file())


def update_manifest(run: RunDir, **fields: Any) -> dict[str, Any]:
    """Replace some fields of `run.json` and return all of it."""
    manifest = read_manifest(run) | fields
    write_json(run.manifest, manifest)
    return manifest


def run_status(run: RunDir) -> str:
    """Return the run's status, seeing through a `running` whose process is dead (that is `interrupted`)."""
    manifest = read_manifest(run)
    status = manifest["status"]
    if status == "running" and not is_process(*(manifest.get(name) for name in ("pid", "pid_start", "pid_boot"))):
        return "interrupted"
    return status


def this_process() -> dict[str, Any]:
    """Return what identifies this process for good; see `process_facts`."""
    return process_facts(os.getpid())


def this_machine() -> str:
    """Return a short mark of this machine, from which its name cannot be read: what was timed elsewhere says little here."""
    facts = f"{platform.node()} {platform.machine()} {os.cpu_count()}"
    return hashlib.sha256(facts.encode()).hexdigest()[:12]


def process_facts(pid: int) -> dict[str, Any]:
    """Return `pid`, `pid_start` (a pid alone is reused) and `pid_boot`, when the machine was started, by its clock now."""
    return {"pid": pid, "pid_start": psutil.Process(pid).create_time(), "pid_boot": psutil.boot_time()}


def is_process(pid: int | None, start: float | None, boot: float | None = None) -> bool:
    """Return whether the very process with this pid and start time is alive.

    Where start times are counted from the machine's start, setting the clock moves both alike: their distance tells.
    """
    if pid is None or start is None:
        return False
    try:
        process = psutil.Process(pid)
        found = process.create_time()
        since_boot = found - psutil.boot_time() - (start - boot) if boot is not None else math.inf
        return min(abs(found - start), abs(since_boot)) < 0.01 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def append_progress(path: Path, **fields: Any) -> None:
    """Append one line to a progress file.

    Raises:
        DiskError: it cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": now()} | fields) + "\n")


def last_progress(path: Path) -> dict[str, Any] | None:
    """Return the last whole line of a progress file, or None; a torn last line, or one of another form, is skipped."""
    for line in reversed(last_lines(path, lines=3)):
        with suppress(ValueError, RecursionError):
            found = parse_json(line)
            if problem_of(found, PROGRESS) is None:
                return found
    return None


def last_lines(path: Path, *, lines: int) -> list[str]:
    """Return the last lines of a text that may be long and still grow, from at most its last 64 KiB; none without a file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        return []


def _of_id(root: Path, run_id: str) -> list[Path]:
    """Return where the run of an id would be; nowhere for what is a path, or a link under the root."""
    is_name = run_id not in ("", ".", "..") and "\0" not in run_id and Path(run_id).name == run_id
    return [root / run_id] if is_name and not _is_link(root / run_id) else []


def _is_file(path: Path) -> bool:
    """Return whether a file is there; no for a path that no file could have."""
    try:
        return path.is_file()
    except OSError:
        return False


def _is_link(path: Path) -> bool:
    try:
        return path.is_symlink()
    except OSError:
        return False


def now() -> str:
    """Return the present time as an ISO 8601 text in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the machine says against writing `path` into a DiskError, once for all files."""
    try:
        yield
    except OSError as error:
        raise DiskError.of(path, error) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it replaces `path`, on failure it is removed.

    A reader sees the old file or the new one, never half of either.

    Raises:
        DiskError: it cannot be written.
    """
    with writing(path), beside(path) as temporary:
        yield temporary
        temporary.replace(path)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path`, which on success takes its place; for the rest as `replacing`.

    A folder cannot replace another in one step: between two renames there is none.
    """
    with writing(path), beside(path) as temporary, beside(path) as old:
        temporary.mkdir()
        yield temporary
        if path.exists():
            path.rename(old)
        temporary.rename(path)


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path` that tells whose it is, and remove what lies there in the end.

    What processes that are gone left of earlier attempts at `path` is removed as well.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    me = this_process()
    owner = f"{me['pid']:x}-{round(me['pid_start'] * 100):x}-{round(me['pid_boot'] * 100):x}"
    temporary = path.with_name(f".{path.name}.{owner}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
    finally:
        _remove(temporary)


def discard(path: Path) -> None:
    """Remove a file, if it is there, and what processes that are gone left of attempts at it."""
    _sweep(path)
    path.unlink(missing_ok=True)


_OWNED = re.compile(r"\.([0-9a-f]+)-([0-9a-f]+)-([0-9a-f]+)\.[0-9a-f]{8}\.tmp")


def _sweep(path: Path) -> None:
    """Remove the temporaries of `path` whose processes are gone."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp*"):
        if owner := _OWNED.search(left.name):
            pid, start, boot = (int(part, 16) for part in owner.groups())
            if not is_process(pid, start / 100, boot / 100):
                _remove(left)


def _remove(temporary: Path) -> None:
    """Remove a temporary file or folder, and what DuckDB puts beside a file (its log, its folder of spilled rows)."""
    for path in temporary.parent.glob(f"{glob.escape(temporary.name)}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def disk_use(folder: Path) -> int:
    """Return the bytes of all files under a folder; what a link points to is not counted, nor what goes meanwhile."""
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                size += (Path(place) / name).lstat().st_size
    return size


def left_overs(folder: Path) -> list[Path]:
    """Return the temporary files and folders that `beside` left under a folder when its process was killed."""
    found = [Path(place) / name for place, folders, names in os.walk(folder) for name in (*folders, *names)]
    return sorted(path for path in found if _TEMPORARY.fullmatch(path.name))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, replacing `path` whole.

    Raises:
        DiskError: it cannot be written.
    """
    text = json_text(value)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def json_text(value: Any) -> str:
    """Return `value` as the indented JSON that every file of a run holds; a NaN is an error of ours."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
