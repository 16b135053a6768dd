"""What is trained. A `Task` builds a model and gives one loss per sample; nothing else in the engine knows the modality.

The words are free of torch: an implementation is named as `module:function` and loaded only where it is trained.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from carto_core.config import ModelConfig
from carto_core.errors import UnknownNameError


@dataclass(frozen=True, slots=True)
class ModelSize:
    """A size that people ask for by name, with a learning rate at which it trains well."""

    title: str
    model: ModelConfig
    learning_rate: float


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """What a person sees of a task, and where its maker is.

    Attributes:
        name: key in `TASKS`.
        title: in words.
        builder: `module:function(model_config, vocab_size) -> nn.Module`.
        sizes: by name; every task has a `small` one.
        bounded: whether the model can read no further than its context, also when it is asked about a longer text.
    """

    name: str
    title: str
    builder: str
    sizes: dict[str, ModelSize]
    bounded: bool = False


TASKS: dict[str, TaskInfo] = {
    "lstm": TaskInfo(
        "lstm",
        "LSTM language model",
        "carto_core.tasks.lstm:build",
        {"small": ModelSize("1 layer of 192", ModelConfig(task="lstm"), 3e-3)},
    ),
    "gpt": TaskInfo(
        "gpt",
        "Decoder-only transformer (GPT-2 architecture)",
        "carto_core.tasks.gpt:build",
        {
            "small": ModelSize(
                "4 layers of 128, 4 heads", ModelConfig(task="gpt", hidden=128, layers=4, heads=4), 3e-3
            ),
            "gpt2-small": ModelSize(
                "GPT-2 Small: 12 layers of 768, 12 heads, context 1024; 124 M parameters with --vocabulary gpt2",
                ModelConfig(task="gpt", hidden=768, layers=12, heads=12, context=1024),
                3e-4,
            ),
        },
        bounded=True,
    ),
}


def find_size(task: str, size: str) -> ModelSize:
    """Return a task's size by name.

    Raises:
        UnknownNameError: there is no such task, or it has no such size.
    """
    if task not in TASKS:
        raise UnknownNameError.of("task", task, TASKS)
    sizes = TASKS[task].sizes
    if size not in sizes:
        raise UnknownNameError.of(f"model size of task {task}", size, sizes)
    return sizes[size]


def model_config(task: str, size: str = "small", **changes: Any) -> ModelConfig:
    """Return the settings of a task's size, with some of them changed.

    Raises:
        UnknownNameError: see `find_size`.
        ConfigError: the changes do not make a model of that task.
    """
    return dataclasses.replace(find_size(task, size).model, **changes)
