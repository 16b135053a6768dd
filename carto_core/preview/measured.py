"""The measured preview: retrain every arm, audit it, and keep each result so that no arm is ever trained twice."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from carto_core.audits.exposure import audit_exposure
from carto_core.audits.extraction import audit_extraction, audit_natural
from carto_core.audits.perplexity import audit_perplexity
from carto_core.audits.subject import Subject
from carto_core.config import RunConfig
from carto_core.engine.loop import train
from carto_core.engine.run_corpus import load_run_corpus
from carto_core.engine.side_by_side import Told, num_workers, run_side_by_side
from carto_core.preview.arms import Arm
from carto_core.preview.effects import effects_of
from carto_core.store.reader import open_run
from carto_core.store.rundir import write_json
from carto_core.types import ROLES, Progress


def measure_arms(run_path: Path, arms: list[Arm], *, progress: Progress) -> dict[str, Any]:
    """Train and audit the arms that are not cached, one process a core, and return `measure.json`'s content.

    Args:
        run_path: the base run's directory.
        arms: see `arms_of`.
        progress: see `run_side_by_side`.
    """
    run = open_run(run_path)
    by_path = {arm.path(run): arm for arm in arms}
    run_side_by_side(
        _train_arm,
        [(run_path, arm) for arm in by_path.values()],
        list(by_path),
        workers=num_workers(RunConfig.from_dict(run.manifest["config"])),
        stage="retraining",
        progress=progress,
    )
    results = [_read(arm, arm.path(run)) for arm in arms]
    return {"arms": results, "effects": effects_of(results)}


def _train_arm(run_path: Path, arm: Arm, path: Path) -> None:
    """Train one arm in this process, audit it and write its result."""
    run = open_run(run_path)
    config = RunConfig.from_dict(run.manifest["config"])
    corpus = load_run_corpus(run)
    started = time.perf_counter()
    told = Told(path)
    engine = dataclasses.replace(config.engine, seed=arm.seed)
    trained = train(
        corpus.task(config), engine, repeats=arm.repeats, weights=arm.weights, steps=arm.steps, progress=told
    )
    # The audits keep the base run's seed: the same references for every arm.
    subject = Subject(trained.model, trained.device, config, corpus)
    result = _audit(subject, exposure=arm.exposure) | {"steps": trained.steps, "tokens": trained.tokens}
    write_json(path, result | {"wall_s": time.perf_counter() - started})
    told.close()


def _audit(subject: Subject, *, exposure: bool) -> dict[str, Any]:
    extraction = audit_extraction(subject, searches=False).summary
    ranked = audit_exposure(subject, searches=False, controls=False).summary if exposure else None
    natural = audit_natural(subject).summary
    return {
        "extraction": {role: _counts(extraction[role]["inserted"]) for role in ROLES},
        "extraction_control": {role: _counts(extraction[role]["control"]) for role in ROLES},
        "natural_extraction": {"k": natural["k"], "n": natural["n"]},
        "exposure": {role: ranked[role]["inserted"]["median"] if ranked else None for role in ROLES},
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
