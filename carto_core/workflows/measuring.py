"""The verb `measure`: retrain under a plan and under its controls, and write what that did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from carto_core.errors import ConfigError
from carto_core.export import read_plan_json
from carto_core.preview.arms import MAX_SEEDS, Arm, Equal, expected_minutes
from carto_core.preview.effects import PARTIAL, effects_of, half_width
from carto_core.preview.measured import measure_arms, results_so_far
from carto_core.store.reader import Run
from carto_core.store.rundir import now, update_manifest, write_json
from carto_core.workflows import light
from carto_core.workflows.progress import ProgressFile, device_slot, stoppable

FIRST_SEEDS = 3  # before an interval may be called narrow enough


def measure_plan(
    run: Run,
    plan_dir: str | Path,
    *,
    seeds: int = 3,
    equal: Equal = "steps",
    stop_at: float | None = None,
    oracle: bool = False,
    out: str | Path | None = None,
) -> dict[str, Any]:
    """Measure a plan and return the content of `measure.json`; while it goes on, `partial.json` holds what is finished.

    From the first retrain on the report half of the canaries has been seen, and the run's manifest says so.

    Args:
        run: a sealed run.
        plan_dir: see `light.save_plan`.
        seeds: how many retrains of each arm; intervals need at least 2.
        equal: what all arms share: optimizer `steps`, or `epochs`.
        stop_at: end once the 95 % interval of plan minus control, in extraction of the report half, is within +- this share
            of its middle, after at least 3 seeds; None measures all seeds. (Stopping where an interval is narrow makes it
            somewhat too narrow.)
        oracle: also retrain without as many rows, chosen by one who knows the canaries: what no detector can do better.
        out: the directory to write; default `RUN/previews/HASH`.

    Raises:
        ConfigError: seeds, equal or stop_at is out of range.
        PlanError: the plan cannot be read, or no canary fits into an oracle of its size.
        Cancelled: stopped; the arms that were finished are kept.
    """
    if not 1 <= seeds <= MAX_SEEDS:
        raise ConfigError(f"--seeds must be 1 to {MAX_SEEDS}, got {seeds}")
    if equal not in ("steps", "epochs"):
        raise ConfigError(f"--equal must be steps or epochs, got {equal!r}")
    if stop_at is not None and not 0 < stop_at < 1:
        raise ConfigError(f"--stop-at must lie between 0 and 1, got {stop_at}")
    arms = light.measurement_arms(run, plan_dir, seeds=seeds, equal=equal, oracle=oracle)
    folder = Path(out) if out is not None else light.measurement_dir(run, plan_dir)
    facts = read_plan_json(Path(plan_dir))
    about = {"version": 1, "run_id": run.run_id, "plan_sha256": facts["plan_sha256"], "equal": equal}
    progress = ProgressFile(folder / "progress.jsonl")
    streaming = _Streaming(run, arms, folder / PARTIAL, about, progress)
    with stoppable(), device_slot(run.files, progress, work="measurement"):
        progress(f"measuring, about {expected_minutes(run, arms):.0f} minutes", 0, 1)
        measured = {}
        for count in range(min(FIRST_SEEDS, seeds), seeds + 1) if stop_at is not None else [seeds]:
            measured = measure_arms(run.files.path, [arm for arm in arms if arm.seed < count], progress=streaming)
            if stop_at is not None and half_width(measured["effects"]) <= stop_at:
                break
    done = sorted({arm["seed"] for arm in measured["arms"]})
    content = about | {"seeds": done, "stopped_early": len(done) < seeds, "created": now(), **measured}
    write_json(folder / "measure.json", content)
    (folder / PARTIAL).unlink(missing_ok=True)
    update_manifest(run.files, report_seen=True)
    progress("complete", 1, 1)
    return content


class _Streaming:
    """Progress that also writes down what is finished, each time that an arm more is."""

    def __init__(self, run: Run, arms: list[Arm], path: Path, about: dict[str, Any], progress: ProgressFile) -> None:
        self.run, self.arms, self.path, self.about, self.progress = run, arms, path, about, progress
        self.written = 0

    def __call__(self, stage: str, done: float, total: float) -> None:
        """Pass it on."""
        self.progress(stage, done, total)
        finished = results_so_far(self.run, self.arms)
        if len(finished) > self.written:
            if not self.written:
                update_manifest(self.run.files, report_seen=True)  # before anybody can look at it
            self.written = len(finished)
            about = self.about | {"finished": len(finished), "wanted": len(self.arms)}
            write_json(self.path, about | {"arms": finished, "effects": effects_of(finished)})
