"""Where and how torch computes."""

from __future__ import annotations

import torch

from carto_core.errors import ConfigError


def pick_device(name: str, *, threads: int) -> torch.device:
    """Return the device and set torch up for repeatable results with `threads` CPU threads.

    Args:
        name: `cpu`, `cuda`, or `auto` (CUDA where there is one).
        threads: of torch on the CPU; sums are taken in another order with another number.

    Raises:
        ConfigError: `cuda` was asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: this machine has no usable CUDA device; use --device auto or cpu")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
