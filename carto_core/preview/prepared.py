"""What an instant estimate is made from, stored beside the run by `prepare` so that no page needs a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from carto_core.errors import RunCorrupt
from carto_core.preview.ngrams import NGrams
from carto_core.store.reader import Run
from carto_core.store.rundir import replacing_folder, write_json
from carto_core.store.shapes import COUNT, FLAG, NUMBER, SECONDS, TEXT, Kind, among, problem_of, read_json
from carto_core.types import ROLES

PREPARED_VERSION = 1
CANARY_COLUMNS = ["canary_id", "kind", "copies", "role", "nats", "extracted"]
NATURAL_COLUMNS = ["group_id", "copies", "nats", "extracted"]

_POSITIVE = Kind("a number above 0", lambda value: NUMBER.fits(value) and value > 0)
_KNOWN = {"copies": SECONDS, "nats": SECONDS, "extracted": FLAG}
PREPARED = {
    "vocab_size": _POSITIVE,
    "validation_nats": SECONDS,
    "visits": _POSITIVE,
    "canaries": [{"canary_id": COUNT, "kind": TEXT, "role": among(*ROLES)} | _KNOWN],
    "naturals": [{"group_id": COUNT} | _KNOWN],
}


@dataclass(frozen=True)
class Prepared:
    """What the base model knows of its secrets, and what held-out text asks of the samples.

    Attributes:
        canaries: canary_id, kind, copies (0 = never inserted), role, nats (mean loss of the secret's tokens after the true
            prefix), extracted (greedy decoding gives it back).
        naturals: one row per exact-duplicate group that the natural audit asks for: group_id, copies, nats (mean loss of
            tokens 17 to 32 after the first 16), extracted.
        validation_nats: mean loss of held-out tokens, what is paid for a text never seen.
        visits: steps x batch size of the base run.
        ngrams: counts by sample.
    """

    canaries: pd.DataFrame
    naturals: pd.DataFrame
    validation_nats: float
    visits: float
    ngrams: NGrams


def write_prepared(run: Run, prepared: Prepared) -> Path:
    """Write it whole or not at all, in place of what was there, and return its folder."""
    facts = {
        "version": PREPARED_VERSION,
        "vocab_size": prepared.ngrams.vocab_size,
        "validation_nats": prepared.validation_nats,
        "visits": prepared.visits,
        "canaries": prepared.canaries.to_dict("records"),
        "naturals": prepared.naturals.to_dict("records"),
    }
    with replacing_folder(run.files.prepared) as temporary:
        prepared.ngrams.save(temporary)
        write_json(temporary / "prepared.json", facts)
    return run.files.prepared


def read_prepared(run: Run) -> Prepared | None:
    """Return what `prepare` wrote; None where it was not run, or by another version of it.

    Raises:
        RunCorrupt: a file is damaged or gone.
    """
    folder = run.files.prepared
    if not folder.is_dir():
        return None
    cure = f"run: python -m carto_core prepare {run.run_id}"
    facts: dict[str, Any] = read_json(folder / "prepared.json", {"version": COUNT}, cure=cure)
    if facts["version"] != PREPARED_VERSION:
        return None
    if problem := problem_of(facts, PREPARED):
        raise RunCorrupt(f"{folder / 'prepared.json'}: {problem}; {cure}")
    try:
        ngrams = NGrams.load(folder, vocab_size=int(facts["vocab_size"]))
        if ngrams.num_samples != run.num_samples:
            raise ValueError(f"it counts {ngrams.num_samples:,} samples and the run has {run.num_samples:,}")
        return Prepared(
            pd.DataFrame(facts["canaries"], columns=CANARY_COLUMNS),
            pd.DataFrame(facts["naturals"], columns=NATURAL_COLUMNS),
            float(facts["validation_nats"]),
            float(facts["visits"]),
            ngrams,
        )
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise RunCorrupt(f"{folder} cannot be read ({error}); {cure}") from None


def emphasis_of(repeats: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return float64[N]: how heavily a plan lets each sample count."""
    return repeats.astype(np.float64) * weights.astype(np.float64)
