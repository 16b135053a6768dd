"""Canaries of a format small enough to look at every secret: what searches say must be what looking says."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from carto_core.audits.discoverable import samples_needed
from carto_core.audits.exposure import audit_exposure, exposure_of_rank, extrapolated
from carto_core.audits.extraction import audit_extraction
from carto_core.audits.subject import load_subject
from carto_core.corpus.canaries import KINDS, Canary, Kind
from carto_core.tasks.decoding import ROUNDING_NATS, continuation_losses
from carto_core.types import ROLES
from tests.audits.oracle import oracle_of

UNITS, LENGTH = [" river", " a", " window", " of"], 3
SECRETS = ["".join(units) for units in itertools.product(UNITS, repeat=LENGTH)]
SPACE = math.log2(len(SECRETS))


NUM_CANARIES = 56  # the other 8 secrets are left for references


@pytest.fixture
def small(trained_run, monkeypatch):
    """A trained model's subject with most secrets of a small format as canaries, after one prefix."""
    kind = Kind("small", prefix=lambda rng, material: "", units=lambda words: UNITS, length=LENGTH)
    monkeypatch.setitem(KINDS, "words", kind)
    canaries = [
        Canary(i, "words", "The farmer carried", secret, i % 2, ROLES[i // 2 % 2], SPACE)
        for i, secret in enumerate(np.random.default_rng(0).permutation(SECRETS)[:NUM_CANARIES].tolist())
    ]
    subject = load_subject(trained_run)
    return dataclasses.replace(subject, corpus=dataclasses.replace(subject.corpus, canaries=canaries))


def costs_of(subject):
    """The cost of every secret of the format, one at a time, and that of each canary's."""
    tokenizer = subject.corpus.tokenizer
    prefix = tokenizer.encode("The farmer carried")
    costs = {}
    for secret in SECRETS:
        ids = tokenizer.encode("The farmer carried" + secret)[len(prefix) :]
        losses = continuation_losses(subject.model, prefix, [ids], bos_id=tokenizer.bos_id, device=subject.device)
        costs[secret] = float(losses[0].sum(dtype=np.float64))
    return np.array(list(costs.values())), np.array([costs[canary.secret] for canary in subject.corpus.canaries])


def test_optimal_is_the_likeliest_of_all_secrets(small):
    every, own = costs_of(small)

    result = audit_extraction(small)

    assert [row["optimal"] for row in result.per_item] == (own == every.min()).tolist()
    assert sum(row["optimal"] for row in result.per_item) == 1
    assert [row["log_p"] for row in result.per_item] == pytest.approx(-own, rel=1e-5)
    assert [row["samples_needed"] for row in result.per_item] == pytest.approx(
        [samples_needed(-cost) for cost in own], rel=1e-4
    )


def test_exact_ranks_are_those_of_sorting_all_secrets(small):
    every, own = costs_of(small)
    expected = [int((every <= cost + ROUNDING_NATS).sum()) for cost in own]

    rows = audit_exposure(small, num_references=5).per_item

    assert [row["rank_exact"] for row in rows] == expected
    assert [row["exposure_enumeration"] for row in rows] == pytest.approx([SPACE - math.log2(r) for r in expected])
    mean = np.mean([row["exposure_enumeration"] for row in rows])
    assert mean == pytest.approx(1 / math.log(2), abs=0.25), "nearly all ranks, each once"


def test_a_search_without_budget_says_unknown(small):
    extraction, exposure = audit_extraction(small, budget=0), audit_exposure(small, num_references=5, budget=0)

    assert all(row["optimal"] is None for row in extraction.per_item)
    assert all(row["unknown"] == "more to read than the budget allows" for row in extraction.per_item)
    assert all(row["rank_exact"] is row["exposure_enumeration"] is None for row in exposure.per_item)
    assert all(row["unknown"] == "more to count than the budget allows" for row in exposure.per_item)
    part = extraction.summary["calibration"]["optimal"]["inserted"]
    assert (part["k"], part["n"], part["unknown"]) == (0, 14, 14)
    ranked = exposure.summary["report"]["enumeration"]["control"]
    assert (ranked["n"], ranked["known"], ranked["first"], ranked["unknown"]) == (14, 0, 0, 14)


def test_a_format_that_does_not_split_into_tokens_is_unknown(small, monkeypatch):
    glued = Kind("glued", prefix=lambda rng, material: "", units=lambda words: [" b", "e", "f"], length=LENGTH)
    monkeypatch.setitem(KINDS, "words", glued)
    assert len(small.corpus.tokenizer.encode(" bef")) < 3, "the units merge into other tokens"

    extraction, exposure = audit_extraction(small), audit_exposure(small, num_references=2)

    for row in extraction.per_item + exposure.per_item:
        assert row["unknown"] == "format does not split into tokens"
    assert all(row["optimal"] is None for row in extraction.per_item)
    assert all(row["rank_exact"] is None for row in exposure.per_item)


def test_what_a_model_knows_by_heart_is_found_in_every_way(trained_run):
    known = {0, 3, 9}
    subject = oracle_of(trained_run, knows=lambda corpus: [c.text for c in corpus.canaries if c.canary_id in known])

    extraction, exposure = audit_extraction(subject), audit_exposure(subject, num_references=20)

    for row in extraction.per_item:
        ways = {row["extracted"], row["extracted_beam"], row["optimal"] is True}
        if row["canary_id"] in known:
            assert ways == {True}
            assert row["log_p"] == pytest.approx(0, abs=1e-6)
            assert row["samples_needed"] == 1
        elif row["canary_id"] > 1:
            assert True not in {row["extracted"], row["optimal"]}
    for row in exposure.per_item:
        if row["canary_id"] in known:
            assert (row["rank_exact"], row["exposure_enumeration"]) == (1, row["log2_space"])
            assert row["reading"] == ">= 4.32"
        elif row["kind"] == "template":
            assert row["rank_exact"] is None, "all secrets cost the same, a million of them"


def test_shares_are_cut_by_kind_and_repetitions(trained_run):
    result = audit_extraction(load_subject(trained_run), budget=10)

    for role in ROLES:
        rows = [row for row in result.per_item if row["role"] == role]
        for way, column in (("beam", "extracted_beam"), ("optimal", "optimal")):
            found = result.summary[role][way]
            for which, inserted in (("inserted", True), ("control", False)):
                wanted = [row for row in rows if row["inserted"] is inserted]
                assert (found[which]["k"], found[which]["n"]) == (sum(r[column] is True for r in wanted), len(wanted))
                assert sum(part["n"] for part in found[which]["by_kind"].values()) == len(wanted)
            assert set(found["inserted"]["by_repeats"]) == {str(r["repeats"]) for r in rows if r["inserted"]}
        assert "by_kind" in result.summary[role]["inserted"]
        assert "discoverable" in result.summary[role]


def test_without_searches_the_rest_is_the_same(trained_run):
    subject = load_subject(trained_run)
    for audit in (audit_extraction, audit_exposure):
        full, cheap = audit(subject), audit(subject, searches=False)
        for role in ROLES:
            assert cheap.summary[role] == {name: full.summary[role][name] for name in ("inserted", "control")}
        assert all(row.items() <= whole.items() for row, whole in zip(cheap.per_item, full.per_item, strict=True))


def test_exposure_of_a_uniform_rank_averages_one_over_ln_2():
    exposures = [exposure_of_rank(1000, at_most) for at_most in range(1001)]
    assert np.mean(exposures) == pytest.approx(1 / math.log(2), abs=0.02)


def test_the_extrapolation_continues_the_references():
    rng = np.random.default_rng(0)
    references = stats.skewnorm.rvs(-2, loc=20, scale=3, size=1000, random_state=rng)

    at_median, p_value = extrapolated(references, float(np.median(references)))
    assert at_median == pytest.approx(1, abs=0.1)
    assert p_value > 0.05
    far, _ = extrapolated(references, 2.0)
    assert far == pytest.approx(-stats.skewnorm.logcdf(2.0, -2, 20, 3) / math.log(2), rel=0.2)
    two_heaps = np.concatenate([references, references + 100])
    assert extrapolated(two_heaps, 2.0)[1] < 0.05
    assert extrapolated(np.full(1000, 3.0), 2.0) == (None, None)


def test_a_rejected_fit_gives_no_exposure_but_is_told(small, monkeypatch):
    monkeypatch.setattr("carto_core.audits.exposure.extrapolated", lambda references, cost: (12.5, 0.01))
    rejected = audit_exposure(small, num_references=5).per_item[0]
    monkeypatch.setattr("carto_core.audits.exposure.extrapolated", lambda references, cost: (12.5, 0.06))
    accepted = audit_exposure(small, num_references=5).per_item[0]

    assert (rejected["exposure_extrapolated"], rejected["skewnorm_bits"], rejected["skewnorm_p"]) == (None, 12.5, 0.01)
    assert accepted["exposure_extrapolated"] == 12.5


def test_the_prefix_alone_decides_nothing_in_a_uniform_model(trained_run):
    subject = oracle_of(trained_run, knows=lambda corpus: [])
    rows = audit_extraction(subject, budget=50).per_item
    vocab = len(subject.corpus.tokenizer)
    lengths = [len(secret) for _, secret in subject.canary_tokens]

    assert [row["log_p"] for row in rows] == pytest.approx([-n * math.log(vocab) for n in lengths], rel=1e-5)
    assert isinstance(subject.model, torch.nn.Module)
