"""Names that people give to runs, selections and plans; one of a selection becomes a file's, one of a run a folder's."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from carto_core.errors import CartoError, RunError, RunExists

MAX_NAME = 80
MAX_NAME_BYTES = 200  # a file's name may have 255, and a temporary one is longer
FORBIDDEN = '/\\:*?"<>|'


def checked_name(name: str, *, error: type[CartoError]) -> str:
    """Return a name as it is kept: trimmed, in one Unicode form.

    Args:
        name: what somebody typed.
        error: what to raise.

    Raises:
        CartoError: of the class `error`: it is empty or too long, begins or ends with a dot, or holds a character that
            has a meaning in paths or is not printable.
    """
    trimmed = unicodedata.normalize("NFC", name).strip()
    if not trimmed:
        raise error("a name needs at least one character")
    if len(trimmed) > MAX_NAME or len(trimmed.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        raise error(f"a name has at most {MAX_NAME} characters ({MAX_NAME_BYTES} bytes), this one has {len(trimmed)}")
    bad = [c for c in trimmed if c in FORBIDDEN or not c.isprintable()]
    if bad or trimmed[0] == "." or trimmed[-1] == ".":
        raise error(f"{trimmed!r} cannot be a name: leave out {' '.join(FORBIDDEN)}, and dots at its ends")
    return trimmed


def new_run_name(name: str, runs_root: Path) -> str:
    """Return a name that a run can be given under this folder of runs.

    Raises:
        RunError: it cannot be a name; see `checked_name`. A command line would take one with a leading `-` for an option.
        RunExists: something of this name is there already.
    """
    name = checked_name(name, error=RunError)
    if name.startswith("-"):
        raise RunError(f"{name!r} cannot be a run's name: it must not begin with a dash")
    if os.path.lexists(runs_root / name):
        raise RunExists(f"{name!r} is there already; choose another name")
    return name
