"""JSON files of the contract, which anybody may have written: read strictly, their shape checked where they are read.

A shape is a `Kind` (one value), a list of one shape (any number of it), or a dict of shapes by field; a field whose name
ends in `?` may be absent, and the field `&` is a `Kind` of the whole object. What a shape does not name may be there and is left as it is.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carto_core.errors import CartoError, RunCorrupt

MAX_BYTES = 512 * 2**20  # of one JSON file; the audits of a million samples have less
WHOLE_OBJECT = "&"
MAX_WHOLE = 2**63  # what a file's whole numbers may be below: they become int64


@dataclass(frozen=True)
class Kind:
    """What one value must be: in words, and as a test."""

    words: str
    fits: Callable[[Any], bool]


Shape = Kind | Mapping[str, Any] | list[Any]


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300 and math.isfinite(value)
    )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -MAX_WHOLE <= value < MAX_WHOLE


ANYTHING = Kind("anything", lambda value: True)
TEXT = Kind("a text", lambda value: isinstance(value, str) and is_unicode(value))
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
NUMBER = Kind("a finite number", _is_number)
WHOLE = Kind("a whole number", _is_whole)
COUNT = Kind("a whole number of 0 or more", lambda value: _is_whole(value) and value >= 0)
SECONDS = Kind("a number of 0 or more", lambda value: _is_number(value) and value >= 0)
SHARE = Kind("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1)
OBJECT = Kind("an object", lambda value: isinstance(value, dict))
SHA256 = Kind(
    "a SHA-256 of 64 hexadecimal digits",
    lambda value: isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef"),
)


def _is_interval(value: dict[str, Any]) -> bool:
    low, high = value["low"], value["high"]
    return low is high is None or (low is not None and high is not None and low <= high)


INTERVAL = Kind("an object whose low and high are both null, or in order", _is_interval)


def maybe(kind: Kind) -> Kind:
    """Return the kind, or null."""
    return Kind(f"{kind.words} or null", lambda value: value is None or kind.fits(value))


def among(*values: Any) -> Kind:
    """Return the kind of some fixed values."""
    return Kind(f"one of {', '.join(map(str, values))}", lambda value: isinstance(value, str) and value in values)


def exactly(number: int) -> Kind:
    """Return the kind of one whole number, such as a version."""
    return Kind(str(number), lambda value: _is_whole(value) and value == number)


def by_name(shape: Shape) -> Kind:
    """Return the kind of an object whose values all have one shape, whatever their names."""

    def fits(value: Any) -> bool:
        return isinstance(value, dict) and all(problem_of(part, shape) is None for part in value.values())

    return Kind("an object of such values by name", fits)


def optional(shape: Shape) -> Kind:
    """Return the kind of null, or of one shape."""
    return Kind("null, or of its own form", lambda value: value is None or problem_of(value, shape) is None)


def read_json(path: Path, shape: Shape, *, error: type[CartoError] = RunCorrupt, cure: str) -> Any:
    """Return what a JSON file holds.

    Refused are also names that stand twice in one object, NaN and infinite numbers, and files of more than `MAX_BYTES`.

    Args:
        path: of the file.
        shape: see the module.
        error: what to raise.
        cure: what somebody can do about it, the end of the sentence.

    Raises:
        CartoError: of the class `error`: the file cannot be read, is not JSON, or has another shape.
    """
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise ValueError(f"it has {size:,} bytes, more than {MAX_BYTES:,}")
        value = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        raise error(f"{path} cannot be read: {_said(problem)}; {cure}") from None
    if problem := problem_of(value, shape):
        raise error(f"{path} cannot be read: {problem}; {cure}")
    return value


def is_unicode(text: str) -> bool:
    """Return whether a text can be written as UTF-8: half a surrogate pair, which JSON can spell, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def parse_json(text: str) -> Any:
    """Return what a JSON text says, strictly.

    Raises:
        ValueError: it is not JSON, names something twice, or holds a number that is not finite or too long.
        RecursionError: it is nested too deeply.
    """
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)


def problem_of(value: Any, shape: Shape, where: str = "") -> str | None:
    """Return in words what does not fit a shape, or None.

    Args:
        value: from JSON.
        shape: see the module.
        where: the value's place in the file.
    """
    if isinstance(shape, Kind):
        return None if shape.fits(value) else f"{where or 'it'} must be {shape.words}, got {reprlib.repr(value)}"
    if isinstance(shape, list):
        return _problem_of_list(value, shape[0], where)
    return _problem_of_object(value, shape, where)


def _problem_of_list(value: Any, shape: Shape, where: str) -> str | None:
    if not isinstance(value, list | tuple):
        return f"{where or 'it'} must be a list, got {reprlib.repr(value)}"
    found = (problem_of(part, shape, f"{where}[{place}]") for place, part in enumerate(value))
    return next((problem for problem in found if problem is not None), None)


def _problem_of_object(value: Any, shape: Mapping[str, Any], where: str) -> str | None:
    if not isinstance(value, dict):
        return f"{where or 'it'} must be an object, got {reprlib.repr(value)}"
    for field, part in shape.items():
        if field == WHOLE_OBJECT:
            continue
        name = field.removesuffix("?")
        place = f"{where}.{name}" if where else name
        if name not in value:
            if not field.endswith("?"):
                return f"{place} is missing"
        elif problem := problem_of(value[name], part, place):
            return problem
    return problem_of(value, shape[WHOLE_OBJECT], where) if WHOLE_OBJECT in shape else None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} stands twice in one object")
    return found


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number of JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"the number {digits[:40]} is too large")
    return number


def _said(problem: BaseException) -> str:
    """Return what went wrong in one short sentence."""
    if isinstance(problem, RecursionError):
        return "it is nested too deeply"
    if isinstance(problem, UnicodeDecodeError):
        return f"it is not UTF-8 (byte {problem.start})"
    return "a number has too many digits" if "integer string conversion" in str(problem) else str(problem)
