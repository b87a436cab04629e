"""Attribute filters: what they mean, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from app.protocol.wire.errors import InvalidRequest
from app.protocol.wire.filters import fits, parse_filter

ATTRIBUTES: dict[str, str | float | bool] = {
    "team": "red",
    "year": 2024,
    "price": 1.5,
    "open": True,
    "date": "2024-05-01",
}


def holds(wanted: object) -> bool:
    """For `ATTRIBUTES`."""
    return fits(parse_filter(msgspec.Raw(json.dumps(wanted).encode()), "filters"), ATTRIBUTES)


@pytest.mark.parametrize(
    ("kind", "key", "value", "expected"),
    [
        ("eq", "team", "red", True),
        ("eq", "team", "Red", False),
        ("eq", "year", 2024.0, True),
        ("eq", "year", "2024", False),
        ("eq", "open", True, True),
        ("eq", "open", 1, False),
        ("eq", "year", True, False),
        ("eq", "none", "x", False),
        ("ne", "team", "blue", True),
        ("ne", "team", "red", False),
        ("ne", "none", "x", True),
        ("gt", "year", 2023, True),
        ("gt", "year", 2024, False),
        ("gte", "price", 1.5, True),
        ("lt", "price", 2, True),
        ("lte", "price", 1.4, False),
        ("lt", "date", "2024-06-01", True),
        ("gt", "team", 1, False),
        ("lt", "none", 1, False),
        ("gt", "open", 0, False),
        ("in", "team", ["blue", "red"], True),
        ("in", "year", [2023], False),
        ("in", "open", [1], False),
        ("nin", "team", ["blue"], True),
        ("nin", "none", ["blue"], True),
        ("nin", "year", [2024], False),
    ],
)
def test_comparisons(kind: str, key: str, value: object, *, expected: bool) -> None:
    assert holds({"type": kind, "key": key, "value": value}) is expected


def test_compounds_nest() -> None:
    red = {"type": "eq", "key": "team", "value": "red"}
    old = {"type": "lt", "key": "year", "value": 2000}
    assert holds({"type": "or", "filters": [red, old]})
    assert not holds({"type": "and", "filters": [red, old]})
    assert holds({"type": "and", "filters": [red, {"type": "or", "filters": [old, red]}]})


def _deep(levels: int) -> dict[str, Any]:
    inner: dict[str, Any] = {"type": "eq", "key": "a", "value": 1}
    return inner if levels == 0 else {"type": "and", "filters": [_deep(levels - 1)]}


@pytest.mark.parametrize(
    ("wanted", "param"),
    [
        ([], "filters"),
        ("x", "filters"),
        ({"type": "eq", "value": 1}, "filters.key"),
        ({"type": "eq", "key": "", "value": 1}, "filters.key"),
        ({"type": "eq", "key": "a"}, "filters.value"),
        ({"type": "eq", "key": "a", "value": [1]}, "filters.value"),
        ({"type": "in", "key": "a", "value": 1}, "filters.value"),
        ({"type": "in", "key": "a", "value": [[1]]}, "filters.value[0]"),
        ({"type": "eq", "key": "a", "value": {}}, "filters.value"),
        ({"type": "gt", "key": "a", "value": True}, "filters.value"),
        ({"type": "like", "key": "a", "value": 1}, "filters.type"),
        ({"type": "eq", "key": "a", "value": 1, "more": 1}, "filters.more"),
        ({"type": "eq", "key": "a", "value": 1, "filters": []}, "filters"),
        ({"type": "and"}, "filters.filters"),
        ({"type": "or", "filters": []}, "filters.filters"),
        ({"type": "or", "filters": [{"type": "eq", "key": "a"}]}, "filters.filters[0].value"),
        (_deep(20), "filters" + ".filters[0]" * 8),
        ({"type": "and", "filters": [_deep(0)] * 200}, "filters.filters[99]"),
    ],
)
def test_what_is_no_filter_is_refused_by_name(wanted: object, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        holds(wanted)
    assert refused.value.param == param
