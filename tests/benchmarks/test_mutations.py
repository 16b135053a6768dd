from pathlib import Path

import pytest

from benchmarks.mutations import GROUPS, change, explained, said

PROJECT = Path(__file__).parents[2]
VARIANTS = """
def x_half__mutmut_orig(value):
    assert value
    return value / 2

def x_half__mutmut_1(value):
    assert value
    return value / 3
"""


@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
def test_every_group_names_modules_and_tests_that_are_there(group):
    for pattern in (*group.modules, *group.tests, *(test.split("::")[0] for test in group.left_out)):
        assert list(PROJECT.glob(pattern)), pattern


def test_a_mutant_is_told_by_the_lines_that_changed(tmp_path):
    path = tmp_path / "mutants" / "package" / "__init__.py"
    path.parent.mkdir(parents=True)
    path.write_text(VARIANTS)

    assert change(tmp_path, "package.x_half__mutmut_1") == {"before": "return value / 2", "after": "return value / 3"}


def test_a_survivor_with_a_reason_is_equivalent_and_the_others_count_against_the_tests():
    alive = [{"mutant": f"m.x_f__mutmut_{i}", "before": "a", "after": after} for i, after in enumerate(["b", "c"])]
    found = {"mutants": 20, "sampled": 10, "survived": alive}

    told = explained(found, [{"function": r"m\.x_f", "after": "^b$", "why": "alike"}])

    assert [mutant["equivalent"] for mutant in told["survived"]] == ["alike", None]
    assert (told["killed"]["k"], told["killed"]["n"]) == (8, 10)
    assert (told["killed_of_those_that_differ"]["k"], told["killed_of_those_that_differ"]["n"]) == (8, 9)
    assert said(told).startswith("8 of 10 killed, 80.0% [49.0%, 94.3%], of 20 mutants in all; 88.9%")
