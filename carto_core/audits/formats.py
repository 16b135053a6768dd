"""The format of a canary's secret as tokens: what searches over all secrets walk through."""

from __future__ import annotations

from collections.abc import Sequence

from carto_core.corpus.canaries import KINDS, Canary
from carto_core.corpus.tokens import Tokenizer
from carto_core.tasks.decoding import SecretFormat


def formats_of(canaries: Sequence[Canary], *, words: Sequence[str], tokenizer: Tokenizer) -> list[SecretFormat | None]:
    """Return the format of every canary's secret; None where it does not split into tokens.

    It does when the tokens of prefix || secret are those of the prefix and then those of each unit, end to end. Checked
    after the canary's own prefix, on as many secrets as there are units, with every unit once in every place.
    """
    trees: dict[str, SecretFormat] = {}
    parts = {kind: tokenizer.encode_many(KINDS[kind].units(words)) for kind in {canary.kind for canary in canaries}}
    formats: list[SecretFormat | None] = []
    for canary in canaries:
        kind = canary.kind
        if not _splits(canary, parts[kind], words=words, tokenizer=tokenizer):
            formats.append(None)
            continue
        if kind not in trees:
            trees[kind] = SecretFormat.of(parts[kind], KINDS[kind].length)
        formats.append(trees[kind])
    return formats


def _splits(canary: Canary, parts: list[list[int]], *, words: Sequence[str], tokenizer: Tokenizer) -> bool:
    kind = KINDS[canary.kind]
    units = kind.units(words)
    turns = [[(i + place) % len(units) for place in range(kind.length)] for i in range(len(units))]
    prefix = tokenizer.encode(canary.prefix)
    whole = tokenizer.encode_many([canary.prefix + "".join(units[i] for i in turn) for turn in turns])
    return all(
        found == [*prefix, *(token for i in turn for token in parts[i])]
        for found, turn in zip(whole, turns, strict=True)
    )
