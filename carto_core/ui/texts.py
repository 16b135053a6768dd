"""What of a corpus's own words is shown: as it stands, or masked. The one place where panels take texts and names from.

Masking is for onlookers. Searching and selecting work on the true texts, and so tell somebody who may type what a text holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from carto_core.masking import mask, mask_pieces
from carto_core.store.reader import Run
from carto_core.ui import cache, state


def shown(text: object) -> str:
    """Return a text, a key, a name or a value as it may be shown."""
    return mask(str(text)) if state.is_masking() else str(text)


def shown_all(values: Iterable[object]) -> list[str]:
    """Return many keys or names as they may be shown."""
    texts = [str(value) for value in values]
    return [mask(text) for text in texts] if state.is_masking() else texts


def shown_parts(*parts: str) -> list[str]:
    """Return consecutive parts of one text as they may be shown; what the parts divide is seen as one."""
    return mask_pieces(parts) if state.is_masking() else list(parts)


def labels(names: Iterable[str]) -> dict[str, str]:
    """Return what each of some names is shown as; a number tells those apart that masking makes alike."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    numbers: dict[str, int] = {}
    for name in names:
        plain = label = shown(name)
        while label in taken:
            numbers[plain] = numbers.get(plain, 1) + 1
            label = f"{plain} {numbers[plain]}"
        taken.add(label)
        found[name] = label
    return found


def snippets(run: Run, sample_ids: Sequence[int]) -> list[str]:
    """Return the beginnings of some texts."""
    return cache.snippets(run, tuple(sample_ids), masked=state.is_masking())


def text_of(run: Run, sample_id: int) -> str:
    """Return the whole text of a sample."""
    return shown(run.texts([sample_id])[0])


def tokens_of(run: Run, sample_id: int) -> dict[str, Any] | None:
    """Return pieces, losses and decoded of a sample, or None where the audit has not been run."""
    tokens = cache.tokens_of(run, sample_id=sample_id)
    if tokens is None or not state.is_masking():
        return tokens
    return tokens | {"pieces": mask_pieces(tokens["pieces"], run.texts([sample_id])[0])}
