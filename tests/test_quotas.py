import math
from fractions import Fraction

import numpy as np
import pytest

from carto_core.errors import SelectionError
from carto_core.quotas import (
    apply_quotas,
    group_effect,
    group_quality,
    groupings,
    kept_counts,
    remaining_near_duplicates,
)
from carto_core.selection import resolve
from carto_core.types import Plan, SampleTable, Selection

NAN = math.nan


def make_table(source, **changes):
    count = len(source)
    fields = {
        "run_id": "tiny",
        "corpus_sha256": "0" * 64,
        "seed": 0,
        "key": np.array([f"k{i}" for i in range(count)], object),
        "source": np.array(source, object),
        "group_id": np.arange(count, dtype=np.int32),
        "num_tokens": np.full(count, 10, np.int32),
        "canary_id": np.full(count, NAN),
        "scores": {"difficulty": np.zeros(count, np.float32), "memorization": np.zeros(count, np.float32)},
        "x": "difficulty",
        "y": "memorization",
        "tau_x": 0.5,
        "tau_y": 0.5,
    }
    return SampleTable(**fields | changes)


def chosen(*ids):
    return Selection({"type": "keys", "keys": []}, np.array(sorted(ids), np.int32), ("a note",))


def plan_of(repeats, weights=None):
    repeats = np.int32(repeats)
    weights = (repeats > 0).astype(np.float32) if weights is None else np.float32(weights)
    return Plan(repeats, weights, [""] * len(repeats), {}, "prune")


def slow_density(sizes, quality, keep):
    """The algorithm one group at a time, in exact fractions; returns the counts before rounding."""
    density, left, active = [Fraction(0)] * len(sizes), Fraction(keep), list(range(len(sizes)))
    while left > 0 and active:
        z = sum((sizes[k] * (1 - quality[k]) for k in active), Fraction(0)) / left
        excess, still = Fraction(0), []
        for k in active:
            density[k] += (1 - quality[k]) / z
            if density[k] >= 1:
                excess += (density[k] - 1) * sizes[k]
                density[k] = Fraction(1)
            else:
                still.append(k)
        left, active = excess, still
    return [d * n for d, n in zip(density, sizes, strict=True)]


def test_kept_counts_are_proportional_to_size_times_what_is_left_to_learn():
    # 60 x .5 = 30, 30 x .2 = 6, 10 x 1 = 10; 40/46 of each is 26.09, 5.22, 8.70, of which the last rounds up.
    # Counts proportional to 1 - quality alone would have been 20, 8 and 10.
    sizes, quality = {"a": 60, "b": 30, "c": 10}, {"a": 0.5, "b": 0.8, "c": 0.0}

    assert kept_counts(sizes, quality, keep=40) == {"a": 26, "b": 5, "c": 9}


def test_what_a_full_group_cannot_use_goes_to_the_others():
    # 80 x .1 = 8, 20 x .5 = 10: 20 x 50 x .5/18 = 27.8 is 7.8 too many, 22.2 + 7.8 = 30.
    assert kept_counts({"a": 80, "b": 20}, {"a": 0.9, "b": 0.5}, keep=50) == {"a": 30, "b": 20}


@pytest.mark.parametrize("seed", range(20))
def test_kept_counts_agree_with_the_algorithm_in_exact_fractions(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 200, 7).tolist()
    quality = [Fraction(int(q), 100) for q in rng.integers(0, 100, 7)]
    keep = int(rng.integers(1, sum(sizes)))
    exact = slow_density(sizes, quality, keep)

    found = kept_counts(
        {str(k): n for k, n in enumerate(sizes)}, {str(k): float(q) for k, q in enumerate(quality)}, keep=keep
    )

    assert sum(found.values()) == keep
    assert all(0 <= kept <= n for kept, n in zip(found.values(), sizes, strict=True))
    assert all(abs(kept - count) < 1 for kept, count in zip(found.values(), exact, strict=True))


@pytest.mark.parametrize(
    ("quality", "keep", "kept"),
    [
        ({"a": 0.2, "b": 0.7}, 0, {"a": 0, "b": 0}),
        ({"a": 0.2, "b": 0.7}, 40, {"a": 10, "b": 30}),
        ({"a": 0.5, "b": 1.0}, 8, {"a": 8, "b": 0}),  # a group that is known by heart gives up all
        ({"a": 0.5, "b": 1.0}, 13, {"a": 10, "b": 3}),  # unless nobody else can take what is kept
        ({"a": 1.0, "b": 1.0}, 8, {"a": 2, "b": 6}),
    ],
)
def test_kept_counts_at_the_ends(quality, keep, kept):
    assert kept_counts({"a": 10, "b": 30}, quality, keep=keep) == kept


def test_with_everything_selected_each_group_gives_up_its_quota_at_random_by_the_seed():
    source = ["a"] * 60 + ["b"] * 30 + ["c"] * 10
    table, quality = make_table(source), {"a": 0.5, "b": 0.8, "c": 0.0}

    cut, again = (apply_quotas(chosen(*range(100)), table, table.source, quality, budget=60) for _ in range(2))
    other = apply_quotas(chosen(*range(100)), make_table(source, seed=1), table.source, quality, budget=60)

    counts = {name: int((table.source[cut.sample_ids] == name).sum()) for name in "abc"}
    assert counts == {"a": 34, "b": 25, "c": 1}
    assert cut.sample_ids.tolist() == again.sample_ids.tolist() != other.sample_ids.tolist()
    assert cut.sample_ids.tolist() != sorted([*range(34), *range(60, 85), 90]), "not simply the first ones"
    assert resolve(cut.rule, table).sample_ids.tolist() == cut.sample_ids.tolist()
    assert cut.notes == ("a note", "Quotas let 60 of 100 selected samples go; asked for were 60.")


def test_a_quota_only_takes_from_a_selection_the_highest_ranked_first_and_unknown_last():
    table = make_table(["a"] * 4 + ["b"] * 4)
    ranking = np.float32([1, 9, NAN, 5, 7, 8, 6, 1])

    # Of 8, 4 go; of each 2 may.
    cut = apply_quotas(chosen(0, 2, 3, 4, 5, 6), table, table.source, {"a": 0.5, "b": 0.5}, budget=4, ranking=ranking)
    scarce = apply_quotas(chosen(2, 4, 5, 6), table, table.source, {"a": 0.5, "b": 0.5}, budget=4, ranking=ranking)

    assert cut.sample_ids.tolist() == [0, 3, 4, 5]
    assert scarce.sample_ids.tolist() == [2, 4, 5]


def test_copies_go_together_and_a_set_too_large_is_skipped_and_said():
    table = make_table(["a"] * 6 + ["b"] * 6, group_id=np.int32([0, 0, 0, 1, 2, 2, 3, 4, 5, 6, 7, 8]))
    ranking = np.float32([1, 9, 1, 2, 7, 0, *range(6)])

    # Of 12, 4 go: 2 of each. The three copies are ranked first by their best but pass the quota of 2.
    cut = apply_quotas(chosen(*range(6)), table, table.source, {"a": 0.0, "b": 0.0}, budget=4, ranking=ranking)

    assert cut.sample_ids.tolist() == [4, 5]
    assert "1 sets of copies would pass" in cut.notes[-1]


def test_planted_samples_are_in_no_group_and_stay_selected():
    table = make_table(["a", "a", "canary"], canary_id=np.array([NAN, NAN, 3]))
    labels = groupings(table)["source"]

    cut = apply_quotas(chosen(0, 1, 2), table, labels, {"a": 0.5}, budget=1)

    assert len(cut.sample_ids) == 2
    assert 2 in cut.sample_ids


@pytest.mark.parametrize(
    ("quality", "budget", "said"),
    [
        ({"a": 0.5}, 1, "quality of group 'b'"),
        ({"a": 0.5, "b": 1.5}, 1, "from 0 to 1, got 1.5"),
        ({"a": 0.5, "b": NAN}, 1, "got nan"),
        ({"a": 0.5, "b": 0.5}, 0, "between 1 and the 2 grouped samples, got 0"),
        ({"a": 0.5, "b": 0.5}, 3, "got 3"),
    ],
)
def test_quotas_that_cannot_be_are_the_users_mistake(quality, budget, said):
    table = make_table(["a", "b"])

    with pytest.raises(SelectionError, match=said):
        apply_quotas(chosen(0), table, table.source, quality, budget=budget)


def test_a_groups_quality_is_its_likelihood_and_none_where_nothing_is_known():
    labels = np.array(["a", "a", "b", "c", None], object)
    loss = np.float32([math.log(2), math.log(8), 0, NAN, 1])

    assert group_quality(loss, labels) == pytest.approx({"a": 0.25, "b": 1.0, "c": 0.0})


def test_groups_are_by_source_length_and_the_users_columns_without_planted_samples():
    table = make_table(
        ["a", "b", "a", "b", "canary"],
        num_tokens=np.int32([4, 100, 9, 9, 50]),
        canary_id=np.array([NAN, NAN, NAN, NAN, 0]),
    )

    found = groupings(table, {"year": np.array([1999, None, 2000.0, NAN, 1999], object)})

    assert {name: labels.tolist() for name, labels in found.items()} == {
        "source": ["a", "b", "a", "b", None],
        "length": ["4 to 4 tokens", "100 to 100 tokens", "9 to 9 tokens", "9 to 9 tokens", None],
        "year": ["1999", "unknown", "2000.0", "unknown", None],
    }


def test_an_effect_counts_what_is_removed_and_touched_and_flags_a_starved_group():
    table = make_table(
        ["a"] * 10 + ["b"] * 9 + ["c"] * 10 + ["canary"],
        num_tokens=np.int32([10] * 9 + [110] + [10] * 20),
        canary_id=np.array([NAN] * 29 + [0]),
    )
    repeats = [0] * 6 + [1] * 4 + [0] * 9 + [0] * 5 + [1] * 5 + [0]
    weights = [0] * 6 + [1, 1, 1, 0.5] + [0] * 9 + [0] * 5 + [1] * 5 + [0]

    effects = group_effect(plan_of(repeats, weights), table, {"source": groupings(table)["source"]})

    assert [(e.group, e.num_samples, e.num_affected, e.num_removed, e.starved) for e in effects] == [
        ("a", 10, 7, 6, True),
        ("b", 9, 9, 9, False),  # too few to tell
        ("c", 10, 5, 5, False),  # half is not more than half
    ]
    assert [e.removed for e in effects] == [0.6, 1.0, 0.5]
    assert [e.removed_tokens for e in effects] == [60 / 200, 1.0, 0.5]
    lenient = group_effect(plan_of(repeats), table, {"source": table.source}, share=0.45, min_rows=1)
    assert [e.starved for e in lenient] == [True, True, True, True]


def test_groups_come_with_numbers_in_order():
    table = make_table(["2 to 3", "10 to 11", "x", "4 to 9"])

    effects = group_effect(plan_of([1] * 4), table, {"source": table.source})

    assert [e.group for e in effects] == ["2 to 3", "4 to 9", "10 to 11", "x"]


def test_near_duplicates_outside_a_selection_and_those_they_repeat():
    near = np.int32([0, 0, 1, 1, 1, 2, 3, 3])

    remaining = remaining_near_duplicates(chosen(0, 2, 3, 5, 6, 7), near)

    assert remaining.outside.tolist() == [1, 4]
    assert remaining.touched.tolist() == [0, 2, 3]


def test_remaining_ids_are_int32_and_ascending():
    found = remaining_near_duplicates(chosen(1, 3), np.int32([0, 0, 1, 2, 0, 2]))

    assert (found.outside.tolist(), found.touched.tolist()) == ([0, 4, 5], [1, 3])
    assert (found.outside.dtype, found.touched.dtype) == (np.int32, np.int32)


def test_a_run_of_planted_samples_alone_has_no_groups_by_length():
    found = groupings(make_table(list("ab"), canary_id=np.array([0.0, 1.0])))

    assert {name: labels.tolist() for name, labels in found.items()} == {"source": [None, None], "length": [None, None]}


def test_a_set_of_copies_that_would_pass_its_quota_is_counted_once():
    table = make_table(list("aaaaaa"), group_id=np.int32([0, 0, 0, 1, 2, 3]))
    ranking = np.float32([9, 9, 9, 1, 1, 1])

    cut = apply_quotas(chosen(*range(6)), table, table.source, {"a": 0.0}, budget=2, ranking=ranking)

    assert len(cut.sample_ids) == 2
    assert cut.notes[-1] == "1 sets of copies would pass their group's quota and were skipped."


def test_a_groups_mean_loss_is_taken_in_float64():
    losses = np.float32([0.1, 0.2, 0.4])

    found = group_quality(losses, np.array(["a"] * 3, object))

    assert found == {"a": math.exp(-sum(losses.tolist()) / 3)}
