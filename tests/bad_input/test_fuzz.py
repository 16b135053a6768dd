"""Every fuzzer on some fixed examples; `python -m benchmarks.fuzz` runs them long."""

import warnings

import pytest
from hypothesis import HealthCheck, given, settings

from tests.bad_input.cases import Place
from tests.bad_input.fuzzers import FUZZERS, tried

EXAMPLES = {"corpora": 40, "contract files": 60, "rules": 40, "links": 60, "polygons": 60, "command lines": 12}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place.at(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("name", FUZZERS)
def test_only_a_sentence_or_a_right_result_comes_out(name, place):
    strategy, check = FUZZERS[name](place)
    few = settings(
        max_examples=EXAMPLES[name],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numbers beyond all measure overflow on their way to an answer
        few(given(strategy)(tried(check)))()
