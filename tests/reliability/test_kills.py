"""A short version of `python -m benchmarks.kills`: a kill -9 in every stage but measuring, whose retrains take minutes."""

import pytest

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
