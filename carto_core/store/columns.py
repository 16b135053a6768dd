"""Which column of somebody's file of losses holds what: guessed from the names, or named by whoever asks.

Three forms are known. `long`: one row a key and snapshot. `wide`: one row a key, one column a snapshot. `logits`: what
allenai/cartography writes (`guid`, `logits_epoch_N`, `gold`), a classifier's scores before the softmax.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from carto_core.errors import TrajectoryError
from carto_core.types import SnapshotKind

# Our own name comes first, and wins where others are there too.
KEYS = ("key", "guid", "uid", "uuid", "id", "idx", "index", "sample_id", "sample_key", "example_id", "doc_id", "row_id")
SNAPSHOTS = ("snapshot", "epoch", "step", "global_step", "iteration", "iter", "checkpoint", "moment")
LOSSES = ("loss", "nll", "cross_entropy", "xent", "ce_loss", "sample_loss", "per_sample_loss", "train_loss")
TOKENS = ("num_tokens", "n_tokens", "ntokens", "num_tok", "token_count", "tokens")
STEPS = ("step", "iter")
SERIES = (*LOSSES[:4], *SNAPSHOTS, "ckpt")  # what the names of columns of a wide file hold
LOGITS = re.compile(r"logits_epoch_(\d+)")
NUMBER = re.compile(r"\d+(?:\.\d+)?(?!.*\d)")  # the last of a name


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """Columns that somebody named; None is to be guessed.

    Attributes:
        key: whose loss it is.
        snapshot: when it was; of a long file.
        loss: in nats per token; of a long file.
        tokens: how many tokens are behind it.
        wide: a pattern such as `loss_*` that names the columns of a wide file.
    """

    key: str | None = None
    snapshot: str | None = None
    loss: str | None = None
    tokens: str | None = None
    wide: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether nothing that matters is left to guess."""
        return self.key is not None and (self.wide is not None or None not in (self.snapshot, self.loss))


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What the columns of a file hold.

    Attributes:
        form: see the module.
        key: column of keys.
        snapshot: column of snapshots, and
        loss: column of losses; both of a long file alone.
        series: of another file: the number of each column of losses or logits, ascending.
        gold: column of the right label; of logits alone.
        tokens: column of token counts; None counts one token a loss.
        left_out: columns that are not read.
    """

    form: Literal["long", "wide", "logits"]
    key: str
    snapshot: str | None = None
    loss: str | None = None
    series: dict[str, float]
    gold: str | None = None
    tokens: str | None = None
    left_out: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        """The columns that are read."""
        named = (self.key, self.snapshot, self.loss, self.gold, self.tokens, *self.series)
        return [name for name in named if name is not None]

    @property
    def counts_steps(self) -> bool:
        """Whether the snapshots' numbers are optimizer steps; else they count epochs, or what is like them."""
        name = self.snapshot or next(iter(self.series))
        return any(word in name.lower() for word in STEPS)

    def kind(self, *, during: bool) -> SnapshotKind:
        """Return the kind of the losses: cartography logs the training pass, of others it must be said."""
        return "during" if during or self.form == "logits" else "after"

    def to_dict(self) -> dict[str, Any]:
        """Return what stands in which column, JSON-ready."""
        names = ("form", "key", "snapshot", "loss", "gold", "tokens", "left_out")
        return {name: getattr(self, name) for name in names} | {"series": list(self.series)}

    def lines(self) -> list[str]:
        """Return the same as a short table."""
        series = list(self.series)
        shown = ", ".join(series if len(series) <= 4 else [*series[:2], "...", series[-1]])
        rows = [("form", self.form), ("key", self.key)]
        if self.form == "long":
            rows += [("snapshot", self.snapshot), ("loss", self.loss)]
        elif self.form == "wide":
            rows += [("losses", f"{shown} ({len(series)} snapshots)")]
        else:
            rows += [("logits", f"{shown} ({len(series)} snapshots)"), ("gold label", self.gold)]
        rows += [("tokens", self.tokens or "no column: 1 each"), ("left out", ", ".join(self.left_out) or "none")]
        return [f"{role:10}  {column}" for role, column in rows]


def guess(names: Sequence[str], named: Named) -> Layout:
    """Return which column holds what.

    Args:
        names: of all columns.
        named: what is known already.

    Raises:
        TrajectoryError: a column that was named is not there, or the names leave it open; says which flags decide.
    """
    logits = {name: float(found[1]) for name in names if (found := LOGITS.fullmatch(name))}
    if logits and "gold" in names and (named.snapshot, named.loss, named.wide) == (None,) * 3:
        return _layout(names, named, form="logits", series=_in_order(logits), gold="gold")
    if named.wide is not None:
        return _layout(names, named, form="wide", series=_matching(names, named.wide))
    snapshot = _role(names, "snapshots", SNAPSHOTS, named.snapshot, "--snapshot-column")
    loss = _role(names, "losses", LOSSES, named.loss, "--loss-column")
    series = {} if named.snapshot or named.loss else _series(names)
    if series and snapshot and loss:
        raise TrajectoryError(
            f"both {loss!r} by {snapshot!r} and {', '.join(series)} may be the losses; say which with --snapshot-column and "
            "--loss-column, or with --wide"
        )
    if series:
        return _layout(names, named, form="wide", series=series)
    if snapshot is None or loss is None:
        missing = "snapshots" if snapshot is None else "losses"
        raise TrajectoryError(
            f"no column of {missing} is known by its name (columns: {_listed(names)}); name --snapshot-column and "
            "--loss-column, or --wide 'PATTERN' where each snapshot has a column of its own"
        )
    return _layout(names, named, form="long", series={}, snapshot=snapshot, loss=loss)


def _layout(names: Sequence[str], named: Named, **found: Any) -> Layout:
    key = _role(names, "keys", KEYS, named.key, "--key-column")
    if key is None:
        raise TrajectoryError(
            f"no column of keys is known by its name (columns: {_listed(names)}); name it with --key-column"
        )
    tokens = _role(names, "token counts", TOKENS, named.tokens, "--tokens-column")
    layout = Layout(key=key, tokens=tokens, **found)
    if twice := next((name for name in layout.columns if layout.columns.count(name) > 1), None):
        raise TrajectoryError(f"the column {twice!r} cannot hold two things; name another")
    return Layout(key=key, tokens=tokens, left_out=tuple(n for n in names if n not in layout.columns), **found)


def _role(names: Sequence[str], what: str, known: Sequence[str], given: str | None, flag: str) -> str | None:
    """Return the column that was named for a role, or that its name gives away; None where no name does."""
    if given is not None:
        if given not in names:
            raise TrajectoryError(f"{flag}: there is no column {given!r} (columns: {_listed(names)})")
        return given
    found = [name for name in names if name.lower() in known]
    own = [name for name in found if name.lower() == known[0]]
    if len(own or found) > 1:
        raise TrajectoryError(f"the {what} may stand in {' or '.join(map(repr, own or found))}; say which with {flag}")
    return next(iter(own or found), None)


def _matching(names: Sequence[str], pattern: str) -> dict[str, float]:
    found = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
    if not found:
        raise TrajectoryError(f"--wide: no column is like {pattern!r} (columns: {_listed(names)})")
    if unnumbered := next((name for name in found if not NUMBER.search(name)), None):
        raise TrajectoryError(f"--wide: the column {unnumbered!r} holds no number, which would be its snapshot's")
    numbers = {name: _number(name) for name in found}
    if len(set(numbers.values())) < len(numbers):
        raise TrajectoryError(f"--wide: {pattern!r} names two columns of one snapshot: {_listed(found)}")
    return _in_order(numbers)


def _series(names: Sequence[str]) -> dict[str, float]:
    """Return the columns that differ by their number alone and speak of losses or snapshots; empty where none do."""
    groups: dict[str, dict[str, float]] = {}
    for name in names:
        if found := NUMBER.search(name):
            groups.setdefault(f"{name[: found.start()]}#{name[found.end() :]}".lower(), {})[name] = _number(name)
    likely = {stem: group for stem, group in groups.items() if len(group) > 1 and _speaks(stem, SERIES)}
    of_losses = {stem: group for stem, group in likely.items() if _speaks(stem, LOSSES[:4])}
    chosen = list((of_losses or likely).values())
    if len(chosen) > 1:
        raise TrajectoryError(
            f"the losses may stand in {' or in '.join(_listed(list(group)) for group in chosen)}; say which with --wide 'PATTERN'"
        )
    return _in_order(chosen[0]) if chosen else {}


def _speaks(stem: str, words: Sequence[str]) -> bool:
    return stem == "#" or any(word in stem for word in words)


def _number(name: str) -> float:
    found = NUMBER.search(name)
    assert found is not None
    return float(found[0])


def _in_order(numbers: dict[str, float]) -> dict[str, float]:
    return dict(sorted(numbers.items(), key=lambda item: item[1]))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:12])) + (", ..." if len(names) > 12 else "") if names else "none"
