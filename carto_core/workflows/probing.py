"""The verb `probe`: run the passes and train the models that some scores and truths need, and score the run anew."""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Sequence
from typing import Any

from carto_core.engine.executors import LOCAL, Executor
from carto_core.errors import ConfigError, UnknownNameError
from carto_core.probes import DEFAULT_MODELS, PROBES, UNDER_A_PLAN, require_models
from carto_core.probes.probing import Probing
from carto_core.store.folds import accuracy_gap, held_out_gap, read_folds, split_half_reliability
from carto_core.store.probes import write_probe
from carto_core.store.reader import Run
from carto_core.store.rundir import update_manifest, write_json
from carto_core.workflows import light
from carto_core.workflows.progress import ProgressFile, device_slot, stoppable

MORE_MODELS = 4
MAX_MODELS = 64


def probe_run(
    run: Run,
    names: Sequence[str] = (),
    *,
    models: int = DEFAULT_MODELS,
    reliability: float | None = None,
    executor: Executor = LOCAL,
) -> dict[str, Any]:
    """Run probes of a sealed run, write their columns and score the run anew.

    Args:
        run: a sealed run.
        names: which probes; none means all, or those that keep to a plan where the run was trained under one.
        models: how many fold models, an even number of 4 or more.
        reliability: train more fold models, 4 at a time and at most 64, until the counterfactual memorization reaches
            this split-half reliability; None trains `models`.
        executor: where the twin and the fold models are trained.

    Returns:
        `run`, `probes` (columns by probe), `folds` (models, reliability, ceiling; where folds were run), `recommended`.

    Raises:
        UnknownNameError: a name is not in `PROBES`.
        ConfigError: `models` is odd or too small, or the run was trained under a plan that the probe would not keep to.
        RunNotSealed: training is not over.
        Cancelled: stopped; models that were finished are kept.
    """
    for name in names:
        if name not in PROBES:
            raise UnknownNameError.of("probe", name, PROBES)
    require_models(models)
    if reliability is not None and not 0 < reliability <= 1:
        raise ConfigError(f"--reliability must be above 0 and at most 1, got {reliability}")
    run.require_sealed()
    wanted = _wanted(run, names)
    done: dict[str, Any] = {"run": run.run_id, "probes": {}}
    progress = ProgressFile(run.files.probes / "progress.jsonl")
    with stoppable(), device_slot(run.files, progress, work="probe"):
        for name in wanted:
            columns = fill(run, name, Probing(run, models, progress, executor))
            if name == "folds":
                done["folds"] = _fold_facts(run, models)
                while reliability and _falls_short(done["folds"], reliability) and models < MAX_MODELS:
                    models += MORE_MODELS
                    columns = fill(run, name, Probing(run, models, progress, executor))
                    done["folds"] = _fold_facts(run, models)
            done["probes"][name] = columns
        done["recommended"] = light.score(run, light.score_config(run))["recommended"]
        progress("complete", 1, 1)
    return done


def _wanted(run: Run, names: Sequence[str]) -> list[str]:
    """Return the probes to run; see `probe_run`."""
    if any(PROBES[name].needs_model for name in names):
        run.require_model()
    if run.is_foreign:
        return list(names) or light.possible_probes(run)
    parent = run.manifest.get("parent_run")
    if parent is None:
        return list(names) or list(PROBES)
    for name in names:
        if name not in UNDER_A_PLAN:
            raise ConfigError(
                f"the probe {name} trains on the whole corpus, but run {run.run_id} was trained under a plan; "
                f"run it on {parent}, or choose among: {', '.join(UNDER_A_PLAN)}"
            )
    return list(names) or list(UNDER_A_PLAN)


def fill(run: Run, name: str, probing: Probing) -> list[str]:
    """Run one probe of a sealed run and write its columns, whose names are returned; the run is not scored anew."""
    module, function = PROBES[name].function.split(":")
    columns = getattr(importlib.import_module(module), function)(probing)
    held = run.manifest.get("scored_probes", PROBES)
    update_manifest(run.files, scored_probes=[other for other in held if other != name])  # until it is scored anew
    write_probe(run.files, name, columns)
    return list(columns)


def _fold_facts(run: Run, models: int) -> dict[str, Any]:
    """Write and return how many models there are, and how reliable the counterfactual memorization is."""
    from carto_core.probes.folds import judging  # reaches torch, which this process has loaded by now

    folds = read_folds(run.files)
    assert folds is not None
    seed = run.manifest["seed"]
    in_loss, in_accuracy = (
        {
            name: None if math.isnan(value) else value
            for name, value in dataclasses.asdict(split_half_reliability(judging(folds), seed, gap=gap)).items()
        }
        for gap in (held_out_gap, accuracy_gap)
    )
    facts = {"models": models, "judging": len(judging(folds)), **in_loss, "accuracy": in_accuracy}
    write_json(run.files.probes / "folds.json", facts)
    return facts


def _falls_short(facts: dict[str, Any], wanted: float) -> bool:
    """Return whether the truth, made of all judging models, repeats less well than wanted (or cannot be said)."""
    return facts["corrected"] is None or facts["corrected"] < wanted
