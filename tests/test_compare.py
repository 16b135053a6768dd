import json

import numpy as np
import pytest

from carto_core.compare import (
    FROM,
    TO,
    canary_changes,
    common_axes,
    join,
    memorization_moves,
    new_hotspots,
    quadrant_flow,
    top_movers,
)
from carto_core.errors import CompareError, UnknownNameError
from carto_core.quadrants import QUADRANTS, Cuts
from carto_core.types import SampleTable

EASY, HARD, HOT, NOISY = QUADRANTS
CUTS = Cuts("difficulty", "consolidation", 1.0, 1.0)
PLACES = {EASY: (0, 0), HARD: (2, 0), HOT: (0, 2), NOISY: (2, 2), "unknown": (np.nan, 2)}


def table(keys, x, y, *, run_id="a", y_name="consolidation", **changes):
    n = len(keys)
    scores = {"difficulty": np.array(x, np.float32), y_name: np.array(y, np.float32)}
    fields = {
        "run_id": run_id,
        "corpus_sha256": "c",
        "seed": 0,
        "key": np.array(keys, object),
        "source": np.array(["s"] * n, object),
        "group_id": np.arange(n, dtype=np.int32),
        "num_tokens": np.full(n, 9, np.int32),
        "canary_id": np.full(n, np.nan),
        "scores": scores,
        "x": "difficulty",
        "y": y_name,
        "tau_x": 1.0,
        "tau_y": 1.0,
    }
    return SampleTable(**fields | changes)


def placed(places, **changes):
    """Samples k0, k1, ... or of the names given, each in a quadrant of `CUTS`."""
    named = places if isinstance(places, dict) else {f"k{i}": place for i, place in enumerate(places)}
    x, y = zip(*(PLACES[place] for place in named.values()), strict=True)
    return table(list(named), x, y, **changes)


def flow_of(a, b, **cuts):
    return quadrant_flow(a, b, join(a, b), **({"cuts_a": CUTS, "cuts_b": CUTS} | cuts))


def cell(flow, before, after):
    return int(flow.counts[FROM.index(before), TO.index(after)])


# Joining


def test_runs_are_joined_on_key_whatever_the_order():
    a, b = placed({"p": EASY, "q": HARD, "r": HOT}), placed({"r": HOT, "s": EASY, "p": EASY}, run_id="b")

    joined = join(a, b)

    assert joined.a.tolist() == [0, 2]
    assert joined.b.tolist() == [2, 0]
    assert joined.only_a.tolist() == [1]
    assert joined.only_b.tolist() == [1]


def test_a_key_of_another_text_joins_nothing_and_is_counted():
    a, b = placed({"p": EASY, "q": HARD}), placed({"q": HARD, "p": EASY}, run_id="b")

    joined = join(a, b, texts=(np.array(["one", "two"]), np.array(["two", "another"])))

    assert (joined.a.tolist(), joined.b.tolist(), joined.num_other_text) == ([1], [0], 1)
    assert (joined.only_a.tolist(), joined.only_b.tolist()) == ([0], [1])


def test_runs_without_a_shared_sample_are_refused():
    a, b = placed({"p": EASY}), placed({"q": EASY, "r": EASY}, run_id="b")

    with pytest.raises(CompareError, match=r"runs a \(1 samples\) and b \(2\) share none of their keys"):
        join(a, b)
    with pytest.raises(CompareError, match="share only 1 keys, which stand for other texts"):
        join(a, placed({"p": EASY}, run_id="b"), texts=(np.array(["one"]), np.array(["two"])))


# Axes


def test_both_runs_axes_are_taken_where_they_agree():
    assert common_axes(placed([EASY]), placed([HOT], run_id="b")) == ("difficulty", "consolidation")


def test_different_axes_are_an_error_unless_one_score_is_named_for_both():
    a, b = placed([EASY]), placed([EASY], run_id="b", y_name="final_loss")
    a.scores["final_loss"] = np.zeros(1, np.float32)

    with pytest.raises(CompareError, match="run a is cut on y = consolidation and run b on y = final_loss"):
        common_axes(a, b)
    assert common_axes(a, b, y="final_loss") == ("difficulty", "final_loss")


def test_a_score_that_a_run_does_not_know_names_the_probe_that_makes_it():
    a, b = placed([EASY], y_name="min_k_pp"), placed([EASY], run_id="b", y_name="min_k_pp")
    b.scores["min_k_pp"] = np.full(1, np.nan, np.float32)

    with pytest.raises(CompareError, match="python -m carto_core probe b passes"):
        common_axes(a, b)
    with pytest.raises(UnknownNameError, match="unknown score 'vibes'"):
        common_axes(a, a, y="vibes")


# Flow


def test_every_sample_is_counted_once_where_it_came_from_and_went_to():
    a = placed({"stay": HOT, "up": EASY, "down": HOT, "lost": NOISY, "dim": EASY})
    b = placed({"up": HOT, "stay": HOT, "down": HARD, "found": HOT, "dim": "unknown"}, run_id="b")

    flow = flow_of(a, b)

    moves = {(HOT, HOT), (EASY, HOT), (HOT, HARD), (NOISY, "gone"), ("new", HOT), (EASY, "unknown")}
    assert {(f, t): cell(flow, f, t) for f in FROM for t in TO if cell(flow, f, t)} == dict.fromkeys(moves, 1)


def test_what_is_never_drawn_is_gone_after_and_new_before():
    drawn = {"repeats": np.array([0, 1, 0, 1], np.int32)}
    a = placed([HOT, HOT, HOT, EASY], repeats=np.array([1, 0, 0, 1], np.int32))
    b = placed([EASY, HOT, HOT, EASY], run_id="b", **drawn)

    flow = flow_of(a, b)

    assert (cell(flow, HOT, "gone"), cell(flow, "new", HOT), cell(flow, EASY, EASY)) == (1, 1, 1)
    assert flow.counts.sum() == 3, "what neither trains on is in no count"


def test_each_run_is_placed_by_its_own_cuts_or_both_by_as():
    a, b = placed([EASY, HOT]), table(["k0", "k1"], [0, 0], [1.5, 2], run_id="b")
    higher = Cuts("difficulty", "consolidation", 1.0, 1.8)

    assert cell(flow_of(a, b, cuts_b=higher), EASY, EASY) == 1
    assert cell(flow_of(a, b), EASY, HOT) == 1


def test_the_flow_is_what_a_dictionary_counts():
    rng = np.random.default_rng(3)
    names = [*PLACES]
    pick = lambda keys: {f"k{k}": names[rng.integers(len(names))] for k in keys}  # noqa: E731
    before, after = pick(rng.permutation(300)[:200]), pick(rng.permutation(300)[:220])
    repeats = {"a": rng.integers(0, 3, 200), "b": rng.integers(0, 3, 220)}
    a = placed(before, repeats=repeats["a"].astype(np.int32))
    b = placed(after, run_id="b", repeats=repeats["b"].astype(np.int32))

    flow = flow_of(a, b)

    drawn_a = {key for key, r in zip(before, repeats["a"], strict=True) if r}
    drawn_b = {key for key, r in zip(after, repeats["b"], strict=True) if r}
    expected = {}
    for key in drawn_a | drawn_b:
        way = (before[key] if key in drawn_a else "new", after[key] if key in drawn_b else "gone")
        expected[way] = expected.get(way, 0) + 1
    assert {(f, t): cell(flow, f, t) for f in FROM for t in TO if cell(flow, f, t)} == expected


# Moves


def moves_of(a, b, y="consolidation"):
    return memorization_moves(a, b, join(a, b), y=y)


def test_ranks_run_from_least_to_most_memorized_and_ties_share_one():
    a = table(list("pqrs"), [0] * 4, [1, 2, 2, 8])
    b = table(list("pqrs"), [0] * 4, [40, 10, 20, 30], run_id="b")

    moves = moves_of(a, b)

    assert moves.rank_a.tolist() == [0.125, 0.5, 0.5, 0.875]
    assert moves.rank_b.tolist() == [0.875, 0.125, 0.375, 0.625]
    assert moves.rank_change.tolist() == [0.75, -0.375, -0.125, -0.25]
    assert moves.change.tolist() == [39, 8, 18, 22]


def test_a_score_that_is_low_when_memorized_is_turned():
    a = table(list("pq"), [0, 0], [1.0, 3.0], y_name="final_loss")
    b = table(list("pq"), [0, 0], [1.5, 0.5], y_name="final_loss", run_id="b")

    moves = moves_of(a, b, y="final_loss")

    assert moves.rank_a.tolist() == [0.75, 0.25]
    assert moves.change.tolist() == [-0.5, 2.5]
    assert moves.rank_change.tolist() == [-0.5, 0.5]
    assert moves.value_b.tolist() == [1.5, 0.5], "the value itself is not turned"


def test_what_was_cut_or_is_unknown_does_not_move_and_lifts_nobody():
    y = [9.0, 1.0, 2.0, 3.0, np.nan]
    a, b = table(list("pqrst"), [0] * 5, y), table(list("pqrst"), [0] * 5, [0.0, 1, 2, 3, 4], run_id="b")
    b = placed_again(b, repeats=np.array([0, 1, 1, 1, 1], np.int32))

    moves = moves_of(a, b)

    assert moves.a.tolist() == [1, 2, 3]
    assert moves.rank_change.tolist() == [0, 0, 0]


def placed_again(some, **changes):
    return table(some.key, some.scores["difficulty"], some.scores["consolidation"], run_id=some.run_id, **changes)


def test_top_movers_come_by_change_of_rank_one_per_group_and_unnamed_where_concealed():
    a = table(list("pqrstu"), [0] * 6, [1, 2, 3, 4, 5, 5], group_id=np.array([0, 1, 2, 3, 4, 4], np.int32))
    b = table(list("pqrstu"), [0] * 6, [9, 2, 3, 4, 1, 1], run_id="b")
    flow, moves = flow_of(a, b), moves_of(a, b)

    movers = top_movers(a, moves, flow)
    some = top_movers(a, moves, flow, concealed=np.array([1, 0, 0, 0, 0, 0], bool), top=1)

    assert [(m["key"], m["copies"]) for m in movers[:2]] == [("p", 1), ("t", 2)]
    assert (movers[0]["rank_a"], movers[0]["rank_b"]) == pytest.approx((1 / 12, 11 / 12))
    assert (movers[0]["from"], movers[0]["to"], movers[0]["change"]) == (EASY, HOT, 8.0)
    assert (movers[0]["sample_id_a"], movers[0]["sample_id_b"]) == (0, 0)
    assert [m["key"] for m in some] == ["t"]
    json.dumps(movers)


def test_the_largest_change_of_value_need_not_be_that_of_rank():
    a = table(list("pqrs"), [0] * 4, [1, 1.1, 1.2, 5])
    b = table(list("pqrs"), [0] * 4, [1.3, 1.1, 1.2, 9], run_id="b")
    flow, moves = flow_of(a, b), moves_of(a, b)

    assert [m["key"] for m in top_movers(a, moves, flow)] == ["p", "q", "r", "s"]
    assert [m["key"] for m in top_movers(a, moves, flow, by="value")] == ["s", "p", "q", "r"]


def test_where_nothing_moved_nobody_is_listed():
    a, b = placed([EASY, HOT]), placed([EASY, HOT], run_id="b")

    assert top_movers(a, moves_of(a, b), flow_of(a, b)) == []


# New hotspots


def test_new_hotspots_are_those_after_that_were_none_before():
    a = placed({"old": HOT, "up": EASY, "cut": EASY})
    b = table(
        ["up", "old", "found", "cut"], [0] * 4, [2, 9, 3, 9], run_id="b", repeats=np.array([1, 1, 1, 0], np.int32)
    )

    rows, num = new_hotspots(b, flow_of(a, b), y="consolidation")

    assert [(r["key"], r["from"], r["sample_id_a"], r["sample_id_b"], r["value_b"]) for r in rows] == [
        ("found", "new", None, 2, 3.0),
        ("up", EASY, 1, 0, 2.0),
    ]
    assert num == 2


def test_copies_of_a_new_hotspot_are_one_row_and_concealed_ones_are_counted_alone():
    a = placed([EASY] * 4)
    b = table([f"k{i}" for i in range(4)], [0] * 4, [3, 3, 2, 4], run_id="b", group_id=np.array([0, 0, 1, 2], np.int32))

    rows, num = new_hotspots(b, flow_of(a, b), y="consolidation", concealed=np.array([0, 0, 0, 1], bool))

    assert [(r["key"], r["copies"]) for r in rows] == [("k0", 2), ("k2", 1)]
    assert num == 4


# Canaries


def secrets(*extracted, roles=None):
    roles = roles or ["calibration"] * len(extracted)
    return [
        {"canary_id": i, "kind": "words", "role": role, "extracted": found}
        for i, (found, role) in enumerate(zip(extracted, roles, strict=True))
    ]


def planted(canaries, **changes):
    keys = [f"canary/{c}/copy-{i}" for i, c in enumerate(canaries)]
    return placed(dict.fromkeys(keys, EASY), canary_id=np.array(canaries, float), **changes)


def test_canaries_that_changed_are_told_by_role_with_the_copies_of_either_run():
    a = planted([0, 0, 1, 2, 3])
    b = planted([0, 0, 1, 2, 3], run_id="b", repeats=np.array([0, 0, 1, 2, 1], np.int32))
    roles = ["calibration", "calibration", "calibration", "report"]
    mine, theirs = secrets(True, False, True, False, roles=roles), secrets(False, True, True, True, roles=roles)

    found = canary_changes(a, b, join(a, b), extraction_a=mine, extraction_b=theirs, roles=("calibration",))

    assert set(found) == {"calibration"}
    assert found["calibration"] == {
        "n": 3,
        "extracted_a": 2,
        "extracted_b": 2,
        "kept": {"n": 2, "extracted_a": 1, "extracted_b": 2},
        "became": [{"canary_id_a": 1, "canary_id_b": 1, "kind": "words", "copies_a": 1, "copies_b": 1}],
        "stopped": [{"canary_id_a": 0, "canary_id_b": 0, "kind": "words", "copies_a": 2, "copies_b": 0}],
    }


def test_secrets_of_other_numbers_are_matched_by_their_copies():
    a = placed({"u": EASY, "c": EASY}, canary_id=np.array([np.nan, 0]))
    b = placed({"c": EASY, "u": EASY}, run_id="b", canary_id=np.array([1, np.nan]))

    found = canary_changes(
        a, b, join(a, b), extraction_a=secrets(False), extraction_b=secrets(False, True), roles=("calibration",)
    )

    assert [(r["canary_id_a"], r["canary_id_b"]) for r in found["calibration"]["became"]] == [(0, 1)]
