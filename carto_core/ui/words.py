"""Other people's words on a page: shown as they are, never as Markdown, HTML, LaTeX or an emoji's name."""

from __future__ import annotations

MARKUP = set("\\`*_{}[]()#+-.!|<>$~:&@")


def literal(text: object) -> str:
    """Return a text, such as a corpus's own words or the name of a run, so that Markdown shows it as it is, on one line."""
    return " ".join("".join(f"\\{c}" if c in MARKUP else c for c in str(text)).split())
