"""The corpus as a run uses it: split, planted, tokenized, and written beside the run before training starts."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from carto_core.config import CanaryConfig, CorpusConfig
from carto_core.corpus.canaries import (
    Canary,
    Material,
    canary_table,
    corpus_openings,
    corpus_words,
    draw_canaries,
    plant,
)
from carto_core.corpus.gpt2 import gpt2_tokenizer
from carto_core.corpus.identity import duplicate_groups, split_validation
from carto_core.corpus.reading import Row, corpus_sha256, read_corpus
from carto_core.corpus.tokenizer import BPE
from carto_core.corpus.tokens import Tokens
from carto_core.types import Int32


@dataclass(frozen=True)
class PreparedCorpus:
    """A corpus ready to train on.

    Attributes:
        rows: training samples in order of sample_id, planted copies last.
        group_id: int32[N], exact duplicates.
        canary_id: one per training sample, None = not planted.
        validation: held-out rows, never planted.
        canaries: inserted ones and controls.
        words: what random words are drawn from; empty without canaries.
        tokenizer: frozen.
        sha256: the corpus's fingerprint after the cap and before planting.
    """

    rows: list[Row]
    group_id: Int32
    canary_id: list[int | None]
    validation: list[Row]
    canaries: list[Canary]
    words: list[str]
    tokenizer: BPE
    sha256: str

    @cached_property
    def train_tokens(self) -> Tokens:
        """Tokens of the training samples."""
        return Tokens.encode([row.text for row in self.rows], self.tokenizer)

    @cached_property
    def validation_tokens(self) -> Tokens:
        """Tokens of the validation samples."""
        return Tokens.encode([row.text for row in self.validation], self.tokenizer)

    def tables(self) -> dict[str, pa.Table]:
        """Return the contract's tables `samples`, `validation` and `canaries`."""
        return {
            "samples": pa.table(
                {
                    "sample_id": np.arange(len(self.rows), dtype=np.int32),
                    "key": [row.key for row in self.rows],
                    "text": [row.text for row in self.rows],
                    "source": [row.source for row in self.rows],
                    "group_id": self.group_id,
                    "num_tokens": self.train_tokens.lengths,
                    "canary_id": pa.array(self.canary_id, pa.int32()),
                    "meta": [json.dumps(row.meta, ensure_ascii=False) for row in self.rows],
                }
            ),
            "validation": pa.table(
                {
                    "key": [row.key for row in self.validation],
                    "text": [row.text for row in self.validation],
                    "num_tokens": self.validation_tokens.lengths,
                }
            ),
            "canaries": canary_table(self.canaries),
        }


@dataclass(frozen=True)
class Planted:
    """A corpus with canaries in it.

    Attributes:
        rows: the user's, then every planted copy, source `canary`.
        canary_id: one per row, None = not planted.
        canaries: inserted ones and controls.
        words: what random words were drawn from; empty without canaries.
    """

    rows: list[Row]
    canary_id: list[int | None]
    canaries: list[Canary]
    words: list[str]


def planted(rows: list[Row], config: CanaryConfig, *, tokenizer: BPE, taken: set[str], seed: int) -> Planted:
    """Draw canaries and add their copies after the rows.

    Args:
        rows: to plant among.
        config: how many, of which kinds, and the ladder of repetitions.
        tokenizer: see `draw_canaries`.
        taken: keys that copies must not have.
        seed: of all draws.

    Raises:
        CorpusError: see `draw_canaries`, `corpus_words`.
    """
    distinct = distinct_texts(rows)
    words = corpus_words(distinct) if config.num_inserted else []
    material = Material(words, corpus_openings(distinct))
    drawn = draw_canaries(config, material=material, tokenizer=tokenizer, seed=seed)
    copies = plant(drawn)
    added = [Row(f"planted/{key}" if key in taken else key, text, "canary", {}) for key, text, _ in copies]
    return Planted(rows + added, [None] * len(rows) + [canary_id for _, _, canary_id in copies], drawn, words)


def distinct_texts(rows: list[Row]) -> list[str]:
    """Return every text once, in order of first appearance."""
    return list(dict.fromkeys(row.text for row in rows))


def prepare(corpus: CorpusConfig, canaries: CanaryConfig, *, seed: int) -> PreparedCorpus:
    """Read, cap, cut, group, split, train or fetch the tokenizer, draw canaries, plant them: all but the cap from one seed.

    A trained tokenizer sees one copy of each distinct training text and no canary.

    Raises:
        CorpusError: see `read_corpus`, `split_validation`, `gpt2_tokenizer`, `draw_canaries`.
    """
    rows = read_corpus(corpus)
    if corpus.max_chars is not None:
        rows = capped(rows, max_chars=corpus.max_chars, seed=corpus.cap_seed)
    if corpus.piece_words is not None:
        rows = in_pieces(rows, words=corpus.piece_words)
    groups = duplicate_groups([row.text for row in rows])
    held_out = split_validation(groups, share=corpus.validation, seed=seed)
    train = [row for row, held in zip(rows, held_out, strict=True) if not held]
    tokenizer = tokenizer_of(corpus, train)
    found = planted(train, canaries, tokenizer=tokenizer, taken={row.key for row in rows}, seed=seed)
    return PreparedCorpus(
        rows=found.rows,
        group_id=duplicate_groups([row.text for row in found.rows]),
        canary_id=found.canary_id,
        validation=[row for row, held in zip(rows, held_out, strict=True) if held],
        canaries=found.canaries,
        words=found.words,
        tokenizer=tokenizer,
        sha256=corpus_sha256(rows),
    )


def capped(rows: list[Row], *, max_chars: int, seed: int) -> list[Row]:
    """Return rows of about `max_chars` characters: whole exact-duplicate groups, drawn in seeded random order.

    Every group is as likely to be drawn, whatever its size, and comes with all its copies, so that the capped corpus
    repeats itself as the whole one does. The group that passes the cap is kept if that comes nearer to it; at least one
    group is kept. Rows stay in their order.
    """
    groups = duplicate_groups([row.text for row in rows])
    size = np.bincount(groups, weights=[len(row.text) for row in rows])
    order = np.random.default_rng([seed, 5]).permutation(len(size))
    reached = np.cumsum(size[order])
    count = int(np.searchsorted(reached, max_chars, side="right"))
    if count < len(order):
        before = reached[count - 1] if count else 0
        count += int(count == 0 or reached[count] - max_chars < max_chars - before)
    kept = np.isin(groups, order[:count])
    return [row for row, keep in zip(rows, kept, strict=True) if keep]


def in_pieces(rows: list[Row], *, words: int) -> list[Row]:
    """Return rows of at most `words` words: longer texts cut into pieces of even length, in order.

    A piece is a slice of its text from a word's beginning to a word's end; what stands between two pieces is white space
    and is left out. Its key is `KEY#PIECE`, counted from 0; a text that is short enough stays as it is.
    """
    cut = []
    for row in rows:
        spans = [found.span() for found in re.finditer(r"\S+", row.text)]
        if len(spans) <= words:
            cut.append(row)
            continue
        for number, part in enumerate(np.array_split(np.array(spans), -(-len(spans) // words))):
            cut.append(dataclasses.replace(row, key=f"{row.key}#{number}", text=row.text[part[0, 0] : part[-1, 1]]))
    return cut


def tokenizer_of(config: CorpusConfig, rows: list[Row]) -> BPE:
    """Return the tokenizer that a corpus asks for, trained on one copy of each of its texts or fetched."""
    if config.vocabulary == "gpt2":
        return gpt2_tokenizer()
    assert config.vocab_size is not None
    return BPE.train(distinct_texts(rows), vocab_size=config.vocab_size)
