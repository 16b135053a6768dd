"""The document: one HTML file without scripts, and without anything from a network."""

from __future__ import annotations

from pathlib import Path

import jinja2

from carto_core.report.facts import Facts
from carto_core.report.sections import SECTIONS
from carto_core.report.words import when

TEMPLATES = Path(__file__).parent / "templates"
# Every value is escaped unless it is `Markup`, and a name that a template misspells is an error.
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATES),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters["when"] = when
_ENVIRONMENT.filters["count"] = lambda value: f"{value:,}"


def report_html(facts: Facts) -> str:
    """Return the report. The same facts give the same text."""
    shown = [section for section in SECTIONS if section.applies(facts)]
    parts = [(section, section.values(facts)) for section in shown]
    return _ENVIRONMENT.get_template("document.html").render(
        parts=parts, run_id=facts.run_id, plan_id=facts.plan_id, created=facts.created
    )
