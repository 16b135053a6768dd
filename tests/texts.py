"""Small real corpora for tests that train: sentences with repeats, and a run of seconds."""

import json

from carto_core.config import CanaryConfig, CorpusConfig, EngineConfig, ModelConfig, RunConfig

SUBJECTS = ["farmer", "sailor", "teacher", "painter", "soldier", "merchant", "student", "doctor", "singer", "weaver"]
VERBS = [
    "carried",
    "painted",
    "watched",
    "counted",
    "repaired",
    "followed",
    "ordered",
    "cleaned",
    "measured",
    "borrowed",
]
THINGS = ["basket", "window", "letter", "engine", "garden", "bridge", "ladder", "candle", "blanket", "lantern"]


def sentences(count):
    """Return `count` different sentences."""
    return [
        f"The {SUBJECTS[i % 10]} {VERBS[i // 10 % 10]} a {THINGS[i // 100 % 10]} before the {THINGS[(i * 7) % 10]} was sold."
        for i in range(count)
    ]


def write_jsonl(path, texts):
    """Write texts as a corpus with keys and a source."""
    rows = [{"key": f"k{i}", "text": text, "source": "test", "year": 1900 + i % 5} for i, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def tiny_config(corpus, **engine):
    """Return the settings of a run of about a second."""
    defaults = {"epochs": 2, "snapshots": 4, "batch_size": 16}
    return RunConfig(
        corpus=CorpusConfig(path=str(corpus), vocab_size=300),
        canaries=CanaryConfig(num_inserted=8, repeats=(1, 4)),
        model=ModelConfig(embed=8, hidden=16, context=32),
        engine=EngineConfig(**(defaults | engine)),
    )
