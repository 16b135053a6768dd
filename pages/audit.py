"""Audit: what the trained model gives away."""

from carto_core.ui.panels import audit

audit.page()
