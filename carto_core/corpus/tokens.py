"""Token ids of many texts, end to end. Needs no tokenizer library: an engine elsewhere may bring its own ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from carto_core.types import Int32


class Tokenizer(Protocol):
    """Text to token ids and back: our own BPE, or what another program's model was trained with."""

    bos_id: int  # what every text begins with when a model reads it

    def __len__(self) -> int:
        """Return the size of the vocabulary."""
        ...

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without `bos_id`."""
        ...

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """Return `encode` of each text."""
        ...

    def pieces(self, text: str) -> list[str]:
        """Return the slices of a text that its tokens stand for, in order; joined they give the text again."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of some ids."""
        ...


@dataclass(frozen=True)
class Tokens:
    """Texts as ids.

    Attributes:
        ids: int32[sum of lengths].
        offsets: int64[N + 1]; text i is `ids[offsets[i]:offsets[i + 1]]`.
    """

    ids: Int32
    offsets: np.ndarray

    @classmethod
    def encode(cls, texts: Sequence[str], tokenizer: Tokenizer) -> Tokens:
        """Return the tokens of `texts`, without BOS."""
        return cls.of(tokenizer.encode_many(texts))

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> Tokens:
        """Return texts that are ids already."""
        offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in lists])]).astype(np.int64)
        flat = np.fromiter((i for ids in lists for i in ids), np.int32, count=int(offsets[-1]))
        return cls(flat, offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, sample: int) -> Int32:
        return self.ids[self.offsets[sample] : self.offsets[sample + 1]]

    @property
    def lengths(self) -> Int32:
        """int32[N]: tokens of each text; all of them are predicted (the first from BOS)."""
        return np.diff(self.offsets).astype(np.int32)
