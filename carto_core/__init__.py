"""GenDataCarto: which training samples a model memorizes, and what removing them does.

Importing the package loads neither torch nor duckdb nor streamlit, so that the engine and the part writer
run on machines that lack the other two.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"
CONTRACT_VERSION = 1
__all__ = ["CONTRACT_VERSION", "__version__", "per_sample_loss", "record"]
_FOR_LOOPS = {"record": "carto_core.integrations.recorder", "per_sample_loss": "carto_core.integrations.losses"}


def __getattr__(name: str) -> Any:
    """Load what a training loop asks for when it is asked for."""
    if name in _FOR_LOOPS:
        return getattr(importlib.import_module(_FOR_LOOPS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
