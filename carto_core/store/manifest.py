"""What `run.json` must hold: its shape, checked once, where it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from carto_core import CONTRACT_VERSION
from carto_core.config import RunConfig, ScoreConfig
from carto_core.errors import ConfigError, RunCorrupt
from carto_core.store.shapes import (
    COUNT,
    FLAG,
    NUMBER,
    OBJECT,
    SECONDS,
    SHA256,
    TEXT,
    Kind,
    among,
    by_name,
    maybe,
    problem_of,
    read_json,
)

STATUSES = ("running", "interrupted", "failed", "cancelled", "complete")
CURE = "copy run.json back, or move this directory out of the folder of runs"
PID = Kind("a process id", lambda value: COUNT.fits(value) and 0 < value < 2**31)
NAME = Kind(
    "the name of a run",
    lambda value: isinstance(value, str) and value not in ("", ".", "..") and not set(value) & {"/", "\\", "\0"},
)
ORIGINS = ("recorded", "imported", "measured")
ORIGIN = {
    "kind": among(*ORIGINS),
    "by": TEXT,
    "ranks?": Kind("1 to 10000", lambda value: COUNT.fits(value) and 1 <= value <= 10_000),
    "left_out?": COUNT,
    "models?": [{"name": TEXT, "sha256": SHA256}],
    "context?": COUNT,
    "precision?": TEXT,
    "begins_with?": TEXT,
}
SHAPE = {
    "status": among(*STATUSES),
    "created": TEXT,
    "corpus_sha256": SHA256,
    "num_samples": COUNT,
    "num_snapshots": COUNT,
    "seed": COUNT,
    "scores?": maybe(OBJECT),
    "report_seen?": FLAG,
    "error?": maybe(TEXT),
    "tokenizer?": OBJECT,
    "versions?": by_name(TEXT),
    "carto_version?": TEXT,
    "code_version?": maybe(TEXT),
    "pid?": maybe(PID),
    "pid_start?": maybe(NUMBER),
    "pid_boot?": maybe(NUMBER),
    "machine?": TEXT,
    "scored_probes?": [TEXT],
    "formerly?": [NAME],
    "steps?": COUNT,
    "tokens?": COUNT,
    "device?": TEXT,
    "train_s?": SECONDS,
    "measure_s?": SECONDS,
    "parent_run?": NAME,
    "plan_sha256?": SHA256,
    "train_seed?": COUNT,
    "equal?": among("steps", "epochs"),
}
TRAINED = {"config": OBJECT}  # by our own engine
FOREIGN = {"origin": ORIGIN}  # another program trained the model, and no config of ours could replay it
SEALED = {"steps": COUNT, "device": TEXT, "train_s": SECONDS, "measure_s": SECONDS}  # known once training is over
RETRAIN = {name: SHAPE[f"{name}?"] for name in ("parent_run", "plan_sha256", "train_seed", "equal")}


def read_run_json(path: Path, *, is_sealed: bool) -> dict[str, Any]:
    """Return what a `run.json` holds.

    Args:
        path: of the file.
        is_sealed: whether the run's training is over.

    Raises:
        RunCorrupt: it is not JSON, was written to another version of the contract, or a field is missing or cannot be.
    """
    manifest = read_json(path, OBJECT, cure=CURE)
    found = manifest.get("contract_version")
    if found != CONTRACT_VERSION or isinstance(found, bool):
        raise RunCorrupt(
            f"{path} is of version {found!r} of the data contract, and this program reads version {CONTRACT_VERSION}: "
            "open the run with the program that made it"
        )
    if "origin" in manifest:
        shape = SHAPE | FOREIGN
    else:
        shape = SHAPE | TRAINED | (SEALED if is_sealed else {}) | (RETRAIN if "parent_run" in manifest else {})
    if problem := problem_of(manifest, shape):
        raise RunCorrupt(f"{path}: {problem}; {CURE}")
    try:
        if "config" in manifest:
            RunConfig.from_dict(manifest["config"])
        ScoreConfig.from_dict(manifest.get("scores") or {})
    except ConfigError as error:
        raise RunCorrupt(f"{path}: {error}; {CURE}") from None
    return manifest
