"""What recorded losses take on disk: bytes a sample and snapshot in the parts and in the sealed file, and what that comes to.

    python -m benchmarks.scale_costs [--samples 100000] [--snapshots 4 24] [--results docs/results/scale_costs.json]

Measured: the parts of two runs with few and with many snapshots, and both sealed; what a snapshot more adds is the rate, what
is left is the samples' own (texts of 200 characters of random words, which compress worse than prose). Losses are drawn, and
all bits of each differ, as those of a model do. Computed: the same rates times other numbers of samples.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from carto_core import CONTRACT_VERSION
from carto_core.config import CanaryConfig, CorpusConfig, EngineConfig, ModelConfig, RunConfig
from carto_core.store import schema
from carto_core.store.rundir import RunDir, create_run, disk_use, now, write_json
from carto_core.store.sealed import seal
from carto_core.store.writer import PartWriter, write_table
from carto_core.types import Snapshot

SIZES = (10**5, 10**6, 10**7, 10**8, 10**9)
TEXT_WORDS = 34


def main() -> None:
    """Measure, compute, print and write down."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--snapshots", type=int, nargs=2, default=(4, 24))
    parser.add_argument("--results", type=Path, default=Path("docs/results/scale_costs.json"))
    options = parser.parse_args()
    few, many = sorted(options.snapshots)
    measured = rates(options.samples, few, many)
    found = {
        "measured": measured,
        "computed": [computed(measured, size, snapshots=many) for size in SIZES],
        "versions": {name: version(name) for name in ("duckdb", "pyarrow")},
    }
    for name, value in measured.items():
        print(f"measured  {name}: {value:,.2f}")
    for row in found["computed"]:
        print("computed ", ", ".join(f"{name}: {value:,.1f}" for name, value in row.items()))
    write_json(options.results, found)


def rates(num_samples: int, few: int, many: int) -> dict[str, float]:
    """Return bytes by what they are for, and seconds that a snapshot and sealing took here."""
    with tempfile.TemporaryDirectory() as folder:
        one, other = (_sizes(Path(folder) / str(count), num_samples, count) for count in (few, many))
    more = num_samples * (many - few)
    sealed = (other["sealed"] - one["sealed"]) / more
    return {
        "num_samples": num_samples,
        "part_bytes_a_sample_and_snapshot": other["parts"] / (num_samples * many),
        "sealed_bytes_a_sample_and_snapshot": sealed,
        "sealed_bytes_a_sample_beside": other["sealed"] / num_samples - sealed * many,
        "tables_bytes_a_sample": other["tables"] / num_samples,
        "text_bytes_a_sample": other["text"] / num_samples,
        "record_s_a_snapshot": other["record_s"] / many,
        "seal_s": other["seal_s"],
    }


def computed(measured: dict[str, float], num_samples: int, *, snapshots: int) -> dict[str, float]:
    """Return GB for so many samples at the measured rates, texts left out of what a snapshot takes."""
    losses = num_samples * snapshots
    return {
        "num_samples": num_samples,
        "snapshots": snapshots,
        "one_snapshot_gb": num_samples * measured["part_bytes_a_sample_and_snapshot"] / 1e9,
        "parts_gb": losses * measured["part_bytes_a_sample_and_snapshot"] / 1e9,
        "sealed_gb": (
            losses * measured["sealed_bytes_a_sample_and_snapshot"]
            + num_samples * measured["sealed_bytes_a_sample_beside"]
        )
        / 1e9,
        "sealing_memory_gb": losses * 4 * 2 / 1e9,
    }


def _sizes(path: Path, num_samples: int, num_snapshots: int) -> dict[str, float]:
    """Return bytes of parts, tables and the sealed file of one run with drawn losses, and seconds."""
    rng = np.random.default_rng(0)
    run = _new_run(path, num_samples, num_snapshots)
    text_bytes = _write_tables(run, rng, num_samples)
    tables = disk_use(path)
    num_tokens = rng.integers(20, 60, num_samples).astype(np.int32)
    losses = rng.uniform(3, 6, num_samples).astype(np.float32)
    writer, began = PartWriter(run), time.perf_counter()
    for number in range(num_snapshots):
        losses = (losses * rng.normal(0.95, 0.05, num_samples)).clip(0.01).astype(np.float32)
        writer.record(Snapshot(number, number, float(number), "after", 0.0), losses, num_tokens)
    record_s, parts = time.perf_counter() - began, disk_use(run.parts)
    began = time.perf_counter()
    seal(run, {"contract_version": str(CONTRACT_VERSION)})
    sizes = {"parts": parts, "tables": tables, "sealed": run.database.stat().st_size, "text": text_bytes}
    return sizes | {"record_s": record_s, "seal_s": time.perf_counter() - began}


def _new_run(path: Path, num_samples: int, num_snapshots: int) -> RunDir:
    config = RunConfig(
        corpus=CorpusConfig(path="drawn.jsonl"),
        canaries=CanaryConfig(num_inserted=0),
        model=ModelConfig(),
        engine=EngineConfig(),
    )
    manifest = {"run_id": path.name, "status": "running", "created": now(), "contract_version": CONTRACT_VERSION}
    manifest |= {"config": config.to_dict(), "corpus_sha256": "0" * 64}
    return create_run(path, manifest | {"num_samples": num_samples, "num_snapshots": num_snapshots, "seed": 0})


def _write_tables(run: RunDir, rng: np.random.Generator, num_samples: int) -> int:
    """Write samples of random words, and no held-out text or canary; return the bytes of all texts."""
    words = np.array([f"{word:05x}" for word in rng.integers(0, 16**5, 20_000)])
    texts = [" ".join(row) for row in words[rng.integers(0, len(words), (num_samples, TEXT_WORDS))]]
    ids = np.arange(num_samples, dtype=np.int32)
    columns: dict[str, Any] = {"sample_id": ids, "key": [f"drawn/{i}" for i in ids], "text": texts}
    columns |= {"source": ["drawn"] * num_samples, "group_id": ids, "num_tokens": np.full(num_samples, 40, np.int32)}
    columns |= {"canary_id": pa.nulls(num_samples, pa.int32()), "meta": ["{}"] * num_samples}
    write_table(pa.table(columns, schema=schema.SAMPLES), run.table("samples"))
    write_table(schema.VALIDATION.empty_table(), run.table("validation"))
    write_table(schema.CANARIES.empty_table(), run.table("canaries"))
    return sum(map(len, texts))


if __name__ == "__main__":
    main()
