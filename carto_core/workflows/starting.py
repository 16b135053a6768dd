"""Before a training: is the corpus fit, how long will it take, and the command that starts it. Needs no torch.

How long is said as a range with what it rests on: a run that was trained on this machine, or else a guess from the model's size.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carto_core.config import DEFAULT_VOCAB_SIZE, CorpusConfig, ModelConfig, RunConfig
from carto_core.corpus.catalog import CATALOG, corpus_file
from carto_core.corpus.prepared import capped
from carto_core.corpus.reading import read_corpus
from carto_core.errors import ConfigError, CorpusError, RunError
from carto_core.store.rundir import list_runs, read_manifest, this_machine

BYTES_PER_TOKEN = 2.6  # of a vocabulary of 512, on the bundled corpus
CORE_FLOPS = (5e9, 50e9)  # a second, what training got out of one CPU core; small models and busy machines get least
SAME_MODEL = (0.7, 1.6)  # one machine gives one time on one day and another on the next
SCALED = (0.4, 2.5)  # another size of the same kind
FORWARD_SHARE = 1 / 3  # of a training step's cost, where no run has measured it


@dataclass(frozen=True, slots=True)
class CorpusFacts:
    """What a corpus holds.

    Attributes:
        num_samples: that hold text.
        num_distinct: different texts among them.
        num_bytes: of all texts, UTF-8.
    """

    num_samples: int
    num_distinct: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Expectation:
    """How long a training will take.

    Attributes:
        low_s: seconds, rather less than it will be.
        high_s: seconds, rather more.
        basis: what this rests on, a sentence, plain text.
    """

    low_s: float
    high_s: float
    basis: str


@dataclass(frozen=True, slots=True)
class _Speed:
    """Seconds a token of a run that was trained here: in a training step, and in a snapshot."""

    run_id: str
    model: ModelConfig
    vocab_size: int
    step_s: float
    snapshot_s: float


def known_corpora() -> list[str]:
    """Return the named corpora that are here: the bundled one, and those that were fetched."""
    return [name for name in CATALOG if corpus_file(name).is_file()]


def inspect_corpus(config: CorpusConfig) -> CorpusFacts:
    """Read a corpus as a training would, and say what it holds.

    Raises:
        CorpusError: see `read_corpus`; or it has fewer than two different texts.
    """
    try:
        rows = read_corpus(config)
    except OSError as error:
        raise CorpusError(f"{config.path} cannot be read: {error.strerror or error}") from None
    if config.max_chars is not None:
        rows = capped(rows, max_chars=config.max_chars, seed=config.cap_seed)
    distinct = {row.text for row in rows}
    if len(distinct) < 2:
        raise CorpusError(f"{config.path} holds one text only; a corpus needs at least 2 that differ")
    size = sum(len(row.text.encode("utf-8", "surrogatepass")) for row in rows)
    return CorpusFacts(len(rows), len(distinct), size)


def expect(config: RunConfig, facts: CorpusFacts, runs_root: Path) -> Expectation:
    """Return how long a training will take on this machine, from the runs that were trained here.

    Args:
        config: of the training.
        facts: of its corpus.
        runs_root: where earlier runs are.
    """
    tokens = (1 - config.corpus.validation) * facts.num_bytes / BYTES_PER_TOKEN
    trained, measured = config.engine.epochs * tokens, config.engine.snapshots * tokens
    size = _num_parameters(config.model, config.corpus.vocab_size or DEFAULT_VOCAB_SIZE)
    speeds = _speeds(config, runs_root)
    same = next((speed for speed in speeds if speed.model == config.model), None)
    nearest = same or min(speeds, key=lambda speed: abs(math.log(size / _size_of(speed))), default=None)
    if nearest is None:
        flops = 6 * size * (trained + FORWARD_SHARE * measured)
        low, high = (flops / rate for rate in reversed(CORE_FLOPS))
        return Expectation(
            low, high, "no such model was trained on this machine yet: a guess from its size, for one CPU core"
        )
    scale = size / _size_of(nearest)
    seconds = scale * (trained * nearest.step_s + measured * nearest.snapshot_s)
    low, high = SAME_MODEL if same else SCALED
    how = "as fast as" if same else "scaled by size from"
    return Expectation(low * seconds, high * seconds, f"{how} run {nearest.run_id}, which was trained on this machine")


def train_arguments(config: RunConfig, out: Path, *, size: str) -> list[str]:
    """Return the arguments of the command that trains, after `python -m carto_core`.

    Args:
        config: of the training.
        out: the run's directory.
        size: name of the model's size.
    """
    corpus, engine = config.corpus, config.engine
    words: list[Any] = ["train", "--corpus", corpus.path, "--text-column", corpus.text_column]
    words += ["--task", config.model.task, "--model-size", size, "--canaries", config.canaries.num_inserted or "none"]
    words += ["--max-chars", corpus.max_chars] if corpus.max_chars is not None else []
    for name in ("epochs", "snapshots", "seed", "device"):
        words += [f"--{name}", getattr(engine, name)]
    return [*map(str, words), "--out", str(out)]


def _speeds(config: RunConfig, runs_root: Path) -> list[_Speed]:
    """Return how fast models of the same task were trained here and on a device like the one asked for, newest first."""
    found = []
    for files in list_runs(runs_root):
        with suppress(RunError, ConfigError, KeyError, TypeError, ZeroDivisionError):
            manifest = read_manifest(files)
            is_like = manifest["machine"] == this_machine() and "parent_run" not in manifest
            is_like = is_like and config.engine.device in ("auto", manifest["device"])
            speed = _speed(files.run_id, manifest)
            if is_like and speed.model.task == config.model.task and speed.step_s > 0:
                found.append(speed)
    return found


def _speed(run_id: str, manifest: dict[str, Any]) -> _Speed:
    config = RunConfig.from_dict(manifest["config"])
    tokens, measure_s = manifest["tokens"], manifest["measure_s"]
    epoch = tokens / config.engine.epochs
    return _Speed(
        run_id=run_id,
        model=config.model,
        vocab_size=config.corpus.vocab_size or DEFAULT_VOCAB_SIZE,
        step_s=(manifest["train_s"] - measure_s) / tokens,
        snapshot_s=measure_s / (manifest["num_snapshots"] * epoch),
    )


def _size_of(speed: _Speed) -> int:
    return _num_parameters(speed.model, speed.vocab_size)


def _num_parameters(model: ModelConfig, vocab_size: int) -> int:
    """Return about how many weights take part in every token's sums: an embedding is looked up, the output is not."""
    width = model.hidden
    if model.task == "gpt":
        return 12 * model.layers * width**2 + vocab_size * width
    first = 4 * width * ((model.embed or width) + width)
    return first + (model.layers - 1) * 8 * width**2 + vocab_size * width
