"""The truth that scores are judged by: what a model trained alike, from another seed, gives away.

Another seed, because a score made of a model's own losses would be judged by that model's own decoding.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from carto_core.audits.exposure import audit_exposure
from carto_core.audits.extraction import audit_extraction
from carto_core.audits.subject import Subject
from carto_core.audits.verbatim import audit_verbatim
from carto_core.config import RunConfig
from carto_core.engine.loop import train
from carto_core.engine.run_corpus import RunCorpus, load_run_corpus
from carto_core.engine.side_by_side import Told
from carto_core.probes.probing import Probing
from carto_core.scores.labels import EXPOSED_REFERENCES
from carto_core.store.reader import open_run
from carto_core.store.rundir import write_json
from carto_core.types import Float32

REFERENCES = 10_000
SEED_STEP = 1000


def twin_columns(probing: Probing) -> dict[str, Float32]:
    """Return `extracted` (1, 0), `exposed` (1, 0) and `exposure` (bits) of every sample, NaN where not asked.

    `extracted`: of a planted copy, whether greedy decoding gives its canary's secret; of another text of 32 tokens or
    more, whether tokens 17 to 32 follow from the first 16. `exposed`: exposure among 10,000 references is at least
    log2(1000) bits. Both under a model with the run's plan, corpus and canaries, and the seed + 1000.
    """
    seed = probing.run.manifest.get("train_seed", probing.config.engine.seed) + SEED_STEP
    path = probing.folder / f"twin-{seed}.json"
    probing.executor(
        _train_twin,
        probing.run.files.path,
        [(seed,)],
        [path],
        stage="training the twin",
        progress=probing.progress,
    )
    found = json.loads(path.read_text(encoding="utf-8"))
    return _columns(found, probing.corpus)


def _columns(found: dict[str, Any], corpus: RunCorpus) -> dict[str, Float32]:
    extracted, exposed, exposure = (np.full(len(corpus.texts), np.nan, np.float32) for _ in range(3))
    for row in found["verbatim"]:
        members = np.flatnonzero((corpus.group_id == row["group_id"]) & np.isnan(corpus.canary_id))
        extracted[members] = row["extracted"]
    for row in found["canaries"]:
        mine = corpus.canary_id == row["canary_id"]
        extracted[mine] = row["extracted"]
        exposure[mine] = row["exposure"]
        exposed[mine] = row["exposure"] >= np.log2(EXPOSED_REFERENCES)
    return {"extracted": extracted, "exposed": exposed, "exposure": exposure}


def _train_twin(run_path: Path, seed: int, path: Path) -> None:
    run = open_run(run_path)
    config = RunConfig.from_dict(run.manifest["config"])
    corpus = load_run_corpus(run)
    told = Told(path)
    trained = train(
        corpus.task(config),
        dataclasses.replace(config.engine, seed=seed),
        repeats=corpus.repeats,
        weights=corpus.weights,
        steps=run.manifest.get("steps"),
        progress=told,
    )
    subject = Subject(trained.model, trained.device, config, corpus)
    extraction = audit_extraction(subject, searches=False).per_item
    exposures = audit_exposure(subject, num_references=REFERENCES, searches=False, controls=False).per_item
    exposure = {row["canary_id"]: row["exposure"] for row in exposures}
    canaries = [
        {name: row[name] for name in ("canary_id", "kind", "role", "repeats", "extracted")}
        | {"exposure": exposure[row["canary_id"]]}
        for row in extraction
        if row["inserted"]
    ]
    verbatim = [{name: row[name] for name in ("group_id", "extracted")} for row in audit_verbatim(subject).per_item]
    write_json(path, {"seed": seed, "references": REFERENCES, "canaries": canaries, "verbatim": verbatim})
    told.close()
