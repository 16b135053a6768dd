"""A tiny GPT-2 of transformers, made here, read over its corpus: each figure against a slow twin that asks it text by text."""

import dataclasses
import json
import math
import re
import socket
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from carto_core import cli
from carto_core.corpus.canaries import Canary, canary_table
from carto_core.errors import Cancelled, ConfigError, CorpusError, ModelError, RunError, RunExists
from carto_core.store.reader import open_run
from carto_core.workflows import foreign_models, light
from carto_core.workflows.foreign_models import ModelAudit, audit_model
from tests.texts import sentences

transformers = pytest.importorskip("transformers")

CONTEXT = 72
SECRET = Canary(0, "template", "The access code of river stone is ", "482913", 3, "calibration", 19.9)
CONTROL = Canary(1, "template", "The access code of silver letter is ", "771605", 0, "report", 19.9)


def texts_of():
    """Long texts, short ones, one of which stands five times, and three copies of a secret."""
    long = " ".join(sentences(12))
    return [long, *sentences(20), *[" ".join(sentences(4)[::-1])] * 5, *[SECRET.text] * 3]


def save_model(folder, *, seed=0, steps=0, texts=()):
    """Save a GPT-2 of two layers, trained for some steps on the texts with torch alone."""
    torch.manual_seed(seed)
    tokenizer = _tokenizer(texts)
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_positions=CONTEXT, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rows = [torch.tensor([[0, *tokenizer(text)["input_ids"][: CONTEXT - 1]]]) for text in dict.fromkeys(texts[-8:])]
    for step in range(steps):
        loss = model(rows[step % len(rows)], labels=rows[step % len(rows)]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(texts):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folders of three checkpoints, the corpus and the canaries."""
    root = tmp_path_factory.mktemp("foreign")
    texts = texts_of()
    folders = [save_model(root / f"checkpoint-{steps}", steps=steps, texts=texts) for steps in (0, 40, 160)]
    corpus = root / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"key": f"k{i}", "text": text}) + "\n" for i, text in enumerate(texts)))
    pq.write_table(canary_table([SECRET, CONTROL]), root / "canaries.parquet")
    return folders, corpus, root / "canaries.parquet"


def twin(folder, text):
    """Return log-probabilities of every token, and their mean and spread at each place, one window at a time."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = transformers.AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
    found = []
    for start in range(0, len(ids), CONTEXT):
        window = ids[start : start + CONTEXT]
        inputs = [ids[start - 1] if start else 0, *window[:-1]]
        with torch.no_grad():
            log_p = torch.log_softmax(model(torch.tensor([inputs])).logits[0].double(), -1)
        for row, token in zip(log_p, window, strict=True):
            mean = float((row.exp() * row).sum())
            std = math.sqrt(float((row.exp() * (row - mean) ** 2).sum()))
            found.append((float(row[token]), mean, std, float(row[token] >= row.max())))
    return np.array(found)


def test_each_checkpoint_is_a_snapshot_whose_losses_a_slow_twin_gives_too(made, tmp_path, monkeypatch):
    monkeypatch.setattr(foreign_models, "CHUNK_TOKENS", 300)
    monkeypatch.setattr(socket.socket, "connect", _no_network)
    folders, corpus, canaries = made
    texts = texts_of()

    summary = audit_model(ModelAudit(folders=folders, corpus=corpus, canaries=canaries), tmp_path / "theirs")

    run = open_run(tmp_path / "theirs")
    assert (run.status, run.manifest["origin"]["kind"]) == ("complete", "measured")
    assert run.snapshots()["step"].tolist() == [0, 40, 160]
    for snapshot, folder in enumerate(folders):
        expected = [-twin(folder, text)[:, 0].mean() for text in texts[:3]]
        np.testing.assert_allclose(run.trajectories("after")[snapshot, :3], expected, rtol=1e-4)
    samples = run.samples()
    assert samples["num_tokens"].tolist()[:3] == [len(twin(folders[0], text)) for text in texts[:3]]
    assert samples["num_tokens"][0] > 2 * CONTEXT
    assert samples["canary_id"].notna().sum() == 3
    scores = light.load_table(run).scores
    for sample in (0, 1, 22):
        log_p, mean, std, right = twin(folders[-1], texts[sample]).T
        lowest = max(1, int(0.2 * len(log_p)))
        assert scores["min_k"][sample] == pytest.approx(np.sort(log_p)[:lowest].mean(), rel=1e-3)
        z = np.sort((log_p - mean) / np.maximum(std, 1e-3))[:lowest]
        assert scores["min_k_pp"][sample] == pytest.approx(z.mean(), rel=1e-3)
        runs = "".join("x" if hit else " " for hit in right).split()
        assert scores["recitation"][sample] == pytest.approx(max(map(len, runs), default=0) / len(log_p))
    assert summary["audits"]["natural"]["n"] == 1
    assert not (tmp_path / "theirs" / "measuring").exists()


def _no_network(*arguments):
    raise AssertionError("something asked the network")


def test_what_is_recited_after_its_beginning_is_what_the_models_own_decoding_writes(made, tmp_path):
    folders, corpus, canaries = made
    asked = ModelAudit(folders=folders[-1:], corpus=corpus, canaries=canaries, more=("verbatim", "tokens"))

    audit_model(asked, tmp_path / "theirs")

    run = open_run(tmp_path / "theirs")
    model = transformers.AutoModelForCausalLM.from_pretrained(folders[-1], dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders[-1])
    natural = light.read_audit(run, "natural")["per_item"][0]
    ids = tokenizer(texts_of()[21])["input_ids"]
    prompt = torch.tensor([[0, *ids[:16]]])
    how = {"max_new_tokens": 16, "do_sample": False, "attention_mask": torch.ones_like(prompt), "pad_token_id": 0}
    written = model.generate(prompt, **how)
    assert natural["decoded"] == tokenizer.decode(written[0, 17:])
    assert natural["group_size"] == 5
    assert natural["extracted"] is True
    rows = {row["canary_id"]: row for row in light.read_audit(run, "extraction")["per_item"]}
    assert (rows[0]["extracted"], rows[1]["extracted"]) == (True, False)
    assert rows[0]["sample_ids"] == [26, 27, 28]
    assert light.read_audit(run, "verbatim")["summary"]["n"] >= 2
    pieces = pq.read_table(run.files.audits / "tokens.parquet")["pieces"][0].as_py()
    assert "".join(pieces) == texts_of()[0]


def test_one_checkpoint_has_a_map_of_what_can_be_had_and_says_so(made, tmp_path, capsys):
    folders, corpus, _ = made

    with pytest.raises(SystemExit) as end:
        cli.main(
            ["audit-model", str(folders[-1]), "--corpus", str(corpus), "--out", str(tmp_path / "theirs"), "--json"]
        )

    said = json.loads(capsys.readouterr().out)
    assert end.value.code == 0
    assert any("one snapshot" in note and "Final loss against Min-K%++" in note for note in said["notes"])
    table = light.load_table(open_run(tmp_path / "theirs"))
    assert (table.x, table.y) == ("final_loss", "min_k_pp")
    assert not np.isnan(table.scores["zlib_ratio"]).any()
    assert np.isfinite([table.tau_x, table.tau_y]).all()


def test_what_was_stopped_goes_on_where_it_was_and_comes_to_the_same(made, tmp_path, monkeypatch):
    monkeypatch.setattr(foreign_models, "CHUNK_TOKENS", 600)
    folders, corpus, _ = made
    asked = ModelAudit(folders=folders[1:], corpus=corpus)
    audit_model(asked, tmp_path / "whole")
    whole, measured = foreign_models._columns, []

    def stops(*arguments, **how):
        if len(measured) == 3:
            raise Cancelled("stopped")
        measured.append(1)
        return whole(*arguments, **how)

    monkeypatch.setattr(foreign_models, "_columns", stops)
    with pytest.raises(Cancelled):
        audit_model(asked, tmp_path / "theirs")
    assert open_run(tmp_path / "theirs").status == "interrupted"
    kept = len(list((tmp_path / "theirs" / "measuring").iterdir()))
    measured.clear()
    monkeypatch.setattr(foreign_models, "_columns", lambda *a, **k: measured.append(1) or whole(*a, **k))

    audit_model(asked, tmp_path / "theirs", resume=True)

    first, second = open_run(tmp_path / "whole"), open_run(tmp_path / "theirs")
    np.testing.assert_array_equal(first.trajectories(), second.trajectories())
    pd.testing.assert_frame_equal(first.scores(), second.scores())
    assert (light.load_table(second).x, light.load_table(second).y) == ("difficulty", "min_k_pp")
    assert (kept, len(measured)) == (3, 1)
    with pytest.raises(RunError, match="it is complete"):
        audit_model(asked, tmp_path / "theirs", resume=True)
    with pytest.raises(RunExists):
        audit_model(asked, tmp_path / "theirs")


def test_an_audit_goes_on_with_the_same_models_texts_and_settings_alone(made, tmp_path, monkeypatch):
    folders, corpus, _ = made
    asked = ModelAudit(folders=folders[:1], corpus=corpus)
    monkeypatch.setattr(foreign_models, "audit_subject", _stop)
    with pytest.raises(Cancelled):
        audit_model(asked, tmp_path / "theirs")
    other = tmp_path / "other.txt"
    other.write_text("one text\nanother text\n")

    for change, says in (
        ({"folders": folders[1:2]}, "other models or settings"),
        ({"precision": "bf16"}, "other models or settings"),
        ({"context": 70}, "other models or settings"),
        ({"corpus": other}, "another corpus"),
    ):
        with pytest.raises(RunError, match=says):
            audit_model(dataclasses.replace(asked, **change), tmp_path / "theirs", resume=True)


def _stop(*arguments):
    raise Cancelled("stopped")


def copied(folder, to, *, without=()):
    to.mkdir()
    for path in folder.iterdir():
        if path.name not in without:
            (to / path.name).write_bytes(path.read_bytes())
    return to


def test_a_folder_that_is_no_whole_and_safe_causal_model_is_refused(made, tmp_path):
    folders, corpus, _ = made
    pickled = copied(folders[0], tmp_path / "pickled", without=("model.safetensors",))
    (pickled / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    adapter = copied(folders[0], tmp_path / "adapter")
    (adapter / "adapter_config.json").write_text("{}")
    partial = copied(folders[0], tmp_path / "partial", without=("model.safetensors",))
    _save_without(folders[0] / "model.safetensors", partial / "model.safetensors", "transformer.h.1.mlp.c_fc.weight")
    damaged = copied(folders[0], tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes((folders[0] / "model.safetensors").read_bytes()[:1000])
    both_ways = copied(folders[0], tmp_path / "both-ways")
    bert = transformers.BertConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_position_embeddings=72
    )  # fmt: skip
    transformers.BertLMHeadModel(bert).save_pretrained(both_ways)

    for folder, says in (
        ("gpt2", "no model at 'gpt2'"),
        (corpus, "no model at"),
        (tmp_path, "holds no config.json"),
        (pickled, "a pickle, which can run code"),
        (copied(folders[0], tmp_path / "empty", without=("model.safetensors",)), "holds no weights"),
        (adapter, "merge it into its model"),
        (partial, "lack 1 tensors that the model has"),
        (damaged, "cannot be loaded"),
        (both_ways, "reads both ways"),
        (_without_bos(folders[0], tmp_path / "beginless"), "names no token that a text begins with"),
    ):
        with pytest.raises(ModelError, match=says):
            audit_model(ModelAudit(folders=[folder], corpus=corpus), tmp_path / "theirs")
        assert not (tmp_path / "theirs").exists()


def _save_without(source, target, name):
    from safetensors.torch import load_file, save_file

    tensors = load_file(source)
    del tensors[name]
    save_file(tensors, target, metadata={"format": "pt"})


def _without_bos(folder, to):
    copied(folder, to)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (to / name).is_file():
            content = json.loads((to / name).read_text())
            (to / name).write_text(
                json.dumps({k: v for k, v in content.items() if k not in ("bos_token", "eos_token")})
            )
    return to


def test_checkpoints_of_other_tokenizers_contexts_and_canaries_are_refused(made, tmp_path):
    folders, corpus, _ = made
    other = save_model(tmp_path / "other", texts=["entirely other words"] * 9)
    table = tmp_path / "canaries.parquet"
    pq.write_table(pa.table({"canary_id": [1]}), table)

    with pytest.raises(ModelError, match="different tokenizers"):
        audit_model(ModelAudit(folders=[folders[0], other], corpus=corpus), tmp_path / "a")
    for context, says in ((1000, "at most 72"), (8, "67")):
        with pytest.raises(ConfigError, match=says):
            audit_model(ModelAudit(folders=folders[:1], corpus=corpus, context=context), tmp_path / f"b{context}")
    with pytest.raises(CorpusError, match="cannot be read as a table of canaries"):
        audit_model(ModelAudit(folders=folders[:1], corpus=corpus, canaries=table), tmp_path / "c")
    assert not (tmp_path / "c").exists()
    pq.write_table(canary_table([dataclasses.replace(SECRET, kind="parrot")]), table)
    with pytest.raises(CorpusError, match="row 0: kind cannot be 'parrot'"):
        audit_model(ModelAudit(folders=folders[:1], corpus=corpus, canaries=table), tmp_path / "c")


class OneToken:
    """A tokenizer that makes one token of each character, and one of the two letters `ab`."""

    def encode_many(self, texts):
        return [[len(piece) * 1000 + ord(piece[0]) for piece in re.findall("ab|.", text)] for text in texts]


@pytest.mark.parametrize(
    ("prefix", "secret", "context", "can"),
    [("xx", "abc", 9, True), ("xa", "bc", 9, False), ("xx", "abc", 4, False)],
)
def test_a_canary_is_asked_for_where_its_secret_follows_its_prefix_within_the_context(prefix, secret, context, can):
    foreign = SimpleNamespace(tokenizer=OneToken(), context=context)

    assert foreign_models._can_be_asked(dataclasses.replace(SECRET, prefix=prefix, secret=secret), foreign) is can


def test_canaries_that_stand_nowhere_or_cannot_be_asked_for_are_told(made, tmp_path, monkeypatch):
    folders, corpus, _ = made
    absent = dataclasses.replace(SECRET, canary_id=5, prefix="No text begins like this: ")
    pq.write_table(canary_table([SECRET, absent]), tmp_path / "canaries.parquet")
    monkeypatch.setattr(foreign_models, "_can_be_asked", lambda canary, foreign: canary.canary_id == 0)
    asked = ModelAudit(folders=folders[-1:], corpus=corpus, canaries=tmp_path / "canaries.parquet")

    notes = audit_model(asked, tmp_path / "theirs")["notes"]

    assert notes[0].startswith("1 of 2 canaries were not asked for")
    assert notes[1] == "1 canaries that should be planted stand in no row of the corpus."
    assert [row["canary_id"] for row in light.read_audit(open_run(tmp_path / "theirs"), "extraction")["per_item"]] == [
        0
    ]


def test_without_the_package_one_sentence_says_what_to_install(made, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    folders, corpus, _ = made

    with pytest.raises(ModelError, match="pip install transformers"):
        audit_model(ModelAudit(folders=folders[:1], corpus=corpus), tmp_path / "theirs")

    assert not (tmp_path / "theirs").exists()
