"""Manual pages as running text: paragraphs of a page in the `man` macros, without markup, tables and comments."""

from __future__ import annotations

import re
from collections.abc import Iterator

FONTS = ("B", "I", "BR", "IR", "RB", "RI", "BI", "IB", "SB", "SM")
SPACED = ("B", "I", "SB", "SM")  # these set their arguments apart, the others run them together
BREAKS = ("PP", "P", "LP", "TP", "TQ", "HP", "RS", "RE", "nf", "fi", "EX", "EE", "sp", "br", "UR", "UE", "SY", "YS")
BLOCKS = {"TS": ".TE", "de": "..", "ig": ".."}  # dropped up to their end: tables, macro definitions, comments
CHARACTERS = {
    "aq": "'", "cq": "'", "oq": "'", "dq": '"', "lq": '"', "rq": '"', "bu": "*", "em": "--", "en": "-", "ha": "^",
    "ti": "~", "rs": "\\", "mu": "x", "co": "(C)", "->": "->", "<-": "<-", "<=": "<=", ">=": ">=", "+-": "+/-", "ga": "`",
    "bv": "|", "ba": "|", "at": "@", "sh": "#", "Do": "$", "lB": "[", "rB": "]", "lC": "{", "rC": "}", "la": "<", "ra": ">",
    "hy": "-", "mi": "-", "pl": "+", "eq": "=", "sq": "", "ss": "ss", "de": " degrees", "mc": "u", "no": "not", "12": "1/2",
}  # fmt: skip
ESCAPE = re.compile(
    r"""\\(?:
      f(?:\[[^\]]*\]|\(..|.)                      # font
    | s(?:\[[^\]]*\]|[+-]?\d{1,2})                # size
    | [*n](?:\[(?P<register>[^\]]*)\]|\((?P<two>..)|(?P<one>.))
    | \[(?P<long>[^\]]*)\] | \((?P<short>..)      # special characters
    | [hvwlLkxZobD]'[^']*'                        # movements, drawings
    | (?P<sign>.)
    )""",
    re.VERBOSE,
)
SIGNS = {"-": "-", "e": "\\", "\\": "\\", " ": " ", "~": " ", "0": " ", "'": "'", "`": "`", ".": ".", "t": " "}


def page_paragraphs(source: str) -> Iterator[tuple[str, str]]:
    """Yield (section heading, paragraph) of a manual page, each paragraph on one line.

    A tagged paragraph keeps its tag in front. Conditional requests are dropped, whatever they ask.
    """
    heading, words = "", []
    for line in _lines(source):
        request, _, rest = line[1:].strip().partition(" ") if line[:1] in (".", "'") else ("", "", line)
        if request in FONTS:
            words.append(_set(request, rest))
        elif request in ("SH", "SS", "IP", *BREAKS) or not line.strip():
            if words:
                yield heading, " ".join(" ".join(words).split())
            words = [_plain(part) for part in _arguments(rest)[:1]] if request == "IP" else []
            heading = _set("B", rest) if request == "SH" else heading
        elif not request and line[:1] not in (".", "'"):
            words.append(_plain(line))
    if words:
        yield heading, " ".join(" ".join(words).split())


def _lines(source: str) -> Iterator[str]:
    """Yield lines without comments, dropped blocks and conditionals; continued lines joined."""
    until, depth = "", 0
    for line in re.sub(r"\\\n", "", source).splitlines():
        if until or depth:
            until = "" if until and line.startswith(until) else until
            depth += line.count(r"\{") - line.count(r"\}")
            continue
        line = re.sub(r"\\[\"#].*", "", line) if r"\"" in line or r"\#" in line else line
        name = re.match(r"[.']\s*(\w+)", line)
        until = BLOCKS.get(name[1], "") if name else ""
        if name and name[1] in ("if", "ie", "el"):
            depth = line.count(r"\{") - line.count(r"\}")
        elif not until and line.strip() not in (".", "'"):
            yield line


def _set(request: str, rest: str) -> str:
    return (" " if request in SPACED else "").join(_plain(part) for part in _arguments(rest))


def _arguments(rest: str) -> list[str]:
    """Split a request's arguments: by spaces that are not escaped, quotes keep together, `""` within is a quote."""
    found = re.findall(r'"((?:[^"]|"")*)"?|((?:\\.|[^\s\\])+)', rest.strip())
    return [quoted.replace('""', '"') if quoted else bare for quoted, bare in found if quoted or bare]


def _plain(text: str) -> str:
    return ESCAPE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    name = match["long"] or match["short"]
    if name:
        code = re.fullmatch(r"u([0-9A-F]{4,6})", name)
        return chr(int(code[1], 16)) if code else CHARACTERS.get(name, "")
    register = match["register"] or match["two"] or match["one"]
    if register:
        return {"lq": '"', "rq": '"', "R": "(R)", "Tm": "(TM)"}.get(register, "")
    return SIGNS.get(match["sign"] or "", "")
