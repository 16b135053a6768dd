import dataclasses
import difflib
import math

import numpy as np
import pytest

from carto_core.audits.subject import load_subject
from carto_core.audits.verbatim import PREFIX, SUFFIX, audit_verbatim, longest_common_runs
from carto_core.corpus.identity import duplicate_groups
from carto_core.corpus.prepared import Tokens
from carto_core.tasks.decoding import continuation_losses, greedy
from tests.audits.oracle import Oracle
from tests.texts import sentences


@pytest.fixture(scope="module")
def subject(trained_run):
    """Texts of one to five sentences, some copied up to six times, and two planted copies."""
    subject, plain = load_subject(trained_run), sentences(60)
    texts = [" ".join(plain[i : i + 1 + i // 2 % 5]) for i in range(0, 50, 2)]
    texts += [text for copies, text in enumerate(texts[2:5] + texts[7:10]) for _ in range(copies)]
    planted = [" ".join(plain[50:53])] * 2
    corpus = dataclasses.replace(
        subject.corpus,
        texts=texts + planted,
        train=Tokens.encode(texts + planted, subject.corpus.tokenizer),
        group_id=duplicate_groups(texts + planted),
        canary_id=np.array([np.nan] * len(texts) + [0.0] * 2),
    )
    return dataclasses.replace(subject, corpus=corpus)


def with_context(subject, context):
    config = dataclasses.replace(subject.config, model=dataclasses.replace(subject.config.model, context=context))
    return dataclasses.replace(subject, config=config)


@pytest.mark.parametrize(
    ("first", "second", "length"),
    [("abcdxyz", "xxcdxyq", 4), ("aaaa", "aa", 2), ("abc", "def", 0), ("", "abc", 0), ("abc", "abc", 3)],
)
def test_the_longest_common_run(first, second, length):
    found = longest_common_runs([[*map(ord, first)]], [[*map(ord, second)]])

    assert (found.tolist(), found.dtype) == ([length], np.int32)


def test_common_runs_of_many_pairs_are_those_of_each(monkeypatch):
    monkeypatch.setattr("carto_core.audits.verbatim.RUN_PAIRS", 7)
    rng = np.random.default_rng(0)
    pairs = [[rng.integers(0, 3, rng.integers(0, 25)).tolist() for _ in range(2)] for _ in range(60)]

    found = longest_common_runs([a for a, _ in pairs], [b for _, b in pairs])

    slow = [difflib.SequenceMatcher(None, a, b, autojunk=False).find_longest_match().size for a, b in pairs]
    assert found.tolist() == slow


def test_every_row_is_what_asking_for_its_text_alone_gives(subject):
    subject = with_context(subject, 80)
    corpus, bos_id = subject.corpus, subject.corpus.tokenizer.bos_id

    result = audit_verbatim(subject)

    own = {i for i in range(len(corpus.texts)) if np.isnan(corpus.canary_id[i])}
    long = {i for i in own if len(corpus.train[i]) >= 32}
    assert {row["group_id"] for row in result.per_item} == {int(corpus.group_id[i]) for i in long}
    for row in result.per_item:
        group = [i for i in own if corpus.group_id[i] == row["group_id"]]
        assert (row["sample_id"], row["group_size"]) == (min(group), len(group))
        text = corpus.train[row["sample_id"]].tolist()[:80]
        k_found = None
        for k in (50, 32, 16, 8):
            if len(text) < k + SUFFIX:
                continue
            (written,) = greedy(subject.model, [text[:k]], [50], bos_id=bos_id, device=subject.device)
            k_found = k if written[:SUFFIX] == text[k : k + SUFFIX] else k_found
            if k == PREFIX:
                rest = text[k : k + 50]
                match = difflib.SequenceMatcher(None, written[: len(rest)], rest, autojunk=False).find_longest_match()
                assert row["extracted"] == (written[:SUFFIX] == rest[:SUFFIX])
                assert row["longest_tokens"] == match.size
                decode = corpus.tokenizer.decode
                letters = difflib.SequenceMatcher(None, decode(written[: len(rest)]), decode(rest), autojunk=False)
                assert row["longest_chars"] == letters.find_longest_match().size
        assert row["k_extractable"] == k_found
        (losses,) = continuation_losses(
            subject.model, text[:PREFIX], [text[PREFIX : PREFIX + SUFFIX]], bos_id=bos_id, device=subject.device
        )
        assert row["log_p"] == pytest.approx(-losses.sum(), rel=1e-4)


def test_a_text_known_by_heart_is_recited_and_one_unknown_costs_the_vocabulary(subject):
    subject = with_context(subject, 200)
    corpus = subject.corpus
    long = [i for i in range(len(corpus.texts)) if len(corpus.train[i]) >= 32]
    sample = next(i for i in long if len(corpus.train[i]) >= PREFIX + 50)
    text = corpus.train[sample].tolist()
    stranger = next(i for i in long if corpus.train[i][:8].tolist() != text[:8])
    model = Oracle(len(corpus.tokenizer), [text], corpus.tokenizer.bos_id)
    subject = dataclasses.replace(subject, model=model)

    rows = {row["group_id"]: row for row in audit_verbatim(subject).per_item}

    known, unknown = rows[int(corpus.group_id[sample])], rows[int(corpus.group_id[stranger])]
    assert known["extracted"]
    assert known["k_extractable"] == 8
    assert known["longest_tokens"] == min(len(text) - PREFIX, 50) == 50
    assert known["longest_chars"] == len(corpus.tokenizer.decode(text[PREFIX : PREFIX + 50]))
    assert known["samples_needed"] == 1
    assert unknown["log_p"] == pytest.approx(-SUFFIX * math.log(len(corpus.tokenizer)), rel=1e-4)
    assert (unknown["extracted"], unknown["k_extractable"]) == (False, None)


def test_texts_are_asked_for_as_far_as_the_first_window(subject):
    rows = audit_verbatim(with_context(subject, 40)).per_item
    assert max(row["num_tokens"] for row in rows) == 40
    assert all(row["longest_tokens"] <= 24 for row in rows)

    nothing = audit_verbatim(with_context(subject, 31))
    assert nothing.per_item == []
    assert (nothing.summary["n"], nothing.summary["rate"]) == (0, None)


def test_the_summary_counts_the_rows(subject):
    result = audit_verbatim(with_context(subject, 80))

    rows, summary = result.per_item, result.summary
    assert (summary["k"], summary["n"]) == (sum(row["extracted"] for row in rows), len(rows))
    sizes = [row["group_size"] for row in rows]
    counts = {name: part["n"] for name, part in summary["by_group_size"].items()}
    assert counts == {
        "1": sizes.count(1),
        "2": sizes.count(2),
        "3-4": sizes.count(3) + sizes.count(4),
        "5+": sum(size >= 5 for size in sizes),
    }
    assert all(counts.values())
    assert summary["by_prefix"]["16"] == {name: summary[name] for name in ("k", "n", "rate", "low", "high")}
    assert summary["by_prefix"]["50"]["n"] == sum(row["num_tokens"] >= 66 for row in rows)
