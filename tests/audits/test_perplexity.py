import dataclasses
import math
import shutil

import numpy as np
import pytest

from carto_core.audits.bootstrap import middle, resampled_sums
from carto_core.audits.perplexity import audit_perplexity
from carto_core.audits.subject import load_subject
from carto_core.corpus.prepared import Tokens
from carto_core.errors import RunCorrupt
from carto_core.store.reader import open_run
from carto_core.store.rundir import update_manifest


@pytest.fixture(scope="module")
def subject(trained_run):
    return load_subject(trained_run)


def validated_on(subject, texts):
    tokens = Tokens.encode(texts, subject.corpus.tokenizer)
    corpus = dataclasses.replace(subject.corpus, validation=tokens, validation_texts=list(texts))
    return dataclasses.replace(subject, corpus=corpus)


def test_per_word_and_per_byte_are_the_same_loss_over_the_original_texts(subject):
    texts = ["The   farmer\tcarried é", "one\ntwo three "]
    words, num_bytes = 4 + 3, 22 + 1 + 14  # an é is two bytes

    found = audit_perplexity(validated_on(subject, texts)).summary

    assert (found["num_words"], found["num_bytes"]) == (words, num_bytes)
    nats = found["nats_per_token"] * found["num_tokens"]
    assert found["nats"] == pytest.approx(nats)
    intervals = found["intervals"]
    assert intervals["word_perplexity"]["value"] == pytest.approx(math.exp(nats / words))
    assert intervals["bits_per_byte"]["value"] == pytest.approx(nats / math.log(2) / num_bytes)


def test_the_interval_resamples_duplicate_groups(subject):
    distinct = subject.corpus.validation_texts[:5]
    texts = [*distinct, distinct[0], distinct[0], distinct[3]]
    copies = [3, 1, 1, 2, 1]
    alone = [audit_perplexity(validated_on(subject, [text])).summary for text in distinct]
    nats = np.array([part["nats"] for part in alone]) * copies
    tokens = np.array([part["num_tokens"] for part in alone]) * copies
    rng = np.random.default_rng([subject.config.engine.seed, 5])
    drawn = []
    for _ in range(2000):
        picked = rng.integers(5, size=5)
        drawn.append(nats[picked].sum() / tokens[picked].sum())

    found = audit_perplexity(validated_on(subject, texts)).summary

    assert found["bootstrap"]["clusters"] == 5
    assert found["nats_per_token"] == pytest.approx(nats.sum() / tokens.sum(), rel=1e-5)
    low, high = np.quantile(drawn, [0.025, 0.975])
    per_token = found["intervals"]["nats_per_token"]
    assert (per_token["low"], per_token["high"]) == pytest.approx((low, high), rel=1e-5)
    perplexity = found["intervals"]["perplexity"]
    assert (perplexity["low"], perplexity["high"]) == pytest.approx((math.exp(low), math.exp(high)), rel=1e-5)


def test_one_group_has_no_interval(subject):
    found = audit_perplexity(validated_on(subject, subject.corpus.validation_texts[:1])).summary

    assert found["intervals"]["perplexity"]["low"] is None
    assert found["intervals"]["perplexity"]["value"] == found["perplexity"]


def test_a_bootstrapped_mean_varies_as_the_formula_says():
    rng = np.random.default_rng(0)
    values = rng.normal(3, 2, 400)

    drawn = resampled_sums(np.stack([values, np.ones(400)], 1), seed=0)

    assert (drawn[:, 1] == 400).all()
    low, high = middle(drawn[:, 0] / drawn[:, 1])
    half = 1.96 * values.std() / math.sqrt(400)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_the_summary_says_how_it_was_read(subject):
    found = audit_perplexity(subject).summary

    assert found["window"] == {"context": 32, "stride": 32, "bos": "<bos>", "predicted": "every token once"}
    assert found["tokenizer_sha256"] == open_run(subject_path(subject)).manifest["tokenizer"]["sha256"]


def subject_path(subject):
    return subject.config.corpus.path.replace("corpus.jsonl", "trained")


def test_another_tokenizer_than_the_one_trained_with_is_refused(trained_run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(trained_run.files.path, copy)
    load_subject(open_run(copy))
    text = (copy / "tokenizer.json").read_text(encoding="utf-8")

    (copy / "tokenizer.json").write_text(text + "\n", encoding="utf-8")

    with pytest.raises(RunCorrupt, match=r"tokenizer\.json has changed since training"):
        load_subject(open_run(copy))
    update_manifest(open_run(copy).files, tokenizer={"kind": "of a run that recorded no hash"})
    assert load_subject(open_run(copy)).tokenizer_sha256
    (copy / "tokenizer.json").unlink()
    with pytest.raises(RunCorrupt, match=r"no readable tokenizer\.json"):
        load_subject(open_run(copy))
