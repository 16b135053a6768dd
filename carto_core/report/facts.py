"""What a report is made from: gathered once, so that writing it reads no file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from carto_core.export import actions_of
from carto_core.quadrants import Cuts
from carto_core.scores.quality import Quality
from carto_core.types import Float64, Plan, SampleTable


@dataclass(frozen=True, slots=True)
class Judged:
    """How well one score finds what one truth calls memorized, on one half of the canaries."""

    label: str
    role: str
    score: str
    quality: Quality


@dataclass(frozen=True, slots=True)
class ShownText:
    """One affected sample that is printed in full, because somebody asked for it."""

    key: str
    source: str
    text: str
    action: str
    quadrant: str | None
    value: float


@dataclass(frozen=True)
class Facts:
    """A run, a plan, and what is known of both.

    Attributes:
        manifest: `run.json`.
        table: the run's samples.
        plan: see `export.read_plan`.
        plan_facts: its `plan.json`.
        estimate: what `preview` says of the plan, or None where the run was not prepared for it.
        measured: `measure.json`, or None where the plan was not measured.
        audits: by name in the order of `AUDITS`, None where not run.
        cuts: axes and thresholds of the map: the rule's own, else the run's.
        axis: the score that chose the samples; None where no score did.
        roles: halves of the canaries that may be looked at. What follows holds no other.
        canaries: by such a role, how many inserted canaries the plan touches, and how many there are.
        near_left: near copies of removed samples that stay in training; None where that is not known.
        judged: quality of the axis and of what it is compared with.
        probes: names of the probes that were run.
        fold_models: how many fold models were trained, None for none.
        texts: samples to print; empty unless asked for.
        is_masked: whether personal data are masked in these texts, in keys and in the words of the rule.
        created: when the facts were gathered, ISO 8601.
    """

    manifest: dict[str, Any]
    table: SampleTable
    plan: Plan
    plan_facts: dict[str, Any]
    estimate: dict[str, Any] | None
    measured: dict[str, Any] | None
    audits: dict[str, dict[str, Any] | None]
    cuts: Cuts
    axis: str | None
    roles: tuple[str, ...]
    canaries: dict[str, tuple[int, int]]
    near_left: int | None
    judged: tuple[Judged, ...]
    probes: tuple[str, ...]
    fold_models: int | None
    texts: tuple[ShownText, ...]
    is_masked: bool
    created: str

    @property
    def run_id(self) -> str:
        """The run's name."""
        return self.table.run_id

    @property
    def is_foreign(self) -> bool:
        """Whether another program trained the model, so that it can neither be asked nor be retrained."""
        return "origin" in self.manifest

    @property
    def plan_id(self) -> str:
        """The name of the plan's directory."""
        return self.plan_facts["plan_sha256"][:16]

    @property
    def plan_dir(self) -> str:
        """Where the plan lies in the default folder of runs; the folder of this machine is nobody else's business."""
        return f"data/runs/{self.run_id}/plans/{self.plan_id}"

    @property
    def actions(self) -> np.ndarray:
        """object[N]: `keep`, `prune`, `reweight` or `upsample`."""
        return actions_of(self.plan)

    def values(self, score: str) -> Float64:
        """float64[N]: one score of every sample; NaN = unknown."""
        return self.table.scores[score].astype(np.float64)
