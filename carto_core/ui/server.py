"""The dashboard's server: `app.py` behind the gate. `python -m carto_core open` starts it with the flags that go with it."""

import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]
# `streamlit run` puts a script's own folder in front, where this package is not to be found, and `cache` hides others.
sys.path[0] = str(PROJECT)

from starlette.middleware import Middleware  # noqa: E402
from streamlit.starlette import App  # noqa: E402

from carto_core.ui.gate import Gate  # noqa: E402

app = App(PROJECT / "app.py", middleware=[Middleware(Gate)])
