"""Numbers that other programs give for the same input, kept here so that they hold without those programs."""

import numpy as np
import pytest

from carto_core.scores import trajectory

# correctness at five presentations; forget events as counted by Toneva et al.'s, Dataset Cartography's and dPrune's code
FORGET_EVENTS = [
    ("11111", 0),
    ("00111", 0),
    ("01011", 1),
    ("10100", 2),
    ("11110", 1),
]


def losses_of(correct):
    """float32[T, 1]: below the threshold of 1 nat where correct, above it where not."""
    return np.array([[0.5 if c == "1" else 1.5] for c in correct], np.float32)


@pytest.mark.parametrize(("correct", "events"), FORGET_EVENTS)
def test_forget_events_of_learnt_samples_are_those_of_the_peers(correct, events):
    share = trajectory.memorization(losses_of(correct), eps=np.ones(5))

    assert share[0] * 4 == events


def test_a_sample_that_was_never_learnt_has_no_forget_event():
    # as dPrune and Datagnosis say; Toneva et al. count 5 (the presentations) and Dataset Cartography 1000
    assert trajectory.memorization(losses_of("00000"), eps=np.ones(5))[0] == 0
