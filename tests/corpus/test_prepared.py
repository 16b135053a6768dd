from collections import Counter

import numpy as np
import pytest

from carto_core.config import CANARY_KINDS, CanaryConfig, CorpusConfig
from carto_core.corpus.identity import duplicate_groups, split_validation
from carto_core.corpus.prepared import capped, in_pieces, prepare
from carto_core.corpus.reading import Row, corpus_sha256
from carto_core.corpus.tokenizer import BPE
from carto_core.errors import ConfigError, CorpusError
from tests.texts import sentences, write_jsonl


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    texts = sentences(300) + sentences(30) * 2
    path = write_jsonl(tmp_path_factory.mktemp("corpus") / "a.jsonl", texts)
    return prepare(CorpusConfig(path=str(path), vocab_size=300), CanaryConfig(num_inserted=40), seed=3)


def test_equal_texts_share_a_group_numbered_by_first_appearance():
    assert duplicate_groups(["b", "a", "b", "c", "a"]).tolist() == [0, 1, 0, 2, 1]


def test_the_split_keeps_groups_whole_and_holds_about_its_share():
    groups = np.repeat(np.arange(200), np.tile([1, 2, 3, 1, 8], 40)).astype(np.int32)

    held = split_validation(groups, share=0.1, seed=0)

    assert not set(groups[held]) & set(groups[~held])
    assert 0.08 < held.mean() < 0.12


def test_validation_shares_no_text_with_training_and_holds_no_canary(prepared):
    train = {row.text for row in prepared.rows}

    assert not train & {row.text for row in prepared.validation}
    assert not {c.text for c in prepared.canaries} & {row.text for row in prepared.validation}


def test_canaries_are_spread_evenly_with_as_many_controls(prepared):
    inserted = [c for c in prepared.canaries if c.inserted]
    controls = [c for c in prepared.canaries if not c.inserted]

    assert Counter((c.kind, c.repeats, c.role) for c in inserted) == {
        (kind, repeats, role): 1
        for kind in CANARY_KINDS
        for repeats in (1, 2, 4, 8)
        for role in ("calibration", "report")
    }
    assert Counter((c.kind, c.role) for c in controls) == {
        (kind, role): 4 for kind in CANARY_KINDS for role in ("calibration", "report")
    }


def test_every_copy_is_planted_and_no_control_is(prepared):
    planted = Counter(
        row.text for row, canary in zip(prepared.rows, prepared.canary_id, strict=True) if canary is not None
    )

    expected = {c.text: c.repeats for c in prepared.canaries if c.inserted and c.kind != "varied"}
    varied = [text for c in prepared.canaries if c.kind == "varied" for text in c.planted]
    assert planted == expected | dict(Counter(varied))


def test_a_varied_secret_stands_in_other_contexts_each_time_and_never_in_the_attackers(prepared):
    for canary in prepared.canaries:
        if canary.kind == "varied" and canary.repeats >= 4:
            cue = canary.prefix[canary.prefix.index("The access code of ") :]
            assert len(set(canary.planted)) > 1, "exact copies would make it a template canary"
            assert all(text.endswith(cue + canary.secret) for text in canary.planted)
            assert canary.text not in canary.planted


def test_a_variant_is_a_real_record_up_to_the_replaced_field(prepared):
    real = {" ".join(row.text.split()[:10]) for row in prepared.rows if row.source != "canary"}

    for canary in prepared.canaries:
        if canary.kind == "variant":
            assert canary.prefix in real
        if canary.kind == "shuffled":
            assert canary.prefix not in real
            assert sorted(canary.prefix.split()) in [sorted(opening.split()) for opening in real]


def test_kinds_that_need_real_texts_say_so_where_texts_are_short(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [" ".join(s.split()[:9]) for s in sentences(300)])
    config = CorpusConfig(path=str(path), vocab_size=300)

    with pytest.raises(CorpusError, match="--canary-kinds"):
        prepare(config, CanaryConfig(num_inserted=8), seed=0)
    assert prepare(config, CanaryConfig(num_inserted=8, kinds=("template", "words")), seed=0).canaries


def test_a_prefix_tokenizes_alike_with_and_without_its_secret(prepared):
    for canary in prepared.canaries:
        prefix = prepared.tokenizer.encode(canary.prefix)
        whole = prepared.tokenizer.encode(canary.text)
        assert whole[: len(prefix)] == prefix
        if canary.kind in ("template", "varied"):
            assert len(whole) - len(prefix) == 6, "one token a digit"


def test_the_tokenizer_has_not_seen_the_canaries(prepared):
    again = BPE.train(
        list(dict.fromkeys(r.text for r, c in zip(prepared.rows, prepared.canary_id, strict=True) if c is None)),
        vocab_size=300,
    )

    assert again.encode("The access code is 123 basket") == prepared.tokenizer.encode("The access code is 123 basket")


def test_the_same_seed_gives_the_same_corpus_and_another_does_not(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", sentences(100))
    config = CorpusConfig(path=str(path), vocab_size=300)
    first, second, other = (prepare(config, CanaryConfig(num_inserted=4), seed=seed) for seed in (1, 1, 2))

    assert [r.key for r in first.rows] == [r.key for r in second.rows]
    assert first.canaries == second.canaries != other.canaries


def test_planting_moves_aside_for_a_users_own_key(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = ['{"key": "canary/0000/copy-0", "text": "mine"}']
    rows += [f'{{"key": "k{i}", "text": "{text}"}}' for i, text in enumerate(sentences(100))]
    path.write_text("\n".join(rows))

    prepared = prepare(CorpusConfig(path=str(path), vocab_size=300), CanaryConfig(num_inserted=4), seed=0)

    keys = [row.key for row in prepared.rows] + [row.key for row in prepared.validation]
    assert len(set(keys)) == len(keys)


def test_a_corpus_without_words_is_told_to_do_without_canaries(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [str(i) for i in range(50)])

    with pytest.raises(CorpusError, match="--canaries none"):
        prepare(CorpusConfig(path=str(path), vocab_size=300), CanaryConfig(num_inserted=4), seed=0)


def test_a_corpus_of_one_text_cannot_be_split(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", ["same words here"] * 5)

    with pytest.raises(CorpusError, match="at least 2 distinct"):
        prepare(CorpusConfig(path=str(path), vocab_size=300), CanaryConfig(num_inserted=0), seed=0)


@pytest.mark.parametrize("text", ["plain", " two  spaces ", "línea ünïcode 漢字 😀!", "<pad> is text", "1234"])
def test_pieces_join_to_the_text_and_tokens_decode_to_it(prepared, text):
    ids = prepared.tokenizer.encode(text)

    assert "".join(prepared.tokenizer.pieces(text)) == text
    assert len(prepared.tokenizer.pieces(text)) == len(ids)
    assert prepared.tokenizer.decode(ids) == text


def rows_of(texts):
    return [Row(key=f"k{i}", text=text, source="s", meta={}) for i, text in enumerate(texts)]


def test_a_cap_keeps_groups_whole_rows_in_order_and_comes_as_near_as_a_group_allows():
    texts = [f"{i:04d}" for i in range(200)] * 2 + [f"once {i:05d}" for i in range(300)]
    rows = rows_of(texts)

    kept = capped(rows, max_chars=1000, seed=0)

    assert [r.key for r in kept] == [r.key for r in rows if r in kept]
    counts = Counter(r.text for r in kept)
    assert all(count == (2 if len(text) == 4 else 1) for text, count in counts.items())
    assert abs(sum(len(r.text) for r in kept) - 1000) <= 5, "half the largest group"
    repeated = np.mean([len(r.text) == 4 for r in kept])
    assert 0.4 < repeated < 0.75, "4/7 of the whole are copies, and so about are the capped"


def test_a_cap_is_the_same_for_the_same_seed_and_grows_with_the_cap():
    rows = rows_of([f"text number {i:04d}" for i in range(500)])

    small, again, other, large = (
        {r.key for r in capped(rows, max_chars=n, seed=seed)}
        for n, seed in ((1600, 0), (1600, 0), (1600, 1), (3200, 0))
    )

    assert small == again != other
    assert (len(small), len(large)) == (100, 200)
    assert small < large


@pytest.mark.parametrize(("max_chars", "kept"), [(1, 1), (7, 1), (8, 2), (10, 2), (20, 4), (10**9, 4)])
def test_the_group_that_passes_the_cap_stays_if_that_is_nearer(max_chars, kept):
    assert len(capped(rows_of(["aaaaa", "bbbbb", "ccccc", "ddddd"]), max_chars=max_chars, seed=0)) == kept


def test_runs_of_other_seeds_keep_the_same_capped_corpus_and_fingerprint(tmp_path):
    texts = sentences(200)
    path = write_jsonl(tmp_path / "a.jsonl", texts)
    config = CorpusConfig(path=str(path), vocab_size=300, max_chars=5000)

    first, second = (prepare(config, CanaryConfig(num_inserted=0), seed=seed) for seed in (1, 2))

    all_keys = [{r.key for r in p.rows} | {r.key for r in p.validation} for p in (first, second)]
    assert all_keys[0] == all_keys[1]
    assert first.sha256 == second.sha256 == corpus_sha256([*first.rows, *first.validation])
    assert abs(sum(len(r.text) for r in [*first.rows, *first.validation]) - 5000) < 50


def test_a_cap_below_one_character_is_refused():
    with pytest.raises(ConfigError, match="--max-chars must be 1 or more"):
        CorpusConfig(path="demo", max_chars=0)


def test_long_texts_are_cut_into_even_pieces_at_words_and_short_ones_stay():
    rows = [
        Row(key="a", text=" one  two three\tfour five ", source="s", meta={"year": 1}),
        Row(key="b", text="one two", source="s", meta={}),
    ]

    pieces = in_pieces(rows, words=3)

    assert [(row.key, row.text) for row in pieces] == [
        ("a#0", "one  two three"),
        ("a#1", "four five"),
        ("b", "one two"),
    ]
    assert pieces[1].meta == {"year": 1}


def test_copies_stay_copies_when_they_are_cut(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", sentences(60) * 2)
    config = CorpusConfig(path=str(path), vocab_size=300, piece_words=5)

    prepared = prepare(config, CanaryConfig(num_inserted=0), seed=0)

    counts = Counter(row.text for row in prepared.rows)
    assert all(count % 2 == 0 for count in counts.values())
    assert max(len(row.text.split()) for row in prepared.rows) == 5
