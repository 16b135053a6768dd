"""The dashboard's entry: `streamlit run app.py`, or better `python -m carto_core open`."""

from carto_core.ui.shell import run_app

run_app()
