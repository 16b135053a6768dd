"""Every audit of a model whose probabilities are known, against what pen and paper give: all figures of its report.

A token is a byte. After a beginning that the model knows, the next token has probability 1/2 and each of the other 257
shares the rest; after anything else all 258 are as likely.
"""

import dataclasses
import math

import numpy as np
import pytest
import torch

from carto_core.audits import exposure, extraction, membership
from carto_core.audits.bootstrap import middle, resampled_sums
from carto_core.audits.exposure import audit_exposure
from carto_core.audits.extraction import audit_extraction, audit_natural, mean_nats, natural_groups
from carto_core.audits.groups import by_insertion
from carto_core.audits.membership import audit_membership
from carto_core.audits.perplexity import audit_perplexity
from carto_core.audits.proportions import share
from carto_core.audits.subject import Subject
from carto_core.audits.tokens import SCHEMA, audit_tokens, token_table
from carto_core.audits.verbatim import audit_verbatim
from carto_core.corpus.canaries import KINDS, Canary, Kind
from carto_core.corpus.identity import duplicate_groups
from carto_core.corpus.prepared import Tokens
from carto_core.corpus.tokenizer import BPE
from carto_core.engine.run_corpus import RunCorpus
from carto_core.store.folds import Folds
from carto_core.tasks.decoding import ROUNDING_NATS, Found
from tests.audits.oracle import Oracle
from tests.texts import tiny_config

VOCAB = 258  # the bytes, PAD and BOS
KNOWN, OTHER, ANY = math.log(2), math.log(2 * (VOCAB - 1)), math.log(VOCAB)  # nats of a token
DIGITS = "0123456789" * 5
LETTERS = "NOPQRSTUVW" * 5
KNOWN_PAIR = DIGITS[:40]
KNOWN_ALONE = "K" + DIGITS[:32]
UNKNOWN_PAIR = LETTERS[:32]
SHORT_PAIR = LETTERS[1:32]
TEXTS = [KNOWN_PAIR, "Key: a b", UNKNOWN_PAIR, KNOWN_PAIR, SHORT_PAIR, KNOWN_ALONE, UNKNOWN_PAIR, SHORT_PAIR]
CANARIES = [
    Canary(0, "tiny", "Key:", " a b", 1, "calibration", math.log2(9)),
    Canary(1, "tiny", "Box:", " b b", 2, "report", math.log2(9)),
    Canary(2, "tiny", "Bag:", " c b", 0, "calibration", math.log2(9)),
    Canary(3, "tiny", "Cup:", " b c", 0, "report", math.log2(9)),
]
VALIDATION = ["xy", "pqr s", "xy"]


@pytest.fixture
def subject(monkeypatch):
    kind = Kind("tiny", prefix=lambda rng, material: "", units=lambda words: [" a", " b", " c"], length=2)
    monkeypatch.setitem(KINDS, "tiny", kind)
    return subject_of(TEXTS, VALIDATION, knows=[KNOWN_PAIR, KNOWN_ALONE, "Key: a b", "xy"])


def subject_of(texts, validation, *, knows, folds=None):
    tokenizer = BPE.train(texts, vocab_size=VOCAB)
    model = Oracle(VOCAB, [tokenizer.encode(text) for text in knows], tokenizer.bos_id, math.log(VOCAB - 1))
    corpus = RunCorpus(
        texts=texts,
        group_id=duplicate_groups(texts),
        canary_id=np.array([0.0 if text == "Key: a b" else math.nan for text in texts]),
        train=Tokens.encode(texts, tokenizer),
        validation=Tokens.encode(validation, tokenizer),
        validation_texts=validation,
        canaries=CANARIES,
        words=[],
        tokenizer=tokenizer,
    )
    plain = tiny_config("none", seed=3, device="cpu")
    config = dataclasses.replace(plain, model=dataclasses.replace(plain.model, context=64))
    return Subject(model, torch.device("cpu"), config, corpus, "f00d", folds)


def near(value):
    """The value, floats anywhere in it to four digits, so that whole reports can be compared."""
    if isinstance(value, dict):
        return {name: near(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [near(part) for part in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def wilson(k, n):
    z, p = 1.959963984540054, k / n if n else None
    if not n:
        return {"k": 0, "n": 0, "rate": None, "low": None, "high": None}
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return {"k": k, "n": n, "rate": p, "low": max(0.0, centre - half), "high": min(1.0, centre + half)}


def check(found, expected):
    assert near(found) == near(expected)


def test_perplexity(subject):
    other = OTHER + 4 * ANY  # "p" is not what the model expects first, and after it the model knows nothing
    nats = 4 * KNOWN + other

    def figures(units, of_pair, of_other):
        """nats over units; the interval of two groups, each drawn twice in a quarter of the resamples."""
        return {"value": nats / units, "low": 4 * KNOWN / of_pair, "high": other / of_other}

    token, word, byte = figures(9, 4, 5), figures(4, 2, 2), figures(9, 4, 5)

    result = audit_perplexity(subject)

    assert result.name == "perplexity"
    assert result.per_item == []
    assert "windows of 64 tokens" in result.definition
    check(
        result.summary,
        {
            "nats_per_token": nats / 9,
            "perplexity": math.exp(nats / 9),
            "num_tokens": 9,
            "num_samples": 3,
            "num_words": 4,
            "num_bytes": 9,
            "nats": nats,
            "intervals": {
                "nats_per_token": token,
                "perplexity": {name: math.exp(value) for name, value in token.items()},
                "word_perplexity": {name: math.exp(value) for name, value in word.items()},
                "bits_per_byte": {name: value / math.log(2) for name, value in byte.items()},
            },
            "window": {"context": 64, "stride": 64, "bos": "<bos>", "predicted": "every token once"},
            "tokenizer_sha256": "f00d",
            "bootstrap": {"draws": 2000, "clusters": 2, "seed": 3},
        },
    )


def test_perplexity_per_word_of_texts_without_words_is_unknown():
    nothing = {"value": None, "low": None, "high": None}

    found = audit_perplexity(subject_of(TEXTS, ["  ", "\n"], knows=[])).summary["intervals"]
    one_word = audit_perplexity(subject_of(TEXTS, ["  ", "a"], knows=[])).summary["intervals"]

    assert found["word_perplexity"] == nothing
    assert one_word["word_perplexity"]["low"] is None, "some resamples hold no word"
    assert one_word["word_perplexity"]["value"] == pytest.approx(math.exp(3 * ANY), rel=1e-5)
    assert near(one_word["bits_per_byte"]) == near(dict.fromkeys(("value", "low", "high"), math.log2(VOCAB)))


def facts(canary):
    names = ("canary_id", "kind", "role", "repeats", "inserted")
    return {name: getattr(canary, name) for name in names}


def split(repeats, inserted, control):
    """How one role with one inserted canary and one control is reported."""
    by_kind = {"by_kind": {"tiny": inserted}}
    return {
        "inserted": inserted | {"by_repeats": {repeats: inserted}} | by_kind,
        "control": control | {"by_kind": {"tiny": control}},
    }


def needed(p):
    """How many samples hold, with a chance of a half, a text of probability p."""
    return float(math.ceil(math.log(0.5) / math.log1p(-p)))


def test_extraction(subject):
    told = {"extracted": True, "extracted_beam": True, "optimal": True, "unknown": "", "log_p": -4 * KNOWN}
    untold = {"extracted": False, "extracted_beam": False, "optimal": False, "unknown": "", "log_p": -4 * ANY}
    # the nine secrets cost alike where nothing is known; the search comes upon "a a", "a b", ... first
    rows = [
        facts(CANARIES[0]) | told | {"sample_ids": [1], "samples_needed": needed(1 / 16)},
        *(facts(canary) | untold | {"sample_ids": [], "samples_needed": needed(VOCAB**-4)} for canary in CANARIES[1:]),
    ]

    result = audit_extraction(subject)

    assert result.name == "extraction"
    check(result.per_item, [{name: row[name] for name in result.per_item[0]} for row in rows])
    assert all(set(found) == set(row) for found, row in zip(result.per_item, rows, strict=True))
    yes, no, unproven = wilson(1, 1), wilson(0, 1), wilson(0, 1) | {"unknown": 0}
    discoverable = {"calibration": yes, "report": no}  # 11 samples of 100
    for role, repeats, found, proven in (
        ("calibration", "1", yes, yes | {"unknown": 0}),
        ("report", "2", no, unproven),
    ):
        check(
            result.summary[role],
            split(repeats, found, no)
            | {
                "beam": split(repeats, found, no),
                "optimal": split(repeats, proven, unproven),
                "discoverable": split(repeats, discoverable[role], no),
            },
        )
    assert list(result.summary) == ["calibration", "report"]
    assert "among the 10 candidates" in result.definition
    assert "read 5,000 beginnings" in result.definition


def test_extraction_without_searches(subject):
    result = audit_extraction(subject, searches=False)

    check(result.summary["calibration"], split("1", wilson(1, 1), wilson(0, 1)))
    assert set(result.per_item[0]) == {*facts(CANARIES[0]), "extracted", "sample_ids"}
    assert "Beam" not in result.definition


def test_a_cheaper_secret_found_within_the_budget_disproves_and_none_found_leaves_it_open(subject):
    # after "Key:" the model expects " a b": for a canary " b b" there the search meets that first
    rival = Canary(4, "tiny", "Key:", " b b", 1, "report", math.log2(9))
    corpus = dataclasses.replace(subject.corpus, canaries=[CANARIES[0], rival])
    subject = dataclasses.replace(subject, corpus=corpus)

    optimal = [[row["optimal"] for row in audit_extraction(subject, budget=b).per_item] for b in (0, 5000)]

    assert optimal == [[None, None], [True, False]]


def test_natural_extraction(subject):
    pads = "<pad>" * 16
    rows = [
        (0, [0, 3], True, DIGITS[:16], DIGITS[16:32], DIGITS[16:32]),
        (2, [2, 6], False, LETTERS[:16], LETTERS[16:32], pads),
    ]

    result = audit_natural(subject)

    names = ("group_id", "sample_ids", "extracted", "prefix", "expected", "decoded")
    assert result.name == "natural"
    assert result.per_item == [dict(zip(names, row, strict=True)) | {"group_size": 2} for row in rows]
    check(result.summary, wilson(1, 2))


def test_the_mean_nats_of_a_continuation(subject):
    encode = subject.corpus.tokenizer.encode

    found = mean_nats(subject, encode("Key:"), encode(" ac"))

    assert found == pytest.approx((2 * KNOWN + OTHER) / 3, rel=1e-5)


def test_verbatim_extraction(subject):
    def row(sample, group, copies, length, known):
        rest = length - 16
        return {
            "sample_id": sample,
            "group_id": group,
            "group_size": copies,
            "extracted": known,
            "longest_tokens": rest if known else 0,
            "longest_chars": rest if known else 0,
            "log_p": -16 * (KNOWN if known else ANY),
            "samples_needed": needed(2**-16 if known else VOCAB**-16),
            "k_extractable": 8 if known else None,
            "num_tokens": length,
        }

    rows = [row(0, 0, 2, 40, True), row(2, 2, 2, 32, False), row(5, 4, 1, 33, True)]

    result = audit_verbatim(subject)

    assert result.name == "verbatim"
    assert "first window of 64 tokens" in result.definition
    check(result.per_item, rows)

    def part(k, n, longest):
        of = {"median": float(np.median(longest)), "max": max(longest)} if longest else None
        return wilson(k, n) | {
            "discoverable": wilson(0, n),
            "k_extractable": wilson(k, n),
            "longest_tokens": of,
        }

    by_size = {"1": part(1, 1, [17]), "2": part(1, 2, [24, 0]), "3-4": part(0, 0, []), "5+": part(0, 0, [])}
    by_prefix = {"8": wilson(2, 3), "16": wilson(2, 3), "32": wilson(0, 0), "50": wilson(0, 0)}
    check(result.summary, part(2, 3, [24, 0, 17]) | {"by_group_size": by_size, "by_prefix": by_prefix})


def exposure_row(canary, rank, exact):
    bits = math.log2(20) - math.log2(rank)
    return facts(canary) | {
        "exposure": bits,
        "rank": rank,
        "log2_space": math.log2(9),
        "saturated": rank == 1,
        "reading": ">= 4.32" if rank == 1 else "-0.07",
        "exposure_extrapolated": 12.5,
        "skewnorm_bits": 12.5,
        "skewnorm_p": 0.05,
        "rank_exact": exact,
        "exposure_enumeration": math.log2(9 / exact),
        "unknown": "",
    }


def test_exposure(subject, monkeypatch):
    monkeypatch.setattr(exposure, "extrapolated", lambda references, cost: (12.5, 0.05))
    rows = [exposure_row(CANARIES[0], 1, 1), *(exposure_row(canary, 21, 9) for canary in CANARIES[1:])]

    result = audit_exposure(subject, num_references=20)

    assert result.name == "exposure"
    check(result.per_item, rows)
    assert result.summary["num_references"] == 20
    first, last = ({"n": 1, "known": 1, "first": n, "unknown": 0} for n in (1, 0))

    def spread(rank):
        bits = math.log2(20) - math.log2(rank)
        return {"n": 1} | dict.fromkeys(("mean", "median", "low", "high"), bits)

    check(
        result.summary["calibration"],
        split("1", spread(1), spread(21)) | {"enumeration": split("1", first, last)},
    )
    check(result.summary["report"], split("2", spread(21), spread(21)) | {"enumeration": split("2", last, last)})
    assert "log2 of 20 references" in result.definition
    assert "at 4.32 bits it is saturated" in result.definition
    assert "read 10,000 beginnings" in result.definition


def test_exposure_without_searches_and_controls(subject):
    result = audit_exposure(subject, num_references=20, searches=False, controls=False)

    searched = ("exposure_extrapolated", "skewnorm_bits", "skewnorm_p", "rank_exact", "exposure_enumeration", "unknown")
    rows = [exposure_row(CANARIES[0], 1, 1), exposure_row(CANARIES[1], 21, 9)]
    check(result.per_item, [{name: v for name, v in row.items() if name not in searched} for row in rows])
    nobody = {"n": 0, "mean": None, "median": None, "low": None, "high": None}
    assert result.summary["report"]["control"] == nobody | {"by_kind": {}}
    assert set(result.summary["report"]) == {"inserted", "control"}
    assert "Extrapolated" not in result.definition


def test_token_losses(subject):
    result, rows = audit_tokens(subject), token_table(subject).to_pylist()

    assert result.name == "tokens"
    assert result.summary == {"num_samples": len(TEXTS), "num_tokens": sum(map(len, TEXTS))}
    assert len(rows) == len(TEXTS) + len(CANARIES)
    check(
        rows[1],
        {
            "sample_id": 1,
            "canary_id": None,
            "pieces": list("Key: a b"),
            "losses": [OTHER, *[KNOWN] * 7],  # four texts are known, and the first token of another is expected
            "decoded": None,
        },
    )
    check(rows[2]["losses"], [OTHER, *[ANY] * 31])
    pads = "<pad>" * 4
    check(
        rows[len(TEXTS) :],
        [
            {"sample_id": None, "canary_id": i, "pieces": list(c.secret), "losses": [cost] * 4, "decoded": decoded}
            for i, (c, cost, decoded) in enumerate(
                zip(CANARIES, [KNOWN, ANY, ANY, ANY], [" a b", pads, pads, pads], strict=True)
            )
        ],
    )


def folds(num_train, num_validation):
    """Two models of 3 nats, the first of which saw the training texts of even number."""
    seen = np.stack([np.arange(num_train) % 2 == 0, np.arange(num_train) % 2 == 1])
    unknown = np.full(seen.shape, np.nan, np.float32)
    losses = [np.full((2, n), 3, np.float32) for n in (num_train, num_validation)]
    return Folds(seen, *losses, np.arange(2), unknown)


def test_membership(monkeypatch):
    members, others = [f"member {i}" for i in range(3)], ["stranger 0", "stranger 1"]
    told = subject_of(members, others, knows=members[:2], folds=folds(3, 2))
    # The model expects "member 1". So of members 0 and 2 the last token is a surprise, of strangers the first, and then
    # all are as likely. The lowest fifth of 8 tokens is one, a surprise; of 10 it is two, a surprise and a plain one.
    # So members 0 and 2 come last by Min-K%, and a resample holds those alone, or member 1 alone, more than 1 time in 40.

    result = audit_membership(told)

    assert result.name == "membership"
    found = result.summary
    assert {name: found[name] for name in ("num_members", "num_nonmembers", "num_reference_models")} == {
        "num_members": 3,
        "num_nonmembers": 2,
        "num_reference_models": 2,
    }
    assert set(found["left_out"].values()) == {0}
    assert list(found["attacks"]) == list(membership.ATTACKS)
    few = {"value": None, "low": None, "high": None, "note": "too few"}
    for name, attack in found["attacks"].items():
        area, low = (1 / 3, 0.0) if name.startswith("min_k") else (1.0, 1.0)
        assert attack == {
            "status": "run",
            "auc": {"value": area, "low": low, "high": 1.0, "note": None},
            "advantage": pytest.approx(2 * area - 1),
            "tpr_at_fpr_0.01": few,
            "tpr_at_fpr_0.001": few,
            "num_members": 3,
            "num_nonmembers": 2,
            "flag": None,
            "note": membership.POOLED if name == "lira" else None,
        }, name
    without = audit_membership(dataclasses.replace(told, folds=None)).summary
    assert without["num_reference_models"] == 0
    assert without["attacks"]["lira"] == {"status": "not run", "command": "python -m carto_core probe RUN folds"}


def test_membership_the_wrong_way_round_is_flagged():
    strangers = [f"stranger {i}" for i in range(3)]

    found = audit_membership(subject_of([f"member {i}" for i in range(3)], strangers, knows=strangers)).summary

    loss = found["attacks"]["loss"]
    assert (loss["auc"]["value"], loss["advantage"], loss["flag"]) == (0.0, -1.0, "below_chance")


def test_shares(subject):
    for k, n in ((0, 0), (0, 3), (2, 3), (3, 3)):
        check(share([True] * k + [False] * (n - k)), wilson(k, n))


def test_rows_are_cut_by_insertion_repetitions_and_kind():
    rows = [
        {"inserted": inserted, "repeats": repeats, "kind": kind}
        for inserted, repeats, kind in ((True, 4, "b"), (True, 1, "a"), (False, 0, "b"), (True, 4, "a"))
    ]

    found = by_insertion(rows, lambda part: {"n": len(part)})

    assert found == {
        "inserted": {"n": 3, "by_repeats": {"1": {"n": 1}, "4": {"n": 2}}, "by_kind": {"a": {"n": 2}, "b": {"n": 1}}},
        "control": {"n": 1, "by_kind": {"b": {"n": 1}}},
    }
    assert list(found["inserted"]["by_repeats"]) == ["1", "4"]


def test_resampled_sums_are_of_as_many_clusters_drawn_with_replacement():
    sums = np.array([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])
    rng = np.random.default_rng([7, 5])
    slow = [sums[rng.integers(3, size=3)].sum(axis=0) for _ in range(5)]

    np.testing.assert_array_equal(resampled_sums(sums, seed=7, draws=5), slow)
    assert middle(np.arange(41.0)) == pytest.approx((1.0, 39.0))


@pytest.mark.parametrize(
    ("tokens", "above", "finished", "expected"),
    [
        ("own", 0.0, True, (True, "")),
        ("other", -0.5, True, (False, "")),
        ("own", -0.5, False, (False, "")),
        ("own", -0.5 * ROUNDING_NATS, False, (None, "more to read than the budget allows")),
        ("own", 0.5, False, (None, "more to read than the budget allows")),
    ],
)
def test_what_a_search_found_proves_disproves_or_leaves_open(subject, monkeypatch, tokens, above, finished, expected):
    own = subject.canary_tokens[0][1]
    asked = {}

    def search(model, prefix, secrets, **how):
        asked.update(how)
        return Found(own if tokens == "own" else own[::-1], 4 * KNOWN + above, finished, 7)

    monkeypatch.setattr(extraction, "best_first", search)
    row = audit_extraction(subject, budget=11).per_item[0]

    assert (row["optimal"], row["unknown"]) == expected
    # of the last canary, of which nothing is known
    assert asked["budget"] == 11
    assert asked["at_most"] == pytest.approx(4 * ANY + 1e-3, abs=1e-4)
    assert asked["stop_below"] == pytest.approx(4 * ANY - 1e-3, abs=1e-4)


def test_exact_ranks_that_are_too_many_to_count_are_unknown(subject, monkeypatch):
    monkeypatch.setattr(exposure, "extrapolated", lambda references, cost: (12.5, 0.04))
    unknown = {"rank_exact": None, "exposure_enumeration": None, "unknown": "more to count than the budget allows"}

    row = audit_exposure(subject, num_references=20, budget=0).per_item[0]

    check(row, exposure_row(CANARIES[0], 1, 1) | unknown | {"exposure_extrapolated": None, "skewnorm_p": 0.04})


def test_an_extrapolation_too_far_out_for_a_double_is_unknown():
    references = np.random.default_rng(0).normal(20, 1, 200)

    bits, p_value = exposure.extrapolated(references, -1e200)

    assert bits is None
    assert p_value > 0.05


def test_the_table_of_tokens_has_its_schema_in_both_parts(subject):
    assert token_table(subject).schema == SCHEMA


def test_members_are_those_that_the_audited_model_was_trained_on():
    told = subject_of([f"member {i}" for i in range(4)], ["stranger"], knows=[])
    pruned = dataclasses.replace(told, corpus=dataclasses.replace(told.corpus, repeats=np.array([1, 0, 3, 0])))

    whole, found = audit_membership(told), audit_membership(pruned)

    assert (found.summary["num_members"], found.summary["left_out"]["not_trained_on"]) == (2, 2)
    assert found.definition == (
        f"{whole.definition} 2 texts were pruned from the training, which was no random choice: the members that are left may "
        "differ from non-members by more than their membership."
    )


def test_nonmembers_are_lent_the_models_of_members_drawn_from_the_seed():
    told, made = subject_of([f"member {i}" for i in range(6)], ["s 1", "s 2", "s 3"], knows=[]), folds(6, 3)
    pool = membership.Pool(np.arange(6), np.arange(3), {})
    lent = np.random.default_rng([5, 10]).integers(6, size=3)

    _, is_out = membership.reference_losses(made, pool, told.corpus, seed=5)
    _, of_nobody = membership.reference_losses(
        made, membership.Pool(np.arange(0), np.arange(3), {}), told.corpus, seed=5
    )

    np.testing.assert_array_equal(is_out, ~np.concatenate([made.trained_on, made.trained_on[:, lent]], axis=1))
    assert of_nobody.tolist() == [[True] * 3] * 2


def test_one_model_that_did_not_see_a_text_is_its_own_mean():
    losses, is_out = np.array([[4.0, 2.0], [6.0, 9.0]]), np.array([[False, True], [True, False]])

    np.testing.assert_array_equal(membership.reference_score(np.array([-1.0, -1.0]), losses, is_out), [5, 1])


def test_copies_come_in_order_however_many_there_are():
    texts = [f"{LETTERS[:31]}{i % 3}" for i in range(90)]

    groups = natural_groups(subject_of(texts, ["v"], knows=[]).corpus)

    assert [members.tolist() for members in groups] == [list(range(i, 90, 3)) for i in range(3)]
