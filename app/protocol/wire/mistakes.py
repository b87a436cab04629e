"""Explains what is wrong with a request that cannot be decoded: the parameter, and a hint where it is a known
mistake.
"""

from __future__ import annotations

import re

import msgspec

from app.protocol.wire.allowed import allowed_values
from app.protocol.wire.errors import InvalidRequest

_HINTS: dict[str, str] = {
    "response_format": "the format of the answer is 'text.format'",
    "max_tokens": "the Responses API has 'max_output_tokens'",
    "max_completion_tokens": "the Responses API has 'max_output_tokens'",
    "reasoning_effort": "the Responses API has 'reasoning.effort'",
    "reasoning.enabled": "thinking is controlled by 'enable_thinking'",
    **dict.fromkeys(
        ("text.type", "text.schema", "text.json_schema", "text.name", "text.strict"),
        "the format of the answer is a separate object, 'text.format'",
    ),
    "text.format.schema": "it belongs to the type 'json_schema'",
    "text.format.json_schema": "in the Responses API 'name', 'schema' and 'strict' belong beside 'type'",
    **dict.fromkeys(("tools[].input_schema", "tools[].inputSchema"), "the schema of the arguments is 'parameters'"),
    "tool_choice.function": "in the Responses API 'name' belongs beside 'type'",
    "tool_choice.allowed_tools": "in the Responses API 'mode' and 'tools' belong beside 'type'",
}
"""Hints for parameters of other APIs and common mistakes, by the place without indices."""
_INDEX = re.compile(r"\[\d+\]")
_AT = re.compile(r" - at `\$\.?(?P<path>.*)`$")
_UNKNOWN = re.compile(r"unknown field `(?P<name>.*)`")


def explain(error: Exception, place: str, kind: object) -> InvalidRequest:
    """The error for JSON that could not be decoded as `kind`; `place` is where it stands in the request."""
    message = str(error)
    if isinstance(error, RecursionError):
        return InvalidRequest("The request body is nested too deeply.", code="json_parse_error", param=place or None)
    if not isinstance(error, msgspec.ValidationError):
        return InvalidRequest(
            f"We could not parse the JSON body of your request: {message}.",
            code="json_parse_error",
            param=place or None,
        )
    at = _AT.search(message)
    path = at["path"] if at else ""
    message = _AT.sub("", message)
    unknown = _UNKNOWN.search(message)
    if unknown:
        return unknown_parameter(_join(place, path, unknown["name"]))
    param = _join(place, path)
    if "Invalid enum value" not in message:
        return InvalidRequest(f"Invalid '{param or 'body'}': {message}.", code="invalid_type", param=param or None)
    values = ", ".join(f"'{value}'" for value in allowed_values(kind, path))
    known = f"; it must be one of {values}" if values else ""
    return InvalidRequest(f"Invalid '{param or 'body'}': {message}{known}.", code="invalid_value", param=param or None)


def unknown_parameter(param: str) -> InvalidRequest:
    """The error for an unknown field, with a hint where it belongs, if known."""
    hint = _HINTS.get(_INDEX.sub("[]", param))
    message = f"Unknown parameter: '{param}'{f'; {hint}' if hint else ''}."
    return InvalidRequest(message, code="unknown_parameter", param=param or None)


def _join(*parts: str) -> str:
    joined = ""
    for part in parts:
        joined += part if not joined or not part or part.startswith("[") else f".{part}"
    return joined
