import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from carto_core.corpus.near_duplicates import near_duplicates
from tests.texts import sentences

WORDS = [f"w{i}" for i in range(21)]


def text(words):
    return " ".join(words)


def slow_near(texts):
    """bool[N, N] by comparing all pairs; the diagonal is False."""
    sets = []
    for t in texts:
        words = t.lower().split()
        sets.append({text(words[i : i + 5]) for i in range(len(words) - 4)} or ({text(words)} if words else set()))
    near = np.zeros((len(texts), len(texts)), bool)
    for i, a in enumerate(sets):
        for j, b in enumerate(sets):
            near[i, j] = i != j and bool(a | b) and len(a & b) / len(a | b) >= 0.7
    return near


def test_two_texts_are_near_from_seven_tenths_of_their_shingles_on():
    whole = text(WORDS)  # 17 shingles
    at_threshold = text([*WORDS[:18], "x", "y", "z"])  # 14 in common of 20
    below = text([*WORDS[:17], "v", "x", "y", "z"])  # 13 in common with the whole of 21, 13 with the other

    assert near_duplicates([whole, at_threshold]).count.tolist() == [1, 1]
    assert near_duplicates([whole, below]).count.tolist() == [0, 0]
    assert near_duplicates([whole, below]).group_id.tolist() == [0, 1]


def test_counts_are_of_other_rows_and_copies_count_each():
    near = text([*WORDS[:20], "x"])
    other = "quite another text of more than five words"

    found = near_duplicates([other, text(WORDS), near, text(WORDS), other, near, near])

    assert found.count.tolist() == [1, 4, 4, 4, 1, 4, 4]
    assert found.group_id.tolist() == [0, 1, 1, 1, 0, 1, 1]
    assert (found.count.dtype, found.group_id.dtype) == (np.int32, np.int32)


def test_a_chain_is_one_group_though_its_ends_are_not_near():
    first, middle, last = text(WORDS), text([*WORDS[:19], "x", "y"]), text([*WORDS[2:19], "x", "y"])
    assert not slow_near([first, last])[0, 1]

    found = near_duplicates([first, middle, last])

    assert found.count.tolist() == [1, 2, 1]
    assert found.group_id.tolist() == [0, 0, 0]


def test_short_texts_are_near_only_as_wholes_and_empty_ones_never():
    found = near_duplicates(["a b c", "A  b c", "a b d", "", "", "  "])

    assert found.count.tolist() == [1, 1, 0, 0, 0, 0]
    assert found.group_id.tolist() == [0, 0, 1, 2, 3, 4]


def test_groups_are_numbered_by_first_appearance_and_empty_texts_are_each_their_own():
    assert near_duplicates(["", "a b", "", "a b"]).group_id.tolist() == [0, 1, 2, 1]
    assert near_duplicates([" ", "", " "]).group_id.tolist() == [0, 1, 2]


def test_no_texts_have_no_duplicates():
    found = near_duplicates([])

    assert (len(found.count), len(found.group_id)) == (0, 0)


def varied_texts(seed):
    """About 400 texts: sentences joined, then copied with words changed, dropped and repeated."""
    rng = np.random.default_rng(seed)
    base = [text(sentences(320)[i : i + 8]) for i in range(0, 320, 8)]
    texts = []
    for words in map(str.split, base):
        for _ in range(10):
            copy = list(words)
            for _ in range(int(rng.integers(4))):
                copy[int(rng.integers(len(copy)))] = f"changed{rng.integers(10**6)}"
            texts.append(text(copy[int(rng.integers(3)) : len(copy) - int(rng.integers(3))]))
    return texts


@pytest.mark.parametrize("seed", range(3))
def test_every_pair_found_is_near_and_nearly_every_near_pair_is_found(seed):
    texts = varied_texts(seed)
    near = slow_near(texts)

    found = near_duplicates(texts)

    assert (found.count <= near.sum(axis=1)).all(), "none is wrong"
    assert near.sum() > 1000
    assert found.count.sum() / near.sum() >= 0.999
    assert np.array_equal(found.count, near_duplicates(texts).count)
    together = found.group_id[:, None] == found.group_id[None, :]
    assert (near & ~together).sum() <= 0.001 * near.sum()


def test_it_is_had_without_torch():
    code = "import carto_core.corpus.near_duplicates, sys; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
