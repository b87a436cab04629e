"""Tools that the client runs and for which the API has separate types: one row per kind.

Each is offered to the model as a function, so its arguments are converted to the item's own field, and back.
They are read leniently: models' variants (`cmd`, a string for a list, a whole patch) are accepted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import msgspec

from app.protocol.recovery.client_arguments import Members, read_commands, read_operation, read_program
from app.protocol.wire.client_items import (
    ApplyPatchCall,
    ClientItem,
    LocalShellAction,
    LocalShellCall,
    PatchKind,
    PatchOperation,
    Payload,
    ShellAction,
    ShellCall,
    ToolSearchCall,
)


class ClientTool(msgspec.Struct, frozen=True):
    """One kind of tool."""

    type: str
    """Also the name of the function offered to the model."""
    item: Callable[..., ClientItem]
    """Creates the item of a call: (id, status, call id)."""
    field: str
    """The item's field that is derived from the arguments."""
    output: str
    """The item type of its results."""
    description: str
    parameters: msgspec.Raw
    read: Callable[[Members], Payload | None]
    """Converts the arguments to the field; None if they are invalid."""
    nothing: Payload
    """The field of a call that was cut off before its arguments were complete."""
    begun: Callable[[Payload], Payload]
    """The field as shown before its parts are streamed."""
    short_form: str = ""
    """The argument that a bare list or text is taken as; empty: none."""
    bare: str = ""
    """The beginning of a text that is accepted as the input although it is not JSON; empty: none."""
    cut: str = "incomplete"
    """The status of a call that was cut off."""

    @property
    def item_type(self) -> str:
        """The item type of its calls."""
        return f"{self.type}_call"


class CallTarget(msgspec.Struct, frozen=True):
    """The client's tool for the name that the model used."""

    name: str
    namespace: str | None = None
    custom: bool = False
    tool: ClientTool | None = None
    """Set if its calls have their own item type."""

    @property
    def item_type(self) -> str:
        """The type of the item that shows a call."""
        if self.tool is not None:
            return self.tool.item_type
        return "custom_tool_call" if self.custom else "function_call"


def _schema(required: list[str], **properties: dict[str, Any]) -> msgspec.Raw:
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return msgspec.Raw(msgspec.json.encode(schema))


def _text(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **more}


def _texts(description: str) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string"}, "description": description}


_TIMEOUT = {"type": "integer", "description": "The longest that may take, in milliseconds."}
_DIFF = (
    "What changes. For create_file every line of the new file, each beginning with '+'. For update_file one or more "
    "sections: a line '@@', perhaps with the name of the class or function that follows it, then some unchanged lines "
    "that begin with a space, removed lines that begin with '-' and added lines that begin with '+'. No line numbers. "
    "Not for delete_file."
)


def _without_commands(payload: Payload) -> Payload:
    return msgspec.structs.replace(payload, commands=()) if isinstance(payload, ShellAction) else payload


def _without_diff(payload: Payload) -> Payload:
    if isinstance(payload, PatchOperation) and payload.diff is not msgspec.UNSET:
        return msgspec.structs.replace(payload, diff="")
    return payload


def _encoded(members: Members) -> Payload:
    return msgspec.Raw(msgspec.json.encode(members))


_ROWS = (
    ClientTool(
        "local_shell",
        LocalShellCall,
        "action",
        "local_shell_call_output",
        "Runs a program on the user's machine and returns its output. For features of a shell run one: "
        '["bash", "-lc", "<what the shell shall do>"].',
        _schema(
            ["command"],
            command=_texts("The program and its arguments."),
            working_directory=_text("The directory to run it in."),
            timeout_ms=_TIMEOUT,
            env={
                "type": "object",
                "additionalProperties": {"type": "string"},
                "description": "Environment variables to set.",
            },
            user=_text("The user to run it as."),
        ),
        read_program,
        LocalShellAction(),
        lambda payload: payload,
        short_form="command",
    ),
    ClientTool(
        "shell",
        ShellCall,
        "action",
        "shell_call_output",
        "Runs commands in a shell on the user's machine, in order, and returns what each has printed and its exit "
        "code.",
        _schema(
            ["commands"],
            commands=_texts("The commands, each as it would be typed."),
            timeout_ms=_TIMEOUT,
            max_output_length={"type": "integer", "description": "The most characters of output to return."},
        ),
        read_commands,
        ShellAction(),
        _without_commands,
        short_form="commands",
    ),
    ClientTool(
        "apply_patch",
        ApplyPatchCall,
        "operation",
        "apply_patch_call_output",
        "Creates, changes or deletes one file. Call it once for each file.",
        _schema(
            ["type", "path"],
            type=_text("What to do.", enum=list(get_args(PatchKind))),
            path=_text("The file's path, relative to the working directory."),
            diff=_text(_DIFF),
        ),
        read_operation,
        PatchOperation("update_file", "", ""),
        _without_diff,
        short_form="diff",
        bare="*** Begin Patch",
        cut="in_progress",
    ),
    ClientTool(
        "tool_search",
        ToolSearchCall,
        "arguments",
        "tool_search_output",
        "Loads more tools, which can be called once they are loaded. Call it before saying that something cannot be "
        "done.",
        _schema(
            ["paths"],
            paths=_texts(
                "What to load: a name from the list of what there is, or a part of one, as in 'namespace.function'."
            ),
        ),
        _encoded,
        msgspec.Raw(b"{}"),
        lambda _payload: msgspec.Raw(b"{}"),
    ),
)

CLIENT_TOOLS = {row.type: row for row in _ROWS}
CALLS = {row.item_type: row for row in _ROWS}
"""The tools by the type of their calls' items."""


def tool_of(item: ClientItem) -> ClientTool:
    """The called tool."""
    return CALLS[str(item.__struct_config__.tag)]


def payload_of(item: ClientItem) -> Payload:
    """The field derived from the call's arguments."""
    payload: Payload = getattr(item, tool_of(item).field)
    return payload


def arguments_of(payload: Payload) -> str:
    """The arguments as the model sees them in its history."""
    if isinstance(payload, LocalShellAction | ShellAction):
        members: dict[str, Any] = msgspec.to_builtins(payload)
        members.pop("type", None)
        return msgspec.json.encode({name: value for name, value in members.items() if value not in (None, {})}).decode()
    return msgspec.json.encode(payload).decode()
