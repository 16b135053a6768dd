"""The vocabulary: the few types that everything hangs on.

Nothing here computes. Arrays are numpy; unknown is NaN, never a sentinel.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]
Bool = NDArray[np.bool_]

SnapshotKind = Literal["after", "during"]
Action = Literal["prune", "reweight", "upsample"]
Role = Literal["calibration", "report"]
ROLES: tuple[Role, Role] = ("calibration", "report")


class Interval(NamedTuple):
    """A two-sided interval; `nan` at both ends means that it cannot be had from the data."""

    low: float
    high: float


class Snapshot(NamedTuple):
    """One recorded point of a run: `kind` is `after` (all samples, same weights) or `during` (as they went by)."""

    snapshot: int
    step: int
    epoch: float
    kind: SnapshotKind
    wall_s: float


class Recorder(Protocol):
    """Where the engine sends what it saw. A list with a method would do."""

    def record(self, snapshot: Snapshot, losses: Float32, num_tokens: Int32) -> None:
        """Keep one snapshot.

        Args:
            snapshot: which point of training this is.
            losses: float32[N], nats per token; NaN = not seen.
            num_tokens: int32[N], predicted tokens behind each loss (so that ranks can be reduced by token weight).
        """
        ...


class Progress(Protocol):
    """Called by long work, often; must be cheap. May raise `Cancelled` to stop the work at a safe point."""

    def __call__(self, stage: str, done: float, total: float) -> None:
        """Note that `done` of `total` units of `stage` are finished."""
        ...


@dataclass(frozen=True, slots=True)
class Selection:
    """Chosen samples: a rule first, ids second.

    Attributes:
        rule: JSON-ready description that gives the same ids again (see `carto_core.selection`).
        sample_ids: int32[n], ascending, unique.
        notes: sentences a person should read (ties broken, groups skipped, ...).
    """

    rule: dict[str, Any]
    sample_ids: Int32
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """How often each sample is drawn per epoch, and how heavily it counts.

    Attributes:
        repeats: int32[N], >= 0; 0 prunes, 1 leaves alone, k >= 2 up-samples.
        weights: float32[N], >= 0; multiplies the sample's loss; a pruned sample has 0.
        reason: one short text per sample, empty where nothing changes.
        rule: the selection's rule, or the policy.
        action: `prune`, `reweight`, `upsample` or `policy`.
        notes: warnings and counts a person should read.
    """

    repeats: Int32
    weights: Float32
    reason: list[str]
    rule: dict[str, Any]
    action: str
    notes: tuple[str, ...] = ()

    @property
    def affected(self) -> Bool:
        """bool[N]: samples that are not trained on exactly as before."""
        return (self.repeats != 1) | (self.weights != np.float32(1.0))


@dataclass(frozen=True, slots=True)
class AuditResult:
    """One result per model.

    Attributes:
        name: key in `AUDITS`.
        definition: one sentence that says what was counted and how.
        summary: JSON-ready numbers, split by role where canaries are involved.
        per_item: JSON-ready rows (one per canary or group), empty where there are none.
    """

    name: str
    definition: str
    summary: dict[str, Any]
    per_item: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class SampleTable:
    """What selections, plans and maps need to know of a run's N samples, without their texts.

    Attributes:
        run_id: the run.
        corpus_sha256: fingerprint of the corpus before planting.
        seed: the run's seed, which breaks ties.
        key: object[N], the user's own ids, unique.
        source: object[N].
        group_id: int32[N], exact duplicates share one.
        num_tokens: int32[N], predicted tokens.
        canary_id: float64[N], NaN = not planted.
        scores: float32[N] by score name; NaN = unknown.
        x: name of the map's x score, in the saved cuts.
        y: name of the map's memorization score, in the saved cuts.
        tau_x: saved cut of x, in the score's units.
        tau_y: saved cut of y, in the score's units.
        truth: float32[N] by name, what the twin run said: `extracted`, `exposed` (1, 0, NaN = not asked); empty where
            no twin was trained.
        repeats: int32[N], how often the run drew each sample per epoch; None = once each.
        formerly: ids that the run had before it was renamed.
    """

    run_id: str
    corpus_sha256: str
    seed: int
    key: NDArray[np.object_]
    source: NDArray[np.object_]
    group_id: Int32
    num_tokens: Int32
    canary_id: Float64
    scores: dict[str, Float32]
    x: str
    y: str
    tau_x: float
    tau_y: float
    truth: dict[str, Float32] = field(default_factory=dict)
    repeats: Int32 | None = None
    formerly: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.key)

    def is_named(self, run_id: str) -> bool:
        """Return whether that is, or was, the run's id."""
        return run_id in (self.run_id, *self.formerly)

    @property
    def is_canary(self) -> Bool:
        """bool[N]: planted by us, not in the user's corpus."""
        return ~np.isnan(self.canary_id)

    @property
    def is_trained(self) -> Bool:
        """bool[N]: drawn at all; what a retrain's plan pruned is measured, but held out."""
        return np.ones(len(self), bool) if self.repeats is None else self.repeats > 0
