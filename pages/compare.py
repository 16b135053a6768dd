"""Compare: what changed from one run to another, above all after a cut."""

from carto_core.ui.panels import compare

compare.page()
