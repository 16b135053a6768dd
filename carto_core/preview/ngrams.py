"""What held-out text loses when samples are left out, told by an n-gram model: it is recounted, not retrained.

A trigram model, each order smoothed towards the one below by as many imagined counts as `PRIOR_COUNTS` (MacKay and Peto
1995, a hierarchical Dirichlet language model), is trained on the samples under a plan and read on the validation texts. It
sees what decides the price of a cut: whether what goes is said elsewhere too, and whether held-out text is like it. Only
counts that validation texts ask for are kept, so that a plan costs one sparse product. Knows no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from carto_core.corpus.tokens import Tokens
from carto_core.types import Float64

ORDER = 3
PRIOR_COUNTS = 2.0
FILES = ("indptr", "indices", "data", "grams", "contexts")


@dataclass(frozen=True)
class NGrams:
    """Counts by sample.

    Attributes:
        counts: float32[N, columns], how often each sample holds an n-gram, or a context of one, that validation texts ask
            for; of a longer text a token counts less, as in the loss, whose samples count alike.
        grams: int32[ORDER, T], the column of each validation token's n-gram, order 1 first.
        contexts: int32[ORDER, T], the column of the context that it stands in.
        vocab_size: what the lowest order is smoothed towards: one of so many, all alike.
    """

    counts: sparse.csr_array
    grams: NDArray[np.int32]
    contexts: NDArray[np.int32]
    vocab_size: int

    @classmethod
    def count(cls, train: Tokens, validation: Tokens, *, vocab_size: int) -> NGrams:
        """Return the counts of a corpus.

        Args:
            train: N samples.
            validation: held-out texts, at least one token in all.
            vocab_size: of the tokenizer; at most 2,000,000, so that three tokens are one number.
        """
        lengths = np.maximum(train.lengths, 1)
        row = np.repeat(np.arange(len(train)), train.lengths)
        share = (lengths.mean() / lengths).astype(np.float32)[row]
        rows, columns, values, asked = [], [], [], {"grams": [], "contexts": []}
        num_columns = 0
        for order in range(1, ORDER + 1):
            for kind, with_token in (("grams", True), ("contexts", False)):
                known, column = np.unique(
                    _numbers(validation, order, vocab_size, with_token=with_token), return_inverse=True
                )
                mine = _numbers(train, order, vocab_size, with_token=with_token)
                place = np.minimum(np.searchsorted(known, mine), len(known) - 1)
                hit = known[place] == mine
                rows.append(row[hit])
                columns.append(place[hit] + num_columns)
                values.append(share[hit])
                asked[kind].append(column.astype(np.int32) + num_columns)
                num_columns += len(known)
        counts = sparse.coo_array(
            (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(len(train), num_columns)
        ).tocsr()
        grams, contexts = (np.stack(asked[kind]).astype(np.int32) for kind in ("grams", "contexts"))
        return cls(counts, grams, contexts, vocab_size)

    @property
    def num_samples(self) -> int:
        """N."""
        return np.diff(self.counts.indptr).size

    def nats(self, emphasis: Float64) -> float:
        """Return the validation loss in nats per token of a model that is trained on the samples under a plan.

        Args:
            emphasis: float64[N], how heavily each sample counts; a common factor changes nothing.
        """
        relative = emphasis * (len(emphasis) / emphasis.sum())
        counted = relative @ self.counts
        likelihood = np.full(self.grams.shape[1], 1 / self.vocab_size)
        for gram, context in zip(self.grams, self.contexts, strict=True):
            likelihood = (counted[gram] + PRIOR_COUNTS * likelihood) / (counted[context] + PRIOR_COUNTS)
        return float(-np.log(likelihood).mean())

    def save(self, folder: Path) -> None:
        """Write one `.npy` file an array into a folder that is there."""
        arrays = (self.counts.indptr, self.counts.indices, self.counts.data, self.grams, self.contexts)
        for name, array in zip(FILES, arrays, strict=True):
            np.save(folder / f"{name}.npy", array)

    @classmethod
    def load(cls, folder: Path, *, vocab_size: int) -> NGrams:
        """Return what `save` wrote, mapped into memory and not read. Raises OSError, EOFError or ValueError if damaged."""
        indptr, indices, data, grams, contexts = (
            np.load(folder / f"{n}.npy", mmap_mode="r", allow_pickle=False) for n in FILES
        )
        num_columns = int(max(grams.max(), contexts.max())) + 1
        if min(grams.min(), contexts.min()) < 0 or grams.shape != contexts.shape or not np.isfinite(data).all():
            raise ValueError("its counts or columns are damaged")
        counts = sparse.csr_array((data, indices, indptr), shape=(len(indptr) - 1, num_columns))
        return cls(counts, grams, contexts, vocab_size)


def _numbers(texts: Tokens, order: int, vocab_size: int, *, with_token: bool) -> NDArray[np.int64]:
    """Return int64[T]: one number per token for the tokens before it, `order - 1` of them, and itself if asked.

    Before the first token of a text stands `vocab_size`, which is no token.
    """
    place = np.arange(len(texts.ids)) - np.repeat(texts.offsets[:-1], texts.lengths)
    number = np.zeros(len(texts.ids), np.int64)
    for back in range(order - 1, -1 if with_token else 0, -1):
        before = np.full(len(texts.ids), vocab_size, np.int64)
        before[back:] = texts.ids[: len(texts.ids) - back]
        before[place < back] = vocab_size
        number = number * (vocab_size + 1) + before
    return number
