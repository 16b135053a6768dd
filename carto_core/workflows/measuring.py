"""The verb `measure`: retrain under a plan and under its controls, and write what that did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from carto_core.errors import ConfigError
from carto_core.preview.arms import Equal, expected_minutes
from carto_core.preview.measured import measure_arms
from carto_core.store.reader import Run
from carto_core.store.rundir import now, update_manifest, write_json
from carto_core.workflows import light
from carto_core.workflows.progress import ProgressFile, device_slot, stoppable


def measure_plan(
    run: Run, plan_dir: str | Path, *, seeds: int = 3, equal: Equal = "steps", out: str | Path | None = None
) -> dict[str, Any]:
    """Measure a plan and return the content of `measure.json`.

    From then on the report half of the canaries has been seen, and the run's manifest says so.

    Args:
        run: a sealed run.
        plan_dir: see `light.save_plan`.
        seeds: how many retrains of each arm; intervals need at least 2.
        equal: what all arms share: optimizer `steps`, or `epochs`.
        out: the directory to write; default `RUN/previews/HASH`.

    Raises:
        ConfigError: seeds or equal is out of range.
        PlanError: the plan cannot be read.
        Cancelled: stopped; the arms that were finished are kept.
    """
    if seeds < 1:
        raise ConfigError(f"--seeds must be at least 1, got {seeds}")
    if equal not in ("steps", "epochs"):
        raise ConfigError(f"--equal must be steps or epochs, got {equal!r}")
    arms = light.measurement_arms(run, plan_dir, seeds=seeds, equal=equal)
    folder = Path(out) if out is not None else light.measurement_dir(run, plan_dir)
    progress = ProgressFile(folder / "progress.jsonl")
    facts = json.loads((Path(plan_dir) / "plan.json").read_text(encoding="utf-8"))
    with stoppable(), device_slot(run.files.path.parent, progress):
        progress(f"measuring, about {expected_minutes(run, arms):.0f} minutes", 0, 1)
        measured = measure_arms(run.files.path, arms, progress=progress)
    content = {
        "version": 1,
        "run_id": run.run_id,
        "plan_sha256": facts["plan_sha256"],
        "equal": equal,
        "seeds": list(range(seeds)),
        "created": now(),
        **measured,
    }
    write_json(folder / "measure.json", content)
    update_manifest(run.files, report_seen=True)
    progress("complete", 1, 1)
    return content
