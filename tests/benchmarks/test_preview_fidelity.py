"""The fidelity benchmark's own arithmetic; no model is trained."""

import json
import math

import numpy as np
import pytest

from benchmarks.preview_fidelity import EXTRACTION, LOSS, SHARES, compared, copies_lost, draw, plan_of
from carto_core.preview.estimate import Range
from carto_core.preview.prepared import emphasis_of
from carto_core.workflows import light
from tests import tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny.make_run(tmp_path_factory.mktemp("fidelity") / "run", num_samples=400, probes=True)


def arms(shares=(), nats=()):
    if shares:
        return [{"seed": s, "extraction": {"report": {"k": round(100 * v), "n": 100}}} for s, v in enumerate(shares)]
    return [{"seed": s, "ppl_nats": v} for s, v in enumerate(nats)]


def test_both_halves_hold_as_many_that_hit_a_canary(run):
    table = light.load_table(run)

    drawn = draw(run, table, 24)

    assert drawn == draw(run, table, 24), "seeded"
    assert [sum(one.hits for one in half) for half in (drawn[::2], drawn[1::2])] == [6, 6]
    assert all(SHARES[0] <= one.share <= SHARES[1] for one in drawn)
    assert len({one.kind for one in drawn}) == 4
    for one in drawn:
        repeats, weights = plan_of(run, table, one)
        changed = (repeats != 1) | (weights != 1)
        assert changed.mean() == pytest.approx(one.share)
        hit = max(changed[table.canary_id == i].mean() for i in np.unique(table.canary_id[table.is_canary]))
        assert (hit >= 0.25) == one.hits


def test_errors_ranks_and_coverage_are_what_a_hand_computes():
    of_plan = [arms(shares=(0.2, 0.4)), arms(shares=(0.5, 0.5)), arms(shares=(0.8, 1.0))]
    said = [Range(0.3, 0.2, 0.4, 0.5), Range(0.6, 0.55, 0.7, 0.5), Range(0.7, 0.5, 0.95, 0.5)]

    found = compared(EXTRACTION, of_plan, arms(shares=(0.5, 0.5)), [0, 1, 2], {"alone": said}, naive=[0.3, 0.5, 0.5])

    assert found["measured"] == pytest.approx([0.3, 0.5, 0.9])
    assert found["alone"]["mean_absolute_error"] == pytest.approx((0 + 0.1 + 0.2) / 3)
    assert found["alone"]["inside"] == 2
    assert found["alone"]["spearman"] == pytest.approx(1)
    assert found["nothing changes"]["mean_absolute_error"] == pytest.approx((0.2 + 0 + 0.4) / 3)
    assert found["nothing changes"]["spearman"] is None
    assert found["share of copies"]["mean_absolute_error"] == pytest.approx(0.4 / 3)
    noise = (2 * 0.02 / 2 + 0) / 3  # two pairs 0.2 apart: variance 0.02 each, of a mean of two seeds half of that
    squares = (0 + 0.01 + 0.04) / 3
    assert found["alone"]["denoised_error"] == pytest.approx(math.sqrt(squares - noise))
    assert found["ceiling"] == pytest.approx(1)


def test_perplexity_is_compared_as_a_change_paired_by_seed():
    found = compared(LOSS, [arms(nats=(3.1, 3.3)), arms(nats=(3.0, 3.2))], arms(nats=(3.0, 3.2)), [0, 1], {})

    assert found["measured"] == pytest.approx([0.1, 0])
    assert found["noise"] == pytest.approx(0, abs=1e-9)


def test_a_point_without_an_interval_has_no_coverage():
    point = Range(0.5, math.nan, math.nan, math.nan)

    found = compared(EXTRACTION, [arms(shares=(0.5, 0.7))], arms(shares=(0.5, 0.5)), [0], {"alone": [point]})

    assert "inside" not in found["alone"]
    assert json.dumps(found["alone"], allow_nan=False)


def test_what_was_not_measured_is_said_to_be_unknown():
    assert compared("natural_extraction", [arms(nats=(1, 2))], [], [0], {}) == {"unknown": True}


def test_the_naive_answer_counts_copies(run):
    table = light.load_table(run)
    half = emphasis_of(np.where(table.is_canary, 0, 1), np.ones(len(table)))
    rows = np.flatnonzero(table.is_canary)
    half[rows[::2]] = 1

    assert copies_lost(table, [half], [0], 0.8) == pytest.approx([0.8 * len(rows[::2]) / len(rows)])
