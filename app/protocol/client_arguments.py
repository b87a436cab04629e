"""What models write as the arguments of a shell and of a patch, and what they mean by it. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import msgspec

from app.protocol.client_items import LocalShellAction, PatchOperation, ShellAction

Members = Mapping[str, Any]

_COMMANDS = ("commands", "command", "cmd", "cmds", "script", "code", "input")
_SHELLS = frozenset({"bash", "sh", "zsh", "/bin/bash", "/bin/sh", "/bin/zsh"})
_RUN = frozenset({"-c", "-lc"})
_TYPES: Mapping[str, Literal["create_file", "update_file", "delete_file"]] = {
    **dict.fromkeys(("create_file", "create", "add", "add_file", "write", "new"), "create_file"),
    **dict.fromkeys(("update_file", "update", "modify", "edit", "change"), "update_file"),
    **dict.fromkeys(("delete_file", "delete", "remove", "remove_file"), "delete_file"),
}
_HEADERS = re.compile(r"^\*\*\* (Add|Update|Delete) File: (.+)$", re.MULTILINE)
_MOVE = re.compile(r"^\*\*\* Move to: ", re.MULTILINE)
_FRAME = re.compile(r"^\*\*\* (?:Begin|End) Patch[ \t]*\n?", re.MULTILINE)
_FILE_NAMES = re.compile(r"--- .*\n\+\+\+ .*(?:\n|\Z)")
_HUNK = re.compile(r"^@@ -\d+(?:,\d+)? \+\d+(?:,\d+)? @@[ \t]*", re.MULTILINE)


def read_program(members: Members) -> LocalShellAction | None:
    """A program with its arguments; a line of text is one for a shell."""
    members = _inner(members, "action")
    key, value = _first(members, _COMMANDS)
    listed = _texts(value)
    if not listed:
        return None
    program = listed if isinstance(value, list) and key != "commands" else _for_a_shell(value, listed)
    env = members.get("env")
    return LocalShellAction(
        command=tuple(program),
        env={str(name): str(one) for name, one in cast("dict[Any, Any]", env).items()} if isinstance(env, dict) else {},
        timeout_ms=_whole(members, "timeout_ms", "timeout") or msgspec.UNSET,
        user=_word(members, "user") or msgspec.UNSET,
        working_directory=_word(members, "working_directory", "workdir", "cwd") or msgspec.UNSET,
    )


def read_commands(members: Members) -> ShellAction | None:
    """Commands as they would be typed; a program with its arguments becomes one."""
    members = _inner(members, "action")
    key, value = _first(members, _COMMANDS)
    commands = _texts(value)
    if not commands:
        return None
    if isinstance(value, list) and _is_program(key, commands):
        commands = [_typed(commands)]
    return ShellAction(
        tuple(commands),
        _whole(members, "timeout_ms", "timeout"),
        _whole(members, "max_output_length", "max_output_tokens"),
    )


def read_operation(members: Members) -> PatchOperation | None:
    """What to do with a file, told field by field or as a whole patch of one file (`*** Begin Patch`)."""
    members = _inner(members, "operation", "operations", "action")
    _, diff = _first(members, ("diff", "patch", "content", "input", "text"))
    diff = diff if isinstance(diff, str) else ""
    if _HEADERS.search(diff):
        return _of_patch(diff)
    told = _word(members, "type", "operation", "action", "kind") or ""
    path = _word(members, "path", "file_path", "filename", "file")
    kind = _TYPES.get(told.lower())
    if kind is None or path is None:
        return None
    return _operation(kind, path, diff)


def _of_patch(patch: str) -> PatchOperation | None:
    found = _HEADERS.findall(patch)
    if len(found) != 1 or _MOVE.search(patch):
        return None
    (kind, path), body = found[0], _FRAME.sub("", patch)
    return _operation(_TYPES[kind.lower()], path.strip(), _HEADERS.sub("", body, count=1).strip("\n"))


def _operation(kind: Literal["create_file", "update_file", "delete_file"], path: str, diff: str) -> PatchOperation | None:
    if kind == "delete_file":
        return PatchOperation(kind, path, msgspec.UNSET)
    diff = _HUNK.sub("@@ " if kind == "update_file" else "", _FILE_NAMES.sub("", _FRAME.sub("", diff), count=1))
    if kind == "update_file":
        diff = diff.replace("@@ \n", "@@\n")
        return PatchOperation(kind, path, diff) if diff.strip() else None
    lines = diff.removesuffix("\n").split("\n") if diff else []
    lines = lines[1:] if lines and not lines[0] else lines
    if not all(line.startswith("+") for line in lines):
        lines = [f"+{line}" for line in lines]
    return PatchOperation(kind, path, "\n".join(lines))


def _inner(members: Members, *names: str) -> Members:
    """The members one level down, where models put them there."""
    for name in names:
        inner = members.get(name)
        if isinstance(inner, str) and inner.lstrip()[:1] in ("{", "["):
            inner = _decoded(inner)
        if isinstance(inner, list) and len(cast("list[Any]", inner)) == 1:
            inner = cast("list[Any]", inner)[0]
        if isinstance(inner, dict):
            return cast("Members", inner)
    return members


def _first(members: Members, names: Sequence[str]) -> tuple[str, Any]:
    for name in names:
        value = members.get(name)
        if isinstance(value, str) and value.lstrip().startswith("["):
            listed = _decoded(value)
            value = cast("list[Any]", listed) if isinstance(listed, list) and _texts(listed) else value
        if value:
            return name, value
    return "", None


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None


def _texts(value: Any) -> list[str]:
    """The strings in it; none when there is anything else."""
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list):
        return []
    found = [one for one in cast("list[Any]", listed) if isinstance(one, str) and one.strip()]
    return found if len(found) == len([one for one in cast("list[Any]", listed) if one not in (None, "")]) else []


def _is_program(key: str, words: Sequence[str]) -> bool:
    return key not in ("commands", "cmds") or (len(words) > 2 and words[0] in _SHELLS and words[1] in _RUN)  # noqa: PLR2004 - shell, option, text


def _typed(words: Sequence[str]) -> str:
    if len(words) == 3 and words[0] in _SHELLS and words[1] in _RUN:  # noqa: PLR2004 - shell, option, text
        return words[2]
    return shlex.join(words) if len(words) > 1 else words[0]


def _for_a_shell(value: Any, lines: list[str]) -> list[str]:
    """A program that runs the lines; a list that is a program already stays one."""
    if isinstance(value, list) and lines[0] in _SHELLS:
        return lines
    return ["bash", "-lc", "\n".join(lines)]


def _whole(members: Members, *names: str) -> int | None:
    for name in names:
        value = members.get(name)
        if isinstance(value, str) and value.strip().isdecimal():
            value = int(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 2**53:
            return int(value)
    return None


def _word(members: Members, *names: str) -> str | None:
    for name in names:
        value = members.get(name)
        if isinstance(value, str) and value.strip():
            return value
    return None
