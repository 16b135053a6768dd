import itertools
import json

import numpy as np
import pytest

from carto_core.errors import SelectionError
from carto_core.rules import MAX_DEPTH, OPS, canonical, combine, depth, describe
from carto_core.selection import RULES, combine_selections, resolve
from tests.test_selection import make_table


def keys(*numbers):
    return {"type": "keys", "keys": [f"k{i}" for i in numbers]}


A, B, C = keys(0, 1, 2, 3, 4), keys(3, 4, 5, 6), keys(4, 6, 8)


def text_of(rule):
    return json.dumps(rule, sort_keys=True)


def slow_ids(rule):
    """Set algebra on Python sets, part by part, as the words say it."""
    if rule["type"] != "combined":
        return {int(key[1:]) for key in rule["keys"]}
    first, *others = (slow_ids(part) for part in rule["rules"])
    for other in others:
        first = {"add": first | other, "subtract": first - other, "intersect": first & other}[rule["op"]]
    return first


def random_rule(rng, levels):
    if levels == 0 or rng.random() < 0.25:
        return keys(*rng.choice(10, rng.integers(0, 8), replace=False).tolist())
    parts = [random_rule(rng, levels - 1) for _ in range(rng.integers(2, 4))]
    return {"type": "combined", "op": str(rng.choice(list(OPS))), "rules": parts}


def ids(rule):
    return resolve(rule, make_table()).sample_ids.tolist()


@pytest.mark.parametrize(
    ("op", "expected"), [("add", [0, 1, 2, 3, 4, 5, 6]), ("subtract", [0, 1, 2]), ("intersect", [3, 4])]
)
def test_two_rules_combine_as_sets_do(op, expected):
    assert ids(combine(op, A, B)) == expected


def test_subtracting_takes_all_the_later_from_the_first():
    assert ids(combine("subtract", A, keys(0), keys(2, 9))) == [1, 3, 4]


@pytest.mark.parametrize("seed", range(60))
def test_any_nesting_gives_what_sets_give_and_its_canonical_form_gives_the_same(seed):
    rule = random_rule(np.random.default_rng(seed), 4)

    expected = sorted(slow_ids(rule))

    assert ids(rule) == expected
    assert ids(canonical(rule)) == expected
    assert canonical(canonical(rule)) == canonical(rule)


@pytest.mark.parametrize("op", ["add", "intersect"])
def test_the_order_and_grouping_of_sums_and_intersections_leave_no_trace(op):
    written = {
        text_of(rule)
        for a, b, c in itertools.permutations([A, B, C])
        for rule in (combine(op, a, b, c), combine(op, combine(op, a, b), c), combine(op, a, combine(op, c, b), a))
    }

    assert len(written) == 1


def test_the_order_and_grouping_of_what_is_subtracted_leave_no_trace():
    written = {
        text_of(rule)
        for rule in (
            combine("subtract", A, B, C),
            combine("subtract", A, C, B, C),
            combine("subtract", combine("subtract", A, C), B),
            combine("subtract", A, combine("add", B, C)),
        )
    }

    assert len(written) == 1
    assert text_of(combine("subtract", B, A, C)) not in written


def test_a_rule_added_to_itself_is_that_rule():
    assert combine("add", A, A) == A
    assert combine("intersect", A, combine("intersect", A, A)) == A
    assert ids(combine("subtract", A, A)) == []


def test_combinations_inside_other_rules_are_canonical_too():
    first, second = ({"type": "duplicates_of", "rule": combine("add", *pair)} for pair in ((A, B), (B, A)))
    by_hand = {"type": "duplicates_of", "rule": {"type": "combined", "op": "add", "rules": [B, A]}}

    assert first == second == resolve(by_hand, make_table()).rule


def test_combining_leaves_the_parts_alone():
    part = keys(1, 2)

    combined = combine("add", part, B)
    part["keys"].append("k9")

    assert combined == combine("add", keys(1, 2), B)


def alternating(levels):
    rule = A
    for level in range(levels - 1):
        rule = {"type": "combined", "op": ("add", "subtract")[level % 2], "rules": [rule, keys(level % 10)]}
    return rule


def test_a_long_chain_of_one_operation_stays_flat():
    rule = A
    for i in range(60):
        rule = combine("add", rule, keys(i % 10))

    assert depth(rule) == 2


def test_rules_nest_twenty_levels_and_a_combination_leaves_two_of_them():
    assert (depth(A), depth(alternating(MAX_DEPTH)), MAX_DEPTH) == (1, 20, 20)
    assert ids(alternating(MAX_DEPTH)) == sorted(slow_ids(alternating(MAX_DEPTH)))
    with pytest.raises(SelectionError, match="21 levels deep, and at most 20"):
        resolve(alternating(21), make_table())

    assert depth(combine("add", alternating(17), keys(9))) == 18
    with pytest.raises(SelectionError, match="19 levels deep, and at most 18"):
        combine("subtract", alternating(18), keys(9), C)


def test_a_rule_nested_beyond_recursion_is_one_sentence():
    with pytest.raises(SelectionError, match="5000 levels deep"):
        resolve(alternating(5000), make_table())
    assert describe(alternating(5000)) == "a rule that cannot be read"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"op": "xor", "rules": [A, B]}, "op must be one of add, subtract, intersect, got 'xor'"),
        ({"op": ["add"], "rules": [A, B]}, "op must be"),
        ({"op": "add", "rules": [A]}, "two rules or more"),
        ({"op": "add", "rules": {"a": A}}, "two rules or more"),
        ({"op": "add", "rules": [A, "k1"]}, "type"),
        ({"op": "add"}, "missing a required argument: 'rules'"),
    ],
)
def test_a_combination_that_is_none_is_the_users_mistake(fields, message):
    with pytest.raises(SelectionError, match=message):
        resolve({"type": "combined"} | fields, make_table())


def test_an_unknown_operation_is_the_users_mistake():
    with pytest.raises(SelectionError, match="unknown operation 'xor'; choose one of: add, subtract, intersect"):
        combine("xor", A, B)


def test_the_notes_of_all_parts_are_kept_once():
    table = make_table(memorization=[1] * 10)
    top = {"type": "top", "by": "memorization", "q": 0.3}
    said = "10 groups tie for the last 3 places, given out in an order drawn from the seed."

    by_rule = resolve(combine("subtract", A, top), table)
    by_ids = combine_selections("subtract", resolve(A, table), resolve(top, table), resolve(top, table))

    assert by_rule.notes == by_ids.notes == (said,)
    assert by_rule.sample_ids.tolist() == by_ids.sample_ids.tolist()


@pytest.mark.parametrize("op", OPS)
def test_selections_combine_by_their_ids_even_where_the_rules_would_now_name_others(op):
    table = make_table()
    first, second = resolve(A, table), resolve(B, table)
    moved = type(first)(keys(9), first.sample_ids, first.notes)

    found = combine_selections(op, moved, second)

    assert set(found.sample_ids.tolist()) == slow_ids({"type": "combined", "op": op, "rules": [A, B]})
    assert found.sample_ids.dtype == np.int32
    assert found.rule == combine(op, keys(9), B)


SQUARE = [[0, 0], [1, 0], [1, 1]]
POLYGON = {"type": "polygon", "x": "difficulty", "y": "memorization", "polygons": [SQUARE]}
QUADRANT = {"type": "quadrant", "name": "stable-easy", "x": "difficulty", "y": "memorization", "tau_x": 1, "tau_y": 1}


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (None, "nothing selected"),
        (POLYGON, "an outline on Difficulty and Memorization (literal)"),
        (POLYGON | {"polygons": [SQUARE, SQUARE]}, "2 outlines on Difficulty and Memorization (literal)"),
        (QUADRANT, "quadrant Stable-Easy"),
        ({"type": "top", "by": "difficulty", "q": 0.05}, "top 5 % by Difficulty"),
        (A, "5 listed samples"),
        ({"type": "range", "score": "difficulty", "low": 1, "high": None}, "Difficulty from 1"),
        ({"type": "range", "score": "difficulty", "low": 1, "high": 2.5}, "Difficulty from 1 up to 2.5"),
        ({"type": "range", "score": "difficulty", "low": None, "high": None}, "Difficulty known"),
        ({"type": "filter", "text": "*river*", "duplicates": True}, "text “*river*”, exact copies only"),
        ({"type": "filter", "source": ["a", "b"], "min_tokens": 3}, "source a, b, at least 3 tokens"),
        ({"type": "filter", "max_tokens": 9, "duplicates": False}, "at most 9 tokens, no exact copies"),
        ({"type": "filter"}, "all samples"),
        ({"type": "all", "rules": [A, QUADRANT]}, "5 listed samples and also quadrant Stable-Easy"),
        ({"type": "any", "rules": [A, QUADRANT]}, "5 listed samples or quadrant Stable-Easy"),
        ({"type": "duplicates_of", "rule": A}, "5 listed samples with all exact copies"),
        (
            combine("subtract", QUADRANT, combine("add", A, C)),
            "quadrant Stable-Easy minus 5 listed samples minus 3 listed",
        ),
        (
            combine("intersect", combine("subtract", QUADRANT, A), C),
            "3 listed samples intersected with (quadrant Stable-Easy minus 5 listed samples)",
        ),
        ({"type": "policy", "alpha": 0.5, "gamma": 2}, "quadrant policy: hotspots weighted 0.5"),
        ({"type": "deduplicate"}, "all but one of each exact duplicate"),
        ({"type": "something_new"}, "something new"),
        ({"type": "top"}, "a rule that cannot be read"),
        ({"type": "range", "score": [], "low": "a", "high": 1}, "a rule that cannot be read"),
        ({}, "a rule that cannot be read"),
        ("keys", "a rule that cannot be read"),
    ],
)
def test_every_rule_is_said_in_words(rule, words):
    assert describe(rule).startswith(words)


def test_words_have_a_bounded_length():
    said = describe({"type": "filter", "text": "x" * 5000})

    assert len(said) == 240
    assert said.endswith("…")


def test_every_type_of_rule_has_words():
    from carto_core.rules import WORDS

    assert set(RULES) <= set(WORDS)


def test_the_canonical_order_is_that_of_the_written_json_letters_and_not_of_their_escapes():
    accented, plain = {"type": "keys", "keys": ["é"]}, {"type": "keys", "keys": ["z"]}

    assert combine("add", accented, plain)["rules"] == [plain, accented]


def test_the_order_of_a_rules_fields_leaves_no_trace():
    turned = dict(reversed(A.items()))

    assert combine("add", A, turned) == A


def test_a_rule_within_another_is_a_level_of_its_own():
    copies = {"type": "duplicates_of", "rule": A}

    assert (depth(copies), depth({"type": "duplicates_of", "rule": copies})) == (2, 3)
    assert depth({"type": "duplicates_of", "rule": "k1"}) == 1


def test_words_that_just_fit_are_not_cut():
    assert describe({"type": "filter", "text": "x" * 233}) == f"text “{'x' * 233}”"


def test_a_score_without_a_title_is_called_by_its_name():
    assert describe({"type": "top", "by": "nameless", "q": 0.05}) == "top 5 % by nameless"


def test_a_refusal_for_depth_says_what_to_do():
    with pytest.raises(SelectionError) as refused:
        resolve(alternating(21), make_table())

    assert str(refused.value) == (
        "the rule would be nested 21 levels deep, and at most 20 are allowed here; begin a new selection, "
        "or list the keys of this one in a file and go on from there (select --keys)"
    )
