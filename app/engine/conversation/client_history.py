"""Items of a history for tools that the client runs, converted to function calls and results for the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import msgspec

from app.engine.conversation.content import missing
from app.engine.conversation.function_names import upstream_name
from app.engine.conversation.items import MoreTools
from app.protocol.recovery.client_tools import CALLS, CLIENT_TOOLS, arguments_of
from app.protocol.wire.client_items import Payload
from app.protocol.wire.errors import InvalidRequest
from app.protocol.wire.requests import InputItem, parse_tool

Members = Mapping[str, Any]


class _Tools(msgspec.Struct, frozen=True):
    tools: tuple[msgspec.Raw, ...]


def read(raw: msgspec.Raw, fields: InputItem, place: str) -> InputItem | MoreTools | None:
    """The item as a function call, its result, or tools.

    None: it has no content for the model. Raises InvalidRequest.
    """
    kind = fields.type or ""
    if kind in BRING_TOOLS:
        return _more_tools(raw, fields, place)
    call_id = fields.call_id or fields.id
    if kind in _TEXTS:
        output = _TEXTS[kind](msgspec.json.decode(raw), f"{place}.output" if place else "output")
        return InputItem(
            type="function_call_output", id=fields.id, call_id=call_id, status=fields.status, output=output
        )
    tool = CALLS[kind]
    if tool.type == "tool_search" and fields.call_id is None:
        return None  # the server searched by itself; the next item has what it found
    status = "incomplete" if fields.status == tool.cut else fields.status
    arguments = _exact_arguments(kind, raw) or _arguments(kind, raw, f"{place}.{tool.field}" if place else tool.field)
    return InputItem(
        type="function_call", id=fields.id, status=status, call_id=call_id, name=tool.type, arguments=arguments
    )


def _exact_arguments(kind: str, raw: msgspec.Raw) -> str | None:
    """The arguments of an item that is exactly as the API describes it, at a quarter of the cost.

    None for any other.
    """
    decoder = _EXACT.get(kind)
    if decoder is None:
        return None
    try:
        payload: Payload = getattr(decoder.decode(raw), CALLS[kind].field)
    except msgspec.ValidationError:
        return None
    return None if payload == CALLS[kind].nothing else arguments_of(payload)


def _arguments(kind: str, raw: msgspec.Raw, place: str) -> str:
    tool = CALLS[kind]
    told = msgspec.json.decode(raw, type=dict[str, Any]).get(tool.field)
    if isinstance(told, str):
        return told
    if not isinstance(told, dict):
        raise missing(place) if told is None else _unlike(place, "an object")
    payload = tool.read(cast("Members", told))
    return msgspec.json.encode(told).decode() if payload is None else arguments_of(payload)


def _more_tools(raw: msgspec.Raw, fields: InputItem, place: str) -> MoreTools:
    at = f"{place}.tools" if place else "tools"
    try:
        # or the whole body stays in memory
        tools = tuple(tool.copy() for tool in msgspec.json.decode(raw, type=_Tools).tools)
    except msgspec.ValidationError as error:
        raise _unlike(at, "a list of tools") from error
    if fields.type == "additional_tools":
        return MoreTools(tools, at if place else "", found=False)
    lines = [line for i, tool in enumerate(tools) for line in _described(tool, f"{at}[{i}]")]
    text = "These functions can be called from now on:\n" + "\n".join(lines) if lines else "No tools were found."
    result = InputItem(
        type="function_call_output", id=fields.id, call_id=fields.call_id, status=fields.status, output=text
    )
    return MoreTools(tools, at if place else "", found=True, result=result if fields.call_id else None)


def _described(raw: msgspec.Raw, place: str) -> Sequence[str]:
    tool = parse_tool(raw, place)
    inner = [parse_tool(one, place) for one in tool.tools or ()]
    namespace = tool.name if tool.type == "namespace" else None
    named = inner if namespace else [tool]
    return [
        f"- {upstream_name(one.name or one.type, namespace)}: {one.description or ''}".rstrip(": ") for one in named
    ]


def _shell_text(members: Members, place: str) -> str:
    outputs = members.get("output")
    if isinstance(outputs, str):
        return outputs
    if not isinstance(outputs, list):
        raise _unlike(place, "a list of outputs")
    return (
        "\n\n".join(_command_text(one, f"{place}[{i}]") for i, one in enumerate(cast("list[Any]", outputs)))
        or "(no output)"
    )


def _command_text(output: Any, place: str) -> str:
    if not isinstance(output, dict):
        raise _unlike(place, "an object")
    members = cast("Members", output)
    outcome = cast("Members", members["outcome"] if isinstance(members.get("outcome"), dict) else {})
    stdout, stderr = str(members.get("stdout") or ""), str(members.get("stderr") or "")
    parts = [stdout.rstrip("\n")]
    if stderr.strip():
        parts.append(f"stderr:\n{stderr.rstrip()}")
    if outcome.get("type") == "timeout":
        parts.append("The command ran out of time.")
    else:
        parts.append(f"Exit code: {outcome.get('exit_code', 'unknown')}")
    return "\n".join(filter(None, parts))


def _patch_text(members: Members, _place: str) -> str:
    output = members.get("output")
    status = members.get("status") or "completed"
    output = output or ""
    told = output if isinstance(output, str) else msgspec.json.encode(output).decode()
    return f"Status: {status}\n{told}".rstrip()


def _local_shell_text(members: Members, place: str) -> str:
    output = members.get("output")
    if output is None:
        raise missing(place)
    return output if isinstance(output, str) else msgspec.json.encode(output).decode()


def _unlike(place: str, expected: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid '{place}': expected {expected}.", code="invalid_type", param=place)


BRING_TOOLS = frozenset({"additional_tools", CLIENT_TOOLS["tool_search"].output})
_TEXTS: Mapping[str, Callable[[Members, str], str]] = {
    CLIENT_TOOLS["local_shell"].output: _local_shell_text,
    CLIENT_TOOLS["shell"].output: _shell_text,
    CLIENT_TOOLS["apply_patch"].output: _patch_text,
}
_EXACT: Mapping[str, msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(msgspec.defstruct(kind, [(tool.field, type(tool.nothing))]))
    for kind, tool in CALLS.items()
    if isinstance(tool.nothing, msgspec.Struct)
}
ITEM_TYPES = frozenset({*CALLS, *_TEXTS, *BRING_TOOLS})
