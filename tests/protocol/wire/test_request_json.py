"""Fields that may hold any JSON: as they were sent, and null is the same as nothing."""

from __future__ import annotations

import msgspec
import pytest

from app.protocol.wire.requests import given, parse, parse_tool


@pytest.mark.parametrize("sent", [b'{"type":"function","name":"f"}', b'"required"', b"[1]", b"1.50"])
def test_any_json_is_kept_as_it_was_sent(sent: bytes) -> None:
    request = parse(b'{"tool_choice": %b}' % sent)

    assert given(request.tool_choice) == msgspec.Raw(sent)


@pytest.mark.parametrize("body", [b"{}", b'{"tool_choice": null}'])
def test_null_means_absence(body: bytes) -> None:
    assert given(parse(body).tool_choice) is None


def test_a_tool_keeps_its_schema_byte_for_byte() -> None:
    tool = parse_tool(
        msgspec.Raw(b'{"type":"function","name":"f","parameters":{"type":"object",  "x": 1.0}}'), "tools[0]"
    )

    assert given(tool.parameters) == msgspec.Raw(b'{"type":"object",  "x": 1.0}')
