"""Names that people give to selections and plans; one of a selection becomes a file's."""

from __future__ import annotations

import unicodedata

from carto_core.errors import CartoError

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
