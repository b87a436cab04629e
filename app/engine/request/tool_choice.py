"""`tool_choice`: which of the request's tools are offered, and which call is forced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from app.engine.conversation.content import missing
from app.engine.hosted.catalog import Entry
from app.protocol.messages import FunctionTool
from app.protocol.recovery.client_tools import CLIENT_TOOLS, CallTarget
from app.protocol.wire.errors import InvalidRequest
from app.protocol.wire.mistakes import unknown_parameter
from app.protocol.wire.requests import Json, given, parse_entry
from app.providers.base import ForcedCall
from app.tools.ports.mcp_names import MCP, mcp_function

_OF_CLIENT = frozenset({"function", "custom", *CLIENT_TOOLS})
"""Types of tools that the client runs."""
_MOST_ALLOWED = 1024


class _ChoiceTool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: str | None = None
    name: str | None = None
    namespace: str | None = None
    server_label: str | None = None
    function: Json = msgspec.UNSET
    """Chat Completions' nested form, which is refused with a hint."""


class _AllowedTool(_ChoiceTool, frozen=True, forbid_unknown_fields=True):
    """Some clients repeat the whole definition from `tools`."""

    description: str | None = None
    parameters: Json = msgspec.UNSET
    strict: bool | None = None
    format: Json = msgspec.UNSET


class _ChoiceObject(_ChoiceTool, frozen=True, forbid_unknown_fields=True):
    mode: Literal["auto", "required"] | None = None
    tools: tuple[_AllowedTool, ...] | None = None


_MODES = ("auto", "none", "required")
_KEYS: dict[str, tuple[str, ...]] = {
    "function": ("name", "namespace", "description", "parameters", "strict"),
    "custom": ("name", "namespace", "description", "format"),
    MCP: ("server_label", "name"),
    "allowed_tools": ("mode", "tools"),
}
"""The members of an object besides `type`; other types have none."""
_REQUIRED: dict[str, str] = {"function": "name", "custom": "name", "allowed_tools": "tools"}
_MODE_MEANT = {"auto": "auto", "none": "none", "required": "required", "any": "required"}
"""Modes that clients of other APIs send as the type of an object."""


class Choices(Protocol):
    """The tools to choose from."""

    @property
    def functions(self) -> Sequence[FunctionTool]:
        """The client's functions, as the upstream sees them."""
        ...

    @property
    def targets(self) -> Mapping[str, CallTarget]:
        """The client's tools, by the names of these functions."""
        ...

    @property
    def hosted(self) -> Sequence[Entry]:
        """Built-in tools."""
        ...


Chosen = tuple[tuple[FunctionTool, ...], tuple[Entry, ...], ForcedCall | None]


def choose(raw: msgspec.Raw | None, tools: Choices) -> Chosen:
    """The offered tools and the forced call. Raises InvalidRequest."""
    choice = _parse_choice(raw)
    functions, hosted = tuple(tools.functions), tuple(tools.hosted)
    if isinstance(choice, str):
        if choice == "none":
            return (), (), None
        if choice == "required" and not functions and not hosted:
            raise InvalidRequest(
                "'tool_choice' is 'required' but there are no tools to call.", code="invalid_value", param="tool_choice"
            )
        return functions, hosted, ForcedCall() if choice == "required" else None
    if choice.type == "allowed_tools":
        kept, allowed = _allowed(choice.tools or (), tools)
        if choice.mode == "required" and not kept and not allowed:
            raise InvalidRequest(
                "'tool_choice' requires a call but allows no tool.", code="invalid_value", param="tool_choice"
            )
        return kept, allowed, ForcedCall() if choice.mode == "required" else None
    if choice.type not in _OF_CLIENT:
        entries = _entries(choice, hosted)
        return (), entries, _forced(entries, choice)
    name = _named(choice, tools)
    return tuple(function for function in functions if function.name == name), (), ForcedCall(name)


def _allowed(wanted: Sequence[_ChoiceTool], tools: Choices) -> tuple[tuple[FunctionTool, ...], tuple[Entry, ...]]:
    if len(wanted) > _MOST_ALLOWED:
        message = f"Invalid 'tool_choice.tools': too large. Expected at most {_MOST_ALLOWED}, but got {len(wanted)}."
        raise InvalidRequest(message, code="too_large", param="tool_choice.tools")
    names = {_named(tool, tools) for tool in wanted if tool.type in _OF_CLIENT}
    keys = {entry.key for tool in wanted if tool.type not in _OF_CLIENT for entry in _entries(tool, tools.hosted)}
    kept = tuple(function for function in tools.functions if function.name in names)
    return kept, tuple(entry for entry in tools.hosted if entry.key in keys)


def _entries(choice: _ChoiceTool | _ChoiceObject, hosted: Sequence[Entry]) -> tuple[Entry, ...]:
    """The built-in tools of that type; for MCP, of that server."""
    label = choice.server_label
    found = tuple(
        e
        for e in hosted
        if choice.type in (e.type, e.alias) and (label is None or (e.request and e.request.label == label))
    )
    if not found:
        message = (
            f"'tool_choice' needs the tool type '{choice.type}', which is not in 'tools' or not served by this gateway."
        )
        raise InvalidRequest(message, code="unsupported_tool", param="tool_choice")
    return found


def _forced(entries: Sequence[Entry], choice: _ChoiceObject) -> ForcedCall:
    if choice.server_label is not None and choice.name is not None:
        return ForcedCall(mcp_function(choice.server_label, choice.name))
    names = [name for entry in entries for name in (entry.request.names if entry.request is not None else ())]
    return ForcedCall(names[0] if len(names) == 1 else None)


def _parse_choice(raw: msgspec.Raw | None) -> str | _ChoiceObject:
    if raw is None:
        return "auto"
    if not bytes(raw).startswith(b"{"):
        mode = parse_entry(raw, object, "tool_choice")
        if isinstance(mode, str) and mode in _MODES:
            return mode
        message = "Invalid 'tool_choice': expected 'auto', 'none', 'required' or an object naming a tool."
        raise InvalidRequest(message, code="invalid_value", param="tool_choice")
    choice = parse_entry(raw, _ChoiceObject, "tool_choice")
    _check(choice, "tool_choice")
    for i, tool in enumerate(choice.tools or ()):
        place = f"tool_choice.tools[{i}]"
        if tool.type == "allowed_tools":
            message = f"Invalid '{place}.type': 'allowed_tools' is a list of tools, not a tool that can be in one."
            raise InvalidRequest(message, code="invalid_value", param=f"{place}.type")
        _check(tool, place)
    return choice


def _check(choice: _ChoiceTool, place: str) -> None:
    """Raise InvalidRequest unless the object has exactly the members that its type requires."""
    kind = choice.type
    if kind is None:
        raise missing(f"{place}.type", "; it names the kind of tool")
    if kind in _MODE_MEANT:
        message = (
            f"Invalid '{place}.type': a mode is not an object; send 'tool_choice' as the string '{_MODE_MEANT[kind]}'."
        )
        raise InvalidRequest(message, code="invalid_value", param=f"{place}.type")
    needed = _REQUIRED.get(kind)
    if needed is not None and getattr(choice, needed) is None:
        where = f" of the type '{kind}'"
        if given(choice.function) is not None:  # as in Chat Completions
            where = f"; in the Responses API it belongs beside 'type', not in '{place}.function'"
        raise missing(f"{place}.{needed}", where)
    for name in choice.__struct_fields__:
        if name not in ("type", *_KEYS.get(kind, ())) and getattr(choice, name) not in (None, msgspec.UNSET):
            raise unknown_parameter(f"{place}.{name}")


def _named(choice: _ChoiceTool | _ChoiceObject, tools: Choices) -> str:
    """The upstream's name of the chosen function or client tool."""
    for upstream, target in tools.targets.items():
        if choice.type in CLIENT_TOOLS:
            meant = target.tool is not None and target.tool.type == choice.type
        else:
            meant = target.name == choice.name and choice.namespace in (None, target.namespace)
        if meant:
            return upstream
    raise _not_there(choice.type if choice.type in CLIENT_TOOLS else choice.name)


def _not_there(name: str | None) -> InvalidRequest:
    return InvalidRequest(
        f"Tool choice '{name}' not found in 'tools' parameter.", code="invalid_value", param="tool_choice"
    )
