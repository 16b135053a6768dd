"""How many other rows hold nearly the same text, and which rows hang together."""

from __future__ import annotations

import numpy as np

from carto_core.corpus.near_duplicates import near_duplicates
from carto_core.probes.probing import Probing
from carto_core.types import Float32


def near_duplicate_columns(probing: Probing) -> dict[str, Float32]:
    """Return `near_duplicates` (other rows) and `near_group` (a number per connected component, exact below 2^24)."""
    found = near_duplicates(probing.run.samples("text")["text"].tolist())
    return {"near_duplicates": found.count.astype(np.float32), "near_group": found.group_id.astype(np.float32)}
