"""What is trained. A `Task` builds a model and gives one loss per sample; nothing else in the engine knows the modality.

The words are free of torch: an implementation is named as `module:function` and loaded only where it is trained.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """What a person sees of a task, and where its maker is: `module:function(model_config, vocab_size) -> nn.Module`."""

    name: str
    title: str
    builder: str


TASKS: dict[str, TaskInfo] = {
    "lstm": TaskInfo("lstm", "LSTM language model", "carto_core.tasks.lstm:build"),
}
