"""A server's tools as they are shown and offered. The server's words are not trusted: they are bounded, and no turns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, cast

import msgspec

from app.protocol.hosted import McpTool
from app.protocol.messages import FunctionTool
from app.tools._mcp_entry import Credentials, Server
from app.tools.base import mcp_function

MOST_TOOLS = 128

_LONGEST_NAME = 128
_LONGEST_DESCRIPTION = 4000
_LONGEST_SCHEMA = 32 * 1024
_LONGEST_LIST = 256 * 1024
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]|[\U000e0000-\U000e007f]")
"""What people do not see and models read: control characters, direction marks, Unicode's invisible tags."""
_MARKS = re.compile(r"<(?=\||/?(?:think|tools|tool_call|tool_response|tool_output|attached_file)\b)|\|(?=>)", re.IGNORECASE)


class _Note(msgspec.Struct, frozen=True):
    server: str
    tools: tuple[McpTool, ...]


class _Sent(msgspec.Struct, frozen=True):
    """An item `mcp_list_tools`."""

    type: Literal["mcp_list_tools"]
    server_label: str
    tools: tuple[msgspec.Raw, ...]


class _SentTool(msgspec.Struct, frozen=True):
    name: str
    input_schema: dict[str, Any]
    description: Any = None
    annotations: Any = None


def bounded(found: Iterable[McpTool], credentials: Credentials) -> tuple[McpTool, ...]:
    """The tools that can be offered: the first of a name, small enough and with a schema that is one, until the list is long enough."""
    tools: dict[str, McpTool] = {}
    size = 0
    for tool in found:
        plain = _plain(tool, credentials)
        if plain is None or plain.name in tools:
            continue
        size += len(msgspec.json.encode(plain))
        if size > _LONGEST_LIST or len(tools) == MOST_TOOLS:
            break
        tools[plain.name] = plain
    return tuple(tools.values())


def functions(server: Server, tools: Sequence[McpTool]) -> Mapping[str, tuple[FunctionTool, McpTool]]:
    """Function name -> what the model may call, and the tool behind it."""
    offered: dict[str, tuple[FunctionTool, McpTool]] = {}
    for tool in tools:
        name = mcp_function(server.label, tool.name)
        about = (
            f"(Of the MCP server {server.label}: {server.description})" if server.description else f"(Of the MCP server {server.label}.)"
        )
        description = f"{tool.description}\n{about}" if tool.description else about
        offered[name] = (FunctionTool(name, description, msgspec.Raw(msgspec.json.encode(tool.input_schema))), tool)
    return offered


def noted(note: str | None, server: Server) -> tuple[McpTool, ...] | None:
    """The server's list from an earlier turn; None when there is none."""
    try:
        found = msgspec.json.decode(note or "null", type=_Note | None)
    except msgspec.DecodeError:  # of another version of the gateway; the list is asked for again
        return None
    return found.tools if found is not None and found.server == server.key else None


def sent(note: str | None, server: Server) -> tuple[McpTool, ...] | None:
    """The server's list from an item that the client has sent, as far as it can be offered; None when there is none."""
    try:
        found = msgspec.json.decode(note or "null", type=_Sent | None)
    except msgspec.DecodeError:
        return None
    if found is None or found.server_label != server.label:
        return None
    return bounded((tool for raw in found.tools if (tool := _readable(raw)) is not None), server.credentials) or None


def _readable(raw: msgspec.Raw) -> McpTool | None:
    try:
        tool = msgspec.json.decode(raw, type=_SentTool)
    except (msgspec.DecodeError, RecursionError):
        return None
    given: object = tool.annotations
    annotations = cast("dict[str, Any]", given) if isinstance(given, dict) else None
    return McpTool(tool.name, tool.input_schema, tool.description if isinstance(tool.description, str) else None, annotations)


def note(server: Server, tools: tuple[McpTool, ...]) -> str:
    """What `noted` finds."""
    return msgspec.json.encode(_Note(server.key, tools)).decode()


def _plain(tool: McpTool, credentials: Credentials) -> McpTool | None:
    if not tool.name or len(tool.name) > _LONGEST_NAME or not tool.name.isprintable():
        return None
    try:
        text = msgspec.json.encode({**tool.input_schema, "type": "object"}).decode()
    except (RecursionError, UnicodeEncodeError):
        return None
    if len(text) > _LONGEST_SCHEMA:
        return None
    schema: dict[str, Any] = msgspec.json.decode(_orderless(credentials.hide(text)))
    schema.pop("$schema", None)
    if not _is_schema(schema):
        return None
    description = _CONTROLS.sub("", _orderless(credentials.hide(tool.description or "")))[:_LONGEST_DESCRIPTION]
    annotations = {name: value for name, value in (tool.annotations or {}).items() if isinstance(value, bool)}
    return McpTool(tool.name, schema, description or None, annotations or None)


def _orderless(text: str) -> str:
    """Without what chat templates take for their own marks (`<|im_start|>`, `</tools>`)."""
    return _MARKS.sub(lambda mark: f"{mark[0]} ", text)


def _is_schema(schema: dict[str, Any]) -> bool:
    """Upstreams refuse a whole request for one schema that is none. (`$schema` has to be gone: the library would fetch it.)"""
    import jsonschema_rs  # noqa: PLC0415 - only requests that name an MCP server need it

    try:
        return jsonschema_rs.meta.is_valid(schema)
    except (ValueError, RecursionError):
        return False
