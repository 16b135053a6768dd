"""The command lines that make a run, its plan and a report again."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from carto_core.config import CorpusConfig, EngineConfig, RunConfig, ScoreConfig
from carto_core.corpus.catalog import CATALOG
from carto_core.quadrants import Cuts
from carto_core.report.facts import Facts
from carto_core.selection import Rule, polygon_file

PROGRAM = ("python", "-m", "carto_core")
RENAMED = {"num_inserted": "canaries", "repeats": "canary-repeats", "kinds": "canary-kinds", "path": "corpus"}
WITHOUT_FLAG = {"cap_seed": CorpusConfig(path="").cap_seed, "clip": EngineConfig().clip}


def command(*words: object) -> str:
    """Return one line for a shell."""
    return shlex.join([*PROGRAM, *(str(word) for word in words)])


def train_command(config: RunConfig, run_id: str) -> str:
    """Return the `train` command of a run; a corpus that is no named one is called by its file's name alone."""
    path = config.corpus.path
    settings = config.corpus.to_dict() | {"path": path if path in CATALOG else Path(path).name}
    settings |= config.canaries.to_dict() | config.model.to_dict() | config.engine.to_dict()
    words: list[object] = ["train"]
    for name, value in settings.items():
        if value is not None and name not in WITHOUT_FLAG:
            flag = RENAMED.get(name, name.replace("_", "-"))
            words += [f"--{flag}", ",".join(map(str, value)) if isinstance(value, list) else value]
    return command(*words, "--out", f"data/runs/{run_id}")


def _training_command(facts: Facts) -> str:
    """Return `train`, or `retrain` where the run was itself trained under a plan."""
    manifest, run_id = facts.manifest, facts.run_id
    if "parent_run" not in manifest:
        return train_command(RunConfig.from_dict(manifest["config"]), run_id)
    plan_dir = f"data/runs/{manifest['parent_run']}/plans/{manifest['plan_sha256'][:16]}"
    how = ["--seed", manifest["train_seed"], "--equal", manifest["equal"]]
    return command("retrain", manifest["parent_run"], plan_dir, *how, "--out", f"data/runs/{run_id}")


def settings_without_flag(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that no flag can set and that are not the default; `run.json` keeps them. None of a foreign run."""
    if "config" not in manifest:
        return {}
    config = RunConfig.from_dict(manifest["config"])
    every = config.corpus.to_dict() | config.engine.to_dict()
    return {name: every[name] for name, default in WITHOUT_FLAG.items() if every[name] != default}


def measure_command(facts: Facts) -> str:
    """Return the command that measures the plan, as it was or would be measured."""
    measured = facts.measured or {}
    seeds = len({arm["seed"] for arm in measured.get("arms", [])}) or 3
    return command("measure", facts.run_id, facts.plan_dir, "--seeds", seeds, "--equal", measured.get("equal", "steps"))


def export_command(facts: Facts) -> str:
    """Return the command that writes the plan's list for another program."""
    return command("export", facts.run_id, facts.plan_dir, "--format", "parquet", "--out", "list.parquet")


def commands(facts: Facts) -> list[str]:
    """Return all command lines in order, from the corpus to this report."""
    run_id = facts.run_id
    lines = [] if facts.is_foreign else [_training_command(facts)]
    for probe in facts.probes:
        models = ["--models", facts.fold_models] if probe == "folds" and facts.fold_models else []
        lines.append(command("probe", run_id, probe, *models))
    lines.append(_score_command(ScoreConfig.from_dict(facts.manifest.get("scores") or {}), run_id))
    if any(facts.audits.values()):
        lines.append(command("audit", run_id, *[name for name, audit in facts.audits.items() if audit]))
    lines += plan_commands(facts)
    if facts.measured is not None:
        lines.append(measure_command(facts))
    return [*lines, command("report", run_id, facts.plan_dir)]


def plan_commands(facts: Facts) -> list[str]:
    """Return the lines that make the plan; none where its samples were chosen in a way that no flag can say."""
    rule, run_id = facts.plan.rule, facts.run_id
    if "tau_x" in rule and facts.cuts != Cuts.of(facts.table):
        return []  # the command line cuts where the run was scored to cut
    if rule.get("type") == "policy":
        return [command("plan", run_id, "--policy", "quadrants", "--alpha", rule["alpha"], "--gamma", rule["gamma"])]
    if rule.get("type") == "deduplicate":
        return [command("plan", run_id, "--policy", "deduplicate")]
    chosen = _select_words(rule)
    if chosen is None:
        return []
    weights, repeats = facts.plan.weights[facts.plan.affected], facts.plan.repeats[facts.plan.affected]
    factor = {"reweight": weights.max(initial=0), "upsample": repeats.max(initial=0)}.get(facts.plan.action)
    with_factor = [] if factor is None else ["--factor", factor]
    return [
        command("select", run_id, *chosen, "--out", "selection.json"),
        command("plan", run_id, "selection.json", "--action", facts.plan.action, *with_factor),
    ]


def polygon_json(rule: Rule) -> str | None:
    """Return the polygon file that a rule can be given by; None for a rule of another kind."""
    return json.dumps(polygon_file(rule)) if rule.get("type") == "polygon" else None


def _select_words(rule: Rule) -> list[object] | None:
    match rule.get("type"):
        case "quadrant":
            return ["--quadrant", rule["name"]]
        case "top":
            return ["--top", rule["q"], "--by", rule["by"]]
        case "polygon":
            return ["--polygon", "polygon.json"]
        case "keys":
            return ["--keys", "keys.txt"]
    return None


def _score_command(config: ScoreConfig, run_id: str) -> str:
    words: list[object] = []
    for name, value in config.to_dict().items():
        words += [f"--{name.replace('_', '-')}", "recommended" if value is None else value]
    return command("score", run_id, *words)
