"""The verbs `train` and `retrain`: train a model on a corpus, record every sample's loss, seal and score the run."""

from __future__ import annotations

import dataclasses
import hashlib
import platform
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

from carto_core import CONTRACT_VERSION, __version__
from carto_core.audits.subject import load_subject
from carto_core.config import ModelConfig, RunConfig, ScoreConfig
from carto_core.corpus.prepared import PreparedCorpus, prepare
from carto_core.engine.loop import train
from carto_core.engine.order import total_steps
from carto_core.engine.run_corpus import load_run_corpus
from carto_core.errors import (
    Cancelled,
    CartoError,
    ConfigError,
    DiskError,
    PlanError,
    RunError,
    RunNotFound,
    TrainingDiverged,
)
from carto_core.export import read_plan
from carto_core.preview.arms import Equal
from carto_core.probes import CHEAP, DEFAULT_MODELS, PROBES, UNDER_A_PLAN
from carto_core.probes.probing import Probing
from carto_core.scores import SCORES
from carto_core.store.reader import Run
from carto_core.store.rundir import (
    RunDir,
    making_run,
    now,
    read_manifest,
    run_status,
    this_machine,
    this_process,
    update_manifest,
    write_json,
)
from carto_core.store.sealed import drop_parts, seal
from carto_core.store.writer import PartWriter, write_table
from carto_core.tasks import TASKS
from carto_core.types import SampleTable
from carto_core.workflows import light
from carto_core.workflows.preparing import prepare_subject
from carto_core.workflows.probing import fill
from carto_core.workflows.progress import ProgressFile, device_slot, stoppable

NAMED = 5  # samples in a message
LIBRARIES = ("torch", "numpy", "duckdb", "pyarrow", "tokenizers", "safetensors")


def train_run(config: RunConfig, out: str | Path) -> dict[str, Any]:
    """Train a new run into the directory `out`, seal it and score it.

    Args:
        config: all settings.
        out: the run directory; its name is the run id.

    Returns:
        `run, status, num_samples, num_snapshots`.

    Raises:
        RunExists: `out` is there already.
        CorpusError: see `prepare`; no run is left behind.
        ConfigError: the model could not read the canaries; no run is left behind.
        Cancelled: the process was told to stop; the run can be resumed.
    """
    with stoppable():
        return _train_into(_start(config, out))


def train_plan(
    run: Run, plan_dir: str | Path, out: str | Path, *, seed: int | None = None, equal: Equal = "steps"
) -> dict[str, Any]:
    """Train a run's corpus anew under a plan, as a full run of its own: snapshots, scores, checkpoint and map.

    Canaries, split, tokenizer and settings stay the base run's, whose `seed` the new run keeps; so do the map's axes, where
    they can be had without training further models. A sample that the plan prunes is never drawn but measured in every
    snapshot. The same seed and a plan that changes nothing give the base run's losses bit for bit.

    Args:
        run: the base run, sealed and scored.
        plan_dir: see `light.save_plan`.
        out: the new run's directory; its name is the run id.
        seed: of initialisation and order; None takes the base run's.
        equal: `steps` takes the base run's optimizer steps, `epochs` as many passes over what the plan leaves.

    Returns:
        what `train_run` does.

    Raises:
        PlanError: the plan cannot be read, is another run's, or leaves nothing to train on.
        ConfigError: `seed` or `equal` is out of range.
        RunExists, RunNotSealed, RunCorrupt, Cancelled: as their names say.
    """
    with stoppable():
        return _train_into(_start_plan(run, Path(plan_dir), out, seed=seed, equal=equal))


def resume_plan(run: Run, plan_dir: str | Path, out: str | Path) -> dict[str, Any]:
    """Go on with an interrupted `train_plan` of this very run and plan; see `resume_run`.

    Raises:
        RunError: the run in `out` is of another base run or plan.
    """
    _, facts = read_plan(plan_dir, light.load_table(run))
    found = read_manifest(_open_to_resume(Path(out)))
    is_of_run = found.get("parent_run") in (run.run_id, *run.formerly)
    if not is_of_run or found.get("plan_sha256") != facts["plan_sha256"]:
        raise RunError(f"the run in {out} is no retrain of {run.run_id} under this plan; choose another --out")
    return resume_run(out)


def resume_run(out: str | Path) -> dict[str, Any]:
    """Go on with an interrupted run, under its own settings, to the losses that it would have had.

    A run that is complete is left alone. Returns what `train_run` does.

    Raises:
        RunNotFound: there is no run in `out`.
        RunError: another process is training it.
        Cancelled: as for `train_run`.
    """
    with stoppable():
        return _train_into(_open_to_resume(Path(out)))


def _start(config: RunConfig, out: str | Path) -> RunDir:
    """Prepare the corpus before the run exists: a bad corpus leaves nothing half-made behind."""
    corpus = prepare(config.corpus, config.canaries, seed=config.engine.seed)
    _require_readable_canaries(config.model, corpus)
    facts = {
        "seed": config.engine.seed,
        "corpus_sha256": corpus.sha256,
        "num_samples": len(corpus.rows),
        "num_validation": len(corpus.validation),
        "report_seen": False,
        "scores": ScoreConfig().to_dict(),
    }
    with making_run(out) as run:
        corpus.tokenizer.save(run.tokenizer)
        facts["tokenizer"] = corpus.tokenizer.describe() | {
            "sha256": hashlib.sha256(run.tokenizer.read_bytes()).hexdigest()
        }
        for name, table in corpus.tables().items():
            write_table(table, run.table(name))
        write_json(run.manifest, _first_manifest(Path(out).absolute().name, config, facts))
    return RunDir(Path(out).absolute())


def _start_plan(base: Run, plan_dir: Path, out: str | Path, *, seed: int | None, equal: Equal) -> RunDir:
    """Copy what a retrain shares with its base run, after the plan was read: a bad plan leaves nothing half-made behind."""
    base.require_model()
    table = light.load_table(base)
    plan, facts = read_plan(plan_dir, table)
    if not plan.repeats.any():
        raise PlanError(f"the plan in {plan_dir} prunes every sample; leave at least one to train on")
    if equal not in get_args(Equal):
        raise ConfigError(f"--equal must be steps or epochs, got {equal!r}")
    manifest = base.manifest
    config = RunConfig.from_dict(manifest["config"])
    train_seed = manifest.get("train_seed", config.engine.seed) if seed is None else seed
    engine = dataclasses.replace(config.engine, seed=train_seed)  # refuses a seed out of range
    steps = manifest["steps"] if equal == "steps" else total_steps(engine, plan.repeats)
    shared = ("seed", "corpus_sha256", "num_samples", "num_validation", "tokenizer", "report_seen")
    of_plan = {"parent_run": base.run_id, "plan_sha256": facts["plan_sha256"], "train_seed": train_seed}
    of_plan |= {"equal": equal, "steps": steps}
    scores = {"scores": _scores_like(base, table).to_dict()}
    files = [*base.corpus_files(), plan_dir / "plan.parquet"]
    kept = {name: manifest[name] for name in shared}
    with making_run(out) as run:
        for source in files:
            shutil.copyfile(source, run.path / source.name)
        write_json(run.manifest, _first_manifest(Path(out).absolute().name, config, kept | of_plan | scores))
    return RunDir(Path(out).absolute())


def _scores_like(base: Run, table: SampleTable) -> ScoreConfig:
    """Return the base run's score settings with the axes that it settled on, so that two maps can be compared.

    An axis whose probe trains further models is left to the recommendation: nobody asked for hours of them.
    """
    x, y = (name if _is_at_hand(name) else None for name in (table.x, table.y))
    return dataclasses.replace(light.score_config(base), x=x or ScoreConfig().x, y=y)


def _is_at_hand(score: str) -> bool:
    """Return whether a retrain can have a score without training further models."""
    probe = SCORES[score].probe
    return probe is None or (probe in UNDER_A_PLAN and PROBES[probe].trainings(DEFAULT_MODELS) < 1)


def _probes_of(config: ScoreConfig) -> list[str]:
    """Return the probes that a training runs by itself: the cheap ones, and those that the chosen axes are made of."""
    axes = [name for name in (config.x, config.y) if name is not None]
    return list(dict.fromkeys([*CHEAP, *(p for name in axes if (p := SCORES[name].probe) is not None)]))


def _require_readable_canaries(model: ModelConfig, corpus: PreparedCorpus) -> None:
    """Refuse, before an hour of training, a model that could not be asked for its secrets afterwards."""
    longest = max((len(corpus.tokenizer.encode(canary.text)) for canary in corpus.canaries), default=0)
    if model.task in TASKS and TASKS[model.task].bounded and longest > model.context:
        raise ConfigError(
            f"a {model.task} reads at most --context tokens, {model.context}, and the longest canary has {longest}; "
            f"use --context {longest} or more, or --canaries none"
        )


def _open_to_resume(path: Path) -> RunDir:
    run = RunDir(path.absolute())
    if not run.manifest.is_file():
        raise RunNotFound(f"{path} holds no run to resume; leave --resume out to start one there")
    Run(run).require_model()
    if run_status(run) == "running":
        raise RunError(f"run {run.run_id} is being trained by another process (pid {read_manifest(run)['pid']})")
    return run


def _train_into(run: RunDir) -> dict[str, Any]:
    if run_status(run) != "complete":
        _train_to_the_end(run)
    manifest = read_manifest(run)
    return {"run": str(run.path)} | {name: manifest[name] for name in ("status", "num_samples", "num_snapshots")}


def _train_to_the_end(run: RunDir) -> None:
    manifest = update_manifest(run, status="running", error=None, **this_process())
    config = RunConfig.from_dict(manifest["config"])
    progress = ProgressFile(run.progress)
    with _recording_the_end(run), device_slot(run, progress, work="training"):
        if not run.database.is_file():
            _train_and_seal(run, config, progress)
        drop_parts(run)
        scores = ScoreConfig.from_dict(manifest["scores"])
        for name in _probes_of(scores):
            progress(PROBES[name].title.lower(), 0, 1)
            fill(Run(run), name, Probing(Run(run), DEFAULT_MODELS, progress))
        light.score(Run(run), scores)
        prepare_subject(Run(run), load_subject(Run(run)), progress)
        update_manifest(run, status="complete", finished=now(), peak_memory_bytes=_peak_memory_bytes())
        progress("complete", 1, 1)


def _train_and_seal(run: RunDir, config: RunConfig, progress: ProgressFile) -> None:
    started = time.perf_counter()
    manifest, corpus = read_manifest(run), load_run_corpus(Run(run))
    writer = PartWriter(run)
    with _naming_samples(Run(run)):
        trained = train(
            corpus.task(config),
            dataclasses.replace(config.engine, seed=manifest.get("train_seed", config.engine.seed)),
            repeats=corpus.repeats,
            weights=corpus.weights,
            steps=manifest.get("steps"),
            recorder=writer,
            checkpoints=run.checkpoints,
            progress=progress,
        )
    progress("sealing", 0, 1)
    manifest = update_manifest(
        run,
        num_snapshots=len(writer.snapshots),
        device=str(trained.device),
        steps=trained.steps,
        tokens=trained.tokens,
        train_s=trained.earlier_s + time.perf_counter() - started,
        measure_s=trained.measure_s,
    )
    seal(
        run,
        {
            "contract_version": str(CONTRACT_VERSION),
            "run_id": run.run_id,
            "task": config.model.task,
            "seed": str(manifest["seed"]),
            "corpus_sha256": manifest["corpus_sha256"],
        },
    )


def _first_manifest(run_id: str, config: RunConfig, facts: dict[str, Any]) -> dict[str, Any]:
    """Return `run.json` as a training begins with it; `facts` are those of its corpus, its scores and, if any, its plan."""
    return {
        "contract_version": CONTRACT_VERSION,
        "run_id": run_id,
        "status": "running",
        "created": now(),
        "carto_version": __version__,
        "code_version": _git_revision(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
        "num_snapshots": 0,
        "error": None,
        "config": config.to_dict(),
        "machine": this_machine(),
        **facts,
        **this_process(),
    }


@contextmanager
def _recording_the_end(run: RunDir) -> Iterator[None]:
    """Write into the manifest how the work ended, unless it ended well."""
    try:
        yield
    except BaseException as error:
        with suppress(DiskError):  # where not even this can be written, a dead process says that it was interrupted
            update_manifest(run, **_end(error))
        raise


@contextmanager
def _naming_samples(run: Run) -> Iterator[None]:
    """Name by key the samples at which a training diverged: ids mean nothing to whoever mends the corpus."""
    try:
        yield
    except TrainingDiverged as error:
        keys = run.samples("sample_id, key")["key"]
        first = ", ".join(repr(keys[i]) for i in error.sample_ids[:NAMED])
        number = len(error.sample_ids)
        raise TrainingDiverged(f"{error}. Samples: {number:,}, the first {first}", error.sample_ids) from None


def _end(error: BaseException) -> dict[str, str]:
    """Return status and error of a run that ended with this."""
    if isinstance(error, Cancelled):
        return {"status": "cancelled", "error": "cancelled; continue with --resume"}
    if isinstance(error, KeyboardInterrupt):
        return {"status": "interrupted", "error": "interrupted; continue with --resume"}
    return {
        "status": "failed",
        "error": str(error) if isinstance(error, CartoError) else f"{type(error).__name__}: {error}",
    }


def _git_revision() -> str | None:
    """Return the commit of the code that runs, or None outside a checkout."""
    try:
        command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _peak_memory_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024
