"""The verb `plant`: put canaries into a corpus that another program will train on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from carto_core.config import CanaryConfig, CorpusConfig
from carto_core.corpus.canaries import canary_table
from carto_core.corpus.prepared import planted, tokenizer_of
from carto_core.corpus.reading import read_corpus
from carto_core.errors import RunExists
from carto_core.store.rundir import replacing_folder
from carto_core.store.writer import write_table


def plant_corpus(corpus: CorpusConfig, canaries: CanaryConfig, out: str | Path, *, seed: int = 0) -> dict[str, Any]:
    """Write a corpus with canaries in it, and the table that says which; both are given to `carto_core.record`.

    `OUT/corpus.jsonl` holds `key, text, source, meta` of every row in a seeded random order; a copy of a canary
    is known by its key. `OUT/canaries.parquet` is the contract's table, controls included, which are never inserted.

    Args:
        corpus: where the rows are. Its tokenizer decides where secrets may begin: decoding from the prefix must meet the
            tokens that were trained on. Another program's tokenizer may cut otherwise.
        canaries: how many, of which kinds, and the ladder of repetitions.
        out: a new folder.
        seed: of all draws and of the order.

    Returns:
        `out, num_rows, num_copies, num_inserted, num_controls`.

    Raises:
        RunExists: `out` is there already.
        CorpusError: see `read_corpus`, `draw_canaries`.
        DiskError: it cannot be written.
    """
    folder = Path(out)
    if folder.exists():
        raise RunExists(f"{out} exists already; choose another --out")
    rows = read_corpus(corpus)
    taken = {row.key for row in rows}
    found = planted(rows, canaries, tokenizer=tokenizer_of(corpus, rows), taken=taken, seed=seed)
    with replacing_folder(folder) as temporary:
        with (temporary / "corpus.jsonl").open("w", encoding="utf-8") as file:
            for place in np.random.default_rng([seed, 12]).permutation(len(found.rows)):
                row = found.rows[place]
                line = {"key": row.key, "text": row.text, "source": row.source, "meta": row.meta}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        write_table(canary_table(found.canaries), temporary / "canaries.parquet")
    inserted = sum(canary.inserted for canary in found.canaries)
    return {
        "out": str(folder),
        "num_rows": len(rows),
        "num_copies": len(found.rows) - len(rows),
        "num_inserted": inserted,
        "num_controls": len(found.canaries) - inserted,
    }
