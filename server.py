"""The dashboard's server: `app.py` behind the gate. `python -m carto_core open` starts it with the flags that go with it."""

from starlette.middleware import Middleware
from streamlit.starlette import App

from carto_core.ui.gate import Gate

app = App("app.py", middleware=[Middleware(Gate)])
