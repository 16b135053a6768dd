"""Personal data in text, replaced by what kind it was: e-mail addresses, phone and card numbers, IBANs, long digit runs.

For onlookers: a shared screen, a screenshot, a report. It knows shapes, no names and no addresses, so it is a help and no
proof. Dates, years, ranges, versions, decimal numbers and amounts with separators stay. Every pattern is linear in the
text: what repeats is possessive, or bounded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

SWITCH = "CARTO_MASK_PII"  # in the environment: masks a whole server, and the reports that are written
BEYOND = 256  # characters at the end of a long text's beginning that are not shown: the cut may have halved something

Span = tuple[int, int, str]

_E_MAIL = re.compile(r"(?<![\w.%+-])[\w.%+-]++@(?:[\w-]++\.)+[^\W\d_][\w-]++")
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z\d]{4}){2,7}+(?: ?[A-Z\d]{1,3}(?!\w))?")
_CARD = re.compile(r"(\d{4})(?<!\d{5})(?:\d{9,15}|([ -])\d{4}\2\d{4}\2\d{4}(?:\2\d{3})?|([ -])\d{6}\3\d{4,5})(?!\d)")
_PHONES = [
    re.compile(r"(?<![\w+])(\+\(?\d(?:[ ().\-/]{0,2}+\d){6,14}+)"),  # +49 (30) 123456
    re.compile(r"(?<![\w.+-])((?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4})(?!\w)"),  # (212) 555-0164
    re.compile(r"(?<![\w.,+-])(0\d{1,4}[ /-]\d{2,8}+(?:[ -]\d{2,4}){0,4}+)(?!\w)"),  # 020 7946 0958
    re.compile(r"(?<![\w.,-])(\d{3}-0\d{3})(?![\w-])"),  # 555-0164: the end of a range does not begin with 0
    re.compile(  # phone no. 123456
        r"\b(?:phone|telephone|tel|fax|cell|mobile|call|dial)\b[^\w\n+(]{0,3}(?:(?:no|number|is|at|on)\b[^\w\n+(]{0,3})?"
        r"(\+?\(?\d(?:[ ().\-/]{0,2}+\d){5,14}+)(?!\w)",
        re.IGNORECASE,
    ),
]
_THREE_PARTS = re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])")  # as of a social security number
_DIGITS = re.compile(r"\d{6,}+")  # as short as the secrets that we plant
_DECIMAL = re.compile(r"\d[.,]")  # in front of digits that are a number's decimals
_SIX_NEAR = re.compile(r"\d(?:[ ().\-/]{0,3}+\d){5}|\d\d ?[A-Z]{4} ?\d{4}")


def mask(text: str) -> str:
    """Return a text with placeholders such as `[e-mail]` or `[6 digits]` for what looks personal."""
    return _replaced(text, spans(text))


def mask_beginning(text: str, length: int) -> str:
    """Return about the first `length` characters of a text, masked before it is cut."""
    room = 4 * length + 2 * BEYOND
    shown = mask(text) if len(text) <= room else _replaced(text, spans(text[:room]), end=room - BEYOND)
    return shown[:length]


def mask_pieces(pieces: Sequence[str], whole: str = "") -> list[str]:
    """Return as many pieces, masked as one text: a placeholder stands in the piece where what it hides begins.

    Args:
        pieces: of a text, in order.
        whole: the text that they are the beginning of, where they may end in the middle of something.
    """
    joined = "".join(pieces)
    found = spans(whole if whole.startswith(joined) else joined)
    masked, start = [], 0
    for piece in pieces:
        masked.append(_replaced(joined, found, start=start, end=start + len(piece)))
        start += len(piece)
    return masked


def spans(text: str) -> list[Span]:
    """Return (begin, end, placeholder) of what looks personal, in order; two that overlap are one."""
    if "@" not in text and not _SIX_NEAR.search(text):
        return []  # most texts, and what follows costs ten times as much
    found: list[Span] = []
    for begin, end, placeholder in sorted(_candidates(text), key=lambda span: (span[0], -span[1])):
        if found and begin < found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]), found[-1][2])
        else:
            found.append((begin, end, placeholder))
    return found


def is_forced() -> bool:
    """Return whether the environment asks for masking: `CARTO_MASK_PII` holds anything but 0, false, no or off."""
    return os.environ.get(SWITCH, "").strip().lower() not in ("", "0", "false", "no", "off")


def _candidates(text: str) -> Iterator[Span]:
    if "@" in text:
        yield from ((*found.span(), "[e-mail]") for found in _E_MAIL.finditer(text))
    yield from ((*found.span(), "[IBAN]") for found in _IBAN.finditer(text) if _is_iban(found[0]))
    yield from _cards(text)
    for pattern in _PHONES:
        yield from ((*found.span(1), "[phone]") for found in pattern.finditer(text) if _is_phone(found[1]))
    yield from ((*found.span(), "[9 digits]") for found in _THREE_PARTS.finditer(text))
    for found in _DIGITS.finditer(text):
        if not _DECIMAL.match(text, max(0, found.start() - 2)):
            yield (*found.span(), f"[{len(found[0])} digits]")


def _cards(text: str) -> Iterator[Span]:
    """Yield payment card numbers; where a group in front spoils the checksum, the next group is tried as the first."""
    found = _CARD.search(text)
    while found:
        is_grouped = bool(found[2] or found[3])
        is_card = _passes_luhn(found[0]) and not (is_grouped and _are_years(found[0]))
        if is_card:
            yield (*found.span(), "[card]")
        found = _CARD.search(text, found.end(1) if is_grouped and not is_card else found.end())


def _passes_luhn(text: str) -> bool:
    digits = [int(c) for c in text if c.isdigit()][::-1]
    return sum(digits) > 0 and (sum(digits[::2]) + sum(sum(divmod(2 * d, 10)) for d in digits[1::2])) % 10 == 0


def _are_years(text: str) -> bool:
    return all(re.fullmatch(r"1[5-9]\d\d|20\d\d", group) for group in re.split("[ -]", text))


def _is_iban(text: str) -> bool:
    plain = text.replace(" ", "")
    return 15 <= len(plain) <= 34 and int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


def _is_phone(text: str) -> bool:
    if text.startswith("0"):
        return sum(c.isdigit() for c in text) >= 9  # a date has 8 at most
    return not re.fullmatch(r"\+\d+\.\d+", text)  # a decimal number with its sign


def _replaced(text: str, found: Sequence[Span], *, start: int = 0, end: int | None = None) -> str:
    """Return a part of a text, with the placeholders of those spans that begin in it."""
    end = len(text) if end is None else end
    parts, place = [], start
    for begin, stop, placeholder in found:
        if stop <= place or begin >= end:
            continue
        if begin >= start:
            parts += [text[place:begin], placeholder]
        place = min(stop, end)
    return "".join([*parts, text[place:end]])
