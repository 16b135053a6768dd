"""The paper's table with the controls that it lacks: what each way to choose what to prune does, and what it costs.

    python -m benchmarks.paper_table [--corpora demo mail sotu man] [--seeds 8] [--chars 300000] [--stages 1 2 3 4]

Experiment 1 of GenDataCarto (arXiv 2509.00083): an LSTM with planted canaries. Every plan is retrained over paired seeds
beside a random cut of its own size and length; the score to prune by is chosen on calibration canaries and a twin model,
the effect is reported on the report half. Stage 1 prunes 10 % by the recommended score, by literal memorization and by an
oracle; stage 2 adds difficulty, one copy per group and the quadrant policy; stage 3 the shares of 5 and 20 %; stage 4
equal epochs. Every model is trained once, and a line that the results hold is not measured again: interrupt it and
start it again as you like. The results are in docs/results/paper_table.json; the page Evidence and the README show them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from carto_core import interventions
from carto_core.config import CanaryConfig, CorpusConfig, EngineConfig, ModelConfig, RunConfig
from carto_core.preview.arms import Arm, Equal, arms_of
from carto_core.preview.effects import metric_of, paired_interval, sign_flip_p
from carto_core.preview.measured import measure_arms
from carto_core.quadrants import Cuts
from carto_core.store.reader import Run, open_run
from carto_core.store.rundir import now, resolve_runs_root, update_manifest, write_json
from carto_core.types import Plan, SampleTable, Selection
from carto_core.workflows import light
from carto_core.workflows.demo import DEMO_PROBES
from carto_core.workflows.probing import probe_run
from carto_core.workflows.progress import ProgressFile, stoppable
from carto_core.workflows.training import resume_run, train_run

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "paper_table.json"
REPEATS = (1, 4, 8, 16)  # at this size of model hardly anything that was seen twice an epoch is given away
CORPORA = ("demo", "mail", "sotu", "man")
METRICS = ("extraction.report", "natural_extraction", "ppl_nats")
ARMS = ("plan", "control", "baseline")
AUDITS = ("extraction", "natural", "perplexity")


@dataclass(frozen=True)
class Cell:
    """One line of the table: a way to choose, how much, and what the arms share."""

    policy: str
    share: float | None
    equal: Equal


def cells(stages: list[int]) -> Iterator[Cell]:
    """Yield the lines of the table, the most telling first."""
    ranked, whole = ("recommended", "memorization", "oracle"), ("difficulty", "deduplicate", "quadrants")
    for policy in ranked if 1 in stages else ():
        yield Cell(policy, 0.10, "steps")
    for policy in whole if 2 in stages else ():
        yield Cell(policy, 0.10 if policy == "difficulty" else None, "steps")
    for share in (0.05, 0.20) if 3 in stages else ():
        for policy in (*ranked, "difficulty"):
            yield Cell(policy, share, "steps")
    for policy in (*ranked, *whole) if 4 in stages else ():
        yield Cell(policy, None if policy in ("deduplicate", "quadrants") else 0.10, "epochs")


def main() -> None:
    """Train what is missing, and print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpora", nargs="+", default=list(CORPORA), choices=CORPORA)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--chars", type=int, default=300_000, help="about how many characters of each corpus")
    parser.add_argument("--stages", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    with stoppable():
        for stage in options.stages:
            for name in options.corpora:
                for cell in cells([stage]):
                    if not is_kept(options.results, name, cell, chars=options.chars, seeds=options.seeds):
                        run = base_run(name, chars=options.chars)
                        keep(options.results, run, name, measure_cell(run, cell, seeds=options.seeds))
    print_table(json.loads(options.results.read_text(encoding="utf-8")))


def base_config(corpus: str, *, chars: int) -> RunConfig:
    """Return the settings of the run that scores are taken from: a size that two CPU cores bear.

    Texts are cut into pieces about as long as a canary. Whole texts are several times longer, so that length alone finds
    the canaries, and a random cut of the plan's lengths removes them as well as the plan does.
    """
    return RunConfig(
        corpus=CorpusConfig(path=corpus, max_chars=chars, piece_words=16),
        canaries=CanaryConfig(num_inserted=40, repeats=REPEATS),
        model=ModelConfig(embed=64, hidden=128, context=64),
        engine=EngineConfig(epochs=10, snapshots=20, batch_size=16, learning_rate=8e-3, precision="bf16"),
    )


def base_run(corpus: str, *, chars: int) -> Run:
    """Return the corpus's base run with its scores and its twin, training what is missing."""
    run = trained(base_config(corpus, chars=chars), resolve_runs_root() / f"paper-{corpus}-{chars}")
    missing = [name for name in light.missing_probes(run) if name in DEMO_PROBES]
    if missing:
        probe_run(run, missing)
    return run


def trained(config: RunConfig, out: Path) -> Run:
    """Return the run of these settings in `out`, training it or going on with it where it is not complete."""
    if not (out / "run.json").is_file():
        train_run(config, out)
    elif open_run(out).status != "complete":
        resume_run(out)
    return open_run(out)


def plan_of(run: Run, table: SampleTable, cell: Cell) -> tuple[str, Plan]:
    """Return which score a line goes by (empty where it goes by none), and its plan."""
    if cell.policy == "deduplicate":
        return "", interventions.deduplicate(table)
    if cell.policy == "quadrants":
        cuts = Cuts.at_percentiles(table.scores, x="difficulty", y="memorization", cut_x=75, cut_y=75)
        return "memorization", light.plan_policy(run, alpha=0.5, gamma=2, cuts=cuts, table=table)
    assert cell.share is not None
    if cell.policy == "oracle":
        return "", interventions.make_plan(oracle(run, table, cell.share), table, action="prune")
    score = light.recommended(run, table=table).score if cell.policy == "recommended" else cell.policy
    selection = light.select(run, {"type": "top", "by": score, "q": cell.share}, table=table)
    return score, light.plan_action(run, selection, action="prune", table=table)


def oracle(run: Run, table: SampleTable, share: float) -> Selection:
    """Choose as one who knows the canaries: whole ones, those that the twin gives away first, fewest copies first."""
    canaries = run.canaries()
    budget, taken = round(share * len(table)), []
    inserted = canaries[canaries["inserted"]]
    rows_of = {i: np.flatnonzero(table.canary_id == i) for i in inserted["canary_id"]}
    given_away = {i: bool(table.truth["extracted"][rows[0]] == 1) for i, rows in rows_of.items()}
    for i in sorted(rows_of, key=lambda i: (not given_away[i], len(rows_of[i]), i)):
        if len(taken) + len(rows_of[i]) <= budget:
            taken += rows_of[i].tolist()
    return Selection({"type": "keys", "keys": table.key[taken].tolist()}, np.sort(np.array(taken, np.int32)))


def measure_cell(run: Run, cell: Cell, *, seeds: int) -> dict[str, Any]:
    """Train the arms of one line that are not there yet, and return the line."""
    table = light.load_table(run)
    score, plan = plan_of(run, table, cell)
    arms = [a for a in arms_of(run, plan, table, seeds=seeds, equal=cell.equal, audits=AUDITS) if a.arm in ARMS]
    progress = ProgressFile(run.files.previews / "progress.jsonl")
    print(
        f"{run.run_id}: {cell.policy} {score} {cell.share} {cell.equal}: {_missing(run, arms)} of {len(arms)} to train",
        file=sys.stderr,
    )
    measured = measure_arms(run.files.path, arms, progress=progress)["arms"]
    update_manifest(run.files, report_seen=True)
    pruned = plan.repeats == 0
    return {
        **asdict(cell),
        "score": score,
        "num_affected": int(plan.affected.sum()),
        "num_pruned": int(pruned.sum()),
        "tokens_pruned": float(table.num_tokens[pruned].sum() / table.num_tokens.sum()),
        "seeds": list(range(seeds)),
        "arms": {arm: [_facts(a) for a in measured if a["arm"] == arm] for arm in ARMS},
        "effects": [effect(measured, metric, against) for metric in METRICS for against in ("control", "baseline")],
    }


def effect(arms: list[dict[str, Any]], metric: str, against: str) -> dict[str, Any]:
    """Return plan minus another arm, paired by seed: mean, 95 % t interval, exact sign-flip p. Loss also as perplexity."""
    values = {arm: {a["seed"]: metric_of(a, metric) for a in arms if a["arm"] == arm} for arm in ("plan", against)}
    differences = np.array([values["plan"][seed] - values[against][seed] for seed in sorted(values["plan"])])
    mean, (low, high) = paired_interval(differences)
    found = {"metric": metric, "against": against, "estimate": mean, "low": low, "high": high}
    if metric == "ppl_nats":
        found |= {f"{name}_percent": 100 * float(np.expm1(found[name])) for name in ("estimate", "low", "high")}
    return found | {"p": sign_flip_p(differences)}


def _facts(arm: dict[str, Any]) -> dict[str, Any]:
    names = ("seed", "steps", "tokens", "extraction", "natural_extraction", "ppl_nats")
    return {name: arm[name] for name in names} | {"notes": arm["notes"]}


def _missing(run: Run, arms: list[Arm]) -> int:
    return sum(not arm.path(run).is_file() for arm in arms)


def is_kept(path: Path, corpus: str, cell: Cell, *, chars: int, seeds: int) -> bool:
    """Return whether the results hold this line already, with these settings and at least so many seeds."""
    results = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"corpora": {}}
    found = results["corpora"].get(corpus, {"lines": []})
    if found.get("config") != base_config(corpus, chars=chars).to_dict():
        return False
    return any(
        all(line[name] == value for name, value in asdict(cell).items()) and len(line["seeds"]) >= seeds
        for line in found["lines"]
    )


def keep(path: Path, run: Run, corpus: str, line: dict[str, Any]) -> None:
    """Put one line into the results, in place of an older one of its kind."""
    results = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"version": 1, "corpora": {}}
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    )
    manifest = run.manifest
    mine = results["corpora"].setdefault(corpus, {"lines": []})
    mine |= {name: manifest[name] for name in ("corpus_sha256", "num_samples", "device", "config", "versions")}
    mine["recommended"] = asdict(light.recommended(run))
    same = tuple(Cell.__dataclass_fields__)
    mine["lines"] = [old for old in mine["lines"] if any(old[n] != line[n] for n in same)]
    mine["lines"].append(line | {"commit": commit.stdout.strip() or None, "created": now()})
    results["corpora"][corpus] = mine
    write_json(path, results)


def print_table(results: dict[str, Any]) -> None:
    """Print every line: rows pruned, extraction under each arm, and what the plan did beyond its control."""
    heads = ["corpus", "pruned by", "share (rows)", "equal", "canary extraction", "its random control", "unchanged"]
    heads += ["plan - control", "natural extraction, plan - control"]
    heads += [f"perplexity %, plan - {arm}" for arm in ("control", "unchanged")]
    print("| " + " | ".join(heads) + " |\n" + "| --- " * len(heads) + "|")
    for corpus, facts in results["corpora"].items():
        for line in facts["lines"]:
            print("| " + " | ".join([corpus, *_table_cells(line)]) + " |")


def _table_cells(line: dict[str, Any]) -> list[str]:
    rates = [np.mean([metric_of(a, "extraction.report") for a in line["arms"][arm]]) for arm in ARMS]
    found = {(e["metric"], e["against"]): e for e in line["effects"]}
    extraction, natural = (found[metric, "control"] for metric in METRICS[:2])
    by_score = f"{line['policy']} ({line['score']})" if line["policy"] == "recommended" else line["policy"]
    share = f"{line['num_pruned']}" if line["share"] is None else f"{line['share']:.0%} ({line['num_pruned']})"
    losses = [found["ppl_nats", against] for against in ("control", "baseline")]
    return [
        by_score,
        share,
        line["equal"],
        *(f"{rate:.2f}" for rate in rates),
        f"{extraction['estimate']:+.2f} [{extraction['low']:+.2f}, {extraction['high']:+.2f}], p {extraction['p']:.3f}",
        f"{natural['estimate']:+.2f} [{natural['low']:+.2f}, {natural['high']:+.2f}]",
        *(f"{e['estimate_percent']:+.1f} [{e['low_percent']:+.1f}, {e['high_percent']:+.1f}]" for e in losses),
    ]


if __name__ == "__main__":
    main()
