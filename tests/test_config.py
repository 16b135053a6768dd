import json

import pytest

from carto_core.config import CorpusConfig, EngineConfig, ModelConfig
from carto_core.errors import ConfigError, UnknownNameError
from carto_core.tasks import TASKS, find_size, model_config


def test_a_model_keeps_the_sizes_of_its_own_task():
    assert ModelConfig().to_dict() == {
        "task": "lstm",
        "embed": 96,
        "hidden": 192,
        "layers": 1,
        "heads": None,
        "dropout": 0.0,
        "context": 256,
    }
    gpt = ModelConfig(task="gpt", hidden=128)
    assert (gpt.embed, gpt.heads) == (None, 4)


def test_a_config_comes_back_from_json_as_it_was_and_so_does_an_old_one():
    for config in (ModelConfig(embed=8), model_config("gpt", layers=2, dropout=0.1)):
        assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    old = {"task": "lstm", "embed": 64, "hidden": 128, "layers": 1, "dropout": 0.0, "context": 96}
    assert ModelConfig.from_dict(old) == ModelConfig(embed=64, hidden=128, context=96)
    corpus = CorpusConfig(path="demo", vocabulary="gpt2")
    assert CorpusConfig.from_dict(json.loads(json.dumps(corpus.to_dict()))) == corpus


def test_the_vocabulary_says_its_size():
    assert CorpusConfig(path="demo").vocab_size == 512
    assert CorpusConfig(path="demo", vocabulary="gpt2").vocab_size == 50257


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ModelConfig(heads=2), "task lstm has no --heads, got 2"),
        (lambda: ModelConfig(task="gpt", embed=64), "task gpt has no --embed, got 64"),
        (lambda: ModelConfig(task="gpt", hidden=130, heads=4), "hidden 130 and heads 4"),
        (lambda: ModelConfig(task="gpt", heads=0), "--heads must be 1 to 65,536, got 0"),
        (lambda: ModelConfig(layers=0), "--layers must be 1 to 1,000, got 0"),
        (lambda: ModelConfig(context=-1), "--context must be 1 to 1,000,000, got -1"),
        (lambda: ModelConfig(dropout=1.0), r"--dropout must lie in \[0, 1\), got 1.0"),
        (lambda: EngineConfig(precision="fp16"), "--precision: float32 or bf16, got 'fp16'"),
        (lambda: EngineConfig(weight_decay=-0.1), "--weight-decay must be a finite number of 0 or more, got -0.1"),
        (lambda: EngineConfig(learning_rate=0), "--learning-rate must be a finite number above 0, got 0"),
        (lambda: CorpusConfig(path="x", vocabulary="gpt3"), "--vocabulary must be bpe or gpt2, got 'gpt3'"),
        (lambda: CorpusConfig(path="x", vocabulary="gpt2", vocab_size=512), "50257 entries, got --vocab-size 512"),
        (lambda: CorpusConfig(path="x", vocab_size=299), "--vocab-size must lie between 300"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name_and_value(make, said):
    with pytest.raises(ConfigError, match=said):
        make()


def test_a_size_is_asked_for_by_name_and_changed_in_part():
    assert model_config("gpt") == ModelConfig(task="gpt", hidden=128, layers=4, heads=4)
    assert model_config("gpt", "gpt2-small", context=256).context == 256
    assert find_size("gpt", "gpt2-small").learning_rate == 3e-4
    with pytest.raises(UnknownNameError, match="unknown model size of task lstm 'gpt2-small'; choose one of: small"):
        model_config("lstm", "gpt2-small")
    with pytest.raises(UnknownNameError, match="unknown task 'rnn'"):
        model_config("rnn")


def test_every_task_has_a_small_size_and_every_size_has_words():
    for name, task in TASKS.items():
        assert task.name == name
        assert "small" in task.sizes
        assert all(size.title and size.model.task == name and size.learning_rate > 0 for size in task.sizes.values())
