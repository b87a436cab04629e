"""Interprets what models write as the arguments of shell and patch tools. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

from app.protocol.wire.client_items import LocalShellAction, PatchKind, PatchOperation, ShellAction

Members = Mapping[str, Any]

_COMMANDS = ("commands", "command", "cmd", "cmds", "script", "code", "input")
_DIFFS = ("diff", "patch", "content", "input", "text", "command")
_SHELLS = frozenset({"bash", "sh", "zsh", "/bin/bash", "/bin/sh", "/bin/zsh"})
_RUN = frozenset({"-c", "-lc"})
_TYPES: Mapping[str, PatchKind] = {
    **dict.fromkeys(("create_file", "create", "add", "add_file", "write", "new"), "create_file"),
    **dict.fromkeys(("update_file", "update", "modify", "edit", "change"), "update_file"),
    **dict.fromkeys(("delete_file", "delete", "remove", "remove_file"), "delete_file"),
}
_HEADERS = re.compile(r"^\*\*\* (Add|Update|Delete) File: (.+)$", re.MULTILINE)
_MOVE = re.compile(r"^\*\*\* Move to: ", re.MULTILINE)
_FRAME = re.compile(r"^\*\*\* (?:Begin|End) Patch[ \t]*\n?", re.MULTILINE)
_FILE_NAMES = re.compile(r"^--- (?P<old>\S+).*\n\+\+\+ (?P<new>\S+).*(?:\n|\Z)", re.MULTILINE)
_NO_LINE_BREAK = re.compile(r"^\\ No newline at end of file\n?", re.MULTILINE)
_BARE_HUNK = re.compile(r"^@@[ \t]+$", re.MULTILINE)
_DIGITS = re.compile(r"\s*\d{1,16}(\.\d{1,16})?\s*")
_SECOND = 1000
"""Milliseconds."""
_NO_FILE = "/dev/null"
_HUNK = re.compile(r"^@@ -\d+(?:,\d+)? \+\d+(?:,\d+)? @@[ \t]*", re.MULTILINE)


def read_program(members: Members) -> LocalShellAction | None:
    """A program with its arguments; a line of text becomes a shell with that command."""
    members = _inner(members, "action")
    key, value = _commands(members)
    listed = _texts(value, empty=True)
    if not any(map(str.strip, listed)):
        return None
    program = listed if isinstance(value, list) and key != "commands" else _for_a_shell(value, listed)
    return LocalShellAction(
        command=tuple(program),
        env=_variables(members.get("env")),
        timeout_ms=_milliseconds(members) or msgspec.UNSET,
        user=_word(members, "user") or msgspec.UNSET,
        working_directory=_word(members, "working_directory", "workdir", "cwd") or msgspec.UNSET,
    )


def read_commands(members: Members) -> ShellAction | None:
    """Commands as typed in a shell; a program with its arguments becomes one command."""
    members = _inner(members, "action")
    key, value = _commands(members)
    commands = _texts([_command(one) for one in cast("list[Any]", value)] if isinstance(value, list) else value)
    if not commands:
        return None
    if isinstance(value, list) and _is_program(key, commands):
        commands = [_typed(commands)]
    return ShellAction(tuple(commands), _milliseconds(members), _whole(members, "max_output_length"))


def read_operation(members: Members) -> PatchOperation | None:
    """An operation on a file, given as separate fields or as a whole patch of one file (`*** Begin Patch`)."""
    members = _inner(members, "operation", "operations", "action")
    _, told = _first(members, _DIFFS)
    diff = told if isinstance(told, str) else "\n".join(_texts(told, empty=True))
    headers = list(_HEADERS.finditer(diff))
    if headers:
        if len(headers) > 1 or _MOVE.search(diff):
            return None  # one file per call, and no renames
        one = headers[0]
        return _operation(_TYPES[one[1].lower()], one[2].strip(), _FRAME.sub("", diff[one.end() :]).strip("\n"))
    named = _FILE_NAMES.search(diff)
    path = _word(members, "path", "file_path", "filename", "file") or (_path_in(named) if named else None)
    kind = _TYPES.get((_word(members, "type", "operation", "action", "kind") or "").lower()) or (
        _kind_in(named) if named else None
    )
    return _operation(kind, path, diff) if kind and path else None


def _path_in(named: re.Match[str]) -> str:
    path = named["old" if named["new"] == _NO_FILE else "new"]
    return path[2:] if path.startswith(("a/", "b/")) else path


def _kind_in(named: re.Match[str]) -> PatchKind:
    if named["old"] == _NO_FILE:
        return "create_file"
    return "delete_file" if named["new"] == _NO_FILE else "update_file"


def _operation(kind: PatchKind, path: str, diff: str) -> PatchOperation | None:
    if kind == "delete_file":
        return PatchOperation(kind, path, msgspec.UNSET)
    diff = _NO_LINE_BREAK.sub("", _FILE_NAMES.sub("", _FRAME.sub("", diff), count=1))
    if kind == "create_file":
        return PatchOperation(kind, path, _added(diff))
    diff = _BARE_HUNK.sub("@@", _HUNK.sub("@@ ", diff))
    return PatchOperation(kind, path, diff) if diff.strip() else None


def _added(text: str) -> str:
    """The lines of a new file, each marked as added; plain file content has no such marks."""
    lines = text.removesuffix("\n").split("\n") if text else []
    told = [line for line in lines if line and not line.startswith("@@")]
    if told and all(line.startswith("+") for line in told):
        lines = [line or "+" for line in lines if not line.startswith("@@")]
        return "\n".join(lines[1:] if lines[0] == "+" and not text.startswith("+") else lines)
    return "\n".join(f"+{line}" for line in lines)


def _inner(members: Members, *names: str) -> Members:
    """The members one level down, if the model nested them."""
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
    return next(((name, members[name]) for name in names if members.get(name)), ("", None))


def _commands(members: Members) -> tuple[str, Any]:
    """The name of the member that holds what to run, and its value; a list written as a string is parsed."""
    name, value = _first(members, _COMMANDS)
    if isinstance(value, str) and value.lstrip().startswith("["):
        listed: Any = _decoded(value)
        return name, listed if _texts(listed) else value
    return name, value


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None


def _texts(value: Any, *, empty: bool = False) -> list[str]:
    """The strings in it, including empty ones if `empty`; none if it contains anything else."""
    listed = cast("list[Any]", value if isinstance(value, list) else [value])
    found = [one for one in listed if isinstance(one, str) and (empty or one.strip())]
    return found if all(one is None or isinstance(one, str) for one in listed) else []


def _command(one: Any) -> Any:
    """A command in a list that is not a string but a program with its arguments, or an object around one."""
    if isinstance(one, dict):
        one = _commands(cast("Members", one))[1]
    words = _texts(cast("list[Any]", one)) if isinstance(one, list) else []
    return _typed(words) if words else cast("Any", one)


def _is_program(key: str, words: Sequence[str]) -> bool:
    """Whether a list is one program with its arguments rather than several commands."""
    if key in ("commands", "cmds"):
        return _is_shell(words)
    return " " not in words[0]


def _is_shell(words: Sequence[str]) -> bool:
    """Whether it is a shell with its command as an argument."""
    return len(words) == 3 and words[0] in _SHELLS and words[1] in _RUN  # noqa: PLR2004 - shell, option, text


def _typed(words: Sequence[str]) -> str:
    if _is_shell(words):
        return words[2]
    return shlex.join(words) if len(words) > 1 else words[0]


def _for_a_shell(value: Any, lines: list[str]) -> list[str]:
    """A program that runs the lines; a list that is already a program stays unchanged."""
    if isinstance(value, list) and lines[0] in _SHELLS:
        return lines
    return ["bash", "-lc", "\n".join(lines)]


def _variables(value: Any) -> dict[str, str]:
    """Environment variables; values that are not strings are written as JSON, null ones are left out."""
    named: Members = cast("Members", value) if isinstance(value, dict) else {}
    encode = msgspec.json.encode
    return {
        name: one if isinstance(one, str) else encode(one).decode() for name, one in named.items() if one is not None
    }


def _number(members: Members, name: str) -> float | None:
    """A positive number, possibly written as a string."""
    value = members.get(name)
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = float(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 2**53:
        return value
    return None


def _whole(members: Members, name: str) -> int | None:
    return int(_number(members, name) or 0) or None


def _milliseconds(members: Members) -> int | None:
    """`timeout` has no unit: values below 1000 are taken as seconds."""
    told = _number(members, "timeout")
    if told is not None and told < _SECOND:
        told *= _SECOND
    return _whole(members, "timeout_ms") or int(told or 0) or None


def _word(members: Members, *names: str) -> str | None:
    for name in names:
        value = members.get(name)
        if isinstance(value, str) and value.strip():
            return value
    return None
