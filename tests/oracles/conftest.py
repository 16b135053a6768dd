"""Other people's programs, imported one by one: what is not installed is skipped, unless `make oracles` asked for it."""

import importlib
import os
import warnings

import pytest


@pytest.fixture(scope="session")
def oracle():
    """Return `import_module` for optional packages, quiet about what they warn of."""

    def load(module):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if os.environ.get("CARTO_ORACLES") == "required":
                return importlib.import_module(module)
            return pytest.importorskip(module)

    return load
