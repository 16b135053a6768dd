"""Settings as frozen dataclasses: checked when made, saved with every run, enough to replay it."""

from __future__ import annotations

import dataclasses
import functools
import math
import reprlib
import types
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

from carto_core.errors import ConfigError

EpsMode = Literal["absolute", "pooled", "snapshot"]
Losses = Literal["after", "during", "both"]
Precision = Literal["float32", "bf16"]
GPT2_VOCAB_SIZE = 50257
DEFAULT_VOCAB_SIZE = 512
OWN_SIZES: dict[str, dict[str, int]] = {"lstm": {"embed": 96}, "gpt": {"heads": 4}}  # sizes of one task alone
# Beyond these nothing could be trained or written: a clear refusal instead of hours, or of all memory.
MAX_VOCAB_SIZE, MAX_CANARIES, MAX_REPEATS = 1_000_000, 100_000, 100_000
MAX_SIZES = {"embed": 65_536, "hidden": 65_536, "layers": 1_000, "heads": 65_536, "context": 1_000_000}
MAX_EPOCHS, MAX_SNAPSHOTS, MAX_THREADS, MAX_BATCH, MAX_SEED = 1_000_000, 10_000, 1_024, 1_000_000, 2**63 - 1
CANARY_KINDS = ("template", "words", "shuffled", "variant", "varied")  # made in `corpus.canaries`


class _Config:
    """Conversion to and from JSON-ready dicts; an unknown field is an error, not silence."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a JSON-ready dict (tuples become lists)."""
        fields = dataclasses.asdict(self)  # pyright: ignore[reportArgumentType]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """Return the config that `to_dict` came from.

        Raises:
            ConfigError: a field is unknown, missing or out of range.
        """
        if not isinstance(fields, dict):
            raise ConfigError(f"{cls.__name__} must be an object, got {reprlib.repr(fields)}")
        known = {f.name for f in dataclasses.fields(cls)}  # pyright: ignore[reportArgumentType]
        unknown = sorted(set(fields) - known)
        if unknown:
            raise ConfigError(f"{cls.__name__} has no field {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
        hints = _hints(cls)
        for name, value in values.items():
            if not _fits(value, hints[name]):
                raise ConfigError(f"{cls.__name__}.{name} must be {_words_of(hints[name])}, got {reprlib.repr(value)}")
        try:
            return cls(**values)
        except TypeError as error:
            raise ConfigError(f"{cls.__name__}: {error}") from None


@dataclass(frozen=True, kw_only=True)
class CorpusConfig(_Config):
    """Where samples come from, and how the text becomes training and validation tokens.

    Attributes:
        path: a file (or a folder of files) of JSONL, Parquet, CSV or text, a data set that `datasets` saved to disk, or a
            named corpus (`demo` is bundled); see `corpus.files`.
        text_column: column that holds the text.
        key_column: column with the user's own unique ids; None takes `key` where there is one, else `{file}/{row}`.
        split: how a plain text file is cut into samples.
        validation: share of the samples held out, duplicate groups kept whole, in (0, 1).
        max_chars: about how many characters to use, in whole duplicate groups drawn at random; None takes all.
        piece_words: cut longer texts into even pieces of at most so many words, each a sample with the key `KEY#PIECE`; None
            keeps texts whole.
        cap_seed: of that draw; its own, so that runs of other seeds keep the same corpus.
        vocabulary: `bpe` is trained on the corpus, `gpt2` is GPT-2's own byte-level BPE.
        vocab_size: size of the BPE vocabulary to train; None takes 512, or the 50,257 of GPT-2's.
    """

    path: str
    text_column: str = "text"
    key_column: str | None = None
    split: Literal["line", "paragraph"] = "line"
    validation: float = 0.1
    max_chars: int | None = None
    piece_words: int | None = None
    cap_seed: int = 0
    vocabulary: Literal["bpe", "gpt2"] = "bpe"
    vocab_size: int | None = None

    def __post_init__(self) -> None:
        _require(self.vocabulary in ("bpe", "gpt2"), f"--vocabulary must be bpe or gpt2, got {self.vocabulary!r}")
        if self.vocab_size is None:
            size = DEFAULT_VOCAB_SIZE if self.vocabulary == "bpe" else GPT2_VOCAB_SIZE
            object.__setattr__(self, "vocab_size", size)  # frozen, and the run keeps the size itself
        size = self.vocab_size or 0
        fits = self.vocabulary == "bpe" or size == GPT2_VOCAB_SIZE
        _require(fits, f"--vocabulary gpt2 has {GPT2_VOCAB_SIZE} entries, got --vocab-size {size}; leave it out")
        _require(
            300 <= size <= MAX_VOCAB_SIZE,
            f"--vocab-size must lie between 300 (256 bytes and some) and {MAX_VOCAB_SIZE:,}, got {size}",
        )
        _require(0 < self.validation < 1, f"--validation must lie between 0 and 1, got {self.validation}")
        _require(self.split in ("line", "paragraph"), f"--split must be line or paragraph, got {self.split!r}")
        _require(self.max_chars is None or self.max_chars >= 1, f"--max-chars must be 1 or more, got {self.max_chars}")
        good = self.piece_words is None or self.piece_words >= 2
        _require(good, f"--piece-words must be 2 or more, got {self.piece_words}")
        _require(0 <= self.cap_seed <= MAX_SEED, f"cap_seed must be 0 to {MAX_SEED}, got {self.cap_seed}")


@dataclass(frozen=True, kw_only=True)
class CanaryConfig(_Config):
    """How many secrets are planted, and how often.

    Attributes:
        num_inserted: distinct inserted secrets; as many controls are drawn and never inserted. 0 plants none.
        repeats: ladder of repetitions.
        kinds: families of canaries, among `CANARY_KINDS`.
    """

    num_inserted: int = 80
    repeats: tuple[int, ...] = (1, 2, 4, 8)
    kinds: tuple[str, ...] = CANARY_KINDS

    def __post_init__(self) -> None:
        fits = 0 <= self.num_inserted <= MAX_CANARIES
        _require(fits, f"--canaries must be 0 to {MAX_CANARIES:,}, got {self.num_inserted}")
        good = bool(self.repeats) and len(set(self.repeats)) == len(self.repeats)
        good = good and all(1 <= r <= MAX_REPEATS for r in self.repeats)
        _require(good, f"--canary-repeats must be distinct numbers from 1 to {MAX_REPEATS:,}, got {list(self.repeats)}")
        known = bool(self.kinds) and set(self.kinds) <= set(CANARY_KINDS) and len(set(self.kinds)) == len(self.kinds)
        _require(known, f"--canary-kinds must be distinct, among {', '.join(CANARY_KINDS)}; got {list(self.kinds)}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig(_Config):
    """The model: a name in `TASKS` and its size.

    Attributes:
        task: name in `TASKS`.
        embed: width of an LSTM's token embedding; None takes 96. A gpt's embedding is as wide as `hidden`.
        hidden: width of the recurrent state, or of a gpt's residual stream.
        layers: number of layers.
        heads: attention heads of a gpt, a divisor of `hidden`; None takes 4. An LSTM has none.
        dropout: share of activations dropped while training: between layers and before the output; in a gpt after the
            embedding, in the attention weights and at the end of each branch.
        context: longest window in tokens; a longer text is read in several windows. A gpt can read no further.
    """

    task: str = "lstm"
    embed: int | None = None
    hidden: int = 192
    layers: int = 1
    heads: int | None = None
    dropout: float = 0.0
    context: int = 256

    def __post_init__(self) -> None:
        own = OWN_SIZES.get(self.task, {})
        for name in ("embed", "heads"):
            value = getattr(self, name)
            if value is None and name in own:
                object.__setattr__(self, name, own[name])  # frozen, and the run keeps the size itself
            foreign = value is not None and self.task in OWN_SIZES and name not in own
            _require(not foreign, f"a model of task {self.task} has no --{name}, got {value}; leave it out")
        for name in ("embed", "hidden", "layers", "heads", "context"):
            value = getattr(self, name)
            good = value is None or 1 <= value <= MAX_SIZES[name]
            _require(good, f"--{name} must be 1 to {MAX_SIZES[name]:,}, got {value}")
        _require(0 <= self.dropout < 1, f"--dropout must lie in [0, 1), got {self.dropout}")
        whole = self.heads is None or self.hidden % self.heads == 0
        _require(whole, f"--hidden must be a multiple of --heads, got hidden {self.hidden} and heads {self.heads}")


@dataclass(frozen=True, kw_only=True)
class EngineConfig(_Config):
    """The training loop.

    Attributes:
        epochs: passes over the planted training samples.
        snapshots: how many `after` (or `during`) snapshots, spread evenly over the optimizer steps.
        losses: which losses are recorded.
        seed: of split, canaries, tokenizer, initialisation and order.
        device: `auto`, `cpu` or `cuda`.
        precision: of the forward pass in training and measuring. `bf16` is torch's autocast to bfloat16; weights,
            moments, softmax and losses stay float32. `float32` is meant: TF32 is off. Audits compute in float32.
        threads: CPU threads of torch; results are bit-for-bit repeatable for a given number.
        batch_size: samples a step.
        learning_rate: AdamW's, constant after the warm-up.
        weight_decay: AdamW's.
        clip: largest gradient norm.
    """

    epochs: float = 20
    snapshots: int = 24
    losses: Losses = "after"
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Precision = "float32"
    threads: int = 1
    batch_size: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 0.0
    clip: float = 1.0

    def __post_init__(self) -> None:
        _require(
            0 < self.epochs <= MAX_EPOCHS, f"--epochs must be above 0 and at most {MAX_EPOCHS:,}, got {self.epochs}"
        )
        good = 1 <= self.snapshots <= MAX_SNAPSHOTS
        _require(good, f"--snapshots must be 1 to {MAX_SNAPSHOTS:,}, got {self.snapshots}")
        _require(self.losses in ("after", "during", "both"), f"--losses: after, during or both, got {self.losses!r}")
        _require(self.device in ("auto", "cpu", "cuda"), f"--device: auto, cpu or cuda, got {self.device!r}")
        _require(self.precision in ("float32", "bf16"), f"--precision: float32 or bf16, got {self.precision!r}")
        _require(1 <= self.threads <= MAX_THREADS, f"--threads must be 1 to {MAX_THREADS:,}, got {self.threads}")
        good = 1 <= self.batch_size <= MAX_BATCH
        _require(good, f"--batch-size must be 1 to {MAX_BATCH:,}, got {self.batch_size}")
        good = 0 < self.learning_rate < math.inf
        _require(good, f"--learning-rate must be a finite number above 0, got {self.learning_rate}")
        good = 0 <= self.weight_decay < math.inf
        _require(good, f"--weight-decay must be a finite number of 0 or more, got {self.weight_decay}")
        _require(0 < self.clip < math.inf, f"clip must be a finite number above 0, got {self.clip}")
        _require(0 <= self.seed <= MAX_SEED, f"--seed must be 0 to {MAX_SEED}, got {self.seed}")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All that a training run needs; `run.json` keeps it."""

    corpus: CorpusConfig
    canaries: CanaryConfig
    model: ModelConfig
    engine: EngineConfig

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict of the four parts."""
        return {f.name: getattr(self, f.name).to_dict() for f in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """Return the config that `to_dict` came from.

        Raises:
            ConfigError: a part or a field is unknown, missing or out of range.
        """
        try:
            return cls(
                corpus=CorpusConfig.from_dict(fields["corpus"]),
                canaries=CanaryConfig.from_dict(fields["canaries"]),
                model=ModelConfig.from_dict(fields["model"]),
                engine=EngineConfig.from_dict(fields["engine"]),
            )
        except KeyError as error:
            raise ConfigError(f"the run's config lacks the part {error}") from None


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(_Config):
    """How a run's trajectories become scores and quadrants.

    Attributes:
        eps_mode: what the forget threshold is: nats (`absolute`), a quantile of all observed losses (`pooled`), or a
            quantile of each snapshot's losses (`snapshot`).
        eps: nats in mode `absolute`, else a quantile in [0, 1].
        hysteresis: half width in nats of the dead band around the forget threshold; 0 is the paper's definition.
        burn_in: share of the snapshots that count as early, in (0, 1].
        x: score on the map's x axis.
        y: score on the map's y axis, the memorization axis; None takes the one that `scores.recommendation` names.
        cut_x: percentile in [0, 100] that cuts x.
        cut_y: percentile in [0, 100] that cuts y, counted towards "more memorized".
    """

    eps_mode: EpsMode = "pooled"
    eps: float = 0.5
    hysteresis: float = 0.0
    burn_in: float = 0.2
    x: str = "difficulty"
    y: str | None = None
    cut_x: float = 75.0
    cut_y: float = 75.0

    def __post_init__(self) -> None:
        modes = ("absolute", "pooled", "snapshot")
        _require(self.eps_mode in modes, f"--eps-mode must be one of {', '.join(modes)}, got {self.eps_mode!r}")
        _require(math.isfinite(self.eps), f"--eps must be a finite number, got {self.eps}")
        if self.eps_mode != "absolute":
            _require(0 <= self.eps <= 1, f"--eps is a quantile in mode {self.eps_mode}: 0 to 1, got {self.eps}")
        good = math.isfinite(self.hysteresis) and self.hysteresis >= 0
        _require(good, f"--hysteresis must be 0 or more nats, got {self.hysteresis}")
        _require(0 < self.burn_in <= 1, f"--burn-in must lie in (0, 1], got {self.burn_in}")
        for name in ("cut_x", "cut_y"):
            value = getattr(self, name)
            _require(0 <= value <= 100, f"--{name.replace('_', '-')} is a percentile: 0 to 100, got {value}")


@functools.cache
def _hints(config: type) -> dict[str, Any]:
    return get_type_hints(config)


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a value from JSON is of a field's type; a whole number is a float too, true and false are none."""
    options = get_args(hint)
    if get_origin(hint) is types.UnionType:
        return any(_fits(value, option) for option in options)
    if get_origin(hint) is Literal:
        return isinstance(value, str) and value in options
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(part, options[0]) for part in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, hint) and not (hint is int and isinstance(value, bool))


def _words_of(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "").replace(" | ", " or ")


def _require(condition: bool, message: str) -> None:  # noqa: FBT001 (a condition is what it is)
    if not condition:
        raise ConfigError(message)
