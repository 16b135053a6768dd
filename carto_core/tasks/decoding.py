"""What audits ask of a trained language model: continuations, what they cost, and the likeliest secret of a format.

A model's state is a tensor or a tuple of states, the batch on axis 1 of every tensor; `_select` alone knows that.
Costs are -log p in nats. Shape suffixes: B rows of a batch, T positions, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from carto_core.tasks.language import IGNORE, MEASURE_SCORES, LanguageModel
from carto_core.types import Float32, Float64

GREEDY_ROWS = 1024  # prefixes decoded in one batch; bounds memory, does not change what is decoded
LOSS_ROWS = 256  # continuations read in one batch; likewise
SEARCH_ROWS = 128  # beginnings of secrets read in one batch of a search; likewise
ROUNDING_NATS = 1e-3  # the same secret read in another batch may cost a hair more or less


@torch.no_grad()
def greedy(
    model: LanguageModel,
    prefixes: Sequence[Sequence[int]],
    lengths: Sequence[int],
    *,
    bos_id: int,
    device: torch.device,
) -> list[list[int]]:
    """Continue each prefix with the most likely token, `lengths[i]` times.

    Args:
        model: in evaluation mode.
        prefixes: token ids, without BOS.
        lengths: how many tokens to decode, each at least 1.
        bos_id: what every text begins with.
        device: where the model is.

    Returns:
        token ids, `lengths[i]` of them for prefix i.
    """
    decoded: list[list[int]] = [[] for _ in prefixes]
    for size in sorted({len(prefix) for prefix in prefixes}):
        for places in _chunks(
            [i for i, prefix in enumerate(prefixes) if len(prefix) == size], _rows_at_once(model, size)
        ):
            tokens = torch.tensor([[bos_id, *prefixes[i]] for i in places], device=device)
            state = None
            for _ in range(max(lengths[i] for i in places)):
                logits_BTV, state = model(tokens, state)
                tokens = logits_BTV[:, -1:].argmax(-1)
                for i, token in zip(places, tokens[:, 0].tolist(), strict=True):
                    decoded[i].append(token)
    return [ids[:length] for ids, length in zip(decoded, lengths, strict=True)]


def _rows_at_once(model: LanguageModel, size: int) -> int:
    """Return how many prefixes of `size` tokens are decoded together: fewer where a model says how many scores it gives."""
    width = getattr(model, "vocab_size", 0)
    return max(1, min(GREEDY_ROWS, MEASURE_SCORES // (width * (size + 1)))) if width else GREEDY_ROWS


@torch.no_grad()
def continuation_losses(
    model: LanguageModel,
    prefix: Sequence[int],
    continuations: Sequence[Sequence[int]],
    *,
    bos_id: int,
    device: torch.device,
) -> list[Float32]:
    """Return the loss of every token of each continuation of one prefix, in nats.

    The prefix is read once and its state shared; continuations of like length are read together.

    Args:
        model: in evaluation mode.
        prefix: token ids, without BOS.
        continuations: token ids, each at least one long.
        bos_id: what every text begins with.
        device: where the model is.

    Returns:
        one float32[len(continuation)] each.
    """
    logits_1TV, state = model(torch.tensor([[bos_id, *prefix]], device=device))
    first_1V = logits_1TV[:, -1]
    losses: list[Float32] = [np.empty(0, np.float32)] * len(continuations)
    for places in _chunks(sorted(range(len(continuations)), key=lambda i: len(continuations[i])), LOSS_ROWS):
        longest = len(continuations[places[-1]])
        targets = [[*continuations[i], *[IGNORE] * (longest - len(continuations[i]))] for i in places]
        loss_BT = _target_losses(model, first_1V, state, torch.tensor(targets, device=device)).cpu().numpy()
        for row, i in enumerate(places):
            losses[i] = loss_BT[row, : len(continuations[i])]
    return losses


def _target_losses(model: LanguageModel, first_1V: torch.Tensor, state: Any, targets_BT: torch.Tensor) -> torch.Tensor:
    """Return float32[B, T], 0 at padding: the first target is scored by the prefix's last scores, the rest by reading on."""
    count, longest = targets_BT.shape
    first_BTV = first_1V[:, None].expand(count, 1, -1)
    inputs = targets_BT[:, :-1].clamp(min=0)
    rest_BTV = model(inputs, _expand(state, count))[0] if longest > 1 else first_BTV[:, :0]
    logits_BTV = torch.cat([first_BTV, rest_BTV], dim=1).float()
    # flat, so that the classes lie side by side in memory
    loss = functional.cross_entropy(
        logits_BTV.flatten(0, 1), targets_BT.flatten(), reduction="none", ignore_index=IGNORE
    )
    return loss.view(targets_BT.shape)


@torch.no_grad()
def beam(
    model: LanguageModel, prefix: Sequence[int], length: int, width: int, *, bos_id: int, device: torch.device
) -> list[tuple[list[int], float]]:
    """Return the candidates of a beam search over all tokens, likeliest first.

    Width 1 is greedy decoding; a width of V ** (length - 1) or more finds the likeliest continuations for certain.

    Args:
        model: in evaluation mode.
        prefix: token ids, without BOS.
        length: how many tokens to decode, at least 1.
        width: how many candidates are kept after each token, at least 1.
        bos_id: what every text begins with.
        device: where the model is.

    Returns:
        (token ids, cost in nats), `width` of them or as many as there are.
    """
    logits_BTV, state = model(torch.tensor([[bos_id, *prefix]], device=device))
    cost_B = torch.zeros(1, dtype=torch.float64, device=device)
    tokens_BT = torch.empty(1, 0, dtype=torch.int64, device=device)
    for place in range(length):
        cost_BV = cost_B[:, None] + _costs(logits_BTV)
        # stable: among equals the first token wins, as in argmax
        cost_B, order = (part[:width] for part in torch.sort(cost_BV.flatten(), stable=True))
        rows, last = order // cost_BV.shape[1], order % cost_BV.shape[1]
        tokens_BT = torch.cat([tokens_BT[rows], last[:, None]], dim=1)
        if place < length - 1:
            logits_BTV, state = model(last[:, None], _select(state, rows))
    return list(zip(tokens_BT.tolist(), cost_B.tolist(), strict=True))


@dataclass(frozen=True)
class SecretFormat:
    """All secrets of `length` units end to end, as a tree over the units' tokens.

    A place in a secret is how many units are done, and a node of the tree; node 0 is where a unit begins. The moves out
    of node v are `first[v]:first[v + 1]`.

    Attributes:
        length: units in a secret.
        first: int64[nodes + 1].
        token: int64[moves], what the move reads.
        node: int64[moves], where it leads.
        closes: int64[moves], 1 where it ends a unit (then `node` is 0).
    """

    length: int
    first: np.ndarray
    token: np.ndarray
    node: np.ndarray
    closes: np.ndarray

    @classmethod
    def of(cls, units: Sequence[Sequence[int]], length: int) -> SecretFormat:
        """Return the format of `length` units; these are distinct, none empty, and end to end they can be told apart."""
        children: list[dict[int, int]] = [{}]
        ends: set[int] = set()
        for unit in units:
            node = 0
            for token in unit:
                if token not in children[node]:
                    children[node][token] = len(children)
                    children.append({})
                node = children[node][token]
            assert node not in ends | {0}, "units are distinct and not empty"
            ends.add(node)
        moves = [
            [(token, child, 0) for token, child in below.items() if children[child]]
            + [(token, 0, 1) for token, child in below.items() if child in ends]
            for below in children
        ]
        flat = np.array([move for some in moves for move in some], np.int64).reshape(-1, 3)
        first = np.cumsum([0, *(len(some) for some in moves)])
        return cls(length, first, *np.ascontiguousarray(flat.T))


@dataclass(frozen=True, slots=True)
class Found:
    """How a search for the likeliest secret ended.

    Attributes:
        tokens: of the likeliest secret of the format; None where that is not proven.
        cost: its cost in nats; unproven, of the likeliest one that was met, an upper bound (infinite where none was).
        finished: whether nothing likelier can exist. With `tokens` None: no secret costs as little as was asked for.
        evaluations: how many beginnings of secrets the model read.
    """

    tokens: list[int] | None
    cost: float
    finished: bool
    evaluations: int


@torch.no_grad()
def best_first(
    model: LanguageModel,
    prefix: Sequence[int],
    secrets: SecretFormat,
    *,
    bos_id: int,
    device: torch.device,
    budget: int,
    at_most: float = math.inf,
    stop_below: float = -math.inf,
) -> Found:
    """Find the likeliest secret of a format after a prefix, by uniform-cost search.

    The cheapest beginning is read first. Costs only grow, so nothing likelier exists once the cheapest beginning costs
    as much as the cheapest whole secret met. Beginnings are read in batches, some before their turn, and the first
    few lead straight to a whole secret, whose cost prunes the rest; neither changes what is found.

    Args:
        model: in evaluation mode.
        prefix: token ids, without BOS.
        secrets: the format.
        bos_id: what every text begins with.
        device: where the model is.
        budget: how many beginnings the model may read; beyond it the answer is unknown.
        at_most: secrets that cost more than this many nats do not count.
        stop_below: stop as soon as a secret cheaper than this is met, leaving open which is the cheapest.
    """
    search = _Search(model, secrets, device)
    step = search.begin([bos_id, *prefix], at_most)
    best_cost, best = at_most, None
    waiting: list[_Beginnings] = []
    while True:
        if len(step.whole_cost) and (best is None or step.whole_cost.min() < best_cost):
            best_cost, best = step.cheapest()
        waiting = [some for some in [*waiting, step.ahead] if some.left]
        # until a whole secret is met, go on from the newest beginnings: those are the longest
        some = waiting[-1] if best is None and waiting else min(waiting, key=lambda w: w.next_cost, default=None)
        finished = some is None or (best is not None and some.next_cost >= best_cost)
        if finished or search.evaluations >= budget or (best is not None and best_cost < stop_below):
            cost = math.inf if best is None else best_cost
            return Found(best if finished else None, cost, finished, search.evaluations)
        assert some is not None
        step = search.read(some, min(SEARCH_ROWS, budget - search.evaluations), best_cost)


@torch.no_grad()
def count_at_most(
    model: LanguageModel,
    prefix: Sequence[int],
    secrets: SecretFormat,
    at_most: float,
    *,
    bos_id: int,
    device: torch.device,
    budget: int,
) -> int | None:
    """Return how many secrets of a format cost at most `at_most` nats after a prefix; None where the budget is too small.

    Depth first; a beginning that costs more already is never read. Every other one must be, so the search gives up as
    soon as those that wait are more than the budget has left.

    Args:
        model: in evaluation mode.
        prefix: token ids, without BOS.
        secrets: the format.
        at_most: the bound, in nats.
        bos_id: what every text begins with.
        device: where the model is.
        budget: how many beginnings the model may read.
    """
    search = _Search(model, secrets, device)
    step = search.begin([bos_id, *prefix], at_most)
    count, waiting, stack = len(step.whole_cost), step.ahead.left, [step.ahead]
    while waiting:
        if search.evaluations + waiting > budget:
            return None
        if not stack[-1].left:
            stack.pop()
            continue
        step = search.read(stack[-1], SEARCH_ROWS, at_most)
        stack.append(step.ahead)
        count += len(step.whole_cost)
        waiting = sum(beginnings.left for beginnings in stack)
    return count


@dataclass
class _Beginnings:
    """Beginnings of secrets that wait to be read, cheapest first.

    All have as many tokens, and all but the last token has been read: row `row[i]` of `state`, tokens `paths[row[i]]`.
    """

    cost: Float64
    token: np.ndarray
    node: np.ndarray
    done: np.ndarray
    row: np.ndarray
    paths: list[tuple[int, ...]]
    state: Any
    taken: int = 0

    @property
    def left(self) -> int:
        return len(self.cost) - self.taken

    @property
    def next_cost(self) -> float:
        return float(self.cost[self.taken])


@dataclass(frozen=True)
class _Step:
    """What reading some beginnings led to: longer ones, and whole secrets."""

    ahead: _Beginnings
    whole_cost: Float64
    whole_row: np.ndarray
    whole_token: np.ndarray

    def cheapest(self) -> tuple[float, list[int]]:
        best = int(self.whole_cost.argmin())
        return float(self.whole_cost[best]), [*self.ahead.paths[self.whole_row[best]], int(self.whole_token[best])]


class _Search:
    """Reads beginnings of secrets and counts them."""

    def __init__(self, model: LanguageModel, secrets: SecretFormat, device: torch.device) -> None:
        self.model = model
        self.secrets = secrets
        self.device = device
        self.evaluations = 0

    def begin(self, prefix: list[int], at_most: float) -> _Step:
        """Read the prefix."""
        logits_BTV, state = self.model(torch.tensor([prefix], device=self.device))
        zero = np.zeros(1, np.int64)
        return self._moves(logits_BTV, zero.astype(np.float64), zero, zero, [()], state, at_most)

    def read(self, some: _Beginnings, count: int, at_most: float) -> _Step:
        """Read the last token of the next `count` of `some`, and see where one more token leads.

        What costs more than `at_most` is dropped unread; that bound never rises in a search.
        """
        cheap = int(np.searchsorted(some.cost, at_most, side="right"))
        taken = slice(some.taken, min(some.taken + count, cheap))
        some.taken = taken.stop if taken.stop < cheap else len(some.cost)
        row, token = some.row[taken], some.token[taken]
        self.evaluations += len(row)
        state = _select(some.state, torch.from_numpy(row).to(self.device))
        logits_BTV, state = self.model(torch.from_numpy(token)[:, None].to(self.device), state)
        paths = [(*some.paths[r], t) for r, t in zip(row.tolist(), token.tolist(), strict=True)]
        return self._moves(logits_BTV, some.cost[taken], some.node[taken], some.done[taken], paths, state, at_most)

    def _moves(
        self,
        logits_BTV: torch.Tensor,
        cost: Float64,
        node: np.ndarray,
        done: np.ndarray,
        paths: list[tuple[int, ...]],
        state: Any,
        at_most: float,
    ) -> _Step:
        """Take every move of the tree out of every row, and keep what costs at most `at_most`."""
        tree = self.secrets
        counts = tree.first[node + 1] - tree.first[node]
        row = np.repeat(np.arange(len(node)), counts)
        move = tree.first[node][row] + np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        cost = cost[row] + _costs(logits_BTV).cpu().numpy()[row, tree.token[move]]
        kept = np.flatnonzero(cost <= at_most)
        row, move, cost = row[kept], move[kept], cost[kept]
        done = done[row] + tree.closes[move]
        whole = done == tree.length
        open_ = np.flatnonzero(~whole)
        open_ = open_[np.argsort(cost[open_], kind="stable")]
        ahead = _Beginnings(
            cost[open_], tree.token[move[open_]], tree.node[move[open_]], done[open_], row[open_], paths, state
        )
        return _Step(ahead, cost[whole], row[whole], tree.token[move[whole]])


def _costs(logits_BTV: torch.Tensor) -> torch.Tensor:
    """Return float64[B, V]: -log p of every token after the last position; the softmax is taken in float32."""
    return -torch.log_softmax(logits_BTV[:, -1].float(), -1).double()


def _expand(state: Any, count: int) -> Any:
    """Return the state of one row for `count` rows."""
    if isinstance(state, tuple):
        return tuple(_expand(part, count) for part in state)
    return state.expand(-1, count, *state.shape[2:]).contiguous()


def _select(state: Any, rows: torch.Tensor) -> Any:
    """Return the state of some rows, in that order; a row may come up more than once."""
    if isinstance(state, tuple):
        return tuple(_select(part, rows) for part in state)
    return state.index_select(1, rows)


def _chunks(places: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (places[start : start + size] for start in range(0, len(places), size))
