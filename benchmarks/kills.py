"""Kill every command at random moments with kill -9, and count what was lost.

    python -m benchmarks.kills [--kills 200] [--seed 0] [--out docs/results/kills.json]

Half of the kills come at a moment drawn uniformly from the command's undisturbed duration; half at a change to a file, or a
little after it, drawn so that every stage is hit alike. After each, every file with a final name is opened, committed
snapshots are compared bit for bit, and the command is given again (a training: resumed), after which every file must say what
it says when nobody was killed, with nothing left over and no process left behind.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.killing import (
    Moment,
    Trial,
    Undisturbed,
    Verb,
    perform,
    stage_of_change,
    start_forkserver,
    try_kill,
    undisturbed,
)
from carto_core.store.rundir import now, write_json

# how often each verb is killed, of 100
SHARES = {
    "train": 24,
    "resume": 14,
    "retrain": 8,
    "score": 14,
    "probe": 6,
    "prepare": 6,
    "audit": 6,
    "plan": 4,
    "export": 8,
}
SHARES |= {"measure": 10}
LIBRARIES = ("torch", "numpy", "duckdb", "pyarrow", "safetensors", "psutil")


TRAIN = "train --corpus demo --max-chars 12000 --vocab-size 300 --canaries 8 --canary-repeats 1,4 --embed 8 --hidden 16"
TRAIN += " --context 32 --epochs 2 --snapshots 4 --batch-size 16 --losses both --learning-rate 0.001"
COMMANDS = {  # RUN, PLAN, OTHER (a plan that was exported), SELECTION: see `base`
    "train": f"{TRAIN} --out RUN",
    "resume": f"{TRAIN} --out RUN",
    "retrain": "retrain RUN PLAN --out RETRAIN",
    "score": "score RUN --hysteresis 0.05 --cut-x 60",
    "probe": "probe RUN passes",
    "prepare": "prepare RUN",
    "audit": "audit RUN perplexity natural tokens",
    "plan": "plan RUN SELECTION --action reweight --factor 0.5",
    "export": "export RUN PLAN --out LIST",
    "measure": "measure RUN PLAN --seeds 1",
}


def command(text: str, folder: Path) -> None:
    """Run a command line on what a folder holds; a training goes on with the run that is there."""
    from carto_core import cli

    run = folder / "run"
    plans = sorted(path.parent for path in run.glob("plans/[!.]*/plan.json"))
    places = {"RUN": run, "RETRAIN": folder / "after", "LIST": folder / "exported" / "list.parquet"}
    places |= {
        "SELECTION": folder / "selection.json",
        "PLAN": plans[0] if plans else "",
        "OTHER": plans[-1] if plans else "",
    }
    arguments = [str(places.get(word, word)) for word in text.split()]
    if "--out" in arguments and (Path(arguments[-1]) / "run.json").is_file():
        arguments.append("--resume")
    cli.main(arguments)


def base(context: Any, folder: Path) -> None:
    """Make what most verbs start from: a run with two plans, one of them exported, and a selection."""
    folder.mkdir(parents=True)
    for text in (
        COMMANDS["train"],
        "select RUN --top 0.2 --by final_loss --out SELECTION",
        "plan RUN SELECTION --action prune",
        "plan RUN SELECTION --action upsample",
        "export RUN OTHER --out LIST",
    ):
        made = perform(context, partial(command, text), folder)
        assert made.code == 0, made.said


def _copied(start: Path, folder: Path) -> None:
    shutil.copytree(start, folder, dirs_exist_ok=True)


def _from_nothing(folder: Path) -> None:
    pass


def make_verbs(context: Any, root: Path) -> dict[str, Verb]:
    """Return the verbs by name, after making under `root` the runs that they start from."""
    whole, half = root / "base", root / "half"
    base(context, whole)
    acts = {name: partial(command, text) for name, text in COMMANDS.items()}
    half.mkdir()
    changes = perform(context, acts["train"], half).changes
    shutil.rmtree(half)
    half.mkdir()
    named = [i for i, c in enumerate(changes) if c.event == "os.rename" and c.path.endswith("snapshots.json")]
    stopped = perform(
        context, acts["train"], half, Moment(named[4] + 1, 0.0)
    )  # the manifest is ahead of the checkpoint
    assert stopped.code == -signal.SIGKILL, stopped.said
    begins = {"train": _from_nothing, "resume": partial(_copied, half)}
    return {name: Verb(name, begins.get(name, partial(_copied, whole)), act) for name, act in acts.items()}


def draw_moment(verb: Verb, expected: Undisturbed, rng: np.random.Generator, *, at_change: bool) -> Moment:
    """Return a moment: uniform in time, or at a change of a stage that is drawn first, or in the pause after one."""
    if not at_change:
        return Moment(None, float(rng.uniform(0, expected.changes[-1].at_s)))
    stages = [stage_of_change(verb.name, change) for change in expected.changes]
    stage = rng.choice(sorted(set(stages)))
    place = int(rng.choice([i for i, found in enumerate(stages) if found == stage]))
    if rng.random() < 0.6 or place + 1 == len(expected.changes):
        return Moment(place, 0.0)
    pause = expected.changes[place + 1].at_s - expected.changes[place].at_s
    return Moment(place, max(1e-6, float(rng.uniform(0, pause))))


def kill_all(
    kills: int, *, seed: int, root: Path, only: tuple[str, ...] = tuple(SHARES), tell: Any = None
) -> list[Trial]:
    """Kill verbs until as many died, and return every trial that counts.

    A verb that is done before its moment has come is no trial; another moment is drawn.

    Args:
        kills: how many.
        seed: of verbs and moments.
        root: an empty folder to work in.
        only: which verbs.
        tell: called with every trial.
    """
    context = start_forkserver()
    rng = np.random.default_rng(seed)
    verbs = make_verbs(context, root)
    usual = {name: undisturbed(context, verbs[name], root / f"undisturbed-{name}") for name in only}
    shares = np.array([SHARES[name] for name in only], float)
    wanted = np.floor(np.cumsum(shares) / shares.sum() * kills + 1e-9).astype(int)
    order = rng.permutation(np.repeat(np.arange(len(only)), np.diff(wanted, prepend=0)))
    trials: list[Trial] = []
    unscathed = 0
    while len(trials) < kills:
        assert unscathed < 50, "the last 50 victims were done before their moment came"
        name = only[order[len(trials)]]
        moment = draw_moment(verbs[name], usual[name], rng, at_change=len(trials) % 2 == 1)
        trial = try_kill(context, verbs[name], usual[name], moment, root / "trial")
        unscathed = 0 if trial.killed else unscathed + 1
        if trial.killed or trial.losses:
            trials.append(trial)
            if tell is not None:
                tell(trial)
    return trials


def main() -> None:
    """Kill, print a table and write the figures."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=list(SHARES), default=list(SHARES))
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as root:
        trials = kill_all(options.kills, seed=options.seed, root=Path(root), only=tuple(options.only), tell=_tell)
    lost = [trial for trial in trials if trial.losses]
    stages = Counter(trial.stage for trial in trials)
    for stage, count in sorted(stages.items(), key=lambda item: -item[1]):
        print(f"{count:4} kills: {stage}")
    print(f"{len(trials)} kills, {len(lost)} with a loss, {time.monotonic() - began:.0f} s")
    if options.out is not None:
        write_json(options.out, _figures(trials, seed=options.seed, seconds=time.monotonic() - began))
    sys.exit(1 if lost else 0)


def _tell(trial: Trial) -> None:
    lost = "; ".join(trial.losses) or "nothing lost"
    print(
        f"{trial.verb:8} {trial.stage:24} {trial.moment:14} {trial.seconds:6.1f} s  {lost}", file=sys.stderr, flush=True
    )


def _figures(trials: list[Trial], *, seed: int, seconds: float) -> dict[str, Any]:
    return {
        "command": f"python -m benchmarks.kills --kills {len(trials)} --seed {seed}",
        "created": now(),
        **describe_machine(),
        "kills": len(trials),
        "losses": sum(bool(trial.losses) for trial in trials),
        "by_stage": dict(Counter(trial.stage for trial in trials).most_common()),
        "by_verb": dict(Counter(trial.verb for trial in trials).most_common()),
        "by_moment": dict(Counter(trial.moment for trial in trials).most_common()),
        "with_left_overs": sum(bool(trial.left_over) for trial in trials),
        "seconds": round(seconds),
        "trials": [asdict(trial) for trial in trials],
    }


def describe_machine() -> dict[str, Any]:
    """Return versions and the system, for figures to stand beside."""
    versions = {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}
    return {"versions": versions, "system": f"{platform.system()} {platform.machine()}", "cores": os.cpu_count()}


if __name__ == "__main__":
    main()
