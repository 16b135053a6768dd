import itertools
import math

import numpy as np
import pytest

from carto_core.preview.effects import (
    SATURATED,
    effects_of,
    mixed_devices,
    part_of_oracles,
    reading,
    sign_flip_p,
    smallest_p,
)


def slow_p(differences):
    """Every pattern of signs, one at a time."""
    observed = abs(sum(differences))
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(differences))
    ]
    return sum(total >= observed - 1e-12 for total in sums) / len(sums)


@pytest.mark.parametrize("seed", range(4))
def test_the_sign_flip_test_tries_every_pattern_of_signs(seed):
    differences = np.random.default_rng(seed).normal(0.5, 1, 7)

    assert sign_flip_p(differences) == pytest.approx(slow_p(differences.tolist()))


def test_eight_seeds_that_agree_give_the_smallest_p_that_eight_can():
    assert sign_flip_p(np.full(8, -0.1)) == smallest_p(8) == 2 / 2**8


def test_seeds_that_did_not_differ_say_nothing():
    assert sign_flip_p(np.zeros(5)) == 1.0
    assert sign_flip_p(np.array([0.3, np.nan])) == 1.0
    assert math.isnan(sign_flip_p(np.array([])))


def test_more_seeds_than_can_be_tried_are_refused():
    with pytest.raises(ValueError, match="21 differences"):
        sign_flip_p(np.ones(21))


def test_a_line_is_compared_with_the_oracle_of_its_own_share():
    def line(policy, share, estimate):
        found = {"metric": "extraction.report", "against": "baseline", "estimate": estimate}
        return {"policy": policy, "share": share, "equal": "steps", "effects": [found]}

    lines = [line("oracle", 0.05, -0.2), line("oracle", 0.1, -0.4), line("recommended", 0.1, -0.1)]

    assert part_of_oracles(lines[2], lines) == 0.25
    assert math.isnan(part_of_oracles(lines[1], lines))
    assert math.isnan(part_of_oracles(line("recommended", 0.2, -0.1), lines))
    assert math.isnan(part_of_oracles(lines[2], [line("oracle", 0.1, 0.0)]))


def exposed(plan, control, most=10.0):
    """Return the effect on the report half's exposure, plan minus control, and what it shows."""
    arms = [
        {"arm": arm, "seed": seed, "exposure": {"calibration": None, "report": bits}, "exposure_most": most}
        for arm, values in (("baseline", plan), ("plan", plan), ("control", control), ("dedup", plan))
        for seed, bits in enumerate(values)
    ]
    wanted = ("plan", "control", "exposure.report")
    effect = next(e for e in effects_of(arms) if (e["arm"], e["against"], e["metric"]) == wanted)
    return effect, reading(effect)


def test_exposures_that_both_end_where_counting_ends_have_no_difference():
    effect, shown = exposed([10.0, 6.0, 6.5], [10.0, 9.0, 9.0])

    assert (effect["estimate"], effect["low"], effect["high"]) == (None, None, None)
    assert shown == effect["method"] == SATURATED


def test_a_difference_from_an_exposure_where_counting_ends_is_at_least_so_much():
    effect, shown = exposed([7.0, 6.0, 6.5], [10.0, 9.0, 9.0])

    assert effect["estimate"] == pytest.approx(-17 / 6)
    assert effect["method"].endswith("at least so much, because one side is at the most that was counted")
    assert shown == "lower"
    assert "at least" not in exposed([7.0, 6.0, 6.5], [9.5, 9.0, 9.0])[0]["method"]


def test_what_was_not_measured_is_unknown_rather_than_in_need_of_seeds():
    assert exposed([None, None], [3.0, 3.0])[1] == "unknown"


@pytest.mark.parametrize(
    ("devices", "told"),
    [
        (["cpu", "cuda", "cpu", None], "more than one device (2 on cpu, 1 on cuda)"),
        (["cuda", "cuda", None], ""),
        ([], ""),
    ],
)
def test_retrains_of_several_devices_are_told(devices, told):
    arms = [{"arm": "plan", "seed": i} | ({"device": d} if d else {}) for i, d in enumerate(devices)]

    note = mixed_devices(arms)

    assert told in note
    assert bool(note) == bool(told)
