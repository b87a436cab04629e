"""The request as clients send it; every refusal names the parameter."""

from __future__ import annotations

import json

import msgspec
import pytest

from app.protocol.wire.errors import InvalidRequest
from app.protocol.wire.requests import CreateResponse, InputItem, Part, parse, parse_item, parse_tool


def refusal(body: bytes) -> InvalidRequest:
    """How this body is refused."""
    with pytest.raises(InvalidRequest) as raised:
        parse(body)
    assert raised.value.status == 400
    return raised.value


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"temperatur": 1}, "temperatur"),
        ({"n": 1}, "n"),
        ({"messages": []}, "messages"),
    ],
)
def test_an_unknown_parameter_is_named(body: dict[str, object], param: str) -> None:
    error = refusal(json.dumps(body).encode())
    assert (error.code, error.param) == ("unknown_parameter", param)
    assert error.message == f"Unknown parameter: '{param}'."


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"text": {"type": "json_object"}}, "text.type", "'text.format'"),
        ({"text": {"type": "json_schema", "schema": {}}}, "text.type", "'text.format'"),
        (
            {"text": {"format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}}},
            "text.format.json_schema",
            "beside 'type'",
        ),
        ({"text": {"format": {"type": "json_object", "shema": {}}}}, "text.format.shema", ""),
        ({"text": {"verbosity": "low", "verbose": True}}, "text.verbose", ""),
        ({"reasoning": {"effort": "low", "max_tokens": 5}}, "reasoning.max_tokens", ""),
        ({"reasoning": {"enabled": True}}, "reasoning.enabled", "'enable_thinking'"),
        ({"stream_options": {"usage": True}}, "stream_options.usage", ""),
        ({"response_format": {"type": "json_object"}}, "response_format", "'text.format'"),
        ({"max_tokens": 5}, "max_tokens", "'max_output_tokens'"),
        ({"max_completion_tokens": 5}, "max_completion_tokens", "'max_output_tokens'"),
        ({"reasoning_effort": "low"}, "reasoning_effort", "'reasoning.effort'"),
    ],
)
def test_an_unknown_field_inside_a_parameter_is_named_with_its_right_place(
    body: dict[str, object], param: str, words: str
) -> None:
    error = refusal(json.dumps(body).encode())
    assert (error.code, error.param) == ("unknown_parameter", param)
    assert error.message.startswith(f"Unknown parameter: '{param}'")
    assert words in error.message


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"model": 5}, "invalid_type", "model"),
        ({"input": 5}, "invalid_type", "input"),
        ({"input": {}}, "invalid_type", "input"),
        ({"stream": "yes"}, "invalid_type", "stream"),
        ({"store": 1}, "invalid_type", "store"),
        ({"temperature": "hot"}, "invalid_type", "temperature"),
        ({"temperature": True}, "invalid_type", "temperature"),
        ({"max_output_tokens": 1.5}, "invalid_type", "max_output_tokens"),
        ({"tools": {}}, "invalid_type", "tools"),
        ({"metadata": {"a": 1}}, "invalid_type", "metadata[...]"),
        ({"include": ["everything"]}, "invalid_value", "include[0]"),
        ({"include": "reasoning.encrypted_content"}, "invalid_type", "include"),
        ({"reasoning": "high"}, "invalid_type", "reasoning"),
        ({"reasoning": {"effort": "huge"}}, "invalid_value", "reasoning.effort"),
        ({"reasoning": {"summary": "long"}}, "invalid_value", "reasoning.summary"),
        ({"text": {"format": {"type": "xml"}}}, "invalid_value", "text.format.type"),
        ({"text": {"format": {}}}, "invalid_type", "text.format"),
        ({"text": {"verbosity": "loud"}}, "invalid_value", "text.verbosity"),
        ({"truncation": "yes"}, "invalid_value", "truncation"),
        ({"service_tier": "slow"}, "invalid_value", "service_tier"),
        ({"stream_options": {"include_obfuscation": 1}}, "invalid_type", "stream_options.include_obfuscation"),
    ],
)
def test_a_wrong_type_or_value_is_named(body: dict[str, object], code: str, param: str) -> None:
    error = refusal(json.dumps(body).encode())
    assert (error.code, error.param) == (code, param)
    assert f"'{param}'" in error.message


@pytest.mark.parametrize("body", [b"[]", b"5", b'"text"', b"null", b"true"])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    error = refusal(body)
    assert (error.code, error.param) == ("invalid_type", None)
    assert "'body'" in error.message


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"model": }', b'{"model": "a"} x', b"\xff", b'{"model": "\xff"}', b"{'model': 1}", b"\x00", b"NaN"],
)
def test_a_body_that_is_no_json_is_refused(body: bytes) -> None:
    assert refusal(body).code == "json_parse_error"


@pytest.mark.parametrize("field", ["input", "tool_choice", "tools", "metadata"])
def test_a_deep_body_is_refused(field: str) -> None:
    error = refusal(f'{{"{field}": {"[" * 100_000}{"]" * 100_000}}}'.encode())
    assert error.code in ("json_parse_error", "invalid_type")


def test_null_is_absence_for_every_parameter() -> None:
    names = CreateResponse.__struct_fields__
    assert parse(json.dumps(dict.fromkeys(names)).encode()).model is None


@pytest.mark.parametrize(
    "body",
    [
        {"text": {}},
        {"tools": [], "include": []},
        {"metadata": {}},
        {"text": {"format": {"type": "json_schema", "name": "n", "schema": {}, "description": None, "strict": True}}},
        {
            "reasoning": {
                "effort": None,
                "summary": "auto",
                "generate_summary": None,
                "context": None,
                "mode": "standard",
            }
        },
        {"text": {"format": {"type": "text"}, "verbosity": "medium"}},
        {"text": {"format": {"type": "json_object", "name": None, "schema": None}, "verbosity": None}},
        {"stream_options": {"include_obfuscation": False}},
        {"stream_options": {"include_usage": True}},
        {"stream_options": {"reasoning_summary_delivery": "sequential_cutoff"}},
        {"client_metadata": {"x-codex": 1}},
        {"tool_choice": "none"},
        {"top_k": 20, "min_p": 0.05, "seed": 7, "repetition_penalty": 1.05, "enable_thinking": False},
    ],
)
def test_what_real_clients_send_is_read(body: dict[str, object]) -> None:
    assert isinstance(parse(json.dumps(body).encode()), CreateResponse)


ITEMS: list[tuple[dict[str, object], InputItem]] = [
    ({"role": "user", "content": "hi"}, InputItem(role="user", content="hi")),
    ({"id": "msg_1"}, InputItem(id="msg_1")),
    ({"type": "reasoning", "summary": [], "content": None}, InputItem(type="reasoning", summary=())),
    (
        {
            "role": "assistant",
            "content": [{"type": "output_text", "text": "a", "annotations": []}],
            "phase": "final_answer",
        },
        InputItem(role="assistant", content=(Part("output_text", "a"),)),
    ),
    (
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image", "image_url": "data:,"}]},
        InputItem(type="function_call_output", call_id="c", output=(Part("input_image", image_url="data:,"),)),
    ),
]


@pytest.mark.parametrize(("raw", "item"), ITEMS)
def test_an_input_item_is_read_and_unknown_fields_are_left_alone(raw: dict[str, object], item: InputItem) -> None:
    assert parse_item(msgspec.Raw(json.dumps(raw).encode()), "input[0]") == item


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        (b"5", "input[3]"),
        (b'{"content": 5}', "input[3].content"),
        (b'{"content": [{"text": "a"}]}', "input[3].content[0]"),
        (b'{"content": [{"type": "input_text", "text": 5}]}', "input[3].content[0].text"),
        (b'{"arguments": {"a": 1}}', "input[3].arguments"),
    ],
)
def test_a_wrong_item_is_named_with_its_place(raw: bytes, param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse_item(msgspec.Raw(raw), "input[3]")
    assert (raised.value.param, raised.value.code) == (param, "invalid_type")


@pytest.mark.parametrize(
    ("raw", "param"), [(b"5", "tools[1]"), (b"{}", "tools[1]"), (b'{"type": "function", "name": 5}', "tools[1].name")]
)
def test_a_wrong_tool_is_named_with_its_place(raw: bytes, param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse_tool(msgspec.Raw(raw), "tools[1]")
    assert raised.value.param == param


NAMED: dict[str, object] = {"type": "function", "name": "f"}
CUSTOM: dict[str, object] = {"type": "custom", "name": "c"}
SPACE: dict[str, object] = {"type": "namespace", "name": "n", "description": "d", "tools": []}


@pytest.mark.parametrize(
    ("tool", "param", "code", "words"),
    [
        ({**NAMED, "paramters": {}}, "tools[1].paramters", "unknown_parameter", ""),
        ({**NAMED, "input_schema": {}}, "tools[1].input_schema", "unknown_parameter", "'parameters'"),
        ({**NAMED, "inputSchema": {}}, "tools[1].inputSchema", "unknown_parameter", "'parameters'"),
        ({**NAMED, "format": {"type": "text"}}, "tools[1].format", "unknown_parameter", ""),
        ({**NAMED, "tools": []}, "tools[1].tools", "unknown_parameter", ""),
        ({**CUSTOM, "parameters": {"type": "object"}}, "tools[1].parameters", "unknown_parameter", ""),
        ({**CUSTOM, "grammar": "x"}, "tools[1].grammar", "unknown_parameter", ""),
        ({**SPACE, "parameters": {}}, "tools[1].parameters", "unknown_parameter", ""),
        ({**SPACE, "functions": []}, "tools[1].functions", "unknown_parameter", ""),
        ({**NAMED, "allowed_callers": ["programmatic"]}, "tools[1].allowed_callers", "unsupported_value", "'direct'"),
        ({**NAMED, "allowed_callers": "direct"}, "tools[1].allowed_callers", "invalid_type", ""),
    ],
)
def test_a_field_that_a_tool_does_not_have_is_named(tool: dict[str, object], param: str, code: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse_tool(msgspec.Raw(json.dumps(tool).encode()), "tools[1]")
    assert (raised.value.param, raised.value.code) == (param, code)
    assert words in raised.value.message


@pytest.mark.parametrize(
    "tool",
    [
        {**NAMED, "description": None, "parameters": None, "strict": None, "format": None, "tools": None},
        {
            **NAMED,
            "defer_loading": True,
            "allowed_callers": ["direct", "programmatic"],
            "output_schema": {"type": "object"},
        },
        {**NAMED, "cache_control": {"type": "ephemeral"}},
        {
            **CUSTOM,
            "description": "d",
            "format": {"type": "grammar", "syntax": "lark", "definition": "x"},
            "defer_loading": False,
        },
        {**CUSTOM, "allowed_callers": None},
        SPACE,
        {"type": "web_search", "filters": {"allowed_domains": []}, "anything": 1},
        {"type": "mcp", "server_label": "s", "allowed_tools": ["a"]},
    ],
)
def test_the_fields_that_clients_send_with_tools_are_read(tool: dict[str, object]) -> None:
    assert parse_tool(msgspec.Raw(json.dumps(tool).encode()), "tools[0]").type == tool["type"]


def test_a_refusal_has_the_envelope_of_the_api() -> None:
    envelope = json.loads(msgspec.json.encode(refusal(b'{"stream": 1}').envelope()))
    assert envelope == {
        "error": {
            "message": "Invalid 'stream': Expected `bool | null`, got `int`.",
            "type": "invalid_request_error",
            "param": "stream",
            "code": "invalid_type",
        }
    }
