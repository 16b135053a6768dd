"""How long a training will take: from a run of this machine where there is one, and said as what it is."""

import dataclasses

import pytest

from carto_core.config import CanaryConfig, CorpusConfig, EngineConfig, ModelConfig, RunConfig
from carto_core.store.rundir import this_machine, update_manifest
from carto_core.workflows import starting
from carto_core.workflows.starting import BYTES_PER_TOKEN, CorpusFacts
from tests import tiny

FACTS = CorpusFacts(num_samples=1000, num_distinct=900, num_bytes=round(100_000 * BYTES_PER_TOKEN))
CONFIG = RunConfig(
    corpus=CorpusConfig(path="demo", validation=0.5),
    canaries=CanaryConfig(),
    model=ModelConfig(embed=8, hidden=8),
    engine=EngineConfig(epochs=10, snapshots=4),
)


@pytest.fixture
def timed(tmp_path):
    """A run of this machine: 40 s for 1,000 trained tokens in 4 epochs, 10 s for each of 24 snapshots of 250 tokens."""
    run = tiny.make_run(tmp_path / "timed", num_samples=120)
    update_manifest(run.files, machine=this_machine(), tokens=1000, train_s=280.0, measure_s=240.0)
    return run


def test_the_same_model_takes_what_it_took_here_by_tokens_and_snapshots(timed):
    expected = starting.expect(CONFIG, FACTS, timed.files.path.parent)

    seconds = 50_000 * 10 * 40 / 1000 + 4 * 50_000 * 10 / 250
    assert (expected.low_s, expected.high_s) == pytest.approx((0.7 * seconds, 1.6 * seconds), rel=1e-3)
    assert "run timed" in expected.basis


def test_a_larger_model_of_the_kind_takes_longer_and_is_less_certain(timed):
    same = starting.expect(CONFIG, FACTS, timed.files.path.parent)
    larger = dataclasses.replace(CONFIG, model=ModelConfig(embed=8, hidden=32))

    expected = starting.expect(larger, FACTS, timed.files.path.parent)

    assert expected.low_s > same.high_s
    assert expected.high_s / expected.low_s > same.high_s / same.low_s
    assert "scaled by size" in expected.basis


@pytest.mark.parametrize("elsewhere", [{"machine": "another"}, {"parent_run": "base"}, {"tokens": None}])
def test_what_was_timed_elsewhere_or_under_a_plan_says_nothing(timed, elsewhere):
    update_manifest(timed.files, **elsewhere)

    assert "guess" in starting.expect(CONFIG, FACTS, timed.files.path.parent).basis


def test_without_a_run_the_guess_grows_with_model_corpus_and_epochs(tmp_path):
    base = starting.expect(CONFIG, FACTS, tmp_path)
    twice = dataclasses.replace(CONFIG, engine=EngineConfig(epochs=20, snapshots=8))
    gpt = dataclasses.replace(CONFIG, model=ModelConfig(task="gpt", hidden=768, layers=12, heads=12))

    assert starting.expect(twice, FACTS, tmp_path).low_s == pytest.approx(2 * base.low_s)
    assert starting.expect(gpt, FACTS, tmp_path).low_s > 1000 * base.low_s


def test_a_capped_corpus_is_counted_as_it_will_be_used():
    whole = starting.inspect_corpus(CorpusConfig(path="demo"))
    capped = starting.inspect_corpus(CorpusConfig(path="demo", max_chars=50_000))

    assert whole.num_samples == 2425
    assert capped.num_bytes < 60_000
