"""Where and how torch computes."""

from __future__ import annotations

import os

import torch

from carto_core.config import Precision
from carto_core.errors import ConfigError


def pick_device(name: str, *, threads: int) -> torch.device:
    """Return the device and set torch up for repeatable results with `threads` CPU threads.

    On CUDA: float32 is float32 (no TF32), cuBLAS gets the workspace that makes it repeatable, and attention is computed by
    plain matrix products: the faster kernels add up their gradients in any order.

    Args:
        name: `cpu`, `cuda`, or `auto` (CUDA where there is one).
        threads: of torch on the CPU; sums are taken in another order with another number.

    Raises:
        ConfigError: `cuda` was asked for and there is none.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it once, when CUDA starts
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: this machine has no usable CUDA device; use --device auto or cpu")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    device = torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
    torch.backends.cuda.enable_mem_efficient_sdp(enabled=False)
    torch.backends.cuda.enable_cudnn_sdp(enabled=False)
    torch.backends.cuda.enable_flash_sdp(enabled=device.type == "cpu")  # the CPU's kernel, which is repeatable, too
    return device


def forward_precision(device: torch.device, precision: Precision) -> torch.autocast:
    """Return the context, to be entered as often as one likes, in which forward passes compute in `precision`.

    Raises:
        ConfigError: the device cannot compute in bfloat16.
    """
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ConfigError(
            f"--precision bf16: {torch.cuda.get_device_name(device)} does not compute in bfloat16; "
            "use --precision float32"
        )
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
