"""Planted secrets whose memorization can be measured, and never-inserted controls of the same distribution.

A canary is `prefix || secret`, the secret drawn uniformly from a space of known size, the prefix its own. Each is
`calibration` (one may look at it when choosing) or `report` (looked at only when a measurement is done).
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from carto_core.config import CANARY_KINDS, CanaryConfig
from carto_core.corpus.tokens import Tokenizer
from carto_core.errors import CorpusError
from carto_core.types import ROLES

NUM_DIGITS = 6
NUM_SECRET_WORDS = 3
NUM_PREFIX_WORDS = 7
NUM_RECORD_WORDS = 10
NUM_CONTEXT_WORDS = 8
MAX_WORDS = 1000
MIN_WORDS = 30
MAX_REDRAWS = 1000


@dataclass(frozen=True, slots=True)
class Canary:
    """One secret. `repeats` is 0 for a control, which is never inserted; `log2_space` is the secret's entropy in bits.

    `copies` holds what is planted where that is not `prefix || secret` each time: the same secret in varied contexts.
    """

    canary_id: int
    kind: str
    prefix: str
    secret: str
    repeats: int
    role: str
    log2_space: float
    copies: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Prefix and secret, as an attacker would put them together."""
        return self.prefix + self.secret

    @property
    def planted(self) -> tuple[str, ...]:
        """The texts that are inserted, `repeats` of them."""
        return self.copies or (self.text,) * self.repeats

    @property
    def inserted(self) -> bool:
        """Whether it stands in the training data."""
        return self.repeats > 0


@dataclass(frozen=True, slots=True)
class Material:
    """What canaries of a corpus are made of.

    Attributes:
        words: see `corpus_words`.
        openings: the first words of the corpus's distinct texts, single spaces between; see `corpus_openings`.
    """

    words: Sequence[str]
    openings: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Kind:
    """One family of canaries.

    Attributes:
        title: what it is, in words.
        prefix: draws what stands right before the secret.
        units: the alphabet of the secret, which is `length` units drawn uniformly and independently, end to end.
        length: how many units.
        lead: draws what stands before that, anew for each planted copy, and once more for the canary's own prefix, so
            that an attacker's context is one that was not planted; None plants `prefix || secret` as it is.
    """

    title: str
    prefix: Callable[[np.random.Generator, Material], str]
    units: Callable[[Sequence[str]], Sequence[str]]
    length: int
    lead: Callable[[np.random.Generator, Material], str] | None = None

    def secret(self, rng: np.random.Generator, words: Sequence[str]) -> str:
        """Draw a secret."""
        return self.secrets(rng, words, 1)[0]

    def secrets(self, rng: np.random.Generator, words: Sequence[str], count: int) -> list[str]:
        """Draw some secrets, as `secret` would one after the other."""
        units = self.units(words)
        return ["".join(units[int(i)] for i in rng.integers(len(units), size=self.length)) for _ in range(count)]

    def log2_space(self, words: Sequence[str]) -> float:
        """Return the entropy of a secret, in bits."""
        return self.length * math.log2(len(self.units(words)))


def corpus_words(texts: Sequence[str]) -> list[str]:
    """Return up to 1,000 of the corpus's most frequent words (letters only, 4 to 9 long, lower case), sorted.

    Random sequences of them use only tokens that the model meets anyway.

    Raises:
        CorpusError: fewer than 30 such words.
    """
    counts = Counter(word for text in texts for word in re.findall(r"\b[^\W\d_]{4,9}\b", text.lower()))
    words = sorted(word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MAX_WORDS])
    if len(words) < MIN_WORDS:
        raise CorpusError(
            f"canaries need at least {MIN_WORDS} different words of 4 to 9 letters, the corpus has {len(words)}; "
            "train with --canaries none"
        )
    return words


def corpus_openings(texts: Sequence[str]) -> list[str]:
    """Return the first 10 words of every text that has as many, sorted, single spaces between."""
    split = (text.split(maxsplit=NUM_RECORD_WORDS) for text in texts)
    return sorted({" ".join(words[:NUM_RECORD_WORDS]) for words in split if len(words) >= NUM_RECORD_WORDS})


def draw_canaries(config: CanaryConfig, *, material: Material, tokenizer: Tokenizer, seed: int) -> list[Canary]:
    """Return `num_inserted` secrets to plant and as many controls, all with distinct prefixes and secrets.

    The inserted ones are spread as evenly as possible over kind x repetitions x role, the controls over kind x role.
    A canary is redrawn until `encode(prefix)` is a prefix of `encode(prefix + secret)`: only then does decoding from
    the prefix meet the very tokens that were trained on.

    Args:
        config: how many, of which kinds, and the ladder of repetitions.
        material: what they are made of.
        tokenizer: the frozen one.
        seed: of all draws.

    Raises:
        CorpusError: no such canary was found in 1,000 draws, or a kind needs longer texts than the corpus has.
    """
    rng = np.random.default_rng([seed, 2])
    taken: set[str] = set()
    canaries = []
    for canary_id, (name, repeats, role) in enumerate(_cells(config)):
        kind = KINDS[name]
        if name in NEED_OPENINGS and not material.openings:
            raise CorpusError(
                f"canaries of kind {name!r} are made of the corpus's own texts, and none has {NUM_RECORD_WORDS} words; "
                "leave that kind out with --canary-kinds template,words"
            )
        cue, prefix, secret = _draw(kind, rng=rng, material=material, tokenizer=tokenizer, taken=taken)
        taken |= {prefix, secret}
        copies = tuple(kind.lead(rng, material) + cue + secret for _ in range(repeats)) if kind.lead else ()
        space = kind.log2_space(material.words)
        canaries.append(Canary(canary_id, name, prefix, secret, repeats, role, space, copies))
    return canaries


def draw_references(
    canary: Canary, *, words: Sequence[str], tokenizer: Tokenizer, taken: set[str], count: int, seed: int
) -> list[list[int]]:
    """Return the token ids of `count` never-inserted secrets of the canary's own format, for its own prefix.

    Drawn uniformly and independently; those of an inserted canary, or whose tokens do not continue the prefix's, are
    redrawn.

    Raises:
        CorpusError: too few secrets of that format tokenize cleanly.
    """
    rng = np.random.default_rng([seed, 3, canary.canary_id])
    prefix_ids = tokenizer.encode(canary.prefix)
    space = " " if canary.secret.startswith(" ") else ""
    references: list[list[int]] = []
    for _ in range(20):
        secrets = [space + secret.lstrip(" ") for secret in KINDS[canary.kind].secrets(rng, words, count)]
        encoded = tokenizer.encode_many([canary.prefix + secret for secret in secrets])
        references += [
            ids[len(prefix_ids) :]
            for secret, ids in zip(secrets, encoded, strict=True)
            if secret not in taken and ids[: len(prefix_ids)] == prefix_ids
        ]
        if len(references) >= count:
            return references[:count]
    raise CorpusError(
        f"canary {canary.canary_id}: only {len(references)} of {count} reference secrets tokenize cleanly"
    )


def canary_table(canaries: Sequence[Canary]) -> pa.Table:
    """Return the contract's table `canaries`."""
    return pa.table(
        {
            "canary_id": pa.array([c.canary_id for c in canaries], pa.int32()),
            "kind": pa.array([c.kind for c in canaries], pa.string()),
            "prefix": pa.array([c.prefix for c in canaries], pa.string()),
            "secret": pa.array([c.secret for c in canaries], pa.string()),
            "repeats": pa.array([c.repeats for c in canaries], pa.int32()),
            "role": pa.array([c.role for c in canaries], pa.string()),
            "inserted": pa.array([c.inserted for c in canaries], pa.bool_()),
            "log2_space": pa.array([c.log2_space for c in canaries], pa.float64()),
        }
    )


def plant(canaries: Sequence[Canary]) -> list[tuple[str, str, int]]:
    """Return (key, text, canary_id) of every copy to insert, `repeats` of each."""
    return [
        (f"canary/{c.canary_id:04d}/copy-{copy}", text, c.canary_id)
        for c in canaries
        for copy, text in enumerate(c.planted)
    ]


def _cells(config: CanaryConfig) -> list[tuple[str, int, str]]:
    """Return (kind, repeats, role) of every canary: inserted ones first, then controls with repeats 0.

    The role turns fastest, so that an odd number still gives both halves alike.
    """
    inserted = [(k, r, role) for r, k, role in itertools.product(config.repeats, config.kinds, ROLES)]
    controls = [(k, 0, role) for k, role in itertools.product(config.kinds, ROLES)]
    return [cells[i % len(cells)] for cells in (inserted, controls) for i in range(config.num_inserted)]


def _draw(
    kind: Kind, *, rng: np.random.Generator, material: Material, tokenizer: Tokenizer, taken: set[str]
) -> tuple[str, str, str]:
    """Return a cue, the prefix (the cue, behind a lead where the kind has one) and a secret."""
    for _ in range(MAX_REDRAWS):
        cue, secret = kind.prefix(rng, material), kind.secret(rng, material.words)
        prefix = (kind.lead(rng, material) if kind.lead else "") + cue
        if cue.endswith(" ") and not _continues(prefix, secret, tokenizer):
            # A token of GPT-2's holds the space before it, so the space becomes the secret's.
            cue, prefix, secret = cue[:-1], prefix[:-1], " " + secret
        clean = _continues(prefix, secret, tokenizer)
        if clean and prefix not in taken and secret not in taken:
            return cue, prefix, secret
    raise CorpusError(
        f"no canary in {MAX_REDRAWS} draws whose prefix tokenizes alike with its secret; use --canaries none"
    )


def _continues(prefix: str, secret: str, tokenizer: Tokenizer) -> bool:
    ids = tokenizer.encode(prefix)
    return tokenizer.encode(prefix + secret)[: len(ids)] == ids


def _some(rng: np.random.Generator, words: Sequence[str], count: int) -> str:
    return " ".join(words[int(i)] for i in rng.integers(len(words), size=count))


def _opening(rng: np.random.Generator, material: Material, *, count: int) -> list[str]:
    return material.openings[int(rng.integers(len(material.openings)))].split(" ")[:count]


def _code_of(rng: np.random.Generator, material: Material) -> str:
    return f"The access code of {_some(rng, material.words, 2)} is "


def _shuffled(rng: np.random.Generator, material: Material) -> str:
    words = _opening(rng, material, count=NUM_RECORD_WORDS)
    return " ".join(words[int(i)] for i in rng.permutation(len(words)))


def _spaced(words: Sequence[str]) -> list[str]:
    return [f" {word}" for word in words]


KINDS: dict[str, Kind] = {
    "template": Kind(
        title="six random digits in a fixed sentence",
        prefix=_code_of,
        units=lambda words: "0123456789",
        length=NUM_DIGITS,
    ),
    "words": Kind(
        title="random words after random words",
        prefix=lambda rng, material: _some(rng, material.words, NUM_PREFIX_WORDS),
        units=_spaced,
        length=NUM_SECRET_WORDS,
    ),
    "shuffled": Kind(
        title="random words after a real text's words in shuffled order",
        prefix=_shuffled,
        units=_spaced,
        length=NUM_SECRET_WORDS,
    ),
    "variant": Kind(
        title="a real record with one field, its next words, replaced",
        prefix=lambda rng, material: " ".join(_opening(rng, material, count=NUM_RECORD_WORDS)),
        units=_spaced,
        length=NUM_SECRET_WORDS,
    ),
    "varied": Kind(
        title="the same sentence and digits, each copy behind another real context",
        prefix=_code_of,
        units=lambda words: "0123456789",
        length=NUM_DIGITS,
        lead=lambda rng, material: " ".join(_opening(rng, material, count=NUM_CONTEXT_WORDS)) + ". ",
    ),
}
NEED_OPENINGS = ("shuffled", "variant", "varied")
assert tuple(KINDS) == CANARY_KINDS
