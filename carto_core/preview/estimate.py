"""The instant estimate: what a plan would do to extraction and perplexity, with intervals that own up to their errors.

Extraction follows from doses (`ladder`, `recall`), perplexity from a recount (`ngrams`); both move either way. What was
measured on this run teaches both, and how far off the estimate was there widens or narrows its intervals. Nothing here
trains or loads a model, and nothing reaches torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from sklearn.isotonic import IsotonicRegression

from carto_core.preview.effects import mean_of, metric_of
from carto_core.preview.ladder import Ladder, doses
from carto_core.preview.prepared import Prepared
from carto_core.preview.recall import SECRETS, Prior, Rate, Recall
from carto_core.types import ROLES, Bool, Float64, SampleTable

CONFIDENCE, Z = 0.90, 1.645
DRAWS = 400
SEEDS = 3  # an estimate is of the mean of so many retrains
# Of the loss on held-out text over what the n-gram model loses, and over the log of how much more often training visits a
# sample that the plan leaves alone: means and standard deviations before anything is measured (docs/experiments.md).
SLOPES, SLOPE_DEVIATIONS = (1.25, -0.17), (0.25, 0.08)
WEIGHT_POWER = 2.0  # of a weight below 1: such a sample teaches less than its share (docs/experiments.md)
UNEXPLAINED, FLOOR_NATS = 0.25, 0.008  # of a change of perplexity: the part that neither explains, and the least
SEED_NATS = 0.02  # between seeds, until two retrains of the unchanged run were measured
SEED_SPREAD = 1.25  # of a share between seeds, over what independent texts would give; 0.06 for 0.05 on four corpora
PRIOR_CASES = 4.0  # how many estimates of ordinary error the width begins with
ROUNDING = 1e-6  # a saturated exposure is one number, written in two ways
MIN_PLANS = 3  # measured, before anything is called interpolated
INTERPOLATED, EXTRAPOLATED = "interpolated", "extrapolated: no run supports this"


@dataclass(frozen=True)
class Range:
    """A number with its 90 % interval: 9 of 10 measurements by 3 retrains should lie in it.

    Attributes:
        value: the estimate.
        low: lower end.
        high: upper end.
        unchanged: the same estimate for the run as it is.
    """

    value: float
    low: float
    high: float
    unchanged: float


@dataclass(frozen=True)
class Evidence:
    """Retrains under one emphasis.

    Attributes:
        plan_sha256: of the plan that they were measured for; empty where every plan shares them.
        emphasis: float64[N].
        arms: results of `measure.json`, one a seed.
        kind: which arm, in `arms.ARMS`.
    """

    plan_sha256: str
    emphasis: Float64
    arms: list[dict[str, Any]]
    kind: str

    @property
    def is_plan(self) -> bool:
        """Whether it is a plan itself."""
        return self.kind == "plan"


@dataclass(frozen=True)
class Estimate:
    """What a plan would do.

    Attributes:
        metrics: by name in `effects.METRICS`; `ppl_nats` is the change in nats per token. What cannot be said is not in it.
        by_copies: extraction by role and by how often the canaries were inserted.
        support: `INTERPOLATED` or `EXTRAPOLATED`.
        num_plans: how many measured plans taught it.
        notes: sentences, among them why something is not in `metrics`.
    """

    metrics: dict[str, Range]
    by_copies: dict[str, dict[int, Range]]
    support: str
    num_plans: int
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {
            "metrics": {name: asdict(found) for name, found in self.metrics.items()},
            "by_copies": {
                role: {str(copies): asdict(found) for copies, found in part.items()}
                for role, part in self.by_copies.items()
            },
            "support": self.support,
            "num_plans": self.num_plans,
            "notes": list(self.notes),
            "confidence": CONFIDENCE,
            "of": f"mean of {SEEDS} retrains",
        }


@dataclass(frozen=True)
class Case:
    """An estimate beside what was measured, made without that measurement.

    Attributes:
        plan_sha256: of the plan.
        metric: in `effects.METRICS`.
        estimated: what would have been said.
        measured: mean over the seeds; of `ppl_nats` the change against the unchanged arm.
    """

    plan_sha256: str
    metric: str
    estimated: Range
    measured: float

    @property
    def is_inside(self) -> bool:
        """Whether the interval held it."""
        return self.estimated.low - ROUNDING <= self.measured <= self.estimated.high + ROUNDING


@dataclass
class Estimator:
    """Estimates for one run. Fitting takes tenths of a second, an estimate some milliseconds.

    Attributes:
        table: of the run.
        prepared: see `Prepared`.
        base: float64[N], the emphasis that the run itself was trained under.
        evidence: what was measured on it.
        exposures: by canary id, of the base run; empty where that audit was not run.
        widths: factor on the errors by kind of metric, 1 until cases say otherwise.
        recounted: what was recounted for each piece of evidence, by its `id`; shared by estimators that leave some of it out.
    """

    table: SampleTable
    prepared: Prepared
    base: Float64
    evidence: Sequence[Evidence] = ()
    exposures: dict[int, float] = field(default_factory=dict)
    widths: dict[str, float] = field(default_factory=dict)
    recounted: dict[int, Float64] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fit."""
        self._canaries = self.prepared.canaries
        self._ids = self._canaries["canary_id"].to_numpy(np.float64)
        self._copies = self._canaries["copies"].to_numpy(np.float64)
        self._inserted = self._copies > 0
        self._groups = np.where(self.table.is_canary, np.nan, self.table.group_id.astype(np.float64))
        self._baseline = [arm for one in self.evidence if one.kind == "baseline" for arm in one.arms]
        self._base_nats = self._recounted(self.base)
        self._slopes = self._fit_slopes()
        self._secrets = self._fit_secrets()
        self._naturals = self._fit_naturals()
        self._exposure = self._fit_exposure()

    def estimate(self, emphasis: Float64, *, roles: Iterable[str] = ROLES, seeds: int = SEEDS) -> Estimate:
        """Return what training under an emphasis would do.

        Args:
            emphasis: float64[N], see `prepared.emphasis_of`; not all 0.
            roles: whose canaries may be spoken of.
            seeds: of how many retrains it is the mean; fewer vary more.
        """
        rng = np.random.default_rng([self.table.seed, 31])
        metrics = {"ppl_nats": self._perplexity(emphasis, seeds)}
        by_copies: dict[str, dict[int, Range]] = {}
        notes = []
        if self._secrets is None:
            notes.append(
                "Extraction cannot be estimated: it takes canaries inserted at two or more repetitions, and controls."
            )
        else:
            for role in roles:
                among = self._inserted & (self._canaries["role"] == role).to_numpy()
                if among.any():
                    metrics[f"extraction.{role}"] = self._share(self._secrets, self._doses(emphasis), among, rng, seeds)
                    by_copies[role] = {
                        int(copies): self._share(
                            self._secrets, self._doses(emphasis), among & (self._copies == copies), rng, seeds
                        )
                        for copies in np.unique(self._copies[among])
                    }
                    if self._exposure is not None:
                        metrics[f"exposure.{role}"] = self._exposures_of(emphasis, among, rng)
            if self._naturals is not None:
                everything = np.ones(len(self.prepared.naturals), bool)
                found = self._share(self._naturals, self._natural_doses(emphasis), everything, rng, seeds)
                metrics["natural_extraction"] = found
        plans = {case.plan_sha256 for case in self.evidence if case.is_plan}
        return Estimate(metrics, by_copies, self._support(emphasis), len(plans), tuple(notes))

    def secret_nats(self, emphasis: Float64, role: str) -> float:
        """Return the mean loss of a role's inserted secrets, in nats per token; NaN where it cannot be estimated."""
        among = self._inserted & (self._canaries["role"] == role).to_numpy()
        if self._secrets is None or not among.any():
            return math.nan
        return float(np.exp(self._secrets.heights(self._doses(emphasis))[among]).mean())

    def cases(self) -> list[Case]:
        """Return every measured plan's estimate, each made as if that plan had not been measured."""
        found = []
        for case in self.evidence:
            if not case.is_plan:
                continue
            others = [other for other in self.evidence if other.plan_sha256 != case.plan_sha256]
            alone = Estimator(self.table, self.prepared, self.base, others, self.exposures, self.widths, self.recounted)
            said = alone.estimate(case.emphasis, seeds=len(case.arms))
            for metric, estimated in said.metrics.items():
                measured = mean_of(case.arms, metric)
                if metric == "ppl_nats":
                    measured = _paired(case.arms, self._baseline, metric)
                if not math.isnan(measured):
                    found.append(Case(case.plan_sha256, metric, estimated, measured))
        return found

    def widened(self) -> Estimator:
        """Return the same with intervals as wide as the errors on measured plans call for."""
        errors: dict[str, list[float]] = {}
        for case in self.cases():
            half = (case.estimated.high - case.estimated.low) / 2
            errors.setdefault(_kind(case.metric), []).append(
                Z * (case.measured - case.estimated.value) / max(half, 1e-6)
            )
        widths = {
            kind: math.sqrt((PRIOR_CASES + sum(min(z * z, 25.0) for z in found)) / (PRIOR_CASES + len(found)))
            for kind, found in errors.items()
        }
        return Estimator(self.table, self.prepared, self.base, self.evidence, self.exposures, widths, self.recounted)

    # What a plan does to doses and counts

    def _doses(self, emphasis: Float64) -> Float64:
        return doses(emphasis, self.table.canary_id, self._ids, visits=self.prepared.visits)

    def _natural_doses(self, emphasis: Float64) -> Float64:
        ids = self.prepared.naturals["group_id"].to_numpy(np.float64)
        return doses(emphasis, self._groups, ids, visits=self.prepared.visits)

    def _causes(self, emphasis: Float64) -> Float64:
        """Return float64[2], what `SLOPES` are over: nats that a recount loses, log of the visits that the rest gains."""
        recounted = self._recounted(emphasis) - self._base_nats
        rest = [np.median(e[e > 0]) / e.sum() for e in (emphasis, self.base)]
        return np.array([recounted, math.log(rest[0] / rest[1])])

    def _recounted(self, emphasis: Float64) -> float:
        return self.prepared.ngrams.nats(np.where(emphasis < 1, emphasis**WEIGHT_POWER, emphasis))

    def _causes_of(self, one: Evidence) -> Float64:
        if id(one) not in self.recounted:
            self.recounted[id(one)] = self._causes(one.emphasis)
        return self.recounted[id(one)]

    # Fits

    def _fit_slopes(self) -> tuple[Float64, Float64, float]:
        """Return the slopes of the perplexity's change, their covariance, and the standard deviation between seeds."""
        known = [metric_of(arm, "ppl_nats") for arm in self._baseline]
        seed = float(np.std(known, ddof=1)) if len(known) > 2 else SEED_NATS
        precision = np.diag(1 / np.square(SLOPE_DEVIATIONS))
        total = precision @ np.array(SLOPES)
        for one in self.evidence:
            change = _paired(one.arms, self._baseline, "ppl_nats")
            if one.kind != "baseline" and not math.isnan(change):
                causes = self._causes_of(one)
                variance = 2 * seed**2 / len(one.arms) + _unexplained(change)
                precision = precision + np.outer(causes, causes) / variance
                total = total + causes * change / variance
        covariance = np.linalg.inv(precision).astype(np.float64)
        return covariance @ total, covariance, seed

    def _fit_secrets(self) -> Recall | None:
        calibration = (self._canaries["role"] == "calibration").to_numpy()
        log_nats = np.log(self._canaries["nats"].to_numpy(np.float64))
        ladder = Ladder.fit(
            self._copies,
            log_nats,
            visits_a_copy=self.prepared.visits / max(self.base.sum(), 1e-9),
            among=calibration,
        )
        if ladder is None:
            return None
        return Recall.fit(
            ladder,
            self._doses(self.base),
            log_nats,
            self._canaries["extracted"].to_numpy(bool),
            among=calibration & self._inserted,
            prior=SECRETS,
            rates=self._rates("extraction.calibration", self._doses),
        )

    def _fit_naturals(self) -> Recall | None:
        naturals = self.prepared.naturals
        if self._secrets is None or naturals.empty:
            return None
        threshold, log_width, _ = self._secrets.numbers
        return Recall.fit(
            self._secrets.ladder,
            self._natural_doses(self.base),
            np.log(naturals["nats"].to_numpy(np.float64)),
            naturals["extracted"].to_numpy(bool),
            among=np.ones(len(naturals), bool),
            prior=Prior((threshold, 0.3), (log_width, 0.3), (0.9, 0.1)),
            rates=self._rates("natural_extraction", self._natural_doses),
            ceiling=math.log(self.prepared.validation_nats),
        )

    def _rates(self, metric: str, doses_of: Any) -> list[Rate]:
        known = [(one, mean_of(one.arms, metric)) for one in self.evidence]
        return [Rate(doses_of(one.emphasis), share, len(one.arms)) for one, share in known if not math.isnan(share)]

    def _fit_exposure(self) -> IsotonicRegression | None:
        """Return exposure in bits as a falling function of a secret's log loss, from calibration canaries of the base run."""
        audited = self._canaries["canary_id"].isin(list(self.exposures))
        known = self._canaries[audited & (self._canaries["role"] == "calibration")]
        if len(known) < 2 or self._secrets is None:
            return None
        bits = [self.exposures[int(i)] for i in known["canary_id"]]
        return IsotonicRegression(increasing=False, out_of_bounds="clip").fit(np.log(known["nats"]), bits)

    # Estimates

    def _perplexity(self, emphasis: Float64, seeds: int) -> Range:
        slopes, covariance, seed = self._slopes
        causes = self._causes(emphasis)
        value = float(slopes @ causes)
        variance = float(causes @ covariance @ causes) + _unexplained(value)
        half = Z * math.sqrt(variance * self.widths.get("ppl_nats", 1.0) ** 2 + 2 * seed**2 / seeds)
        return Range(value, value - half, value + half, 0.0)

    def _share(self, recall: Recall, dose: Float64, among: Bool, rng: np.random.Generator, seeds: int) -> Range:
        """Return the share of some texts that would be given back, as a mean over some retrains would show it."""
        widened = self.widths.get("extraction", 1.0)
        chances = recall.drawn(dose, rng, draws=DRAWS, widened=widened)[:, among]
        count = int(among.sum())
        noise = SEED_SPREAD * np.sqrt((chances * (1 - chances)).sum(1) / seeds) / count
        shares = chances.mean(1) + rng.normal(size=DRAWS) * np.hypot(noise, 0.01 * widened)
        value = float(recall.chances(dose)[among].mean())
        return _range(shares, value, float(recall.chances(recall.doses)[among].mean()), low=0.0, high=1.0)

    def _exposures_of(self, emphasis: Float64, among: Bool, rng: np.random.Generator) -> Range:
        """Return the median exposure of some canaries."""
        assert self._secrets is not None
        assert self._exposure is not None
        recall = self._secrets
        own = recall.ladder.spread * math.sqrt(max(0.0, 1 - recall.numbers[2] ** 2))
        heights = recall.heights(self._doses(emphasis))[among]
        drawn = heights + rng.normal(size=(DRAWS, len(heights))) * own + rng.normal(size=(DRAWS, 1)) * own / 2
        medians = np.median(self._exposure.predict(drawn.ravel()).reshape(drawn.shape), axis=1)
        value = float(np.median(self._exposure.predict(heights)))
        before = float(np.median(self._exposure.predict(recall.heights(recall.doses)[among])))
        return _range(medians, value, before)

    def _support(self, emphasis: Float64) -> str:
        """Return whether measured plans lie on all sides of this one, in doses and in what is recounted."""
        measured = [self._place(one.emphasis) for one in self.evidence if one.is_plan]
        if len(measured) < MIN_PLANS:
            return EXTRAPOLATED
        known = np.array([*measured, self._place(self.base)])
        place = self._place(emphasis)
        return INTERPOLATED if bool(((known.min(0) <= place) & (place <= known.max(0))).all()) else EXTRAPOLATED

    def _place(self, emphasis: Float64) -> Float64:
        inserted = self._inserted
        lost = np.log2(1 + self._doses(self.base)[inserted]) - np.log2(1 + self._doses(emphasis)[inserted])
        return np.array([*self._causes(emphasis), float(lost.mean()) if inserted.any() else 0.0])


def _range(draws: Float64, value: float, unchanged: float, *, low: float = -math.inf, high: float = math.inf) -> Range:
    ends = np.clip(np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]), low, high)
    return Range(value, min(float(ends[0]), value), max(float(ends[1]), value), unchanged)


def _paired(arms: Sequence[dict[str, Any]], baseline: Sequence[dict[str, Any]], metric: str) -> float:
    """Return the mean difference to the unchanged arm of the same seed; NaN without a pair."""
    other = {arm["seed"]: metric_of(arm, metric) for arm in baseline}
    pairs = [metric_of(arm, metric) - other[arm["seed"]] for arm in arms if arm["seed"] in other]
    known = [pair for pair in pairs if not math.isnan(pair)]
    return float(np.mean(known)) if known else math.nan


def _unexplained(change: float) -> float:
    """Return the variance of a change of perplexity that no fit explains."""
    return (UNEXPLAINED * change) ** 2 + FLOOR_NATS**2


def _kind(metric: str) -> str:
    """Return whose errors a metric shares: all that recall decides, or perplexity."""
    return "ppl_nats" if metric == "ppl_nats" else "extraction"
