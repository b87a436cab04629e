"""A server's tools as shown and offered.

The server's texts are not trusted: they are bounded, and cannot contain turn markers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import msgspec

from app.protocol.messages import FunctionTool
from app.protocol.wire.hosted import McpTool
from app.shortening import printable
from app.tools.mcp.answer import Listing
from app.tools.mcp.entry import Credentials, Server
from app.tools.mcp.schema import as_object
from app.tools.ports.mcp_names import mcp_function

MOST_TOOLS = 128

_LONGEST_NAME = 128
_LONGEST_DESCRIPTION = 4000
_LONGEST_SCHEMA = 32 * 1024
_LONGEST_LIST = 256 * 1024
_LONGEST_SHOWN = 64
_MOST_NAMES = 20
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]|[\U000e0000-\U000e007f]")
"""What people do not see but models read: control characters, direction marks, Unicode's invisible tags."""
_MARKS = re.compile(
    r"<(?=\||/?(?:think|tools|tool_call|tool_response|tool_output|attached_file)\b)|\|(?=>)", re.IGNORECASE
)


class _Note(msgspec.Struct, frozen=True):
    server: str
    tools: tuple[McpTool, ...]


class _Sent(msgspec.Struct, frozen=True):
    """An item `mcp_list_tools`."""

    type: Literal["mcp_list_tools"]
    server_label: str
    tools: tuple[Any, ...]


class Offer(msgspec.Struct, frozen=True):
    """The part of a list that can be offered."""

    tools: tuple[McpTool, ...]
    left_out: str | None = None
    """A sentence that names the others, with the reasons; only of those that the request allows."""


class _LeftOut(Exception):
    """The message is the reason."""


def bounded(listing: Listing, server: Server) -> Offer:
    """The first tool of each name that is small enough and has a readable schema, until the list is long enough.

    Tools that the request allows come first: the others take no room from them.
    """
    taken = dict.fromkeys(listing.forbidden, "its 'x-mcp-header' is not valid")
    allowed: list[McpTool] = []
    others: list[McpTool] = []
    reasons: list[tuple[str, str]] = []
    for place, given in enumerate(listing.tools):
        name = _name(given)
        try:
            tool = _plain(given, name, server.credentials, taken)
            taken[tool.name] = "its name is listed twice"
            (allowed if server.allowed.matches(tool) else others).append(tool)
        except _LeftOut as reason:
            if server.allowed.names(name):
                reasons.append((_shown(name, place, server.credentials), str(reason)))
    offered = _fitting([*allowed, *others], reasons, len(allowed))
    return Offer(offered, _sentence(reasons, more=listing.more))


def _fitting(tools: list[McpTool], reasons: list[tuple[str, str]], allowed: int) -> tuple[McpTool, ...]:
    kept: list[McpTool] = []
    size = 0
    for place, tool in enumerate(tools):
        weight = len(msgspec.json.encode(tool))
        full = len(kept) == MOST_TOOLS
        if not full and size + weight <= _LONGEST_LIST:
            size += weight
            kept.append(tool)
        elif place < allowed:
            reasons.append((tool.name, f"at most {MOST_TOOLS} tools are offered" if full else "the list is too large"))
    return tuple(kept)


def _sentence(reasons: list[tuple[str, str]], *, more: bool) -> str | None:
    by_reason: dict[str, list[str]] = {}
    for name, reason in reasons:
        by_reason.setdefault(reason, []).append(name)
    parts = [f"{_names(names)} ({reason})" for reason, names in by_reason.items()]
    left_out = f"Left out of the server's tools: {'; '.join(parts)}." if parts else None
    unread = "The list goes on; it was not read to its end." if more else None
    return " ".join(part for part in (left_out, unread) if part) or None


def _names(names: list[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMES])
    return shown if len(names) <= _MOST_NAMES else f"{shown} and {len(names) - _MOST_NAMES} more"


def _name(given: object) -> object:
    return cast("dict[str, Any]", given).get("name") if isinstance(given, dict) else None


def _shown(name: object, place: int, credentials: Credentials) -> str:
    """The name in a form suitable for a sentence."""
    if not isinstance(name, str) or not name:
        return f"number {place + 1}"
    return _orderless(credentials.hide(printable(name)))[:_LONGEST_SHOWN]


def functions(server: Server, tools: Sequence[McpTool]) -> Mapping[str, tuple[FunctionTool, McpTool]]:
    """Function name -> what the model may call, and the tool behind it."""
    offered: dict[str, tuple[FunctionTool, McpTool]] = {}
    about = f"(Of the MCP server {server.label}.)"
    if server.description:
        about = f"(Of the MCP server {server.label}: {server.description})"
    for tool in tools:
        name = mcp_function(server.label, tool.name)
        description = f"{tool.description}\n{about}" if tool.description else about
        offered[name] = (FunctionTool(name, description, msgspec.Raw(msgspec.json.encode(tool.input_schema))), tool)
    return offered


def noted(note: str | None, server: Server) -> tuple[McpTool, ...] | None:
    """The server's list from an earlier turn; None if there is none."""
    try:
        found = msgspec.json.decode(note or "null", type=_Note | None)
    except msgspec.DecodeError:  # from another version of the gateway; the list is requested again
        return None
    return found.tools if found is not None and found.server == server.key else None


def sent(note: str | None, server: Server) -> tuple[McpTool, ...] | None:
    """The server's list from an item sent by the client, as far as it can be offered; None if there is none."""
    try:
        found = msgspec.json.decode(note or "null", type=_Sent | None)
    except (msgspec.DecodeError, RecursionError):
        return None
    if found is None or found.server_label != server.label:
        return None
    fields = [cast("dict[str, Any]", tool) for tool in found.tools if isinstance(tool, dict)]
    # MCP's `inputSchema` is `input_schema` in the item; an item always has it.
    listed = [
        {**tool, "inputSchema": tool["input_schema"]} for tool in fields if isinstance(tool.get("input_schema"), dict)
    ]
    return bounded(Listing(listed), server).tools or None


def note(server: Server, tools: tuple[McpTool, ...]) -> str:
    """The note that `noted` reads."""
    return msgspec.json.encode(_Note(server.key, tools)).decode()


def _plain(given: object, name: object, credentials: Credentials, taken: Mapping[str, str]) -> McpTool:
    """Raises _LeftOut. `taken`: names that no further tool may have, with the reasons."""
    if not isinstance(given, dict):
        raise _LeftOut("it is not an object")
    known = _checked_name(name, taken)
    fields = cast("dict[str, Any]", given)
    schema = _schema(fields.get("inputSchema"), credentials)
    return McpTool(known, schema, _description(fields, credentials), _annotations(fields.get("annotations")))


def _checked_name(name: object, taken: Mapping[str, str]) -> str:
    if not isinstance(name, str) or not name:
        raise _LeftOut("it has no name")
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise _LeftOut("its name is too long or cannot be shown")
    if name in taken:
        raise _LeftOut(taken[name])
    return name


def _schema(given: object, credentials: Credentials) -> dict[str, Any]:
    try:
        text = msgspec.json.encode(given).decode()
        if len(text) > _LONGEST_SCHEMA:
            raise _LeftOut("its schema is too large")
        schema = as_object(msgspec.json.decode(_orderless(credentials.hide(text))))
    except (RecursionError, UnicodeEncodeError, msgspec.DecodeError):
        schema = None
    if schema is None:
        raise _LeftOut("its schema is not valid")
    return schema


def _description(fields: dict[str, Any], credentials: Credentials) -> str | None:
    found = next(
        (fields[name] for name in ("description", "title") if isinstance(fields.get(name), str) and fields[name]), ""
    )
    return _CONTROLS.sub("", _orderless(credentials.hide(found)))[:_LONGEST_DESCRIPTION] or None


def _annotations(given: object) -> dict[str, bool] | None:
    fields = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
    return {name: value for name, value in fields.items() if isinstance(value, bool)} or None


def _orderless(text: str) -> str:
    """Without what chat templates treat as control tokens (`<|im_start|>`, `</tools>`)."""
    return _MARKS.sub(lambda mark: f"{mark[0]} ", text)
