import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest

from carto_core.audits import AUDITS
from carto_core.audits.exposure import audit_exposure, exposure_of_rank
from carto_core.audits.extraction import audit_extraction, audit_natural
from carto_core.audits.perplexity import audit_perplexity
from carto_core.audits.proportions import share
from carto_core.audits.subject import load_subject
from tests.audits.oracle import oracle_of, unplanted_texts


def test_extraction_finds_exactly_the_canaries_that_a_model_knows(trained_run):
    known = {0, 3, 9}
    subject = oracle_of(trained_run, knows=lambda corpus: [c.text for c in corpus.canaries if c.canary_id in known])

    result = audit_extraction(subject)

    assert {row["canary_id"] for row in result.per_item if row["extracted"]} == known
    inserted = result.summary["calibration"]["inserted"]
    assert inserted["n"] == 4
    assert sum(part["k"] for part in inserted["by_repeats"].values()) == inserted["k"]


def test_a_canary_known_for_certain_saturates_and_others_rank_as_ties(trained_run):
    subject = oracle_of(trained_run, knows=lambda corpus: [corpus.canaries[0].text])

    rows = {row["canary_id"]: row for row in audit_exposure(subject, num_references=50).per_item}

    assert rows[0]["exposure"] == math.log2(50)
    assert rows[0]["saturated"]
    template = next(r for i, r in rows.items() if i != 0 and r["kind"] == "template")
    assert template["rank"] == 51, "every reference costs the same, and ties count against the secret"


@pytest.mark.parametrize(
    ("at_most", "bits"), [(0, math.log2(1000)), (1, math.log2(500)), (1000, math.log2(1000 / 1001))]
)
def test_exposure_is_what_the_formula_says(at_most, bits):
    assert exposure_of_rank(1000, at_most) == pytest.approx(bits, abs=1e-12)


def test_natural_extraction_counts_groups_and_leaves_canaries_out(trained_run):
    everything = oracle_of(trained_run, knows=unplanted_texts)
    nothing = oracle_of(trained_run, knows=lambda corpus: [])

    known, unknown = audit_natural(everything), audit_natural(nothing)

    assert known.summary["k"] == known.summary["n"] > 0
    assert unknown.summary["k"] == 0
    canary_id = everything.corpus.canary_id
    assert all(np.isnan(canary_id[row["sample_ids"]]).all() and row["group_size"] >= 2 for row in known.per_item)


def test_perplexity_is_token_weighted(trained_run):
    subject = load_subject(trained_run)
    task = subject.corpus.task(subject.config, subject.corpus.validation)
    losses, lengths = task.measure(subject.model, subject.device).astype(float), subject.corpus.validation.lengths

    found = audit_perplexity(subject).summary

    assert found["nats_per_token"] == pytest.approx((losses * lengths).sum() / lengths.sum(), rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(found["nats_per_token"]))


def test_a_share_of_nothing_is_unknown_and_the_interval_is_wilsons():
    assert share([]) == {"k": 0, "n": 0, "rate": None, "low": None, "high": None}
    found = share([True] * 3 + [False] * 7)
    z, n, p = 1.959963984540054, 10, 0.3
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert (found["low"], found["high"]) == pytest.approx((middle - half, middle + half))


def test_every_registered_audit_has_words_and_wrote_its_file(trained_run):
    for name, audit in AUDITS.items():
        assert audit.title
        assert audit.question.endswith("?")
        written = json.loads((trained_run.files.audits / f"{name}.json").read_text())
        assert written["name"] == name
        assert written["definition"].endswith(".")


def test_token_losses_average_to_the_last_snapshot(trained_run):
    rows = pq.read_table(trained_run.files.audits / "tokens.parquet").to_pylist()
    samples = [row for row in rows if row["sample_id"] is not None]
    final = trained_run.trajectories("after")[-1]

    np.testing.assert_allclose([np.mean(row["losses"]) for row in samples], final, rtol=1e-4)
    assert ["".join(row["pieces"]) for row in samples] == trained_run.texts(range(len(samples)))
    canaries = [row for row in rows if row["canary_id"] is not None]
    assert len(canaries) == len(trained_run.canaries())
    assert all(row["decoded"] is not None for row in canaries)
