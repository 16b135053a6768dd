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

from carto_core.config import CanaryConfig
from carto_core.corpus.tokenizer import BPE
from carto_core.errors import CorpusError
from carto_core.types import ROLES

NUM_DIGITS = 6
NUM_SECRET_WORDS = 3
NUM_PREFIX_WORDS = 7
MAX_WORDS = 1000
MIN_WORDS = 30
MAX_REDRAWS = 1000


@dataclass(frozen=True, slots=True)
class Canary:
    """One secret. `repeats` is 0 for a control, which is never inserted; `log2_space` is the secret's entropy in bits."""

    canary_id: int
    kind: str
    prefix: str
    secret: str
    repeats: int
    role: str
    log2_space: float

    @property
    def text(self) -> str:
        """What is planted."""
        return self.prefix + self.secret

    @property
    def inserted(self) -> bool:
        """Whether it stands in the training data."""
        return self.repeats > 0


@dataclass(frozen=True, slots=True)
class Kind:
    """One family of canaries: how a prefix and a secret are drawn, and how many secrets there are (log2)."""

    prefix: Callable[[np.random.Generator, Sequence[str]], str]
    secret: Callable[[np.random.Generator, Sequence[str]], str]
    log2_space: Callable[[Sequence[str]], float]


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


def draw_canaries(config: CanaryConfig, *, words: Sequence[str], tokenizer: BPE, seed: int) -> list[Canary]:
    """Return `num_inserted` secrets to plant and as many controls, all with distinct prefixes and secrets.

    The inserted ones are spread as evenly as possible over kind x repetitions x role, the controls over kind x role.
    A canary is redrawn until `encode(prefix)` is a prefix of `encode(prefix + secret)`: only then does decoding from
    the prefix meet the very tokens that were trained on.

    Args:
        config: how many, and the ladder of repetitions.
        words: see `corpus_words`.
        tokenizer: the frozen one.
        seed: of all draws.

    Raises:
        CorpusError: no such canary was found in 1,000 draws.
    """
    rng = np.random.default_rng([seed, 2])
    taken: set[str] = set()
    canaries = []
    for canary_id, (kind, repeats, role) in enumerate(_cells(config)):
        prefix, secret = _draw(KINDS[kind], rng=rng, words=words, tokenizer=tokenizer, taken=taken)
        taken |= {prefix, secret}
        space = KINDS[kind].log2_space(words)
        canaries.append(Canary(canary_id, kind, prefix, secret, repeats, role, space))
    return canaries


def draw_references(
    canary: Canary, *, words: Sequence[str], tokenizer: BPE, taken: set[str], count: int, seed: int
) -> list[list[int]]:
    """Return the token ids of `count` never-inserted secrets of the canary's own format, for its own prefix.

    Drawn uniformly and independently; those of an inserted canary, or whose tokens do not continue the prefix's, are
    redrawn.

    Raises:
        CorpusError: too few secrets of that format tokenize cleanly.
    """
    rng = np.random.default_rng([seed, 3, canary.canary_id])
    prefix_ids = tokenizer.encode(canary.prefix)
    references: list[list[int]] = []
    for _ in range(20):
        secrets = [KINDS[canary.kind].secret(rng, words) for _ in range(count)]
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


def plant(canaries: Sequence[Canary]) -> list[tuple[str, str, int]]:
    """Return (key, text, canary_id) of every copy to insert, `repeats` of each."""
    return [
        (f"canary/{c.canary_id:04d}/copy-{copy}", c.text, c.canary_id) for c in canaries for copy in range(c.repeats)
    ]


def _cells(config: CanaryConfig) -> list[tuple[str, int, str]]:
    """Return (kind, repeats, role) of every canary: inserted ones first, then controls with repeats 0.

    The role turns fastest, so that an odd number still gives both halves alike.
    """
    inserted = [(k, r, role) for r, k, role in itertools.product(config.repeats, KINDS, ROLES)]
    controls = [(k, 0, role) for k, role in itertools.product(KINDS, ROLES)]
    return [cells[i % len(cells)] for cells in (inserted, controls) for i in range(config.num_inserted)]


def _draw(
    kind: Kind, *, rng: np.random.Generator, words: Sequence[str], tokenizer: BPE, taken: set[str]
) -> tuple[str, str]:
    for _ in range(MAX_REDRAWS):
        prefix, secret = kind.prefix(rng, words), kind.secret(rng, words)
        ids = tokenizer.encode(prefix)
        clean = tokenizer.encode(prefix + secret)[: len(ids)] == ids
        if clean and prefix not in taken and secret not in taken:
            return prefix, secret
    raise CorpusError(
        f"no canary in {MAX_REDRAWS} draws whose prefix tokenizes alike with its secret; use --canaries none"
    )


def _some(rng: np.random.Generator, words: Sequence[str], count: int) -> str:
    return " ".join(words[int(i)] for i in rng.integers(len(words), size=count))


def _digits(rng: np.random.Generator, words: Sequence[str]) -> str:
    return "".join(map(str, rng.integers(10, size=NUM_DIGITS)))


KINDS: dict[str, Kind] = {
    "template": Kind(
        prefix=lambda rng, words: f"The access code of {_some(rng, words, 2)} is ",
        secret=_digits,
        log2_space=lambda words: NUM_DIGITS * math.log2(10),
    ),
    "words": Kind(
        prefix=lambda rng, words: _some(rng, words, NUM_PREFIX_WORDS),
        secret=lambda rng, words: " " + _some(rng, words, NUM_SECRET_WORDS),
        log2_space=lambda words: NUM_SECRET_WORDS * math.log2(len(words)),
    ),
}
