"""The verb `prepare`: ask the base model once for all that instant estimates need, and count what held-out text asks for."""

from __future__ import annotations

from typing import Any

import pandas as pd

from carto_core.audits.extraction import (
    NATURAL_PREFIX,
    NATURAL_SUFFIX,
    audit_extraction,
    audit_natural,
    mean_nats,
    natural_groups,
)
from carto_core.audits.perplexity import audit_perplexity
from carto_core.audits.subject import Subject, load_subject
from carto_core.preview.ngrams import NGrams
from carto_core.preview.prepared import CANARY_COLUMNS, NATURAL_COLUMNS, Prepared, emphasis_of, write_prepared
from carto_core.store.reader import Run
from carto_core.types import Float64, Progress
from carto_core.workflows.progress import ProgressFile, device_slot, stoppable

LEAST_NATS = 1e-6  # so that every loss has a logarithm


def prepare_run(run: Run) -> dict[str, Any]:
    """Prepare a sealed run for instant estimates, in place of an earlier preparation.

    Returns:
        run, path, num_canaries, num_naturals, num_counts.

    Raises:
        RunNotSealed, RunCorrupt: see `load_subject`.
        Cancelled: stopped; nothing is left half-made.
    """
    run.require_model()
    run.require_sealed()
    progress = ProgressFile(run.files.previews / "prepare.jsonl")
    with stoppable(), device_slot(run.files, progress, work="preparation"):
        done = prepare_subject(run, load_subject(run), progress)
        progress("complete", 1, 1)
    return done


def prepare_subject(run: Run, subject: Subject, progress: Progress) -> dict[str, Any]:
    """Do the same for a caller that holds the model and the device."""
    emphasis = emphasis_of(*run.drawn())
    progress("asking for secrets", 0, 4)
    canaries = _canaries(subject, emphasis)
    progress("asking for repeated texts", 1, 4)
    naturals = _naturals(subject, emphasis)
    progress("reading held-out texts", 2, 4)
    validation_nats = float(audit_perplexity(subject).summary["nats_per_token"])
    progress("counting n-grams", 3, 4)
    corpus = subject.corpus
    ngrams = NGrams.count(corpus.train, corpus.validation, vocab_size=len(corpus.tokenizer))
    visits = float(run.manifest["steps"] * subject.config.engine.batch_size)
    folder = write_prepared(run, Prepared(canaries, naturals, validation_nats, visits, ngrams))
    return {
        "run": run.run_id,
        "path": str(folder),
        "num_canaries": len(canaries),
        "num_naturals": len(naturals),
        "num_counts": int(ngrams.counts.nnz),
    }


def _canaries(subject: Subject, emphasis: Float64) -> pd.DataFrame:
    corpus = subject.corpus
    extracted = {row["canary_id"]: row["extracted"] for row in audit_extraction(subject, searches=False).per_item}
    rows = [
        {
            "canary_id": canary.canary_id,
            "kind": canary.kind,
            "copies": float(emphasis[corpus.canary_id == canary.canary_id].sum()),
            "role": canary.role,
            "nats": max(mean_nats(subject, prefix, secret), LEAST_NATS),
            "extracted": bool(extracted[canary.canary_id]),
        }
        for canary, (prefix, secret) in zip(corpus.canaries, subject.canary_tokens, strict=True)
    ]
    return pd.DataFrame(rows, columns=CANARY_COLUMNS)


def _naturals(subject: Subject, emphasis: Float64) -> pd.DataFrame:
    corpus = subject.corpus
    extracted = {row["group_id"]: row["extracted"] for row in audit_natural(subject).per_item}
    rows = []
    for members in natural_groups(corpus):
        text = corpus.train[members[0]]
        prefix, suffix = text[:NATURAL_PREFIX], text[NATURAL_PREFIX : NATURAL_PREFIX + NATURAL_SUFFIX]
        group = int(corpus.group_id[members[0]])
        rows.append(
            {
                "group_id": group,
                "copies": float(emphasis[members].sum()),
                "nats": max(mean_nats(subject, prefix.tolist(), suffix.tolist()), LEAST_NATS),
                "extracted": bool(extracted[group]),
            }
        )
    return pd.DataFrame(rows, columns=NATURAL_COLUMNS)
