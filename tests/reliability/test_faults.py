"""A short version of `python -m benchmarks.faults`: how commands end when the machine or somebody stops them."""

import signal
from functools import partial

import pytest

from benchmarks.faults import REFUSED, STOPPED, clock_set_back, limited, read_only, refusing, signalled, try_fault
from benchmarks.killing import Moment

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
