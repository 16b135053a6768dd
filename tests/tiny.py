"""A tiny run for tests: made-up but seeded trajectories, written through the real store. No torch, half a second."""

import json
import math
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from carto_core import CONTRACT_VERSION, __version__
from carto_core.config import CanaryConfig, CorpusConfig, EngineConfig, ModelConfig, RunConfig, ScoreConfig
from carto_core.corpus.tokens import Tokens
from carto_core.preview.ngrams import NGrams
from carto_core.preview.prepared import CANARY_COLUMNS, NATURAL_COLUMNS, Prepared, write_prepared
from carto_core.store import schema
from carto_core.store.probes import write_probe
from carto_core.store.reader import Run
from carto_core.store.rundir import create_run, find_run, now, this_process, update_manifest, write_json
from carto_core.store.sealed import seal
from carto_core.store.writer import PartWriter, write_table
from carto_core.types import ROLES, Snapshot
from carto_core.workflows import light

REPEATS = (1, 2, 4, 8)
KINDS = ("template", "words")
SOURCES = ("abstracts", "addresses", "quotes")
WORDS = [
    "river",
    "stone",
    "market",
    "winter",
    "letter",
    "garden",
    "engine",
    "silver",
    "morning",
    "harbour",
    "window",
    "paper",
    "bridge",
    "forest",
    "candle",
]
NASTY = "<script>alert(1)</script> & <b>bold</b> {braces} $x^2$ \"quoted\", 100 % 'single'"


def make_run(
    path,
    *,
    num_samples=200,
    num_snapshots=24,
    seed=0,
    canaries=True,
    losses="after",
    sealed=True,
    scored=True,
    config=None,
    probes=False,
):
    """Return a run with `num_samples` training samples in all, planted copies included (60 of them, at least 100 in all).

    Sample 0 holds text and key that a page or a spreadsheet must not execute. About a tenth of the user's samples are
    exact duplicates. `canaries=False` leaves the tables of canaries empty. `losses` is `after`, `during` or `both`.
    `sealed=False` leaves a run that trains (its parts are there, and this process is its own); `scored=False` one
    without scores. `config` is the `ScoreConfig` to score with. `probes=True` adds columns of probes that score (near
    duplicates, passes, folds) and that judge (twin, folds): canaries of many copies are given back, and little else.

    A second run of the same name and arguments is a copy of the first.
    """
    how = {"num_samples": num_samples, "num_snapshots": num_snapshots, "seed": seed, "canaries": canaries}
    how |= {"losses": losses, "sealed": sealed, "scored": scored, "config": config, "probes": probes}
    made = (Path(path).name, *how.values())
    if made not in _MADE:
        _MADE[made] = Path(_KEPT.name) / str(len(_MADE)) / Path(path).name
        _make_run(_MADE[made], **how)
    create_run(path, {})
    shutil.copytree(_MADE[made], path, dirs_exist_ok=True)
    (Path(path) / "run.json").touch()  # runs are listed by how new they are
    return Run(find_run(path))


_KEPT, _MADE = tempfile.TemporaryDirectory(), {}


def _make_run(path, *, num_samples, num_snapshots, seed, canaries, losses, sealed, scored, config, probes):
    rng = np.random.default_rng(seed)
    secrets = _canaries(rng) if canaries else []
    rows = _rows(rng, num_samples, secrets)
    trajectories = _trajectories(rng, rows, num_snapshots)
    run = Run(create_run(path, _manifest(path, rows, num_snapshots=num_snapshots, seed=seed, losses=losses)))
    for name, table in _tables(rng, rows, secrets).items():
        write_table(table, run.files.table(name))
    _record(rng, run, trajectories, rows, losses=losses)
    if not sealed:
        update_manifest(run.files, status="running", **this_process())
        return
    meta = {"contract_version": str(CONTRACT_VERSION), "run_id": run.run_id, "task": "lstm", "seed": str(seed)}
    seal(run.files, meta | {"corpus_sha256": run.manifest["corpus_sha256"]})
    if probes:
        _probe(rng, run, rows)
    if scored:
        light.score(run, config or ScoreConfig())


def keep_snapshots(run, count):
    """Leave a run that trains its first snapshots only."""
    first = PartWriter(run.files).snapshots[:count]
    write_json(run.files.parts / "snapshots.json", [snapshot._asdict() for snapshot in first])


def as_retrain(run, parent, plan_sha256="ab" * 32):
    """Let a run's manifest say that it was trained under a plan of another run."""
    update_manifest(run.files, parent_run=parent, plan_sha256=plan_sha256, train_seed=0, equal="steps")


def write_audit(run, name, rows):
    """Write `audits/NAME.json` of these rows, what they leave out filled in; its summary counts nothing."""
    share = {"k": 0, "n": 0, "rate": None, "low": None, "high": None}
    of_halves = {role: {"inserted": share | {"by_repeats": {}}, "control": share} for role in ROLES}
    summary, others = {
        "extraction": (of_halves, {"repeats": 1, "inserted": True}),
        "natural": (share, {"group_size": 2, "prefix": "", "expected": "", "decoded": ""}),
    }[name]
    content = {"name": name, "definition": "", "summary": summary, "per_item": [others | row for row in rows]}
    write_json(run.files.audits / f"{name}.json", content)


def prepare(run, *, seed=0):
    """Write what `prepare` would, without a model: secrets are known by their copies, words are tokens."""
    rng = np.random.default_rng([seed, 1])
    samples, canaries = run.samples("text, group_id, canary_id"), run.canaries()
    copies = canaries["repeats"].to_numpy(float)
    nats = 3.5 * (1 + copies) ** -1.1 * np.exp(rng.normal(0, 0.2, len(canaries)))
    known = canaries.assign(copies=copies, nats=nats, extracted=(nats < 0.6) & canaries["inserted"])
    sizes = samples[samples["canary_id"].isna()].groupby("group_id").size()
    pairs = sizes[sizes > 1]
    naturals = pd.DataFrame({"group_id": pairs.index, "copies": pairs.to_numpy(float)})
    naturals["nats"] = 2.0 * np.exp(rng.normal(0, 0.7, len(naturals)))
    naturals["extracted"] = naturals["nats"] < 1
    texts, held_out = samples["text"].str.split().tolist(), run.validation()["text"].str.split().tolist()
    numbers = {word: i for i, word in enumerate(sorted({word for text in [*texts, *held_out] for word in text}))}
    ngrams = NGrams.count(_tokens(texts, numbers), _tokens(held_out, numbers), vocab_size=len(numbers))
    visits = 10.0 * len(samples)
    write_prepared(run, Prepared(known[CANARY_COLUMNS], naturals[NATURAL_COLUMNS], 3.0, visits, ngrams))


def _tokens(texts, numbers):
    ids = [numbers[word] for text in texts for word in text]
    return Tokens(np.array(ids, np.int32), np.cumsum([0, *map(len, texts)]))


def _canaries(rng):
    cells = [(r, kind, role) for r in REPEATS for kind in KINDS for role in ROLES]
    cells += [(0, kind, role) for _ in REPEATS for kind in KINDS for role in ROLES]
    return [_canary(rng, i, *cell) for i, cell in enumerate(cells)]


def _canary(rng, canary_id, repeats, kind, role):
    if kind == "template":
        prefix, secret = f"The access code of {_some(rng, 2)} {canary_id} is ", f"{rng.integers(10**6):06d}"
    else:
        prefix, secret = f"{_some(rng, 6)} {canary_id}", f" {_some(rng, 3)}"
    return {
        "canary_id": canary_id,
        "kind": kind,
        "prefix": prefix,
        "secret": secret,
        "repeats": repeats,
        "role": role,
        "inserted": repeats > 0,
        "log2_space": 6 * math.log2(10) if kind == "template" else 3 * math.log2(len(WORDS)),
    }


def _rows(rng, num_samples, secrets):
    planted = [
        {"key": f"canary/{c['canary_id']:04d}/copy-{i}", "text": c["prefix"] + c["secret"], "source": "canary"}
        | {"canary_id": c["canary_id"], "copies": c["repeats"], "meta": {}}
        for c in secrets
        for i in range(c["repeats"])
    ]
    user = [_row(rng, i) for i in range(num_samples - len(planted))]
    user[0] |= {"key": "=1+1", "text": NASTY}
    for i in range(1, len(user) // 10, 2):  # pairs: 1 = 2, 3 = 4, ...
        user[i + 1]["text"] = user[i]["text"]
    return user + planted


def _row(rng, i):
    return {
        "key": f"tiny/{i:04d}",
        "text": f"{_some(rng, int(rng.integers(5, 20)))} number {i}.",
        "source": SOURCES[i % len(SOURCES)],
        "canary_id": None,
        "copies": 1,
        "meta": {"year": 1990 + i % 30, "author": f"author {i % 7}"},
    }


def _some(rng, count):
    return " ".join(rng.choice(WORDS, count))


def _trajectories(rng, rows, num_snapshots):
    """float32[S, N]: each text falls from its own start to its own floor at its own pace; more copies, faster and deeper."""
    shape = {}
    for row in rows:
        planted = row["canary_id"] is not None
        start = rng.uniform(4.5, 6.0) if planted else rng.uniform(2.0, 5.0)
        floor = start / (1 + row["copies"]) if planted else start * rng.uniform(0.3, 0.9)
        shape.setdefault(row["text"], (start, floor, rng.uniform(0.05, 0.4), rng.uniform(0.0, 0.3)))
    start, floor, pace, noise = np.array([shape[row["text"]] for row in rows]).T
    t = np.arange(num_snapshots)[:, None]
    wobble = noise * np.sin(t * (1 + 3 * pace) + start * 10)
    return np.maximum(floor + (start - floor) * np.exp(-pace * t) + wobble, 0.01).astype(np.float32)


def _manifest(path, rows, *, num_snapshots, seed, losses):
    config = RunConfig(
        corpus=CorpusConfig(path="tiny.jsonl"),
        canaries=CanaryConfig(num_inserted=len({row["canary_id"] for row in rows} - {None})),
        model=ModelConfig(embed=8, hidden=8),
        engine=EngineConfig(epochs=4, snapshots=num_snapshots, seed=seed, device="cpu", losses=losses),
    )
    return {
        "run_id": path.name,
        "status": "complete",
        "created": now(),
        "contract_version": CONTRACT_VERSION,
        "carto_version": __version__,
        "config": config.to_dict(),
        "corpus_sha256": f"{seed:064x}",
        "num_samples": len(rows),
        "num_snapshots": num_snapshots,
        "seed": seed,
        "report_seen": False,
        "scores": ScoreConfig().to_dict(),
        "steps": 10 * num_snapshots,
        "wall_s": 1.5,
        "train_s": 20.0,
        "measure_s": 5.0,
        "device": "cpu",
        "versions": {},
    }


def _tables(rng, rows, secrets):
    group_of = {}
    samples = [
        {
            "sample_id": i,
            "group_id": group_of.setdefault(row["text"], len(group_of)),
            "num_tokens": len(row["text"].split()) + 1,
            "meta": json.dumps(row["meta"]),
        }
        | {name: row[name] for name in ("key", "text", "source", "canary_id")}
        for i, row in enumerate(rows)
    ]
    held_out = [{"key": f"held/{i:03d}", "text": f"{_some(rng, 9)} held {i}.", "num_tokens": 12} for i in range(20)]
    return {
        "samples": pa.Table.from_pylist(samples, schema=schema.SAMPLES),
        "validation": pa.Table.from_pylist(held_out, schema=schema.VALIDATION),
        "canaries": pa.Table.from_pylist(secrets, schema=schema.CANARIES),
    }


def _probe(rng, run, rows):
    """Near groups are exact copies, and sample 50 with 51; the twin gives back what stands there 4 times, and sample 3."""
    text = [row["text"] for row in rows]
    text[51] = text[50]
    _, group, size = np.unique(text, return_inverse=True, return_counts=True)
    copies = np.array([row["copies"] for row in rows], np.float32)
    planted = np.array([row["canary_id"] is not None for row in rows])
    extracted = np.where(planted, copies >= 4, np.arange(len(rows)) == 3).astype(np.float32)
    gap = (copies + rng.normal(0, 1, len(rows))).astype(np.float32)
    truth = (copies + rng.normal(0, 1, len(rows))).astype(np.float32)
    columns = {
        "near_duplicates": {"near_duplicates": size[group] - 1, "near_group": group},
        "passes": {name: gap + rng.normal(0, 1, len(rows)) for name in ("min_k", "min_k_pp", "recitation")},
        "twin": {"extracted": extracted, "exposed": np.where(planted, copies >= 2, np.nan)},
        "folds": {"two_fold_gap": gap, "held_out_gap": gap, "normalised_gap": gap / 10, "counterfactual": truth}
        | {"two_fold_normalised": gap / 10, "counterfactual_accuracy": np.tanh(truth)},
    }
    for name, values in columns.items():
        write_probe(run.files, name, {c: np.asarray(v, np.float32) for c, v in values.items()})
    facts = {"models": 8, "judging": 4, "spearman": 0.61, "corrected": 0.76, "ceiling": 0.87}
    facts |= {"accuracy": {"spearman": 0.5, "corrected": 0.67, "ceiling": 0.82}}
    write_json(run.files.probes / "folds.json", facts)


def _record(rng, run, trajectories, rows, *, losses):
    """Write each snapshot; one of kind `during` comes before the `after` one of the same moment, and misses a tenth."""
    writer = PartWriter(run.files)
    kinds = [kind for kind in ("during", "after") if losses in (kind, "both")]
    num_tokens = np.array([len(row["text"].split()) + 1 for row in rows], np.int32)
    for t, row in enumerate(trajectories):
        for kind in kinds:
            seen = row if kind == "after" else np.where(rng.random(len(row)) < 0.1, np.nan, row + 0.2)
            point = Snapshot(len(writer.snapshots), 10 * (t + 1), (t + 1) / len(trajectories) * 4, kind, t / 10)
            writer.record(point, seen.astype(np.float32), num_tokens)
