"""Intervene: turn a selection into a plan, measure it, export it."""

from carto_core.ui.panels import intervene

intervene.page()
