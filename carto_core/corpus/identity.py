"""Which samples are the same: exact-duplicate groups, and a validation split that keeps them whole."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from carto_core.errors import CorpusError
from carto_core.types import Bool, Int32


def duplicate_groups(texts: Sequence[str]) -> Int32:
    """Return one group number per text; byte-equal texts share it.

    Groups are numbered 0, 1, ... in order of first appearance. Compared by SHA-256, so that memory stays bounded.

    Returns:
        int32[N].
    """
    group_of: dict[bytes, int] = {}
    hashes = (hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts)
    return np.fromiter((group_of.setdefault(h, len(group_of)) for h in hashes), np.int32, count=len(texts))


def split_validation(group_id: Int32, *, share: float, seed: int) -> Bool:
    """Choose whole duplicate groups for validation until about `share` of the samples is held out.

    Groups come in a seeded random order; one that would overshoot the share by more than its half is passed over.

    Args:
        group_id: int32[N].
        share: wanted share of the samples, in (0, 1).
        seed: of the order.

    Returns:
        bool[N], True = validation. Both sides hold at least one group.

    Raises:
        CorpusError: there are fewer than two distinct samples.
    """
    groups, sizes = np.unique(group_id, return_counts=True)
    if len(groups) < 2:
        raise CorpusError("the corpus needs at least 2 distinct samples: one to train on, one to validate on")
    wanted = max(1.0, share * len(group_id))
    chosen: list[int] = []
    held = 0
    for place in np.random.default_rng([seed, 1]).permutation(len(groups)):
        if len(chosen) < len(groups) - 1 and held + sizes[place] / 2 <= wanted:
            chosen.append(int(groups[place]))
            held += int(sizes[place])
    if not chosen:
        chosen = [int(groups[np.argmin(sizes)])]
    return np.isin(group_id, chosen)
