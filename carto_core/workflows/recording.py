"""The verbs `seal` and `join`: what a foreign training loop recorded becomes a run, and gets its texts."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from carto_core import CONTRACT_VERSION
from carto_core.config import ScoreConfig
from carto_core.corpus.foreign import foreign_groups, foreign_rows
from carto_core.corpus.reading import Row, corpus_sha256
from carto_core.errors import CorpusError, RunError
from carto_core.probes import CHEAP, DEFAULT_MODELS
from carto_core.probes.probing import Probing
from carto_core.scores import SCORES
from carto_core.store import schema
from carto_core.store.reader import Run, meta_of
from carto_core.store.records import LocalFolder, copy_records, folder_at, is_remote
from carto_core.store.rundir import (
    RunDir,
    find_run,
    making_run,
    now,
    read_manifest,
    resolve_runs_root,
    update_manifest,
)
from carto_core.store.sealed import drop_parts, replace_samples, seal, settle
from carto_core.workflows import light
from carto_core.workflows.probing import fill
from carto_core.workflows.progress import ProgressFile, stoppable

FEW_POINTS = 6  # of a sample; fewer allow at most two forget events
FETCHED = ("samples.parquet", "validation.parquet", "canaries.parquet", "run.json")


def seal_recording(
    run: str | Path, *, runs_root: str | Path | None = None, out: str | Path | None = None
) -> dict[str, Any]:
    """Turn what a foreign training loop recorded into a run with scores and a map.

    Snapshots that some rank did not finish are left out. One that is sealed already is scored anew.

    Args:
        run: a run id, a run directory, or an address of another file system (`s3://bucket/run`).
        runs_root: folder of runs.
        out: where to put a run that lies on another file system; None takes its name, in the folder of runs.

    Returns:
        `run, num_samples, num_snapshots, notes` (sentences to read before trusting the map).

    Raises:
        RunError: the run is not a recording, is still being recorded, or holds no complete snapshot.
        RunExists: `out` is there already.
    """
    with stoppable():
        files = _fetched(str(run), runs_root=runs_root, out=out) if is_remote(run) else find_run(run, runs_root)
        return seal_files(files)


def seal_files(files: RunDir) -> dict[str, Any]:
    """Seal and score a recording that lies here; see `seal_recording`."""
    run = Run(files)
    if not run.is_foreign:
        raise RunError(f"run {run.run_id} was trained by this program: it is sealed when its training ends")
    if run.status == "running" and run.manifest.get("pid") != os.getpid():
        raise RunError(f"run {run.run_id} is still being recorded; seal it when that has ended")
    if not run.is_sealed:
        _seal(run)
    drop_parts(files)
    if all(run.samples("text")["text"]):
        for name in CHEAP:
            fill(run, name, Probing(run, DEFAULT_MODELS, ProgressFile(files.progress)))
    light.score(run, _with_axes(run, light.score_config(run)))
    manifest = update_manifest(files, status="complete", error=None, finished=now())
    facts = {name: manifest[name] for name in ("num_samples", "num_snapshots")}
    return {"run": str(files.path)} | facts | {"notes": _notes(run, manifest["origin"].get("left_out", 0))}


def _seal(run: Run) -> None:
    settle(run.files)
    snapshots, samples = run.snapshots(), run.samples("key, text")
    if not len(snapshots) or not len(samples):
        raise RunError(f"run {run.run_id} holds no snapshot that every rank finished, so there is nothing to seal")
    manifest = update_manifest(
        run.files,
        num_samples=len(samples),
        num_snapshots=len(snapshots),
        corpus_sha256=_fingerprint(samples),
        steps=int(snapshots["step"].to_numpy().max()),
        train_s=float(snapshots["wall_s"].to_numpy().max()),
    )
    meta = {"contract_version": str(CONTRACT_VERSION), "run_id": run.run_id, "task": manifest["origin"]["kind"]}
    seal(run.files, meta | {"seed": str(manifest["seed"]), "corpus_sha256": manifest["corpus_sha256"]})


def _fetched(address: str, *, runs_root: str | Path | None, out: str | Path | None) -> RunDir:
    """Return a run directory here with the complete snapshots of a recording on another file system."""
    source = folder_at(address)
    if "run.json" not in source.names():
        raise RunError(f"{address} holds no recording: it has no run.json")
    name = address.rstrip("/").rsplit("/", 1)[-1]
    with making_run(out or resolve_runs_root(runs_root) / name) as run:
        for file_name in sorted(set(source.names()) & set(FETCHED)):
            LocalFolder(run.path).write(file_name, source.read(file_name))
        ranks = read_manifest(run)["origin"].get("ranks", 1)
        copy_records(folder_at(f"{address.rstrip('/')}/records"), LocalFolder(run.records), ranks=ranks)
        # whoever recorded it did so on another machine: no process of this one is it
        update_manifest(run, status="interrupted", pid=None, run_id=Path(out).name if out else name)
    return find_run(Path(out) if out else resolve_runs_root(runs_root) / name)


def _with_axes(run: Run, config: ScoreConfig) -> ScoreConfig:
    """Return settings whose axes say something: of few snapshots no trajectory does, so what the model thinks at the end is shown."""
    count = len(run.snapshots(light.scored_kind(run)))
    if config != ScoreConfig() or count >= FEW_POINTS:
        return config
    if count == 1:
        config = dataclasses.replace(config, x="final_loss")
    if len(run.canaries()):
        return config  # they choose
    if (run.files.probes / "passes.parquet").is_file():
        return dataclasses.replace(config, y="min_k_pp")
    if count > 1:
        return config
    if all(run.samples("text")["text"]):
        return dataclasses.replace(config, y="zlib_ratio")
    return dataclasses.replace(config, x="num_tokens", y="final_loss")


def _notes(run: Run, left_out: int) -> list[str]:
    """Return sentences that somebody should read before they trust the map."""
    notes = []
    losses = run.trajectories(light.scored_kind(run))
    seen = ~np.isnan(losses)
    points = int(seen.sum(axis=0).max())
    if left_out:
        notes.append(f"{left_out:,} losses were infinite or not a number, and were left out.")
    if points == 1:
        x, y = (SCORES[str(run.meta()[f"quadrant_{axis}"])].title for axis in "xy")
        notes.append(
            f"There is one snapshot, hence no trajectory and no score that needs one; the map shows {x} against {y}. Give the "
            "losses of several checkpoints to see difficulty and memorization over training."
        )
    elif points < FEW_POINTS:
        notes.append(
            f"No sample was seen at more than {points} snapshots: at most {points // 2} forget events can be counted, so the "
            "literal memorization score says little. End more snapshots, or record sweeps over all samples (kind `after`)."
        )
    if never := int((~seen.any(axis=0)).sum()):
        notes.append(f"{never:,} of {losses.shape[1]:,} samples were never seen and have no score.")
    return notes


def join_corpus(
    run: Run,
    corpus: str | Path | Iterable[Mapping[str, Any]],
    *,
    text_column: str = "text",
    key_column: str | None = None,
) -> dict[str, Any]:
    """Give a sealed foreign run the texts, sources and groups of its samples, by key, and score it anew.

    Args:
        run: sealed; plans and selections that were made before stay as they are, and belong to the corpus without texts.
        corpus: see `foreign_rows`.
        text_column: column that holds the text.
        key_column: column that holds the key.

    Returns:
        `run, joined` (samples that have a text now), `without` (samples of whose key the corpus has none).

    Raises:
        RunError: our own engine trained the run: it has its texts.
        CorpusError: no key of the corpus is one of the run.
    """
    if not run.is_foreign:
        raise RunError(f"run {run.run_id} was trained by this program and has its texts")
    run.require_sealed()
    row_of = {row.key: row for row in foreign_rows(corpus, text_column=text_column, key_column=key_column)}
    samples = run.samples()
    found = [row_of.get(key) for key in samples["key"]]
    if not any(found):
        raise CorpusError(
            f"no key of the corpus is one of run {run.run_id} (whose first is {samples['key'].iloc[0]!r}); name the column "
            "that holds them with --key-column"
        )
    rows = [row or _as_row(old) for row, old in zip(found, samples.to_dict("records"), strict=True)]
    samples["text"] = [row.text for row in rows]
    samples["source"] = [row.source for row in rows]
    samples["meta"] = [json.dumps(row.meta, ensure_ascii=False) for row in rows]
    samples["group_id"] = foreign_groups(rows)
    table = pa.Table.from_pandas(samples, schema=schema.SAMPLES, preserve_index=False)
    sha256 = _fingerprint(samples)
    replace_samples(run.files, table, {"corpus_sha256": sha256})
    update_manifest(run.files, corpus_sha256=sha256)
    seal_files(run.files)
    joined = sum(row is not None for row in found)
    return {"run": run.run_id, "joined": joined, "without": len(found) - joined}


def _as_row(sample: dict[str, Any]) -> Row:
    return Row(sample["key"], sample["text"], sample["source"], meta_of(sample["meta"]))


def _fingerprint(samples: pd.DataFrame) -> str:
    return corpus_sha256([Row(key, text, "", {}) for key, text in zip(samples["key"], samples["text"], strict=True)])
