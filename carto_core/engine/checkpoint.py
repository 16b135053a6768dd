"""Save and load the state of a training: tensors as safetensors, the rest as JSON. Only the last complete one is kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from carto_core.errors import RunCorrupt
from carto_core.store.rundir import replacing_folder, write_json, writing


def save_checkpoint(
    folder: Path, *, step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> None:
    """Write a checkpoint under a temporary name, rename it, then remove the older ones.

    Args:
        folder: the run's `checkpoints/`.
        step: optimizer steps taken.
        model: whose weights are saved.
        optimizer: whose moments are saved.
        state: further JSON-ready facts.
    """
    target = folder / f"step-{step:09d}"
    moments = {
        f"{index}.{name}": torch.as_tensor(value)
        for index, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
    }
    with replacing_folder(target) as temporary:
        _save({k: v.contiguous() for k, v in model.state_dict().items()}, temporary / "model.safetensors")
        _save(moments | _random_states(), temporary / "optimizer.safetensors")
        write_json(temporary / "state.json", {"step": step, **state})
    drop_older(folder)


def drop_older(folder: Path) -> None:
    """Remove all checkpoints but the last one, and what a process that was killed left of others."""
    last = last_checkpoint(folder)
    for other in folder.glob("*"):
        if other != last:
            with writing(other):
                hidden = other if other.name.startswith(".") else other.rename(folder / f".{other.name}.old")
            shutil.rmtree(hidden, ignore_errors=True)


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint, or None."""
    return max(folder.glob("step-*"), default=None)


def load_model(checkpoint: Path, model: torch.nn.Module, device: torch.device) -> None:
    """Put the checkpoint's weights into `model`.

    Raises:
        RunCorrupt: a file is missing or damaged.
    """
    try:
        model.load_state_dict(load_file(checkpoint / "model.safetensors", device=str(device)))
    except Exception as error:  # noqa: BLE001 (safetensors and torch raise several unrelated types)
        raise RunCorrupt(f"{checkpoint.name} cannot be loaded: {error}") from None


def load_training(checkpoint: Path, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put the optimizer's moments and torch's random states back, and return the JSON facts.

    A training that goes on with CUDA but began without has no state of CUDA's generator to go on from; it keeps the
    one that the run's seed gave.

    Raises:
        RunCorrupt: a file is missing or damaged.
    """
    try:
        tensors = load_file(checkpoint / "optimizer.safetensors")  # the optimizer moves them to where the weights are
        facts = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    except Exception as error:  # noqa: BLE001 (as above)
        raise RunCorrupt(f"{checkpoint.name} cannot be loaded: {error}") from None
    torch.set_rng_state(tensors.pop("rng"))
    cuda = tensors.pop("rng_cuda", None)
    if cuda is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(cuda)
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        index, field = name.split(".", 1)
        state.setdefault(int(index), {})[field] = tensor
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    return facts


def _random_states() -> dict[str, torch.Tensor]:
    """Return the states of torch's generators: the CPU's, and CUDA's where it is in use (its dropout draws there)."""
    states = {"rng": torch.get_rng_state()}
    return states | ({"rng_cuda": torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else {})


def _save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write a safetensors file; its writer has an error of its own for what the system says."""
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        raise OSError(str(error)) from None
