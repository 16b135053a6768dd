"""A short version of `python -m benchmarks.kills`: at least one kill -9 in every stage."""

import pytest

from benchmarks.killing import Moment, stage_of_path, try_kill

KILLS = [  # verb, stage, which change of that stage, what is done by then to the file
    ("train", "the run's own files", 2, 0.0),
    ("train", "write of a part", 2, 0.002),
    ("train", "manifest of the parts", 4, 0.0),
    ("train", "checkpoint", 7, 0.0),
    ("train", "sealing or first scores", 0, 0.02),
    ("train", "sealing or first scores", 1, 0.0),
    ("train", "removal of the parts", 3, 0.0),
    ("resume", "manifest of the parts", 1, 0.0),
    ("retrain", "the run's own files", 3, 0.0),
    ("score", "rescoring", 1, 0.01),
    ("score", "rescoring", 3, 0.0),
    ("prepare", "preparing", -3, 0.0),
    ("plan", "planning", 3, 0.0),
    ("export", "exporting", 2, 0.0),
    ("measure", "measuring", -4, 0.0),
]


@pytest.mark.parametrize(("verb", "stage", "place", "delay_s"), KILLS)
def test_a_kill_loses_nothing_and_the_command_goes_on_to_the_same_end(bench, tmp_path, verb, stage, place, delay_s):
    usual = bench.expected(verb)
    changes = [i for i, change in enumerate(usual.changes) if stage_of_path(verb, change.path) == stage]

    trial = try_kill(bench.context, bench.verbs[verb], usual, Moment(changes[place], delay_s), tmp_path / "trial")

    assert trial.losses == []
    assert trial.killed
