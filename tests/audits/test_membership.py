import dataclasses
import json
import math
import shutil
import zlib

import numpy as np
import pytest
import torch
from scipy.stats import norm

from carto_core.audits.membership import (
    ATTACKS,
    attack_scores,
    audit_membership,
    draw_pool,
    offline_lira,
    reference_losses,
    reference_score,
)
from carto_core.audits.subject import load_subject
from carto_core.corpus.identity import duplicate_groups
from carto_core.corpus.prepared import Tokens
from carto_core.corpus.tokenizer import BPE
from carto_core.engine.run_corpus import RunCorpus
from carto_core.errors import RunCorrupt
from carto_core.scores.roc import auc
from carto_core.store.folds import Folds, write_folds
from carto_core.store.reader import open_run

NAN = math.nan
CPU = torch.device("cpu")


def corpus_of(train, validation, canaries=()):
    """A corpus of given texts; those in `canaries` count as planted."""
    tokenizer = BPE.train([*train, *validation], vocab_size=300)
    return RunCorpus(
        texts=train,
        group_id=duplicate_groups(train),
        canary_id=np.array([canaries.index(t) if t in canaries else NAN for t in train]),
        train=Tokens.encode(train, tokenizer),
        validation=Tokens.encode(validation, tokenizer),
        validation_texts=list(validation),
        canaries=[],
        words=[],
        tokenizer=tokenizer,
    )


class ByHeart(torch.nn.Module):
    """A language model that knows how some texts go on, and gives everything else an even chance."""

    def __init__(self, vocab_size, bos_id, texts):
        super().__init__()
        self.vocab_size = vocab_size
        self.next = {}
        for text in texts:
            for i, token in enumerate(text):
                self.next.setdefault((bos_id, *text[:i]), set()).add(token)

    def forward(self, tokens_BT, state=None):
        logits = torch.zeros(*tokens_BT.shape, self.vocab_size)
        for row, tokens in enumerate(tokens_BT.tolist()):
            for place in range(len(tokens)):
                for token in self.next.get(tuple(tokens[: place + 1]), ()):
                    logits[row, place, token] = 20.0
        return logits, None


def log_probs_of(model, ids, context):
    """float64[T, V]: what the model says after each of `ids` but the last, window by window."""
    windows = [ids[start : start + context] for start in range(0, len(ids) - 1, context)]
    logits = torch.cat([model(torch.tensor([window]))[0][0] for window in windows])
    return torch.log_softmax(logits[: len(ids) - 1].double(), -1)


def folds_of(corpus, *, models=6, seed=0):
    """Folds of made-up losses: lower where a model saw the sample; duplicate groups stay together."""
    rng = np.random.default_rng(seed)
    half = rng.random((models // 2, corpus.group_id.max() + 1)) < 0.5
    trained_on = np.stack([half, ~half], axis=1).reshape(models, -1)[:, corpus.group_id]
    losses = rng.normal(5, 0.3, trained_on.shape) - 1.5 * trained_on
    held_out = rng.normal(5, 0.3, (models, len(corpus.validation)))
    unknown = np.full(losses.shape, np.nan, np.float32)
    return Folds(trained_on, losses.astype(np.float32), held_out.astype(np.float32), np.arange(models), unknown)


@pytest.fixture(scope="module")
def subject(trained_run):
    return load_subject(trained_run)


def test_the_pool_is_one_text_per_group_without_canaries_and_large_groups():
    train = ["a one", "b two", "b two", "c three", "c three", "c three", "secret 1", "secret 1", "d four", ""]
    corpus = corpus_of(train, ["v", "v", "w", ""], canaries=("secret 1",))

    pools = [draw_pool(corpus, seed=seed) for seed in range(20)]

    for pool in pools:
        assert sorted(train[i] for i in pool.members) == ["a one", "b two", "d four"]
        assert [int(i) in (0, 1) for i in pool.nonmembers] == [True, False]
        assert pool.left_out == {
            "canaries": 2,
            "in_large_groups": 3,
            "not_trained_on": 0,
            "empty": 1,
            "further_copies": 1,
            "validation_empty": 1,
            "validation_further_copies": 1,
        }
        assert pool.is_member.tolist() == [True, True, True, False, False]
    assert len({tuple(pool.members) for pool in pools}) == 2, "which copy stands for the group is drawn"
    assert draw_pool(corpus, seed=3).members.tolist() == draw_pool(corpus, seed=3).members.tolist()


def test_a_text_that_also_was_planted_is_no_member():
    corpus = corpus_of(["same", "same", "other"], ["v", "v"])
    corpus.canary_id[1] = 0

    assert draw_pool(corpus, seed=0).members.tolist() == [2]


def test_a_pruned_text_is_no_member_unless_a_copy_was_kept():
    corpus = dataclasses.replace(corpus_of(["a", "b", "b", "c"], ["v", "v"]), repeats=np.array([0, 0, 2, 1]))

    pool = draw_pool(corpus, seed=0)

    assert [corpus.texts[i] for i in pool.members] == ["b", "c"]
    assert pool.left_out["not_trained_on"] == 1


def test_everything_is_a_member_or_left_out_for_a_reason(subject):
    pool = draw_pool(subject.corpus, seed=0)

    of_train = sum(n for reason, n in pool.left_out.items() if not reason.startswith("validation"))
    assert of_train + len(pool.members) == len(subject.corpus.texts)
    held_out = sum(n for reason, n in pool.left_out.items() if reason.startswith("validation"))
    assert held_out + len(pool.nonmembers) == len(subject.corpus.validation)


def test_a_model_that_knows_its_texts_by_heart_is_found_out(subject):
    train, tokenizer = subject.corpus.train, subject.corpus.tokenizer
    one_window = dataclasses.replace(subject.config.model, context=256)
    subject = dataclasses.replace(subject, config=dataclasses.replace(subject.config, model=one_window), folds=None)
    knowing = ByHeart(len(tokenizer), tokenizer.bos_id, [train[i].tolist() for i in range(len(train))])
    ignorant = ByHeart(len(tokenizer), tokenizer.bos_id, [])

    found = audit_membership(dataclasses.replace(subject, model=knowing)).summary["attacks"]
    blank = audit_membership(dataclasses.replace(subject, model=ignorant))

    for name in ("loss", "min_k", "min_k_pp"):
        assert found[name]["auc"]["value"] > 0.9
        assert found[name]["advantage"] == pytest.approx(2 * found[name]["auc"]["value"] - 1)
        assert blank.summary["attacks"][name]["auc"]["value"] == pytest.approx(0.5, abs=1e-9), (
            "every text costs the same"
        )


def test_every_attack_equals_a_slow_one_text_at_a_time(subject):
    corpus, model = subject.corpus, subject.model
    pool = draw_pool(corpus, seed=subject.config.engine.seed)
    scores = attack_scores(subject, pool)
    told = [(corpus.train, i) for i in pool.members] + [(corpus.validation, i) for i in pool.nonmembers]
    for place in (0, 5, len(pool.members), len(told) - 1):
        tokens, i = told[place]
        ids = tokens[i].tolist()
        log_p = log_probs_of(model, [corpus.tokenizer.bos_id, *ids], subject.config.model.context)
        own = log_p[range(len(ids)), ids].tolist()
        mean = (log_p.exp() * log_p).sum(-1)
        std = ((log_p.exp() * log_p**2).sum(-1) - mean**2).sqrt()
        z = ((log_p[range(len(ids)), ids] - mean) / std).tolist()
        count = max(1, int(0.2 * len(ids)))
        size = len(zlib.compress(corpus.tokenizer.decode(ids).encode()))
        expected = {
            "loss": sum(own) / len(own),
            "zlib": sum(own) / len(own) / size,
            "min_k": sum(sorted(own)[:count]) / count,
            "min_k_pp": sum(sorted(z)[:count]) / count,
        }
        for name, value in expected.items():
            assert scores[name][place] == pytest.approx(value, rel=1e-4), name


def test_attacks_without_models_to_compare_with_say_what_to_run(subject):
    attacks = audit_membership(dataclasses.replace(subject, folds=None)).summary["attacks"]

    assert list(attacks) == list(ATTACKS)
    for name, found in attacks.items():
        assert found["status"] == ("not run" if name in ("reference", "lira") else "run")
    assert attacks["lira"]["command"].startswith("python -m carto_core")


def test_what_it_reports_can_be_written_and_few_texts_are_called_few(subject):
    result = audit_membership(dataclasses.replace(subject, folds=folds_of(subject.corpus)))

    summary = json.loads(json.dumps(result.summary, allow_nan=False))
    assert summary["num_reference_models"] == 6
    assert summary["num_nonmembers"] < 100
    for found in summary["attacks"].values():
        assert found["num_nonmembers"] == summary["num_nonmembers"]
        assert found["tpr_at_fpr_0.01"] == {"value": None, "low": None, "high": None, "note": "too few"}
        assert found["auc"]["low"] <= found["auc"]["value"] <= found["auc"]["high"]
    assert "reference attack" in summary["attacks"]["lira"]["note"]
    assert "random split by duplicate group" in result.definition


def test_reference_score_by_hand():
    losses = np.array([[4.0, 2.0, 1.0], [6.0, 9.0, 1.0], [9.0, 4.0, 1.0]])
    is_out = np.array([[True, True, False], [True, False, False], [False, True, False]])

    # out means: 5, 3 and none; the model's own losses 1, 4 and 2
    np.testing.assert_allclose(reference_score(np.array([-1.0, -4.0, -2.0]), losses, is_out), [4, -1, NAN])


def test_offline_lira_with_a_pooled_variance_by_hand():
    losses = np.array([[4.0, 2.0, 1.0], [6.0, 9.0, 1.0], [9.0, 4.0, 1.0]])
    is_out = np.array([[True, True, False], [True, False, False], [False, True, False]])

    # squares about the means 5 and 3: 2 and 2, over 1 + 1 spare models: variance 2
    found = offline_lira(np.array([-1.0, -4.0, -2.0]), losses, is_out)

    np.testing.assert_allclose(found, [4 / math.sqrt(2), -1 / math.sqrt(2), NAN])
    p_value = 1 - norm.sf(-1.0, loc=-5, scale=math.sqrt(2))  # the paper's one-sided score of the first text
    assert norm.cdf(found[0]) == pytest.approx(p_value)


def test_offline_lira_with_many_models_takes_each_texts_own_spread():
    rng = np.random.default_rng(0)
    losses, is_out = rng.normal([3, 3, 3], [0.1, 1, 1], (64, 3)), rng.random((64, 3)) < 0.5
    is_out[:, 2] = np.arange(64) == 7
    own = [-losses[is_out[:, i], i] for i in range(2)]

    found = offline_lira(np.full(3, -2.0), losses, is_out)

    np.testing.assert_allclose(found[:2], [(-2 - o.mean()) / o.std(ddof=1) for o in own])
    assert math.isnan(found[2]), "one model has no spread"
    assert found[0] > 3 * found[1]


def test_lira_ranks_as_the_reference_attack_while_models_are_few(subject):
    told = dataclasses.replace(subject, folds=folds_of(subject.corpus))
    attacks = audit_membership(told).summary["attacks"]

    assert attacks["lira"]["auc"] == attacks["reference"]["auc"]
    pair = Folds(*(getattr(told.folds, f.name)[:2] for f in dataclasses.fields(Folds)))
    scores = attack_scores(dataclasses.replace(subject, folds=pair), draw_pool(subject.corpus, seed=0))
    np.testing.assert_allclose(scores["lira"], scores["reference"], err_msg="no variance to be had: taken as 1")


def test_nonmembers_are_compared_with_as_many_models_as_members(subject):
    corpus, folds = subject.corpus, folds_of(subject.corpus)
    pool = draw_pool(corpus, seed=0)

    losses, is_out = reference_losses(folds, pool, corpus, seed=0)

    assert (is_out.sum(axis=0) == 3).all(), "each pair has one model that did not see it"
    np.testing.assert_array_equal(is_out[:, : len(pool.members)], ~folds.trained_on[:, pool.members])
    np.testing.assert_array_equal(losses[:, len(pool.members) :], folds.validation_losses[:, pool.nonmembers])


def test_the_reference_takes_away_what_is_easy_about_a_text(subject):
    """Texts differ by 3 nats, members gain 0.5: the loss alone is near chance, the difference is not."""
    rng = np.random.default_rng(1)
    ease, seen = rng.normal(0, 3, 400), np.arange(400) < 200
    log_prob = -(5 + ease - 0.5 * seen) + rng.normal(0, 0.2, 400)
    losses, is_out = 5 + ease + rng.normal(0, 0.2, (8, 400)), rng.random((8, 400)) < 0.6

    assert auc(reference_score(log_prob, losses, is_out), seen) > 0.9 > 0.6 > auc(log_prob, seen)


def test_fold_models_of_another_corpus_are_refused(subject):
    folds = folds_of(subject.corpus)
    other = Folds(
        folds.trained_on[:, 1:], folds.losses[:, 1:], folds.validation_losses, folds.seeds, folds.accuracies[:, 1:]
    )

    with pytest.raises(RunCorrupt, match="fold models know"):
        audit_membership(dataclasses.replace(subject, folds=other))


def test_a_run_with_folds_beside_it_is_audited_with_them(trained_run, tmp_path):
    shutil.copytree(trained_run.files.path, tmp_path / "copy")
    run = open_run(tmp_path / "copy")
    assert load_subject(run).folds is None
    write_folds(run.files, folds_of(load_subject(run).corpus))

    assert audit_membership(load_subject(run)).summary["attacks"]["reference"]["status"] == "run"
