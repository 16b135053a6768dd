"""The measured preview: retrain every arm, audit it, and keep each result so that no arm is ever trained twice."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import time
from multiprocessing.pool import AsyncResult
from pathlib import Path
from typing import Any

from carto_core.audits.exposure import audit_exposure
from carto_core.audits.extraction import audit_extraction, audit_natural
from carto_core.audits.perplexity import audit_perplexity
from carto_core.audits.subject import Subject
from carto_core.config import RunConfig
from carto_core.engine.loop import train
from carto_core.engine.run_corpus import load_run_corpus
from carto_core.preview.arms import Arm, num_workers
from carto_core.preview.effects import effects_of
from carto_core.store.reader import open_run
from carto_core.store.rundir import append_progress, last_progress, write_json
from carto_core.types import ROLES, Progress

POLL_S = 0.5


def measure_arms(run_path: Path, arms: list[Arm], *, progress: Progress) -> dict[str, Any]:
    """Train and audit the arms that are not cached, one process a core, and return `measure.json`'s content.

    Args:
        run_path: the base run's directory.
        arms: see `arms_of`.
        progress: told how many arms' worth of training is done; may raise to stop, which ends the processes. Arms that
            were finished by then stay cached.
    """
    run = open_run(run_path)
    missing = {arm.path(run): arm for arm in arms if not arm.path(run).is_file()}
    workers = min(num_workers(RunConfig.from_dict(run.manifest["config"])), max(1, len(missing)))
    # spawn: a forked child would inherit torch's thread pool in a state that may hang
    with multiprocessing.get_context("spawn").Pool(workers, maxtasksperchild=1) as pool:
        waiting = [pool.apply_async(_train_arm, (run_path, arm, path)) for path, arm in missing.items()]
        _watch(waiting, list(missing), progress)
    results = [_read(arm, arm.path(run)) for arm in arms]
    return {"arms": results, "effects": effects_of(results)}


def _watch(waiting: list[AsyncResult], paths: list[Path], progress: Progress) -> None:
    """Wait for all arms, telling progress; raise what an arm raised."""
    while True:
        shares = [1.0 if path.is_file() else _share_done(path) for path in paths]
        progress("retraining", sum(shares), max(1, len(paths)))
        for result in waiting:
            if result.ready():
                result.get()
        if all(result.ready() for result in waiting):
            return
        time.sleep(POLL_S)


def _share_done(path: Path) -> float:
    line = last_progress(_progress_path(path))
    return 0.0 if line is None else float(line["done"]) / float(line["total"])


def _progress_path(path: Path) -> Path:
    return path.with_suffix(".progress.jsonl")


def _train_arm(run_path: Path, arm: Arm, path: Path) -> None:
    """Train one arm in this process, audit it and write its result."""
    run = open_run(run_path)
    config = RunConfig.from_dict(run.manifest["config"])
    corpus = load_run_corpus(run)
    started = time.perf_counter()
    told = _Told(_progress_path(path))
    engine = dataclasses.replace(config.engine, seed=arm.seed)
    trained = train(
        corpus.task(config), engine, repeats=arm.repeats, weights=arm.weights, steps=arm.steps, progress=told
    )
    # The audits keep the base run's seed: the same references for every arm.
    subject = Subject(trained.model, trained.device, config, corpus)
    result = _audit(subject) | {"steps": trained.steps, "tokens": trained.tokens}
    write_json(path, result | {"wall_s": time.perf_counter() - started})
    _progress_path(path).unlink(missing_ok=True)


class _Told:
    """Progress of one arm, twice a second into a file that the parent reads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.unlink(missing_ok=True)
        self.written = 0.0

    def __call__(self, stage: str, done: float, total: float) -> None:
        if time.monotonic() - self.written > POLL_S:
            self.written = time.monotonic()
            append_progress(self.path, done=done, total=total)


def _audit(subject: Subject) -> dict[str, Any]:
    extraction = audit_extraction(subject, searches=False).summary
    exposure = audit_exposure(subject, searches=False).summary
    natural = audit_natural(subject).summary
    return {
        "extraction": {role: _counts(extraction[role]["inserted"]) for role in ROLES},
        "extraction_control": {role: _counts(extraction[role]["control"]) for role in ROLES},
        "natural_extraction": {"k": natural["k"], "n": natural["n"]},
        "exposure": {role: exposure[role]["inserted"]["median"] for role in ROLES},
        "ppl_nats": audit_perplexity(subject).summary["nats_per_token"],
    }


def _counts(shares: dict[str, Any]) -> dict[str, Any]:
    """Return `k, n` and, where there are repetitions, `by_repeats` with the same: intervals are over seeds here."""
    counts: dict[str, Any] = {"k": shares["k"], "n": shares["n"]}
    if "by_repeats" in shares:
        counts["by_repeats"] = {r: {"k": part["k"], "n": part["n"]} for r, part in shares["by_repeats"].items()}
    return counts


def _read(arm: Arm, path: Path) -> dict[str, Any]:
    result = json.loads(path.read_text(encoding="utf-8"))
    return {"arm": arm.arm, "seed": arm.seed} | result | {"notes": arm.notes}
