"""Calls of tools that the client runs and for which the API has separate item types (openai SDK types `LocalShellCall`,
`ResponseFunctionShellToolCall`, `ResponseApplyPatchToolCall`, `ResponseToolSearchCall`).

Fields that the official types require are null if empty; optional ones are left out, since the AI SDK refuses null
there.
"""

from __future__ import annotations

from typing import Literal

import msgspec

ItemStatus = Literal["in_progress", "completed", "incomplete"]
PatchKind = Literal["create_file", "update_file", "delete_file"]


class LocalShellAction(msgspec.Struct, frozen=True):
    """One program with its arguments."""

    command: tuple[str, ...] = ()
    env: dict[str, str] = {}
    type: Literal["exec"] = "exec"
    timeout_ms: int | msgspec.UnsetType = msgspec.UNSET
    user: str | msgspec.UnsetType = msgspec.UNSET
    working_directory: str | msgspec.UnsetType = msgspec.UNSET


class LocalShellCall(msgspec.Struct, frozen=True, tag="local_shell_call"):
    """A program for the client to run."""

    id: str
    status: ItemStatus
    call_id: str
    action: LocalShellAction = LocalShellAction()


class ShellAction(msgspec.Struct, frozen=True):
    """Shell commands, to be run in order."""

    commands: tuple[str, ...] = ()
    timeout_ms: int | None = None
    max_output_length: int | None = None


class LocalEnvironment(msgspec.Struct, frozen=True):
    """The client's own machine."""

    type: Literal["local"] = "local"


class ShellCall(msgspec.Struct, frozen=True, tag="shell_call"):
    """Commands for the client to run."""

    id: str
    status: ItemStatus
    call_id: str
    action: ShellAction = ShellAction()
    environment: LocalEnvironment = LocalEnvironment()


class PatchOperation(msgspec.Struct, frozen=True):
    """An operation on one file; deletions have no `diff`."""

    type: PatchKind
    path: str
    diff: str | msgspec.UnsetType = msgspec.UNSET


class ApplyPatchCall(msgspec.Struct, frozen=True, tag="apply_patch_call"):
    """A file for the client to change. The API has no `incomplete` here: a call that was cut off stays in progress."""

    id: str
    status: Literal["in_progress", "completed"]
    call_id: str
    operation: PatchOperation


class ToolSearchCall(msgspec.Struct, frozen=True, tag="tool_search_call"):
    """A search for tools, which the client answers with their definitions."""

    id: str
    status: ItemStatus
    call_id: str
    arguments: msgspec.Raw = msgspec.Raw(b"{}")
    execution: Literal["client"] = "client"


ClientItem = LocalShellCall | ShellCall | ApplyPatchCall | ToolSearchCall
Payload = LocalShellAction | ShellAction | PatchOperation | msgspec.Raw
"""The item's field that is derived from the call's arguments."""
