"""Numbers as displayed by a spreadsheet's number format: 00123, 12.5%, 1,234.50, (3). Not dates and times."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from functools import cache
from itertools import takewhile

import msgspec

BUILT_IN = {
    1: "0",
    2: "0.00",
    3: "#,##0",
    4: "#,##0.00",
    9: "0%",
    10: "0.00%",
    37: "#,##0 ;(#,##0)",
    38: "#,##0 ;(#,##0)",
    39: "#,##0.00;(#,##0.00)",
    40: "#,##0.00;(#,##0.00)",
}
"""Built-in formats, which files refer to by number only."""
_TOKEN = re.compile(
    r'"(?P<quoted>[^"]*)"|\\(?P<escaped>.)|_(?P<space>.)|\*(?P<fill>.)|\[\$(?P<currency>[^\]-]*)[^\]]*\]|\[(?P<bracket>[^\]]*)\]'
    r"|(?P<digit>[0#?])|(?P<point>\.)|(?P<comma>,)|(?P<percent>%)|(?P<other>.)",
    re.DOTALL,
)
_COLOURS = re.compile(r"(?:black|blue|cyan|green|magenta|red|white|yellow|color ?\d+)$", re.IGNORECASE)
_NOT_NUMBERS = frozenset("ymdhsYMDHSeE/@gGbB")
_LONGEST = 255
_MOST_PLACES = 30
_EXACT = Context(prec=60)


class _Section(msgspec.Struct, frozen=True):
    """How numbers of one sign are displayed: text, and digits by position."""

    tokens: Sequence[tuple[str, str]]
    whole: int
    """Digit positions before the decimal point."""
    decimals: str
    """Those after it, as `0`, `#` and `?`."""
    grouped: bool
    scale: int
    """Power of ten by which the number is multiplied."""


def shown(value: str, code: str) -> str | None:
    """The number from the file in its format; None if the format uses more than is supported here."""
    sections = _sections(code)
    try:
        number = Decimal(value)
    except InvalidOperation:
        return None
    if sections is None or not number.is_finite() or abs(number.adjusted()) > _MOST_PLACES:
        return None
    section = sections[0]
    if number < 0 and len(sections) > 1:
        section, number = sections[1], -number
    elif number == 0 and len(sections) > 2:  # noqa: PLR2004 - positive, negative, zero
        section = sections[2]
    return _written(number, section).strip() or None


@cache
def _sections(code: str) -> Sequence[_Section] | None:
    if len(code) > _LONGEST:
        return None
    parts = [_section(part) for part in re.split(r';(?=(?:[^"]*"[^"]*")*[^"]*$)', code)[:3]]
    known = [part for part in parts if part is not None]
    return known if len(known) == len(parts) else None


def _section(code: str) -> _Section | None:
    tokens = _tokens(code)
    if tokens is None:
        return None
    kinds = [kind for kind, _ in tokens]
    point = kinds.index("point") if "point" in kinds else len(tokens)
    places = [place for place, kind in enumerate(kinds) if kind == "digit"]
    if not places:
        return _Section(tokens, 0, "", grouped=False, scale=0)
    first, last = places[0], places[-1]
    commas_after = len(list(takewhile("comma".__eq__, kinds[last + 1 :])))
    return _Section(
        tokens,
        whole=sum(place < point for place in places),
        decimals="".join(tokens[place][1] for place in places if place > point),
        grouped="comma" in kinds[first : min(point, last)],
        scale=2 * kinds.count("percent") - 3 * commas_after,
    )


def _tokens(code: str) -> list[tuple[str, str]] | None:
    """Kinds and texts of what is displayed; None: the format does more than show a number."""
    tokens: list[tuple[str, str]] = []
    for found in _TOKEN.finditer(code):
        kind = str(found.lastgroup)
        text = found[kind]
        if (kind == "bracket" and not _COLOURS.match(text)) or (kind == "other" and text in _NOT_NUMBERS):
            return None
        if kind not in ("bracket", "space", "fill"):
            tokens.append((kind if kind in ("digit", "point", "comma", "percent") else "text", text))
    return tokens


def _written(number: Decimal, section: _Section) -> str:
    rounded = (
        abs(number).scaleb(section.scale).quantize(Decimal(1).scaleb(-len(section.decimals)), ROUND_HALF_UP, _EXACT)
    )
    whole, _, fraction = f"{rounded:f}".partition(".")
    while fraction and section.decimals[len(fraction) - 1] != "0" and fraction.endswith("0"):
        fraction = fraction[:-1]
    text = "".join(_pieces(section, "" if whole == "0" else whole, fraction))
    return f"-{text}" if number < 0 and rounded else text


def _pieces(section: _Section, whole: str, fraction: str) -> list[str]:
    """From the right, so that each digit gets its position and the first position takes all remaining digits."""
    pieces: list[str] = []
    left, open_places, after_point = whole, section.whole, "point" in [kind for kind, _ in section.tokens]
    written = 0
    for kind, text in reversed(section.tokens):
        if kind == "point":
            after_point = False
            pieces.append(f".{fraction}" if fraction else ".")
        elif kind == "digit" and not after_point:
            open_places -= 1
            digits, left = (left, "") if open_places == 0 else (left[-1:], left[:-1])
            for digit in reversed(digits or ("0" if text == "0" else "")):
                pieces.append("," if section.grouped and written and written % 3 == 0 else "")
                pieces.append(digit)
                written += 1
        elif kind in ("text", "percent"):
            pieces.append(text)
    return pieces[::-1]
