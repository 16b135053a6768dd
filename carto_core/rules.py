"""Rules of selections as JSON, before any sample is looked at: how two become one, how deep they nest, what they say.

A combination is `{"type": "combined", "op": "add" | "subtract" | "intersect", "rules": [first, second, ...]}`; `subtract`
takes the later rules from the first. `selection` resolves it, as it does every other rule.
"""

from __future__ import annotations

import copy
import json
import reprlib
from collections.abc import Callable, Iterable
from typing import Any

from carto_core.errors import SelectionError
from carto_core.quadrants import QUADRANTS
from carto_core.scores import SCORES
from carto_core.store.shapes import FLAG, NUMBER, OBJECT, TEXT, Kind, among, maybe, optional, problem_of

Rule = dict[str, Any]

OPS = {"add": "plus", "subtract": "minus", "intersect": "intersected with"}
MAX_DEPTH = 20  # levels of rules inside rules
_ROOM = 2  # of these, for the search hits and the copies that a page may put around a combination
_MAX_WORDS = 240


def combine(op: str, first: Rule, *others: Rule) -> Rule:
    """Return the canonical rule of a combination.

    Args:
        op: `add`, `subtract` (the others from the first) or `intersect`.
        first: a rule.
        others: one rule or more.

    Raises:
        SelectionError: the operation is unknown, or the rules are nested too deeply to be combined once more.
    """
    if op not in OPS:
        raise SelectionError(f"unknown operation {op!r}; choose one of: {', '.join(OPS)}")
    combined: Rule = {"type": "combined", "op": op, "rules": [first, *others]}
    check_depth(combined, limit=MAX_DEPTH + 1)  # before it is walked by recursion; a chain may yet become one list
    rule = canonical(combined)
    check_depth(rule, limit=MAX_DEPTH - _ROOM)
    return rule


def canonical(rule: Rule) -> Rule:
    """Return a copy of a rule in which combinations have one way of being written.

    Nested sums, nested intersections and repeated subtractions become one list; where order means nothing, it is that of
    the rules' JSON, each once. So `a + (b + a)` and `b + a` are the same JSON, and so are `a - b - c` and `a - (c + b)`.
    Equal sets that need more algebra than this to be seen as equal keep their different rules.

    Args:
        rule: one that `selection` can resolve.
    """
    parts: Rule = {name: [canonical(part) for part in rule[name]] for name in ("rules",) if name in rule}
    parts |= {name: canonical(rule[name]) for name in ("rule",) if name in rule}
    fields = {name: value for name, value in rule.items() if name not in parts}
    found = copy.deepcopy(fields) | parts
    return _flat(found["op"], found["rules"]) if found["type"] == "combined" else found


def depth(rule: Any) -> int:
    """Return how many levels of rules a rule has; 1 for one without rules in it. Walks any depth without recursion."""
    levels, level = 0, [rule]
    while level:
        levels += 1
        level = [part for upper in level for part in _parts(upper)]
    return levels


def check_depth(rule: Any, *, limit: int = MAX_DEPTH) -> None:
    """Raise SelectionError where rules are nested more deeply than `limit` levels."""
    levels = depth(rule)
    if levels > limit:
        raise SelectionError(
            f"the rule would be nested {levels} levels deep, and at most {limit} are allowed here; "
            "begin a new selection, or list the keys of this one in a file and go on from there (select --keys)"
        )


def check_form(rule: Any) -> None:
    """Raise SelectionError where a rule that somebody else wrote has not the fields of its type, at any depth."""
    check_depth(rule)
    level = [rule]
    while level:
        for part in level:
            kind = part.get("type") if isinstance(part, dict) else None
            form = FORMS.get(kind) if isinstance(kind, str) else None
            if form is None:
                raise SelectionError(
                    f'a rule is an object with a "type" among {", ".join(FORMS)}; got {reprlib.repr(part)}'
                )
            if problem := problem_of(part, form):
                raise SelectionError(f"rule of type {kind}: {problem}")
        level = [part for upper in level for part in [*upper.get("rules", []), *_one(upper)]]


def describe(rule: Rule | None) -> str:
    """Return a rule in words, as plain text of bounded length; it may hold the corpus's own words.

    Never fails: a rule that nothing could resolve is said to be one.
    """
    if rule is None:
        return "nothing selected"
    try:
        check_depth(rule)
        words = _words(rule)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, SelectionError):
        return "a rule that cannot be read"
    return words if len(words) <= _MAX_WORDS else f"{words[: _MAX_WORDS - 1]}…"


def _one(rule: Rule) -> list[Any]:
    return [rule["rule"]] if "rule" in rule else []


def _parts(rule: Any) -> list[Any]:
    if not isinstance(rule, dict):
        return []
    many, one = rule.get("rules"), rule.get("rule")
    return [*(many if isinstance(many, list) else []), *([one] if isinstance(one, dict) else [])]


def _flat(op: str, rules: list[Rule]) -> Rule:
    """Return one combination of canonical rules; the rule itself where only one is left."""
    if op != "subtract":
        ordered = _ordered(_spliced(rules, op))
        return ordered[0] if len(ordered) == 1 else {"type": "combined", "op": op, "rules": ordered}
    first, *taken = [*_spliced(rules[:1], "subtract"), *_spliced(rules[1:], "add")]
    return {"type": "combined", "op": op, "rules": [first, *_ordered(taken)]}


def _spliced(rules: Iterable[Rule], op: str) -> list[Rule]:
    """Return the rules with the parts of those that combine by `op` in their place."""
    return [
        part
        for rule in rules
        for part in (rule["rules"] if (rule["type"], rule.get("op")) == ("combined", op) else [rule])
    ]


def _ordered(rules: Iterable[Rule]) -> list[Rule]:
    by_json = {json.dumps(rule, sort_keys=True, ensure_ascii=False): rule for rule in rules}
    return [by_json[text] for text in sorted(by_json)]


def _words(rule: Rule) -> str:
    kind = rule["type"]
    return WORDS[kind](rule) if kind in WORDS else str(kind).replace("_", " ")


def _outlines(rule: Rule) -> str:
    number = len(rule["polygons"])
    shape = "an outline" if number == 1 else f"{number} outlines"
    return f"{shape} on {_title(rule['x'])} and {_title(rule['y'])}"


def _range(rule: Rule) -> str:
    low, high = rule["low"], rule["high"]
    ends = [f"{word} {end:g}" for word, end in (("from", low), ("up to", high)) if end is not None]
    return f"{_title(rule['score'])} {' '.join(ends) or 'known'}"


def _filter(rule: Rule) -> str:
    said = []
    if rule.get("text") is not None:
        said.append(f"text “{rule['text']}”")
    if rule.get("source") is not None:
        said.append(f"source {', '.join(rule['source'])}")
    if rule.get("min_tokens") is not None:
        said.append(f"at least {rule['min_tokens']} tokens")
    if rule.get("max_tokens") is not None:
        said.append(f"at most {rule['max_tokens']} tokens")
    if rule.get("duplicates") is not None:
        said.append("exact copies only" if rule["duplicates"] else "no exact copies")
    return ", ".join(said) or "all samples"


def _combined(rule: Rule) -> str:
    return f" {OPS[rule['op']]} ".join(_inner(part) for part in rule["rules"])


def _policy(rule: Rule) -> str:
    return f"quadrant policy: hotspots weighted {rule['alpha']:g}, hard samples {rule['gamma']:g} times, outliers out"


def _inner(rule: Rule) -> str:
    return f"({_words(rule)})" if len(_parts(rule)) > 1 else _words(rule)


def _title(score: str) -> str:
    return SCORES[score].title if score in SCORES else score


_INNER = Kind("a list of one rule or more", lambda value: isinstance(value, list) and bool(value))
FORMS: dict[str, dict[str, Any]] = {
    "polygon": {"x": TEXT, "y": TEXT, "polygons": [[[NUMBER]]]},
    "quadrant": {"name": among(*QUADRANTS), "x": TEXT, "y": TEXT, "tau_x": NUMBER, "tau_y": NUMBER},
    "top": {"by": TEXT, "q": NUMBER},
    "keys": {"keys": [TEXT]},
    "range": {"score": TEXT, "low": maybe(NUMBER), "high": maybe(NUMBER)},
    "filter": {
        "source?": optional([TEXT]),
        "min_tokens?": maybe(NUMBER),
        "max_tokens?": maybe(NUMBER),
        "duplicates?": optional(FLAG),
        "text?": maybe(TEXT),
    },
    "all": {"rules": _INNER},
    "any": {"rules": _INNER},
    "duplicates_of": {"rule": OBJECT},
    "combined": {"op": among(*OPS), "rules": _INNER},
    "policy": {"alpha": NUMBER, "gamma": NUMBER, "x": TEXT, "y": TEXT, "tau_x": NUMBER, "tau_y": NUMBER},
    "deduplicate": {},
}
WORDS: dict[str, Callable[[Rule], str]] = {
    "polygon": _outlines,
    "quadrant": lambda rule: f"quadrant {QUADRANTS[rule['name']].title}",
    "top": lambda rule: f"top {100 * rule['q']:.3g} % by {_title(rule['by'])}",
    "keys": lambda rule: f"{len(rule['keys']):,} listed samples",
    "range": _range,
    "filter": _filter,
    "all": lambda rule: " and also ".join(_inner(part) for part in rule["rules"]),
    "any": lambda rule: " or ".join(_inner(part) for part in rule["rules"]),
    "duplicates_of": lambda rule: f"{_inner(rule['rule'])} with all exact copies",
    "combined": _combined,
    "policy": _policy,
    "deduplicate": lambda rule: "all but one of each exact duplicate",
}
