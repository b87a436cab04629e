"""A value that is not on a field's list is told the list."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.protocol.wire.errors import InvalidRequest
from app.protocol.wire.requests import parse


@pytest.mark.parametrize(
    ("body", "param", "values"),
    [
        (
            {"reasoning": {"effort": "extreme"}},
            "reasoning.effort",
            ["none", "minimal", "low", "medium", "high", "xhigh", "max"],
        ),
        ({"reasoning": {"effort": "HIGH"}}, "reasoning.effort", ["high", "low"]),
        ({"reasoning": {"summary": "long"}}, "reasoning.summary", ["auto", "concise", "detailed"]),
        ({"text": {"verbosity": "some"}}, "text.verbosity", ["low", "medium", "high"]),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type", ["text", "json_object", "json_schema"]),
        ({"include": ["reasoning.encrypted_content", "everything"]}, "include[1]", ["reasoning.encrypted_content"]),
        ({"truncation": "some"}, "truncation", ["auto", "disabled"]),
    ],
)
def test_the_allowed_values_are_named(body: dict[str, Any], param: str, values: list[str]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(json.dumps({"model": "qwen3-8b", "input": "Hi", **body}).encode())
    error = refused.value.envelope().error

    assert (error.code, error.param) == ("invalid_value", param)
    for value in values:
        assert f"'{value}'" in error.message.partition("one of")[2]


def test_a_value_of_the_wrong_type_is_told_the_type() -> None:
    with pytest.raises(InvalidRequest, match="Expected `str") as refused:
        parse(b'{"model": "qwen3-8b", "reasoning": {"effort": 3}}')

    assert refused.value.envelope().error.code == "invalid_type"
