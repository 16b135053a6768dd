"""How often the instant estimate is right: interventions drawn at random, estimated, and measured by retraining.

    python -m benchmarks.preview_fidelity [--corpora demo mail] [--interventions 120] [--seeds 2] [--baselines 8]

Lassos, quadrants, sources and top shares by several scores; prune, down-weight, up-sample; 1 to 20 % of the samples; every
other one hits at least a quarter of some canary's copies. The first of each two may teach the estimate, the second is
judged: once by what a run that nobody measured would say, once taught by the first halves; and by how many measured plans
do it, drawn among those. Beside it two naive answers: nothing changes, and extraction falls by the share of canary copies
taken away. Every retrain is kept: interrupt it and
start it again as you like. Results in docs/results/preview_fidelity.json.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from benchmarks.detectors import probed_run
from benchmarks.lines import commit
from benchmarks.paper_table import CHARS, CORPORA
from carto_core.config import RunConfig
from carto_core.engine.order import total_steps
from carto_core.errors import SelectionError
from carto_core.preview.arms import Arm
from carto_core.preview.effects import mean_of, metric_of
from carto_core.preview.estimate import Estimator, Evidence, Range
from carto_core.preview.measured import measure_arms
from carto_core.preview.prepared import Prepared, emphasis_of, read_prepared
from carto_core.quadrants import QUADRANTS, Cuts
from carto_core.selection import Rule
from carto_core.store.reader import Run
from carto_core.store.rundir import now, write_json
from carto_core.types import Float64, SampleTable
from carto_core.workflows import light
from carto_core.workflows.demo import DEMO_PROBES
from carto_core.workflows.preparing import prepare_run
from carto_core.workflows.progress import ProgressFile, stoppable

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "preview_fidelity.json"
AUDITS = ("extraction", "secrets", "natural", "perplexity")
SCORES = (
    "memorization",
    "final_loss",
    "consolidation",
    "confidence",
    "variability",
    "lt_iqr",
    "recitation",
    "difficulty",
)
ACTIONS = (("prune", None), ("prune", None), ("reweight", 0.5), ("reweight", 0.2), ("upsample", 2.0))
SHARES = (0.01, 0.20)
HIT = 0.25
TEACHERS, DRAWN_TEACHERS = (0, 1, 2, 5, 20), 8
EXTRACTION, LOSS, SECRETS = "extraction.report", "ppl_nats", "secret_nats.report"


@dataclass(frozen=True)
class Intervention:
    """A selection and what is done to it."""

    kind: str
    rule: Rule
    action: str
    factor: float | None
    share: float
    hits: bool


def main() -> None:
    """Train what is missing, print and keep what was found."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--corpora", nargs="+", default=["demo", "mail"], choices=CORPORA)
    parser.add_argument("--interventions", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--baselines", type=int, default=8, help="retrains of the unchanged run")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    found: dict[str, Any] = {"version": 1, "commit": commit(), "created": now(), "corpora": {}}
    with stoppable():
        for corpus in options.corpora:
            base = argparse.Namespace(chars=CHARS, canaries=80, models=8, probes=DEMO_PROBES)
            run = probed_run(corpus, base)
            if read_prepared(run) is None:
                prepare_run(run)
            found["corpora"][corpus] = judge(run, options)
            write_json(options.results, found)
            print_corpus(corpus, found["corpora"][corpus])


def judge(run: Run, options: argparse.Namespace) -> dict[str, Any]:
    """Draw, measure and estimate on one run, and return how the two agree."""
    table = light.load_table(run)
    drawn = draw(run, table, options.interventions)
    emphases = [emphasis_of(*plan_of(run, table, one)) for one in drawn]
    arms = measured(run, table, drawn, options)
    baseline, of_plan = arms[0], arms[1:]
    evidence = [
        Evidence(str(i), emphasis, found, "plan")
        for i, (emphasis, found) in enumerate(zip(emphases, of_plan, strict=True))
    ]
    unchanged = Evidence("", np.ones(len(table)), baseline, "baseline")
    prepared, ones = read_prepared(run), np.ones(len(table))
    assert prepared is not None
    alone = Estimator(table, prepared, ones)
    taught = Estimator(table, prepared, ones, [unchanged, *evidence[::2]]).widened()
    judged = list(range(1, len(drawn), 2))
    said = {
        name: [one.estimate(emphases[i], seeds=options.seeds) for i in judged]
        for name, one in (("alone", alone), ("taught", taught))
    }
    by_metric: dict[str, Any] = {}
    for metric in (EXTRACTION, "natural_extraction", LOSS):
        ranges = {name: [each.metrics.get(metric) for each in estimates] for name, estimates in said.items()}
        naive = copies_lost(table, emphases, judged, mean_of(baseline, metric)) if metric == EXTRACTION else None
        by_metric[metric] = compared(metric, of_plan, baseline, judged, ranges, naive=naive)
    nats = {
        n: [one.secret_nats(emphases[i], "report") for i in judged] for n, one in (("alone", alone), ("taught", taught))
    }
    by_metric[SECRETS] = compared(
        SECRETS, of_plan, baseline, judged, {n: [_point(v) for v in f] for n, f in nats.items()}
    )
    return {
        "num_samples": len(table),
        "corpus_sha256": table.corpus_sha256,
        "device": run.manifest["device"],
        "seeds": options.seeds,
        "interventions": [asdict(one) for one in drawn],
        "metrics": by_metric,
        "widths": taught.widths,
        "by_plans": by_plans(table, prepared, unchanged, evidence, by_metric, seeds=options.seeds),
    }


def by_plans(
    table: SampleTable,
    prepared: Prepared,
    unchanged: Evidence,
    evidence: list[Evidence],
    found: dict[str, Any],
    *,
    seeds: int,
) -> dict[str, dict[int, dict[str, float]]]:
    """Return errors and coverage over the judged interventions when so many measured plans teach the estimate.

    Beside them it knows the unchanged arm of the same seeds. Medians over several draws of the plans.
    """
    rng = np.random.default_rng([0, 22])
    metrics = [metric for metric in (EXTRACTION, "natural_extraction", LOSS) if "measured" in found[metric]]
    told: dict[str, dict[int, dict[str, float]]] = {metric: {} for metric in metrics}
    teachers, ones = evidence[::2], np.ones(len(table))
    beside = replace(unchanged, arms=[arm for arm in unchanged.arms if arm["seed"] < seeds])
    for count in (few for few in TEACHERS if few <= len(teachers)):
        errors, inside = ({metric: [] for metric in metrics} for _ in range(2))
        for _ in range(DRAWN_TEACHERS if count else 1):
            chosen = [teachers[i] for i in rng.choice(len(teachers), count, replace=False)]
            estimator = Estimator(table, prepared, ones, [beside, *chosen] if count else []).widened()
            said = [estimator.estimate(one.emphasis, seeds=seeds).metrics for one in evidence[1::2]]
            for metric in metrics:
                ranges, truth = [one[metric] for one in said], found[metric]["measured"]
                errors[metric].append(np.mean([abs(r.value - t) for r, t in zip(ranges, truth, strict=True)]))
                inside[metric].append(sum(r.low <= t <= r.high for r, t in zip(ranges, truth, strict=True)))
        for metric in metrics:
            facts = {
                "mean_absolute_error": float(np.median(errors[metric])),
                "inside": float(np.median(inside[metric])),
            }
            told[metric][count] = facts
    return told


def draw(run: Run, table: SampleTable, count: int) -> list[Intervention]:
    """Draw interventions until there are enough; every other one hits at least a quarter of some canary's copies."""
    rng = np.random.default_rng([0, 21])
    canaries = run.canaries()
    inserted = canaries.loc[canaries["inserted"].astype(bool), "canary_id"]
    found: list[Intervention] = []
    while len(found) < count:
        wanted = len(found) // 2 % 2 == 0  # so that the judged half has as many as the other
        kind = list(KINDS)[int(rng.integers(len(KINDS)))]
        share = float(np.exp(rng.uniform(*np.log(SHARES))))
        action, factor = ACTIONS[int(rng.integers(len(ACTIONS)))]
        try:
            rule = KINDS[kind](run, table, rng, share)
            chosen = np.zeros(len(table), bool)
            chosen[light.select(run, rule, table=table).sample_ids] = True
        except SelectionError:
            continue
        hits = max(chosen[table.canary_id == i].mean() for i in inserted) >= HIT
        if SHARES[0] <= chosen.mean() <= SHARES[1] and hits == wanted:
            found.append(Intervention(kind, rule, action, factor, float(chosen.mean()), bool(hits)))
    return found


def _lasso(run: Run, table: SampleTable, rng: np.random.Generator, share: float) -> Rule:
    """Return an outline with nine corners around some sample, grown until it holds about the share."""
    y = str(rng.choice([name for name in SCORES if name != "difficulty"]))
    across, up = (table.scores[name].astype(np.float64) for name in ("difficulty", y))
    known = np.flatnonzero(~np.isnan(across) & ~np.isnan(up))
    centre = int(rng.choice(known))
    angles, radii = np.sort(rng.random(9)) * 2 * np.pi, rng.uniform(0.6, 1.4, 9)
    low, high, rule = 0.01, 6.0, {}
    for _ in range(25):
        size = math.sqrt(low * high)
        corners = zip(
            across[centre] + size * radii * np.std(across[known]) * np.cos(angles),
            up[centre] + size * radii * np.std(up[known]) * np.sin(angles),
            strict=True,
        )
        rule = {"type": "polygon", "x": "difficulty", "y": y, "polygons": [[[float(a), float(b)] for a, b in corners]]}
        inside = len(light.select(run, rule, table=table).sample_ids) / len(table)
        low, high = (size, high) if inside < share else (low, size)
    return rule


def _quadrant(run: Run, table: SampleTable, rng: np.random.Generator, share: float) -> Rule:
    y = str(rng.choice([name for name in SCORES if name != "difficulty"]))
    cut_x, cut_y = (float(rng.uniform(20, 95)) for _ in "xy")
    cuts = Cuts.at_percentiles(table.scores, x="difficulty", y=y, cut_x=cut_x, cut_y=cut_y)
    return light.quadrant_rule(str(rng.choice(list(QUADRANTS))), cuts)


def _source(run: Run, table: SampleTable, rng: np.random.Generator, share: float) -> Rule:
    """Return a stretch of one source's samples in order of some score."""
    source, by = str(rng.choice(sorted(set(table.source.astype(str))))), str(rng.choice(SCORES))
    values = np.sort(table.scores[by][table.source == source].astype(np.float64))
    values = values[~np.isnan(values)]
    size = min(len(values), max(2, round(share * len(table))))
    start = int(rng.integers(0, len(values) - size + 1))
    within = {"type": "range", "score": by, "low": float(values[start]), "high": float(values[start + size - 1])}
    return {"type": "all", "rules": [{"type": "filter", "source": [source]}, within]}


def _top(run: Run, table: SampleTable, rng: np.random.Generator, share: float) -> Rule:
    return {"type": "top", "by": str(rng.choice(SCORES)), "q": share}


KINDS: dict[str, Callable[[Run, SampleTable, np.random.Generator, float], Rule]] = {
    "lasso": _lasso,
    "quadrant": _quadrant,
    "source": _source,
    "top": _top,
}


def plan_of(run: Run, table: SampleTable, one: Intervention) -> tuple[np.ndarray, np.ndarray]:
    """Return repeats and weights of an intervention."""
    selection = light.select(run, one.rule, table=table)
    plan = light.plan_action(run, selection, action=one.action, factor=one.factor, table=table)
    return plan.repeats, plan.weights


def measured(
    run: Run, table: SampleTable, drawn: list[Intervention], options: argparse.Namespace
) -> list[list[dict[str, Any]]]:
    """Return the results of the unchanged run's retrains, then those of every intervention."""
    engine = RunConfig.from_dict(run.manifest["config"]).engine
    ones = np.ones(len(table), np.int32), np.ones(len(table), np.float32)
    steps = total_steps(engine, ones[0])
    plans = [ones, *(plan_of(run, table, one) for one in drawn)]
    seeds = [options.baselines, *[options.seeds] * len(drawn)]
    arms = [
        [Arm("plan" if i else "baseline", seed, *plan, steps, {}, AUDITS) for seed in range(count)]
        for i, (plan, count) in enumerate(zip(plans, seeds, strict=True))
    ]
    progress = ProgressFile(run.files.previews / "fidelity.jsonl")
    results = iter(measure_arms(run.files.path, [arm for some in arms for arm in some], progress=progress)["arms"])
    return [[next(results) for _ in some] for some in arms]


def copies_lost(table: SampleTable, emphases: list[Float64], judged: list[int], before: float) -> list[float]:
    """Return the second naive answer: extraction falls by the share of canary copies that is taken away."""
    planted = table.is_canary
    return [before * min(1.0, float(emphases[i][planted].mean())) for i in judged]


def compared(
    metric: str,
    of_plan: list[list[dict[str, Any]]],
    baseline: list[dict[str, Any]],
    judged: list[int],
    said: dict[str, list[Range | None]],
    *,
    naive: list[float] | None = None,
) -> dict[str, Any]:
    """Return errors, ranks and coverage of one metric over the judged interventions."""
    other = {arm["seed"]: metric_of(arm, metric) for arm in baseline}
    is_change = metric == LOSS
    by_seed = np.array(
        [[metric_of(arm, metric) - (other[arm["seed"]] if is_change else 0.0) for arm in of_plan[i]] for i in judged]
    )
    truth = by_seed.mean(1)
    if np.isnan(truth).any():
        return {"unknown": True}
    noise = np.square(by_seed.std(1, ddof=1)) / by_seed.shape[1]
    found: dict[str, Any] = {
        "measured": truth.tolist(),
        "unchanged": 0.0 if is_change else mean_of(baseline, metric),
        "spread": float(truth.std()),
        "noise": float(np.sqrt(noise.mean())),
        "ceiling": _ceiling(by_seed),
    }
    answers: dict[str, list[float]] = {"nothing changes": [found["unchanged"]] * len(judged)}
    answers |= {} if naive is None else {"share of copies": naive}
    for name, ranges in said.items():
        known = [one for one in ranges if one is not None and not math.isnan(one.value)]
        if len(known) < len(judged):
            continue
        answers[name] = [one.value for one in known]
        if not math.isnan(known[0].low):
            inside = [one.low <= value <= one.high for one, value in zip(known, truth, strict=True)]
            found[name] = {"inside": int(sum(inside)), "width": float(np.mean([one.high - one.low for one in known]))}
    for name, values in answers.items():
        error = np.array(values) - truth
        facts = {
            "estimated": list(values),
            "mean_absolute_error": float(np.abs(error).mean()),
            "denoised_error": math.sqrt(max(0.0, float(np.square(error).mean() - noise.mean()))),
            "spearman": None if np.ptp(values) == 0 else float(spearmanr(values, truth).statistic),
        }
        found[name] = found.get(name, {}) | facts
    return found


def _ceiling(by_seed: Float64) -> float:
    """Return the rank correlation that another mean of as many seeds would have with this one (Spearman-Brown)."""
    if by_seed.shape[1] < 2:
        return math.nan
    half = float(spearmanr(by_seed[:, 0], by_seed[:, 1]).statistic)
    return by_seed.shape[1] * half / (1 + (by_seed.shape[1] - 1) * half)


def _point(value: float) -> Range:
    return Range(value, math.nan, math.nan, math.nan)


def print_corpus(corpus: str, found: dict[str, Any]) -> None:
    """Print one corpus's lines as Markdown."""
    print(
        f"\n{corpus}: {len(found['interventions'])} interventions, half of them judged, {found['seeds']} seeds each\n"
    )
    print("| metric | answer | Spearman (ceiling) | mean absolute error | without seed noise (spread) | inside 90 % |")
    print("| --- | --- | --- | --- | --- | --- |")
    for metric, facts in found["metrics"].items():
        for name in ("nothing changes", "share of copies", "alone", "taught"):
            if name in facts:
                print(_line(metric, name, facts))
    print("\n| metric | measured plans | mean absolute error | inside 90 % |\n| --- | --- | --- | --- |")
    for metric, counts in found["by_plans"].items():
        for count, facts in counts.items():
            print(f"| {metric} | {count} | {facts['mean_absolute_error']:.3f} | {facts['inside']:g} |")


def _line(metric: str, name: str, facts: dict[str, Any]) -> str:
    one, count = facts[name], len(facts["measured"])
    rank = "none" if one["spearman"] is None else f"{one['spearman']:.2f}"
    inside = f"{one['inside']} of {count}" if "inside" in one else ""
    return (
        f"| {metric} | {name} | {rank} ({facts['ceiling']:.2f}) | {one['mean_absolute_error']:.3f} | "
        f"{one['denoised_error']:.3f} ({facts['spread']:.3f}) | {inside} |"
    )


if __name__ == "__main__":
    main()
