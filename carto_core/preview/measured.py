"""The measured preview: retrain every arm, audit it, and keep each result so that no arm is ever trained twice."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

from carto_core.audits.exposure import audit_exposure, exposure_of_rank
from carto_core.audits.extraction import audit_extraction, audit_natural, mean_nats
from carto_core.audits.membership import audit_membership
from carto_core.audits.perplexity import audit_perplexity
from carto_core.audits.subject import Subject
from carto_core.config import RunConfig
from carto_core.engine.executors import LOCAL, Executor, LocalExecutor
from carto_core.engine.loop import Trained, train
from carto_core.engine.run_corpus import RunCorpus, load_run_corpus
from carto_core.engine.side_by_side import Told
from carto_core.engine.stacked import is_stackable, num_stacked, train_stacked
from carto_core.errors import RunError
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

    Side by side: one process a core on a CPU; on this machine's GPU one process that trains them stacked, which was 3 to 5
    times as fast as one after the other (docs/experiments.md).

    Args:
        run_path: the base run's directory.
        arms: see `arms_of`; of one plan or of many.
        progress: see `Executor`.
        executor: where they are trained.
    """
    run = open_run(run_path)
    missing = {path: arm for arm in arms if not (path := arm.path(run)).is_file()}
    if not missing:
        return
    if not _are_stacked(run, executor):
        executor(
            train_arm,
            run_path,
            [(arm,) for arm in missing.values()],
            list(missing),
            stage="retraining",
            progress=progress,
        )
        return
    # One piece, of all: what it writes last stands for it.
    executor(
        train_stacks,
        run_path,
        [(tuple(missing.values()),)],
        [list(missing)[-1]],
        stage="retraining",
        progress=lambda stage, done, total: progress(stage, len(missing) * done / total, len(missing)),
    )


def _are_stacked(run: Run, executor: Executor) -> bool:
    """Return whether arms are trained stacked: on a GPU here, unless so many processes at a time were asked for."""
    config = RunConfig.from_dict(run.manifest["config"])
    here = isinstance(executor, LocalExecutor) and executor.workers is None
    return here and config.engine.device != "cpu" and torch.cuda.is_available()


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
    result = _audited(trained, config, corpus, arm)
    write_json(path, result | {"wall_s": time.perf_counter() - started})
    told.close()


def train_stacks(run_path: Path, arms: tuple[Arm, ...], path: Path) -> None:
    """Train arms in this process in stacks as large as its memory bears, audit each and write its result where it is kept.

    Args:
        run_path: the base run's directory.
        arms: not cached; one that cannot be stacked is trained alone.
        path: where progress is told beside.

    Raises:
        RunError: the memory does not bear a stack of one.
    """
    run = open_run(run_path)
    config = RunConfig.from_dict(run.manifest["config"])
    corpus = load_run_corpus(run)
    task = corpus.task(config)
    told = Told(path)
    waiting: list[Arm] = []
    for arm in arms:
        if is_stackable(task, arm):
            waiting.append(arm)
        else:
            train_arm(run_path, arm, arm.path(run))
    size = num_stacked(task, config.engine, free_bytes=_free_bytes())
    while waiting:
        rounds = -(-len(waiting) // size)
        stack = waiting[: -(-len(waiting) // rounds)]
        before = len(arms) - len(waiting)
        started = time.perf_counter()

        def tell(stage: str, done: float, total: float, *, first: int = before, count: int = len(stack)) -> None:
            told(stage, first + count * done / total, len(arms))

        try:
            trained = train_stacked(task, config.engine, stack, progress=tell)
        except torch.OutOfMemoryError:
            if len(stack) == 1:
                raise RunError(
                    "retraining: the GPU's memory does not bear one model of this run; free some of it"
                ) from None
            size = len(stack) // 2
            continue
        share = (time.perf_counter() - started) / len(stack)
        for arm, one in zip(stack, trained, strict=True):
            started = time.perf_counter()
            result = _audited(one, config, corpus, arm)
            write_json(arm.path(run), result | {"wall_s": share + time.perf_counter() - started})
        waiting = waiting[len(stack) :]
    told.close()


def _free_bytes() -> int:
    """Return how much memory is free where models are trained."""
    return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else psutil.virtual_memory().available


def _audited(trained: Trained, config: RunConfig, corpus: RunCorpus, arm: Arm) -> Facts:
    """Return what a trained arm's file holds, but for how long that took."""
    # The audits keep the base run's seed: the same references for every arm.
    subject = Subject(trained.model, trained.device, config, corpus)
    result: Facts = {"steps": trained.steps, "tokens": trained.tokens, "device": trained.device.type}
    for name in arm.audits:
        result |= ARM_AUDITS[name](subject, arm)
    return result


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
    most = exposure_of_rank(found["num_references"], 0)
    return {"exposure": {role: found[role]["inserted"]["median"] for role in ROLES}, "exposure_most": most}


def _membership(subject: Subject, arm: Arm) -> Facts:
    """Return how well the base run's texts are told, those too that this arm was not trained on.

    Were the members those that a plan leaves, a plan that prunes low losses would leave members of high loss, and lower
    every attack by loss on a model that memorized nothing.
    """
    found = audit_membership(subject).summary["attacks"]["loss"]
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
