"""Filters on the attributes of files, for `file_search` and vector store searches.

Shapes: the openai SDK's `ComparisonFilter` and `CompoundFilter`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeGuard

import msgspec

from app.protocol.wire.errors import InvalidRequest
from app.protocol.wire.requests import parse_entry

Value = str | int | float | bool

_MOST_LEVELS = 8
_MOST_COMPARISONS = 100
_ORDERED = ("gt", "gte", "lt", "lte")


class Comparison(msgspec.Struct, frozen=True):
    """Matches files by comparing the attribute `key` to the value.

    Values of different types are unequal and not ordered.
    """

    type: Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]
    key: str
    value: Value | tuple[Value, ...]


class Compound(msgspec.Struct, frozen=True):
    """All (`and`) or at least one (`or`) of the filters match."""

    type: Literal["and", "or"]
    filters: tuple[Filter, ...]


Filter = Comparison | Compound


class _Sent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "and", "or"]
    key: str | None = None
    value: Value | tuple[Value, ...] | None = None
    filters: tuple[msgspec.Raw, ...] | None = None


def parse_filter(raw: msgspec.Raw, place: str) -> Filter:
    """Parse a filter; `place` is its place in the request, such as `tools[0].filters`.

    Raises InvalidRequest with the invalid part.
    """
    left = _MOST_COMPARISONS

    def read(raw: msgspec.Raw, place: str, level: int) -> Filter:
        nonlocal left
        left -= 1
        if left < 0 or level > _MOST_LEVELS:
            limits = f"at most {_MOST_COMPARISONS} filters, {_MOST_LEVELS} levels deep"
            raise _invalid(place, f"there may be {limits}")
        sent = parse_entry(raw, _Sent, place)
        if sent.type not in ("and", "or"):
            return _comparison(sent, place)
        if sent.key is not None or sent.value is not None:
            raise _invalid(place, f"'{sent.type}' takes 'filters' and nothing else")
        if not sent.filters:
            raise _invalid(f"{place}.filters", f"'{sent.type}' needs at least one filter")
        return Compound(
            sent.type, tuple(read(inner, f"{place}.filters[{n}]", level + 1) for n, inner in enumerate(sent.filters))
        )

    return read(raw, place, 1)


def fits(wanted: Filter, attributes: Mapping[str, str | float | bool]) -> bool:
    """Whether a file with these attributes matches. A missing attribute is unequal to everything."""
    if isinstance(wanted, Compound):
        return (all if wanted.type == "and" else any)(fits(inner, attributes) for inner in wanted.filters)
    found, value = attributes.get(wanted.key), wanted.value
    match wanted.type:
        case "eq" | "in":
            return _among(found, value)
        case "ne" | "nin":
            return not _among(found, value)
        case order:
            return _in_order(order, found, value)


def _comparison(sent: _Sent, place: str) -> Comparison:
    if sent.filters is not None:
        raise _invalid(place, f"'{sent.type}' takes 'key' and 'value', not 'filters'")
    if sent.type in ("and", "or") or not sent.key:
        raise _invalid(f"{place}.key", "the name of an attribute is required")
    lists, value = sent.type in ("in", "nin"), sent.value
    if value is None or isinstance(value, tuple) != lists:
        raise _invalid(f"{place}.value", f"'{sent.type}' needs a {'list' if lists else 'string, number or boolean'}")
    if sent.type in _ORDERED and isinstance(value, bool):
        raise _invalid(f"{place}.value", f"'{sent.type}' needs a number or a string")
    return Comparison(sent.type, sent.key, value)


def _among(found: Value | None, value: Value | tuple[Value, ...]) -> bool:
    values = value if isinstance(value, tuple) else (value,)
    return any(found == one and isinstance(found, bool) == isinstance(one, bool) for one in values)


def _in_order(order: str, found: Value | None, value: Value | tuple[Value, ...]) -> bool:
    if isinstance(found, str) and isinstance(value, str):
        return _holds(order, (found > value) - (found < value))
    if _is_number(found) and _is_number(value):
        return _holds(order, (found > value) - (found < value))
    return False


def _holds(order: str, sign: int) -> bool:
    return {"gt": sign > 0, "gte": sign >= 0, "lt": sign < 0, "lte": sign <= 0}[order]


def _is_number(value: object) -> TypeGuard[int | float]:
    """Booleans are not numbers here, although they are in Python."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _invalid(place: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid '{place}': {reason}.", code="invalid_value", param=place)
