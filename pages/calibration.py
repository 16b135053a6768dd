"""Calibration: every measured plan beside its estimate."""

from carto_core.ui.panels import calibration

calibration.page()
