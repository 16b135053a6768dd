"""The instant estimate: which way it moves, what teaches it, and how wide it says it is."""

import json
import math

import numpy as np
import pytest

from carto_core.errors import RunCorrupt
from carto_core.preview.estimate import EXTRAPOLATED, INTERPOLATED, Estimator, Evidence
from carto_core.preview.ladder import Ladder, doses
from carto_core.preview.prepared import read_prepared
from carto_core.preview.recall import SECRETS, Rate, Recall
from carto_core.types import ROLES
from carto_core.workflows import light
from tests import tiny

COPIES = np.array([0, 0, 1, 1, 2, 2, 4, 4, 8, 8], float)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = tiny.make_run(tmp_path_factory.mktemp("estimate") / "run", num_samples=400)
    tiny.prepare(made)
    return made


@pytest.fixture(scope="module")
def table(run):
    return light.load_table(run)


@pytest.fixture(scope="module")
def estimator(run, table):
    return Estimator(table, read_prepared(run), np.ones(len(table)))


def without(table, rows):
    emphasis = np.ones(len(table))
    emphasis[rows] = 0
    return emphasis


def canary_rows(table):
    return np.flatnonzero(table.is_canary)


def arm(seed, *, share=0.5, nats=3.0, natural=0.3):
    extraction = {role: {"k": round(100 * share), "n": 100} for role in ROLES}
    return {
        "arm": "any",
        "seed": seed,
        "extraction": extraction,
        "natural_extraction": {"k": round(100 * natural), "n": 100},
        "exposure": dict.fromkeys(ROLES, 5.0),
        "ppl_nats": nats,
    }


# The ladder


def ladder(visits_a_copy=10.0):
    return Ladder.fit(COPIES, np.log(3 * (1 + COPIES) ** -1.0), visits_a_copy=visits_a_copy, among=np.ones(10, bool))


def test_the_ladder_gives_back_what_its_rungs_were_made_of():
    found = ladder()

    assert found.height(10 * COPIES) == pytest.approx(np.log(3) - np.log(1 + COPIES))
    assert found.height(np.array([30.0])) == pytest.approx(np.log(3 / 4)), "between the rungs of 2 and 4 copies"
    assert found.height(np.array([150.0])) == pytest.approx(np.log(3 / 16)), "beyond the last"
    assert found.spread == pytest.approx(0, abs=1e-12)


def test_a_rung_that_rises_is_levelled():
    heights = np.array([1.0, 1.0, 0.2, 0.2, 0.6, 0.6, -1, -1, -2, -2])

    found = Ladder.fit(COPIES, heights, visits_a_copy=1, among=np.ones(10, bool))

    assert (np.diff(found.heights) <= 0).all()
    assert found.heights[1] == pytest.approx(0.4)


@pytest.mark.parametrize("among", [COPIES > 0, COPIES < 2])
def test_without_controls_or_with_two_rungs_there_is_no_ladder(among):
    assert Ladder.fit(COPIES, -COPIES, visits_a_copy=1, among=among) is None


def test_doses_count_visits_by_group():
    groups = np.array([7, np.nan, 3, 7, 3, np.nan])
    emphasis = np.array([1, 2, 0, 0.5, 3, 3.5])

    assert doses(emphasis, groups, np.array([3.0, 7.0, 9.0]), visits=100) == pytest.approx([30, 15, 0])


# The chance to be given back


def recall(given_back, **how):
    found = ladder()
    log_nats = found.height(10 * COPIES)
    fields = {"among": COPIES > 0, "prior": SECRETS} | how
    return Recall.fit(found, 10 * COPIES, log_nats, given_back, **fields)


def test_what_the_base_run_gave_back_moves_the_threshold():
    few, many = recall(COPIES >= 8), recall(COPIES >= 2)

    assert few.numbers[0] < many.numbers[0]
    assert (few.chances(few.doses) < many.chances(many.doses)).all()


def test_fewer_visits_lower_every_chance_and_more_raise_it():
    found = recall(COPIES >= 4)
    before = found.chances(found.doses)[2:]

    assert (found.chances(found.doses / 2)[2:] < before).all()
    assert (found.chances(found.doses * 1.2)[2:] > before).all()


def test_measured_rates_pull_the_fit_towards_them():
    alone = recall(COPIES >= 4)
    taught = recall(COPIES >= 4, rates=[Rate(10 * COPIES, 0.1, 8)])

    share = [float(found.chances(found.doses)[2:].mean()) for found in (taught, alone)]
    assert share[0] < share[1] - 0.1


def test_no_text_becomes_stranger_than_one_never_seen():
    found = recall(COPIES >= 4, ceiling=0.5)

    assert (found.heights(np.zeros(10)) == 0.5).all()


def test_what_is_open_is_narrower_with_more_to_go_by():
    alone = recall(COPIES >= 4)
    taught = recall(COPIES >= 4, rates=[Rate(10 * COPIES, 0.5, 8), Rate(5 * COPIES, 0.3, 8)])

    widths = [np.ptp(f.drawn(f.doses, np.random.default_rng(0), draws=300, widened=1)[:, 2:].mean(1)) for f in (taught, alone)]  # fmt: skip
    assert widths[0] < widths[1]
    assert 0 < np.linalg.det(taught.covariance) < np.linalg.det(alone.covariance)


# The estimate


def test_nothing_changes_nothing(estimator, table):
    found = estimator.estimate(np.ones(len(table)))

    assert found.metrics["ppl_nats"].value == 0
    for name, metric in found.metrics.items():
        assert metric.value == pytest.approx(metric.unchanged), name
        assert metric.low <= metric.value <= metric.high


def test_a_common_factor_changes_nothing(estimator, table):
    found, same = estimator.estimate(np.full(len(table), 0.5)), estimator.estimate(np.ones(len(table)))

    for name, metric in found.metrics.items():
        assert metric.value == pytest.approx(same.metrics[name].value, abs=1e-9), name


def test_extraction_falls_with_the_copies_and_rises_where_others_go(estimator, table):
    name = "extraction.calibration"
    unchanged = estimator.estimate(np.ones(len(table))).metrics[name].value

    assert estimator.estimate(without(table, canary_rows(table))).metrics[name].value < 0.01
    others = np.flatnonzero(~table.is_canary)[:100]
    assert estimator.estimate(without(table, others)).metrics[name].value > unchanged + 0.01


def test_down_weighting_stands_between_keeping_and_pruning(estimator, table):
    name = "extraction.calibration"
    halved = np.where(table.is_canary, 0.5, 1.0)

    kept, half, gone = (
        estimator.estimate(e).metrics[name].value
        for e in (np.ones(len(table)), halved, without(table, canary_rows(table)))
    )
    assert gone < half < kept


def test_a_low_weight_costs_perplexity_as_its_square_would(estimator, table):
    half = np.arange(len(table)) % 2 == 0
    weighed, squared = (np.where(half, weight, 1.0) for weight in (0.3, 0.09))
    repeated = np.where(half, 2.0, 1.0)

    assert estimator._causes(weighed)[0] == estimator.prepared.ngrams.nats(squared) - estimator._base_nats
    assert estimator._causes(repeated)[0] == estimator.prepared.ngrams.nats(repeated) - estimator._base_nats


def test_extraction_is_told_by_copies_and_only_of_the_roles_asked_for(estimator, table):
    found = estimator.estimate(np.ones(len(table)), roles=("calibration",))

    assert set(found.by_copies) == {"calibration"}
    assert list(found.by_copies["calibration"]) == list(tiny.REPEATS)
    values = [part.value for part in found.by_copies["calibration"].values()]
    assert values == sorted(values)
    assert not any("report" in name for name in found.metrics)


def test_natural_texts_are_forgotten_with_their_copies(estimator, table):
    pairs = np.flatnonzero(~table.is_canary & (table.scores["group_size"] > 1))

    found = estimator.estimate(without(table, pairs)).metrics["natural_extraction"]

    assert found.value < found.unchanged


def test_without_canaries_perplexity_alone_is_estimated(tmp_path):
    run = tiny.make_run(tmp_path / "run", canaries=False)
    tiny.prepare(run)
    table = light.load_table(run)

    found = Estimator(table, read_prepared(run), np.ones(len(table))).estimate(without(table, range(20)))

    assert set(found.metrics) == {"ppl_nats"}
    assert found.notes[0].startswith("Extraction cannot be estimated")


def test_exposure_follows_the_loss(run, table):
    ids = run.canaries()["canary_id"]
    by_copies = dict(zip(ids, run.canaries()["repeats"], strict=True))
    exposures = {int(i): 2.0 + by_copies[i] for i in ids}
    estimator = Estimator(table, read_prepared(run), np.ones(len(table)), exposures=exposures)

    found = estimator.estimate(without(table, canary_rows(table))).metrics["exposure.calibration"]

    assert found.value < found.unchanged
    assert found.low <= found.value <= found.high


def test_exposure_is_learnt_from_calibration_canaries_alone(run, table):
    canaries = run.canaries()
    told = []
    for report_bits in (0.5, 9.5):
        bits = [
            report_bits if role == "report" else 2.0 + n
            for role, n in zip(canaries["role"], canaries["repeats"], strict=True)
        ]
        exposures = dict(zip(canaries["canary_id"].astype(int), bits, strict=True))
        estimator = Estimator(table, read_prepared(run), np.ones(len(table)), exposures=exposures)
        told.append(estimator.estimate(without(table, canary_rows(table)[:3])).metrics["exposure.calibration"])

    assert told[0] == told[1]


# What was measured


def evidence(table, cases, *, baseline=3.0):
    """Return baseline arms and plans of (rows, change in nats, share given away)."""
    base = Evidence("", np.ones(len(table)), [arm(s, nats=baseline + 0.01 * s) for s in range(3)], "baseline")
    plans = [
        Evidence(
            f"{i:064x}",
            without(table, rows),
            [arm(s, nats=baseline + 0.01 * s + change, share=share) for s in range(3)],
            "plan",
        )
        for i, (rows, change, share) in enumerate(cases)
    ]
    return [base, *plans]


def taught(run, table, cases):
    return Estimator(table, read_prepared(run), np.ones(len(table)), evidence(table, cases))


def test_measured_changes_teach_the_slopes(run, table, estimator):
    cases = [(np.arange(60 * i, 60 * i + 60), 0.5, 0.5) for i in range(4)]

    plan = without(table, np.arange(200, 300))
    before, after = (e.estimate(plan).metrics["ppl_nats"] for e in (estimator, taught(run, table, cases)))

    assert after.value > before.value + 0.05


def test_a_measured_plan_is_judged_without_itself(run, table):
    cases = [(np.arange(60), 0.1, 0.5), (np.arange(60, 120), 5.0, 0.9)]
    found = taught(run, table, cases)

    judged = {(c.plan_sha256[-1], c.metric): c for c in found.cases()}

    alone = taught(run, table, cases[:1]).estimate(without(table, np.arange(60, 120)))
    assert judged["1", "ppl_nats"].estimated.value == pytest.approx(alone.metrics["ppl_nats"].value)
    assert judged["1", "ppl_nats"].measured == pytest.approx(5.0)
    assert not judged["1", "ppl_nats"].is_inside


def test_intervals_widen_where_they_were_wrong_and_narrow_where_right(run, table, estimator):
    rows = [np.arange(40 * i, 40 * i + 40) for i in range(6)]
    right = [(r, estimator.estimate(without(table, r)).metrics["ppl_nats"].value, 0.5) for r in rows]
    wrong = [(r, change + (-1) ** i * 0.4, 0.5) for i, (r, change, _) in enumerate(right)]

    widths = {}
    for name, cases in (("right", right), ("wrong", wrong)):
        widths[name] = taught(run, table, cases).widened().widths["ppl_nats"]

    assert widths["right"] < 1 < widths["wrong"]


def test_support_is_claimed_inside_of_what_was_measured_only(run, table):
    canaries = canary_rows(table)
    cases = [(np.arange(100), 0.1, 0.5), (canaries, 0.0, 0.0), (np.arange(150), 0.2, 0.6)]
    found = taught(run, table, cases)

    assert found.estimate(without(table, np.r_[np.arange(50), canaries[:10]])).support == INTERPOLATED
    assert found.estimate(without(table, np.arange(320))).support == EXTRAPOLATED
    assert taught(run, table, cases[:2]).estimate(without(table, np.arange(50))).support == EXTRAPOLATED


def test_fewer_retrains_vary_more(estimator, table):
    one, many = (estimator.estimate(without(table, range(30)), seeds=seeds).metrics for seeds in (1, 20))

    for name in ("ppl_nats", "extraction.calibration", "natural_extraction"):
        assert one[name].high - one[name].low > many[name].high - many[name].low, name


def test_an_estimate_is_the_same_twice_and_json(estimator, table):
    first, second = (estimator.estimate(without(table, range(30))).to_dict() for _ in range(2))

    assert first == second
    assert json.loads(json.dumps(first, allow_nan=False)) == first
    assert not math.isnan(first["metrics"]["ppl_nats"]["value"])


# What is stored


def test_what_was_prepared_is_read_again(run):
    found = read_prepared(run)

    assert len(found.canaries) == len(run.canaries())
    assert found.ngrams.num_samples == run.num_samples
    assert found.validation_nats == 3.0


def test_an_unprepared_run_and_another_version_give_none(tmp_path):
    run = tiny.make_run(tmp_path / "run")
    assert read_prepared(run) is None
    tiny.prepare(run)
    facts = json.loads((run.files.prepared / "prepared.json").read_text())
    (run.files.prepared / "prepared.json").write_text(json.dumps(facts | {"version": 0}))

    assert read_prepared(run) is None


@pytest.mark.parametrize("content", [b"", b"{"])
@pytest.mark.parametrize("name", ["prepared.json", "data.npy", "grams.npy"])
def test_a_damaged_file_is_said_to_be_so(tmp_path, name, content):
    run = tiny.make_run(tmp_path / "run")
    tiny.prepare(run)
    (run.files.prepared / name).write_bytes(content)

    with pytest.raises(RunCorrupt, match=r"prepare run"):
        read_prepared(run)


def test_counts_of_another_run_are_refused(tmp_path):
    run, other = tiny.make_run(tmp_path / "run"), tiny.make_run(tmp_path / "other", num_samples=300)
    tiny.prepare(run)
    tiny.prepare(other)
    run.files.prepared.rename(tmp_path / "kept")
    other.files.prepared.rename(run.files.prepared)

    with pytest.raises(RunCorrupt, match="it counts 300 samples and the run has 200"):
        read_prepared(run)
