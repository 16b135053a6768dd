"""The verb `train`: prepare a corpus, train a model on it, record every sample's loss, seal and score the run."""

from __future__ import annotations

import hashlib
import platform
import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from carto_core import CONTRACT_VERSION, __version__
from carto_core.config import ModelConfig, RunConfig, ScoreConfig
from carto_core.corpus.prepared import PreparedCorpus, prepare
from carto_core.engine.checkpoint import checkpointed_step
from carto_core.engine.loop import train
from carto_core.engine.run_corpus import load_run_corpus
from carto_core.errors import Cancelled, CartoError, ConfigError, RunError, RunNotFound
from carto_core.probes import CHEAP, DEFAULT_MODELS, PROBES
from carto_core.probes.probing import Probing
from carto_core.store.reader import Run
from carto_core.store.rundir import RunDir, create_run, now, read_manifest, run_status, this_process, update_manifest
from carto_core.store.sealed import seal
from carto_core.store.writer import PartWriter, write_table
from carto_core.tasks import TASKS
from carto_core.workflows import light
from carto_core.workflows.probing import fill
from carto_core.workflows.progress import ProgressFile, device_slot, stoppable

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
    run = create_run(out, _first_manifest(Path(out).absolute().name, config, corpus))
    corpus.tokenizer.save(run.tokenizer)
    sha256 = hashlib.sha256(run.tokenizer.read_bytes()).hexdigest()
    update_manifest(run, tokenizer=corpus.tokenizer.describe() | {"sha256": sha256})
    for name, table in corpus.tables().items():
        write_table(table, run.table(name))
    return run


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
    with _recording_the_end(run), device_slot(run.path.parent, progress):
        if not run.database.is_file():
            _train_and_seal(run, config, progress)
        for name in CHEAP:
            progress(PROBES[name].title.lower(), 0, 1)
            fill(Run(run), name, Probing(Run(run), DEFAULT_MODELS, progress))
        light.score(Run(run), ScoreConfig.from_dict(manifest["scores"]))
        update_manifest(run, status="complete", finished=now(), peak_memory_bytes=_peak_memory_bytes())
        progress("complete", 1, 1)


def _train_and_seal(run: RunDir, config: RunConfig, progress: ProgressFile) -> None:
    started = time.perf_counter()
    task = load_run_corpus(Run(run)).task(config)
    writer = PartWriter(run)
    writer.drop_after(checkpointed_step(run.checkpoints))
    trained = train(task, config.engine, recorder=writer, checkpoints=run.checkpoints, progress=progress)
    progress("sealing", 0, 1)
    manifest = update_manifest(
        run,
        num_snapshots=len(writer.snapshots),
        device=str(trained.device),
        steps=trained.steps,
        tokens=trained.tokens,
        train_s=time.perf_counter() - started,
        measure_s=trained.measure_s,
    )
    seal(
        run,
        {
            "contract_version": str(CONTRACT_VERSION),
            "run_id": run.run_id,
            "task": config.model.task,
            "seed": str(config.engine.seed),
            "corpus_sha256": manifest["corpus_sha256"],
        },
    )


def _first_manifest(run_id: str, config: RunConfig, corpus: PreparedCorpus) -> dict[str, Any]:
    return {
        "contract_version": CONTRACT_VERSION,
        "run_id": run_id,
        "status": "running",
        "created": now(),
        "carto_version": __version__,
        "code_version": _git_revision(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
        "seed": config.engine.seed,
        "corpus_sha256": corpus.sha256,
        "num_samples": len(corpus.rows),
        "num_validation": len(corpus.validation),
        "num_snapshots": 0,
        "tokenizer": corpus.tokenizer.describe(),
        "report_seen": False,
        "error": None,
        "config": config.to_dict(),
        "scores": ScoreConfig().to_dict(),
        **this_process(),
    }


@contextmanager
def _recording_the_end(run: RunDir) -> Iterator[None]:
    """Write into the manifest how the work ended, unless it ended well."""
    try:
        yield
    except Cancelled:
        update_manifest(run, status="cancelled", error="cancelled; continue with --resume")
        raise
    except KeyboardInterrupt:
        update_manifest(run, status="interrupted", error="interrupted; continue with --resume")
        raise
    except BaseException as error:
        told = str(error) if isinstance(error, CartoError) else f"{type(error).__name__}: {error}"
        update_manifest(run, status="failed", error=told)
        raise


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
