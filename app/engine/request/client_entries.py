"""Entries of `tools` for the client's own tools that have a type: checked, and converted to the function offered to the
model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from app.protocol.messages import FunctionTool
from app.protocol.recovery.client_tools import CLIENT_TOOLS, ClientTool
from app.protocol.wire.errors import InvalidRequest
from app.protocol.wire.requests import Json, given, parse_entry

Caller = Literal["direct", "programmatic"]


class _Skill(msgspec.Struct, frozen=True):
    name: str
    description: str = ""
    path: str = ""


class _Environment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: str
    skills: tuple[_Skill, ...] | None = None


class _Place(msgspec.Struct, frozen=True):
    type: str


class _LocalShell(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: str


class _Shell(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: str
    allowed_callers: tuple[Caller, ...] | None = None
    environment: Json = msgspec.UNSET


class _ApplyPatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: str
    allowed_callers: tuple[Caller, ...] | None = None


class _ToolSearch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: str
    execution: Literal["server", "client"] | None = None
    description: str | None = None
    parameters: Json = msgspec.UNSET


def function_of(tool_type: str, raw: msgspec.Raw, place: str) -> FunctionTool:
    """The function offered to the model for the entry.

    Raises InvalidRequest for one that only a vendor's own machines can run.
    """
    return _OFFERS[tool_type](CLIENT_TOOLS[tool_type], raw, place)


def check_parameters(parameters: msgspec.Raw, place: str) -> None:
    """Raise InvalidRequest unless a function's parameters are an object, as a JSON Schema must be."""
    if not bytes(parameters).lstrip().startswith(b"{"):
        raise InvalidRequest(f"Invalid '{place}': expected a JSON Schema object.", code="invalid_type", param=place)


def _local_shell(kind: ClientTool, raw: msgspec.Raw, place: str) -> FunctionTool:
    parse_entry(raw, _LocalShell, place)
    return _function(kind)


def _shell(kind: ClientTool, raw: msgspec.Raw, place: str) -> FunctionTool:
    entry = parse_entry(raw, _Shell, place)
    _check_callers(entry.allowed_callers, place)
    environment = given(entry.environment)
    if environment is None:
        return _function(kind)
    at = f"{place}.environment"
    where = parse_entry(environment, _Place, at).type
    if where != "local":
        message = (
            f"A shell in the environment '{where}' is not served: this gateway has no containers for shells. "
            "Send {'type': 'local'} and run the commands yourself, or use 'code_interpreter'."
        )
        raise InvalidRequest(message, code="unsupported_tool", param=f"{at}.type")
    skills = parse_entry(environment, _Environment, at).skills or ()
    known = "".join(f"\n- {skill.name} ({skill.path}): {skill.description}" for skill in skills)
    return _function(
        kind, f"{kind.description}\nSkills, each a directory with instructions in SKILL.md:{known}" if known else None
    )


def _apply_patch(kind: ClientTool, raw: msgspec.Raw, place: str) -> FunctionTool:
    _check_callers(parse_entry(raw, _ApplyPatch, place).allowed_callers, place)
    return _function(kind)


def _tool_search(kind: ClientTool, raw: msgspec.Raw, place: str) -> FunctionTool:
    entry = parse_entry(raw, _ToolSearch, place)
    if entry.execution != "client":
        message = "Tool search by the server is not served; send 'execution': 'client' and answer the calls yourself."
        raise InvalidRequest(message, code="unsupported_tool", param=f"{place}.execution")
    parameters = given(entry.parameters)
    if parameters is not None:
        check_parameters(parameters, f"{place}.parameters")
    return _function(kind, entry.description, parameters)


_OFFERS: Mapping[str, Callable[[ClientTool, msgspec.Raw, str], FunctionTool]] = {
    "local_shell": _local_shell,
    "shell": _shell,
    "apply_patch": _apply_patch,
    "tool_search": _tool_search,
}


def _function(kind: ClientTool, description: str | None = None, parameters: msgspec.Raw | None = None) -> FunctionTool:
    return FunctionTool(kind.type, description or kind.description, parameters or kind.parameters)


def _check_callers(callers: Sequence[Caller] | None, place: str) -> None:
    if callers is not None and "direct" not in callers:
        message = "Programmatic tool calling is not served; leave out 'allowed_callers', or let it contain 'direct'."
        raise InvalidRequest(message, code="unsupported_value", param=f"{place}.allowed_callers")
