"""The measured preview: retrain every arm, audit it, and keep each result so that no arm is ever trained twice."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from carto_core.audits.exposure import audit_exposure
from carto_core.audits.extraction import audit_extraction, audit_natural, mean_nats
from carto_core.audits.membership import audit_membership
from carto_core.audits.perplexity import audit_perplexity
from carto_core.audits.subject import Subject
from carto_core.config import RunConfig
from carto_core.engine.executors import LOCAL, Executor
from carto_core.engine.loop import train
from carto_core.engine.run_corpus import load_run_corpus
from carto_core.engine.side_by_side import Told
from carto_core.preview.arms import Arm
from carto_core.preview.effects import MEASURE_CURE, RESULT, effects_of
from carto_core.store.reader import Run, open_run
from carto_core.store.rundir import write_json
from carto_core.store.shapes import read_json
from carto_core.types import ROLES, Progress

Facts = dict[str, Any]


def measure_arms(run_path: Path, arms: list[Arm], *, progress: Progress, executor: Executor = LOCAL) -> dict[str, Any]:
    """Train and audit the arms that are not cached, and return `measure.json`'s content; see `train_arms`."""
    train_arms(run_path, arms, progress=progress, executor=executor)
    return measured_so_far(open_run(run_path), arms)


def train_arms(run_path: Path, arms: list[Arm], *, progress: Progress, executor: Executor = LOCAL) -> None:
    """Train and audit the arms that are not cached; one that several plans need is trained once.

    Args:
        run_path: the base run's directory.
        arms: see `arms_of`; of one plan or of many.
        progress: see `Executor`.
        executor: where they are trained.
    """
    run = open_run(run_path)
    by_path = {arm.path(run): arm for arm in arms}
    pieces = [(arm,) for arm in by_path.values()]
    executor(train_arm, run_path, pieces, list(by_path), stage="retraining", progress=progress)


def measured_so_far(run: Run, arms: list[Arm]) -> dict[str, Any]:
    """Return `arms` and `effects` as `measure.json` holds them, of those arms of one plan that are there."""
    results = results_so_far(run, arms)
    return {"arms": results, "effects": effects_of(results)}


def results_so_far(run: Run, arms: list[Arm]) -> list[dict[str, Any]]:
    """Return the results of those arms that are there, in the order given."""
    return [_read(arm, path) for arm in arms if (path := arm.path(run)).is_file()]


def train_arm(run_path: Path, arm: Arm, path: Path) -> None:
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
    result: Facts = {"steps": trained.steps, "tokens": trained.tokens}
    for name in arm.audits:
        result |= ARM_AUDITS[name](subject, arm)
    write_json(path, result | {"wall_s": time.perf_counter() - started})
    told.close()


def _extraction(subject: Subject, arm: Arm) -> Facts:
    found = audit_extraction(subject, searches=False).summary
    return {
        "extraction": {role: _counts(found[role]["inserted"]) for role in ROLES},
        "extraction_control": {role: _counts(found[role]["control"]) for role in ROLES},
    }


def _secrets(subject: Subject, arm: Arm) -> Facts:
    """Return by role the mean loss of inserted secrets after their prefix, in nats per token."""
    nats: dict[str, list[float]] = {role: [] for role in ROLES}
    for canary, (prefix, secret) in zip(subject.corpus.canaries, subject.canary_tokens, strict=True):
        if canary.inserted:
            nats[canary.role].append(mean_nats(subject, prefix, secret))
    return {"secret_nats": {role: sum(found) / len(found) if found else None for role, found in nats.items()}}


def _natural(subject: Subject, arm: Arm) -> Facts:
    found = audit_natural(subject).summary
    return {"natural_extraction": {"k": found["k"], "n": found["n"]}}


def _exposure(subject: Subject, arm: Arm) -> Facts:
    found = audit_exposure(subject, searches=False, controls=False).summary
    return {"exposure": {role: found[role]["inserted"]["median"] for role in ROLES}}


def _membership(subject: Subject, arm: Arm) -> Facts:
    found = audit_membership(subject, trained_on=arm.repeats > 0).summary["attacks"]["loss"]
    return {"membership_auc": found["auc"]["value"], "membership_tpr": found["tpr_at_fpr_0.01"]["value"]}


def _perplexity(subject: Subject, arm: Arm) -> Facts:
    return {"ppl_nats": audit_perplexity(subject).summary["nats_per_token"]}


ARM_AUDITS: dict[str, Callable[[Subject, Arm], Facts]] = {
    "extraction": _extraction,
    "secrets": _secrets,
    "natural": _natural,
    "exposure": _exposure,
    "membership": _membership,
    "perplexity": _perplexity,
}


def _counts(shares: dict[str, Any]) -> dict[str, Any]:
    """Return `k, n` and, where there are repetitions, `by_repeats` with the same: intervals are over seeds here."""
    counts: dict[str, Any] = {"k": shares["k"], "n": shares["n"]}
    if "by_repeats" in shares:
        counts["by_repeats"] = {r: {"k": part["k"], "n": part["n"]} for r, part in shares["by_repeats"].items()}
    return counts


def _read(arm: Arm, path: Path) -> dict[str, Any]:
    result = read_json(path, RESULT, cure=MEASURE_CURE)
    return {"arm": arm.arm, "seed": arm.seed} | result | {"notes": arm.notes}
