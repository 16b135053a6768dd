"""Which samples are nearly the same: 5-word shingles, Jaccard at least 0.7, candidates by MinHash.

MinHash and banding after Broder 1997 and Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", chapter 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from datasketch import MinHash, MinHashLSH
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from carto_core.corpus.identity import duplicate_groups
from carto_core.types import Int32

SHINGLE_WORDS = 5
THRESHOLD = 0.7
# A pair of Jaccard s becomes a candidate with probability 1 - (1 - s^4)^32: 0.9998 at the threshold of 0.7.
NUM_BANDS = 32
BAND_ROWS = 4
SEED = 1


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """How each sample repeats others.

    Attributes:
        count: int32[N], how many OTHER samples are its near or exact duplicates.
        group_id: int32[N], connected components of that relation, numbered by first appearance. Two samples of a group
            need not be near duplicates of each other.
    """

    count: Int32
    group_id: Int32


def near_duplicates(texts: Sequence[str]) -> NearDuplicates:
    """Return each text's near and exact duplicates.

    Two texts are near duplicates when the Jaccard similarity of their sets of 5-word shingles (case folded, words parted
    by white space) is at least 0.7; one of fewer words is a single shingle. Candidates found by MinHash are
    verified exactly, so that none is wrong; a few pairs near the threshold may be missed. A text without words has none.
    Seconds for tens of thousands of paragraphs; the time grows with the number of pairs that share half their shingles.

    Args:
        texts: N of them; equal ones are hashed once.
    """
    row_text = duplicate_groups(texts)
    _, first = np.unique(row_text, return_index=True)
    shingles = _shingle_ids([texts[int(i)] for i in first])
    num_copies = np.bincount(row_text, minlength=len(shingles))
    copies = num_copies * np.array([bool(s) for s in shingles], np.int64)
    pairs = np.array(list(_near_pairs(shingles)), np.int64).reshape(-1, 2)
    a, b = pairs.T
    others = np.maximum(copies - 1, 0)
    np.add.at(others, a, copies[b])
    np.add.at(others, b, copies[a])
    return NearDuplicates(others[row_text].astype(np.int32), _groups(row_text, copies, a, b))


def _shingle_ids(texts: Sequence[str]) -> list[set[int]]:
    """Return each text's shingles as numbers; the same shingle has the same number, another has another."""
    number: dict[tuple[str, ...], int] = {}
    found = []
    for text in texts:
        words = text.casefold().split()
        spans = (tuple(words[i : i + SHINGLE_WORDS]) for i in range(max(1, len(words) - SHINGLE_WORDS + 1)))
        found.append({number.setdefault(span, len(number)) for span in spans} if words else set())
    return found


def _near_pairs(shingles: Sequence[set[int]]) -> Iterator[tuple[int, int]]:
    """Yield the pairs of texts (lower place first) that are near duplicates; each once."""
    places = [i for i, ids in enumerate(shingles) if ids]
    # The numbers are hash values enough: the permutations mix their input themselves.
    hashes = MinHash.generator(
        (list(shingles[i]) for i in places), num_perm=NUM_BANDS * BAND_ROWS, seed=SEED, hashfunc=int
    )
    index = MinHashLSH(num_perm=NUM_BANDS * BAND_ROWS, params=(NUM_BANDS, BAND_ROWS))
    for place, sketch in zip(places, hashes, strict=True):
        for other in sorted(cast("list[int]", index.query(sketch))):
            if _similar(shingles[place], shingles[other]):
                yield other, place
        index.insert(place, sketch, check_duplication=False)


def _similar(a: set[int], b: set[int]) -> bool:
    small, large = sorted((len(a), len(b)))
    if small / large < THRESHOLD:
        return False
    common = len(a & b)
    return common / (len(a) + len(b) - common) >= THRESHOLD


def _groups(row_text: Int32, copies: np.ndarray, a: np.ndarray, b: np.ndarray) -> Int32:
    """Return int32[N]: components of the texts' graph, each row without words alone in its own."""
    graph = coo_array((np.ones(len(a), bool), (a, b)), shape=(len(copies), len(copies)))
    component = connected_components(graph, directed=False)[1][row_text].astype(np.int64)
    alone = copies[row_text] == 0
    component[alone] = len(row_text) + np.flatnonzero(alone)
    _, first, place = np.unique(component, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[place].astype(np.int32)
