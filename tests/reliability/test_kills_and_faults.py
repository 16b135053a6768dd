"""Short versions of `python -m benchmarks.kills` and of `python -m benchmarks.faults`, in one file so that what commands start from is made once.

A kill -9 comes in every stage but measuring, whose retrains take minutes; faults are how commands end when the machine or somebody
stops them.
"""

import signal
from functools import partial

import pytest

from benchmarks.faults import REFUSED, STOPPED, clock_set_back, limited, read_only, refusing, signalled, try_fault
from benchmarks.killing import Moment, try_kill

KILLS = [  # verb, what it is about to do, to which file, for which time
    ("train", "os.rename", "samples.parquet", 0),
    ("train", "os.rename", "run", 0),
    ("train", "os.rename", "parts/00003-rank0000.parquet", 0),
    ("train", "os.rename", "parts/snapshots.json", 3),
    ("train", "os.rename", "checkpoints/step-000000004", 0),
    ("train", "os.rename", "checkpoints/.step-000000004.old", 0),
    ("train", "os.rename", "run/trajectory.duckdb", 0),
    ("train", "os.rmdir", "run/parts", 0),
    ("resume", "os.rename", "parts/snapshots.json", 0),
    ("retrain", "os.rename", "after", 0),
    ("score", "os.rename", "run/trajectory.duckdb", 0),
    ("score", "os.rename", "run/scores.parquet", 0),
    ("prepare", "os.rename", "run/prepared", 0),
    ("plan", "os.rename", "plan.json", 0),
    ("export", "os.rename", "list.parquet.manifest.json", 0),
]


@pytest.mark.parametrize(("verb", "event", "path", "time"), KILLS)
def test_a_kill_loses_nothing_and_the_command_goes_on_to_the_same_end(bench, tmp_path, verb, event, path, time):
    usual = bench.expected(verb)
    places = [i for i, change in enumerate(usual.changes) if change.event == event and change.path.endswith(path)]

    trial = try_kill(bench.context, bench.verbs[verb], usual, Moment(places[time], 0.0), tmp_path / "trial")

    assert trial.losses == []
    assert trial.killed


AT_ONCE = partial(signalled, moment=Moment(3, 0.0, signal.SIGTERM))
FAULTS = {
    "train: the sealed file does not fit": ("train", partial(limited, size_bytes=300_000), REFUSED, "File too large"),
    "train: a checkpoint does not fit": ("train", partial(limited, size_bytes=12_000), REFUSED, "File too large"),
    "train: no room for a snapshot": ("train", partial(refusing, change=30), REFUSED, "make room on that disk"),
    "resume: the clock was set back": ("resume", clock_set_back, 0, ""),
    "resume: SIGTERM": ("resume", AT_ONCE, STOPPED, "with --resume"),
    "train: Ctrl-C": ("train", partial(signalled, moment=Moment(40, 0.0, signal.SIGINT)), STOPPED, "with --resume"),
    "score: SIGTERM": ("score", AT_ONCE, STOPPED, "stopped"),
    "score: read-only": ("score", read_only, REFUSED, "Permission denied; make it writable"),
    "score: the scores do not fit": ("score", partial(limited, size_bytes=300_000), REFUSED, "File too large"),
    "export: no room": ("export", partial(refusing, change=1), REFUSED, "make room on that disk"),
    "export: read-only": ("export", read_only, REFUSED, "Permission denied; make it writable"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_told_in_one_sentence_loses_nothing_and_the_command_goes_on(bench, tmp_path, case):
    verb, fault, code, words = FAULTS[case]

    outcome = try_fault(bench.context, bench.verbs[verb], bench.expected(verb), tmp_path / "trial", fault, code=code)

    assert outcome.losses == []
    assert outcome.code == code
    assert words in outcome.said
