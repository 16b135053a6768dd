"""Samples: the texts themselves, searched, sorted and read one by one."""

from carto_core.ui.panels import samples

samples.page()
