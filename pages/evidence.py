"""Evidence: what was measured on public corpora, beside what the paper says."""

from carto_core.ui.panels import evidence

evidence.page()
