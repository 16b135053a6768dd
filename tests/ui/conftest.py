"""What all tests of pages have in common."""

import pytest

from carto_core.scores import agreement, roc


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    """Pages show intervals, and how good these are is tested elsewhere: they were a quarter of what opening a page cost here."""
    for module in (agreement, roc):
        monkeypatch.setattr(module, "NUM_RESAMPLES", 40)
