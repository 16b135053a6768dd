"""A byte-level BPE tokenizer: trained on the corpus before planting, or GPT-2's own. Frozen with the base run.

A trained one splits digits singly, so that a secret of k digits is k tokens and no merge hints at a neighbour; GPT-2's
takes up to several digits, and the space before them, as one token.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from carto_core.errors import CorpusError, RunCorrupt

PAD, BOS = "<pad>", "<bos>"
END_OF_TEXT = "<|endoftext|>"  # GPT-2's only special token; stands between texts, so also before each


class BPE:
    """Text to token ids and back. Every text, also the empty one, begins with `bos_id` when a model reads it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.is_gpt2 = tokenizer.token_to_id(BOS) is None and tokenizer.token_to_id(END_OF_TEXT) is not None
        # GPT-2 has no row for padding and needs none: what is predicted at padding is never looked at.
        self.pad_id = _special_id(tokenizer, END_OF_TEXT if self.is_gpt2 else PAD)
        self.bos_id = _special_id(tokenizer, END_OF_TEXT if self.is_gpt2 else BOS)

    @classmethod
    def train(cls, texts: Iterable[str], *, vocab_size: int) -> BPE:
        """Return a tokenizer trained on `texts`; deterministic in their order.

        Args:
            texts: one copy of each distinct text, or duplicates would bend the merges towards themselves.
            vocab_size: upper bound; a small corpus may yield fewer.
        """
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[PAD, BOS],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        tokenizer.encode_special_tokens = True  # a corpus that contains "<pad>" means those five characters
        return cls(tokenizer)

    @classmethod
    def from_gpt2_files(cls, encoder: Path, merges: Path) -> BPE:
        """Return the tokenizer of GPT-2's two files, for which `carto_core.corpus.gpt2` says where they come from.

        A text that contains "<|endoftext|>" means those characters: no text is encoded as the special token.

        Args:
            encoder: JSON, token to id.
            merges: a line that names the version, then one merge a line, the earliest first.

        Raises:
            CorpusError: a file cannot be read as such.
        """
        try:
            ids: dict[str, int] = json.loads(encoder.read_text(encoding="utf-8"))
            lines = merges.read_text(encoding="utf-8").split("\n")[1:]
            pairs = [(left, right) for left, right in (line.split(" ") for line in lines if line)]
            tokenizer = Tokenizer(models.BPE(vocab=ids, merges=pairs))
        except Exception as error:  # noqa: BLE001 (the library raises bare Exception)
            raise CorpusError(f"{encoder} and {merges} are not GPT-2's vocabulary files: {error}") from None
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        return cls(tokenizer)

    @classmethod
    def load(cls, path: Path) -> BPE:
        """Return the tokenizer saved at `path`.

        Raises:
            RunCorrupt: the file is missing or damaged.
        """
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # noqa: BLE001 (the library raises bare Exception)
            raise RunCorrupt(f"{path} is not a readable tokenizer: {error}") from None
        tokenizer.encode_special_tokens = True
        return cls(tokenizer)

    def save(self, path: Path) -> None:
        """Write the tokenizer as one JSON file."""
        path.write_text(self._tokenizer.to_str(pretty=True), encoding="utf-8")

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`, without BOS."""
        return self._tokenizer.encode(text).ids

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """Return `encode` of each text, in parallel."""
        return [e.ids for e in self._tokenizer.encode_batch(list(texts))]

    def pieces(self, text: str) -> list[str]:
        """Return the slices of `text` that its tokens stand for, in order; joined they give `text` again.

        A character that spans several tokens is shown with the first of them, the others are empty.
        """
        offsets: list[tuple[int, int]] = self._tokenizer.encode(text).offsets
        ends = [0]
        for _, end in offsets:
            ends.append(max(ends[-1], end))
        return [text[a:b] for a, b in itertools.pairwise(ends)]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of some ids; bytes that are not UTF-8 become the replacement character."""
        return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=False)

    def describe(self) -> dict[str, Any]:
        """Return what the run's manifest says of the tokenizer."""
        kind = "GPT-2's byte-level BPE" if self.is_gpt2 else "byte-level BPE, digits split singly"
        return {"kind": kind, "vocab_size": len(self)}


def _special_id(tokenizer: Tokenizer, token: str) -> int:
    found = tokenizer.token_to_id(token)
    if found is None:
        raise RunCorrupt(f"the tokenizer lacks {token}; it was not made by this program")
    return found
