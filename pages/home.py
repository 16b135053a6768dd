"""Home: which runs there are, how they stand, what to do next."""

from carto_core.ui.panels import home

home.page()
