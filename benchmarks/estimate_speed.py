"""What an instant estimate costs at a large size: preparing, loading, fitting and estimating. Made-up texts and canaries.

python -m benchmarks.estimate_speed [--samples 100000] [--canaries 200]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from carto_core.corpus.tokens import Tokens
from carto_core.preview.estimate import Estimator
from carto_core.preview.ngrams import NGrams
from carto_core.preview.prepared import CANARY_COLUMNS, NATURAL_COLUMNS, Prepared
from carto_core.types import SampleTable

VOCAB, LENGTH, HELD_OUT = 8_000, 30, 0.1
COPIES = (1, 4, 8, 16)


def main() -> None:
    """Print one line a step; medians of nine where a step is short."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--canaries", type=int, default=200, help="inserted, and as many controls")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    train, held_out = texts(rng, options.samples), texts(rng, int(HELD_OUT * options.samples))
    took, counted = timed(lambda: NGrams.count(train, held_out, vocab_size=VOCAB))
    print(f"counting {len(train.ids):,} tokens for {len(held_out.ids):,} held-out ones: {took:.1f} s")
    with tempfile.TemporaryDirectory() as folder:
        counted.save(Path(folder))
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        took, loaded = timed(lambda: NGrams.load(Path(folder), vocab_size=VOCAB))
        print(f"stored: {size / 1e6:.0f} MB, opened in {1000 * took:.0f} ms")
        table, prepared = made(rng, options.samples, options.canaries, loaded)
        took, estimator = timed(lambda: Estimator(table, prepared, np.ones(options.samples)))
        print(f"fitting: {took:.2f} s")
        times = []
        for _ in range(9):
            emphasis = np.ones(options.samples)
            emphasis[rng.choice(options.samples, options.samples // 10, replace=False)] = 0
            times.append(timed(lambda emphasis=emphasis: estimator.estimate(emphasis))[0])
        low, high = 1000 * min(times), 1000 * max(times)
        print(f"an estimate: {1000 * float(np.median(times)):.0f} ms ({low:.0f} to {high:.0f})")


def texts(rng: np.random.Generator, count: int) -> Tokens:
    """Return texts of tokens as frequent as words are."""
    lengths = rng.integers(LENGTH // 2, 3 * LENGTH // 2, count)
    ids = np.minimum(rng.zipf(1.3, lengths.sum()), VOCAB) - 1
    return Tokens(ids.astype(np.int32), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def made(rng: np.random.Generator, samples: int, canaries: int, ngrams: NGrams) -> tuple[SampleTable, Prepared]:
    """Return a table whose first rows are copies of canaries, and what a model might know of them."""
    copies = np.concatenate([np.resize(COPIES, canaries), np.zeros(canaries, int)])
    nats = 3.5 * (1 + copies) ** -1.1 * np.exp(rng.normal(0, 0.3, len(copies)))
    role = np.resize(["calibration", "calibration", "calibration", "calibration", "report", "report", "report", "report"], len(copies))  # fmt: skip
    facts = {"canary_id": range(len(copies)), "kind": "words", "copies": copies.astype(float), "role": role}
    known = pd.DataFrame(facts | {"nats": nats, "extracted": (nats < 0.5) & (copies > 0)})
    ids = np.full(samples, np.nan)
    ids[: copies.sum()] = np.repeat(np.arange(len(copies)), copies)
    blank: dict[str, Any] = dict.fromkeys(("key", "source", "num_tokens"), np.zeros(samples))
    table = SampleTable(
        run_id="made-up", corpus_sha256="", seed=0, group_id=np.arange(samples, dtype=np.int32), canary_id=ids,
        scores={}, x="", y="", tau_x=0.0, tau_y=0.0, **blank,
    )  # fmt: skip
    naturals = pd.DataFrame(columns=NATURAL_COLUMNS)
    return table, Prepared(known[CANARY_COLUMNS], naturals, 3.0, 10.0 * samples, ngrams)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return seconds and the result."""
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


if __name__ == "__main__":
    main()
