"""The verb `measure`: retrain under plans and under their controls, and write what that did."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from carto_core.engine.executors import LOCAL, Executor
from carto_core.errors import ConfigError
from carto_core.export import read_plan_json
from carto_core.preview.arms import MAX_SEEDS, Arm, Equal, expected_minutes
from carto_core.preview.effects import PARTIAL, half_width
from carto_core.preview.measured import measured_so_far, train_arms
from carto_core.store.reader import Run
from carto_core.store.rundir import discard, now, update_manifest, write_json
from carto_core.workflows import light
from carto_core.workflows.progress import ProgressFile, device_slot, stoppable

FIRST_SEEDS = 3  # before an interval may be called narrow enough


def measure_plan(run: Run, plan_dir: str | Path, **how: Any) -> dict[str, Any]:
    """Measure one plan; see `measure_plans`."""
    return measure_plans(run, [plan_dir], **how)[0]


def measure_plans(
    run: Run,
    plan_dirs: Sequence[str | Path],
    *,
    seeds: int = 3,
    equal: Equal = "steps",
    stop_at: float | None = None,
    oracle: bool = False,
    membership: bool = False,
    out: str | Path | None = None,
    executor: Executor = LOCAL,
) -> list[dict[str, Any]]:
    """Measure plans and return for each the content of its `measure.json`; until then `partial.json` holds what is finished.

    The arms of all plans wait in one queue, and what several need, such as the unchanged training, is trained once. From
    the first retrain on the report half of the canaries has been seen, and the run's manifest says so.

    Args:
        run: a sealed run.
        plan_dirs: see `light.save_plan`; at least one.
        seeds: how many retrains of each arm; intervals need at least 2.
        equal: what all arms share: optimizer `steps`, or `epochs`.
        stop_at: end a plan once the 95 % interval of plan minus control, in extraction of the report half, is within +- this
            share of its middle, after at least 3 seeds; None measures all seeds. (Stopping where an interval is narrow makes
            it somewhat too narrow.)
        oracle: also retrain without as many rows, chosen by one who knows the canaries; see `interventions.oracle`.
        membership: also attack every retrain by its losses. An arm that was trained without this is trained anew.
        out: the directory to write, of one plan alone; default `RUN/previews/HASH`.
        executor: where the retrains run.

    Raises:
        ConfigError: seeds, equal or stop_at is out of range, or `out` is given for several plans.
        PlanError: a plan cannot be read, or no canary fits into an oracle of its size; nothing was trained then.
        ExecutorError: see `open_executor`; the arms that were finished are kept.
        Cancelled: stopped; the arms that were finished are kept.
    """
    _check(seeds=seeds, equal=equal, stop_at=stop_at)
    if out is not None and len(plan_dirs) > 1:
        raise ConfigError(
            f"--out is the directory of one measurement, and {len(plan_dirs)} plans were given; leave it out"
        )
    how: _How = {"seeds": seeds, "equal": equal, "oracle": oracle, "membership": membership}
    sweep = [_Measurement(run, plan_dir, out, how) for plan_dir in plan_dirs]
    progress = ProgressFile(*dict.fromkeys(one.folder / "progress.jsonl" for one in sweep))
    streaming = _Streaming(run, sweep, progress)
    with stoppable(), device_slot(run.files, progress, work="measurement"):
        every = [arm for one in sweep for arm in one.arms]
        minutes = expected_minutes(run, every, at_a_time=executor.num_workers)
        progress(f"measuring, about {minutes:.0f} minutes", 0, 1)
        going_on = sweep
        for count in range(min(FIRST_SEEDS, seeds), seeds + 1) if stop_at is not None else [seeds]:
            for one in going_on:
                one.asked = count
            arms = [arm for one in going_on for arm in one.arms_asked()]
            train_arms(run.files.path, arms, progress=streaming, executor=executor)
            if stop_at is not None:
                going_on = [one for one in going_on if half_width(one.found()["effects"]) > stop_at]
    contents = [one.write() for one in sweep]
    update_manifest(run.files, report_seen=True)
    progress("complete", 1, 1)
    return contents


def _check(*, seeds: int, equal: str, stop_at: float | None) -> None:
    if not 1 <= seeds <= MAX_SEEDS:
        raise ConfigError(f"--seeds must be 1 to {MAX_SEEDS}, got {seeds}")
    if equal not in ("steps", "epochs"):
        raise ConfigError(f"--equal must be steps or epochs, got {equal!r}")
    if stop_at is not None and not 0 < stop_at < 1:
        raise ConfigError(f"--stop-at must lie between 0 and 1, got {stop_at}")


class _How(TypedDict):
    seeds: int
    equal: Equal
    oracle: bool
    membership: bool


class _Measurement:
    """One plan of a sweep: its arms, and the directory that says what they gave."""

    def __init__(self, run: Run, plan_dir: str | Path, out: str | Path | None, how: _How) -> None:
        self.run, self.seeds = run, how["seeds"]
        self.arms = light.measurement_arms(run, plan_dir, **how)
        self.paths = [arm.path(run) for arm in self.arms]
        self.folder = Path(out) if out is not None else light.measurement_dir(run, plan_dir)
        facts = read_plan_json(Path(plan_dir))
        self.about = {"version": 1, "run_id": run.run_id, "plan_sha256": facts["plan_sha256"], "equal": how["equal"]}
        self.written = 0
        self.asked = self.seeds

    def arms_asked(self) -> list[Arm]:
        """Return the arms of the seeds that are asked for by now."""
        return [arm for arm in self.arms if arm.seed < self.asked]

    def found(self) -> dict[str, Any]:
        """Return what these arms gave; see `measured_so_far`."""
        return measured_so_far(self.run, self.arms_asked())

    def num_finished(self) -> int:
        """Return how many arms are there."""
        return sum(path.is_file() for path in self.paths)

    def write_partial(self) -> None:
        """Write what is finished."""
        found = measured_so_far(self.run, self.arms)
        self.written = len(found["arms"])
        write_json(self.folder / PARTIAL, self.about | {"finished": self.written, "wanted": len(self.arms)} | found)

    def write(self) -> dict[str, Any]:
        """Write and return the content of `measure.json`, of the seeds that were asked for."""
        found = self.found()
        done = sorted({arm["seed"] for arm in found["arms"]})
        content = self.about | {"seeds": done, "stopped_early": len(done) < self.seeds, "created": now(), **found}
        write_json(self.folder / "measure.json", content)
        discard(self.folder / PARTIAL)
        return content


class _Streaming:
    """Progress that also writes down what is finished, each time that an arm more is."""

    def __init__(self, run: Run, sweep: list[_Measurement], progress: ProgressFile) -> None:
        self.run, self.sweep, self.progress = run, sweep, progress
        self.is_seen = False

    def __call__(self, stage: str, done: float, total: float) -> None:
        """Pass it on."""
        self.progress(stage, done, total)
        grown = [one for one in self.sweep if one.num_finished() > one.written]
        if grown and not self.is_seen:
            update_manifest(self.run.files, report_seen=True)  # before anybody can look at it
            self.is_seen = True
        for one in grown:
            one.write_partial()
