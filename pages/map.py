"""Map: difficulty against memorization, a lasso, and what lies inside."""

from carto_core.ui.panels import map

map.page()
