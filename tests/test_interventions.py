import dataclasses
import hashlib
import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carto_core.errors import PlanError
from carto_core.interventions import deduplicate, make_plan, oracle, plan_sha256, quadrant_policy
from carto_core.quadrants import Cuts
from carto_core.types import Plan, SampleTable, Selection

NAN = math.nan
CUTS = Cuts("difficulty", "memorization", 0.5, 0.5)


def make_table(**changes):
    """Six samples: one in each quadrant, one without, and a copy of the ambiguous-hard canary."""
    fields = {
        "run_id": "tiny",
        "corpus_sha256": "0" * 64,
        "seed": 0,
        "key": np.array(list("abcdef"), object),
        "source": np.array(["s"] * 6, object),
        "group_id": np.int32([0, 1, 2, 3, 4, 1]),
        "num_tokens": np.int32([9] * 6),
        "canary_id": np.array([NAN, 7, NAN, NAN, NAN, 7]),
        "scores": {
            "difficulty": np.float32([0, 1, 0, 1, NAN, 1]),
            "memorization": np.float32([0, 0, 1, 1, 0, 0]),
        },
        "x": "difficulty",
        "y": "memorization",
        "tau_x": 0.5,
        "tau_y": 0.5,
    }
    return SampleTable(**fields | changes)


def chosen(*ids):
    return Selection({"type": "keys", "keys": []}, np.array(ids, np.int32), ("a note",))


def make(*ids, **kwargs):
    return make_plan(chosen(*ids), make_table(), **kwargs)


@pytest.mark.parametrize(
    ("kwargs", "repeats", "weights"),
    [
        ({"action": "prune"}, [1, 1, 0, 0, 1, 1], [1, 1, 0, 0, 1, 1]),
        ({"action": "reweight"}, [1] * 6, [1, 1, 0.5, 0.5, 1, 1]),
        ({"action": "reweight", "factor": 3}, [1] * 6, [1, 1, 3, 3, 1, 1]),
        ({"action": "upsample"}, [1, 1, 2, 2, 1, 1], [1] * 6),
        ({"action": "upsample", "factor": 5.0}, [1, 1, 5, 5, 1, 1], [1] * 6),
    ],
)
def test_an_action_changes_the_selected_samples_and_no_others(kwargs, repeats, weights):
    plan = make(2, 3, **kwargs)

    assert plan.repeats.tolist() == repeats
    assert plan.weights.tolist() == weights
    assert (plan.repeats.dtype, plan.weights.dtype) == (np.int32, np.float32)
    assert np.flatnonzero(plan.affected).tolist() == [2, 3]
    assert [bool(reason) for reason in plan.reason] == [False, False, True, True, False, False]


@pytest.mark.parametrize("factor", [0, 1, -1, NAN, math.inf])
def test_a_factor_that_reweights_nothing_or_nonsense_is_the_users_mistake(factor):
    with pytest.raises(PlanError, match="reweight needs a factor"):
        make(2, action="reweight", factor=factor)


@pytest.mark.parametrize("factor", [0, 1, 1.5, 2.5, -2, NAN, math.inf])
def test_an_upsampling_factor_is_a_whole_number_from_two(factor):
    with pytest.raises(PlanError, match="upsample needs a whole factor"):
        make(2, action="upsample", factor=factor)


@pytest.mark.parametrize(
    ("ids", "kwargs", "message"),
    [
        ((), {"action": "prune"}, "empty"),
        ((2,), {"action": "delete"}, "unknown action 'delete'"),
        ((2,), {"action": "policy"}, "unknown action 'policy'"),
        ((2,), {"action": "prune", "factor": 0.5}, "no meaning for prune"),
        (range(6), {"action": "prune"}, "prune every sample"),
    ],
)
def test_a_plan_that_cannot_be_made_says_why(ids, kwargs, message):
    with pytest.raises(PlanError, match=message):
        make(*ids, **kwargs)


def test_a_plan_carries_the_selections_notes():
    assert make(2, action="prune").notes == ("a note",)


def test_upsampling_planted_canaries_is_warned_of_with_both_counts():
    notes = make(1, 2, 5, action="upsample").notes

    assert notes[0] == "a note"
    assert "2 copies of 1 planted canaries" in notes[1]
    assert len(make(2, 3, action="upsample").notes) == 1
    assert len(make(1, 5, action="prune").notes) == 1


def test_the_policy_does_to_each_quadrant_what_the_paper_says():
    plan = quadrant_policy(make_table(), CUTS, alpha=0.25, gamma=3)

    assert plan.repeats.tolist() == [1, 3, 1, 0, 1, 3]
    assert plan.weights.tolist() == [1, 1, 0.25, 0, 1, 1]
    assert plan.reason == [
        "",
        "policy: ambiguous-hard",
        "policy: hotspot-memorized",
        "policy: noisy-outlier",
        "",
        "policy: ambiguous-hard",
    ]
    assert plan.action == "policy"


def test_the_policys_rule_keeps_factors_axes_and_cuts():
    rule = quadrant_policy(make_table(), CUTS).rule

    assert rule == {
        "type": "policy",
        "policy": "quadrants",
        "alpha": 0.5,
        "gamma": 2,
        "x": "difficulty",
        "y": "memorization",
        "tau_x": 0.5,
        "tau_y": 0.5,
    }


def test_the_policy_warns_of_canaries_and_of_extractable_samples_that_it_would_upsample():
    table = make_table(canary_id=np.array([NAN, NAN, NAN, NAN, NAN, 7]))

    with_both = quadrant_policy(table, CUTS, extractable={0, 1, 2}).notes
    with_neither = quadrant_policy(make_table(canary_id=np.full(6, NAN)), CUTS, extractable={0, 2}).notes

    assert len(with_both) == 2
    assert "1 copies of 1 planted canaries" in with_both[0]
    assert "1 samples that the model already recites" in with_both[1]
    assert with_neither == ()


@pytest.mark.parametrize("bad", [{"alpha": 0}, {"alpha": 1}, {"alpha": NAN}, {"gamma": 1}, {"gamma": 2.5}])
def test_a_policy_out_of_range_is_the_users_mistake(bad):
    with pytest.raises(PlanError):
        quadrant_policy(make_table(), CUTS, **bad)


def test_deduplication_keeps_the_first_copy_of_every_group():
    plan = deduplicate(make_table(group_id=np.int32([4, 2, 4, 4, 0, 2])))

    assert plan.repeats.tolist() == [1, 1, 0, 0, 1, 0]
    assert plan.weights.tolist() == [1, 1, 0, 0, 1, 0]


def test_deduplication_keeps_the_first_copy_that_is_still_trained_on():
    drawn = np.array([False, True, True, True, False, False])

    plan = deduplicate(make_table(group_id=np.int32([4, 2, 4, 4, 0, 2])), drawn=drawn)

    assert plan.repeats.tolist() == [0, 1, 1, 0, 0, 0]


def test_deduplicating_distinct_samples_changes_nothing():
    plan = deduplicate(make_table(group_id=np.arange(6, dtype=np.int32)))

    assert not plan.affected.any()
    assert plan.reason == [""] * 6


def test_a_plans_hash_is_the_same_in_another_version_of_this_program():
    plan = make(2, 3, action="reweight", factor=0.3)

    assert plan_sha256(plan, make_table()) == "25dd061d3ea4df1e8893466d5312ae3054af547e84a85616dedc73e9580e4ef4"


def test_a_plans_hash_looks_at_keys_repeats_and_weights_only():
    table = make_table()
    plan = make(2, action="reweight")
    same = dataclasses.replace(plan, reason=["other"] * 6, notes=(), rule={}, action="prune")

    assert plan_sha256(same, table) == plan_sha256(plan, table)
    for changed in (
        plan_sha256(make(3, action="reweight"), table),
        plan_sha256(make(2, action="reweight", factor=0.4), table),
        plan_sha256(make(2, action="upsample"), table),
        plan_sha256(plan, make_table(key=np.array(list("abcdeg"), object))),
    ):
        assert changed != plan_sha256(plan, table)


def test_a_plans_hash_does_not_depend_on_the_order_of_the_samples():
    order = np.array([3, 0, 5, 1, 4, 2])
    plan = make(2, 3, action="prune")
    turned = dataclasses.replace(plan, repeats=plan.repeats[order], weights=plan.weights[order])

    assert plan_sha256(turned, make_table(key=make_table().key[order])) == plan_sha256(plan, make_table())


plans = st.lists(
    st.tuples(st.text(max_size=5), st.integers(0, 5), st.floats(0, 4, width=32)), min_size=1, unique_by=lambda r: r[0]
)


def hashed(rows, *, integers=np.int32, reals=np.float32, order=None):
    """The hash of a plan of (key, repeat, weight) rows, its arrays in these types and this byte order."""
    key, repeats, weights = (list(column) for column in zip(*rows, strict=True))
    plan = Plan(np.array(repeats, integers), np.array(weights, np.float32).astype(reals), [], {}, "prune")
    return plan_sha256(plan, make_table(key=np.array(key, object)))


def shortest(weight):
    """The float that is written with as few digits as tell the float32 from its neighbours."""
    written = (f"{weight:.{digits}g}" for digits in range(1, 10))
    return float(next(text for text in written if np.float32(text) == np.float32(weight)))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(rows=plans, data=st.data())
def test_a_plans_hash_is_that_of_its_rows_whatever_their_order_and_the_arrays_make(rows, data):
    turned = data.draw(st.permutations(rows))

    found = hashed(rows)

    assert hashed(turned) == found
    assert hashed(rows, integers=np.int64) == hashed(rows, integers=">i4") == hashed(rows, reals=">f4") == found
    lines = [json.dumps([key, n, shortest(w)], ensure_ascii=False) + "\n" for key, n, w in sorted(rows)]
    assert found == hashlib.sha256("".join(lines).encode()).hexdigest()


@settings(derandomize=True, deadline=None, max_examples=60)
@given(rows=plans, data=st.data())
def test_a_plans_hash_changes_with_any_row(rows, data):
    place = data.draw(st.integers(0, len(rows) - 1))
    key, repeat, weight = rows[place]
    near = float(np.nextafter(np.float32(weight), np.float32(9)))

    others = [(key + "x", repeat, weight), (key, repeat + 1, weight), (key, repeat, near)]

    for other in others:
        if other[0] not in {k for k, _, _ in rows} - {key}:
            assert hashed([*rows[:place], other, *rows[place + 1 :]]) != hashed(rows)
    assert hashed([*rows, (max(k for k, _, _ in rows) + "x", 1, 1.0)]) != hashed(rows)


def test_a_plans_hash_takes_keys_of_any_letters_and_needs_a_row_for_each_sample():
    assert (
        hashed([("\ud800", 1, 1.0), ("é", 1, 1.0)])
        == hashlib.sha256('["é", 1, 1.0]\n["\ud800", 1, 1.0]\n'.encode("utf-8", "surrogatepass")).hexdigest()
    )
    with pytest.raises(ValueError, match="zip"):
        plan_sha256(make(2, action="prune"), make_table(key=np.array(list("abc"), object)))


def test_a_plan_says_its_action_its_rule_and_why_for_each_sample():
    plan = make(2, 3, action="reweight")
    deduplicated = deduplicate(make_table(group_id=np.int32([0, 1, 0, 2, 3, 4])))

    assert (plan.action, plan.rule) == ("reweight", {"type": "keys", "keys": []})
    assert plan.reason == ["", "", "reweight: keys", "reweight: keys", "", ""]
    assert (deduplicated.action, deduplicated.rule) == ("prune", {"type": "deduplicate"})
    assert deduplicated.reason == ["", "", "prune: exact duplicate", "", "", ""]
    assert (deduplicated.repeats.dtype, deduplicated.weights.dtype) == (np.int32, np.float32)


def test_weighting_canaries_up_is_warned_of_and_weighting_them_down_is_not():
    assert make(1, 5, action="reweight", factor=1.5).notes == (
        "a note",
        "Warning: this up-samples 2 copies of 1 planted canaries, so it would likely up-sample real secrets too.",
    )
    assert make(1, 5, action="reweight").notes == ("a note",)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"action": "delete"}, "unknown action 'delete'; choose one of: prune, reweight, upsample"),
        ({"action": "reweight", "factor": 1}, "reweight needs a factor from 1e-06 to 1e+06 and other than 1, got 1"),
        ({"action": "upsample", "factor": 1.5}, "upsample needs a whole factor from 2 to 1,000, got 1.5"),
        ({"action": "prune", "factor": 0.5}, "--factor has no meaning for prune; leave it out"),
    ],
)
def test_a_refused_plan_says_what_would_do(kwargs, message):
    with pytest.raises(PlanError) as refused:
        make(2, **kwargs)

    assert str(refused.value) == message


def test_a_plan_of_everything_and_one_of_nothing_say_what_would_do():
    with pytest.raises(PlanError, match=r"^the plan would prune every sample; leave some to train on$"):
        make(*range(6), action="prune")
    with pytest.raises(PlanError, match=r"^the selection is empty: choose at least one sample to plan for$"):
        make(action="prune")


def test_a_factor_that_is_1_in_float32_changes_nothing_and_is_refused():
    with pytest.raises(PlanError):
        make(2, action="reweight", factor=1 + 1e-9)


# rows: canary 0 twice, canary 1 once, canary 2 twice, canary 3 not in the table
ROWS = {"canary_id": np.array([0, 1, 2, 0, 2, NAN])}
CANARIES = pd.DataFrame({"canary_id": [0, 1, 2, 3, 4], "inserted": [True, True, True, True, False]})


@pytest.mark.parametrize(
    ("budget", "ids"), [(0, []), (1, [1]), (2, [2, 4]), (3, [1, 2, 4]), (4, [1, 2, 4]), (5, [0, 1, 2, 3, 4])]
)
def test_an_oracle_takes_whole_canaries_those_given_away_first_then_the_fewest_copies(budget, ids):
    table = make_table(**ROWS, truth={"extracted": np.float32([0, 0, 1, 1, 1, 1])})

    found = oracle(table, CANARIES, budget=budget)

    assert found.sample_ids.tolist() == ids
    assert found.sample_ids.dtype == np.int32
    assert sorted(found.rule["keys"]) == ["abcdef"[i] for i in ids]
    assert found.rule["type"] == "keys"


def test_without_a_twins_word_every_canary_counts_alike_the_earlier_first_on_a_tie():
    table = make_table(**ROWS)

    assert [oracle(table, CANARIES, budget=n).sample_ids.tolist() for n in (2, 3)] == [[1], [0, 1, 3]]
    assert oracle(table, CANARIES.assign(inserted=False), budget=9).sample_ids.tolist() == []
