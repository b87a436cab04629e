"""The arguments of shells and patches, as models write them and as they are meant."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from app.protocol.recovery.client_arguments import read_commands, read_operation, read_program
from app.protocol.recovery.client_tools import CLIENT_TOOLS, arguments_of
from app.protocol.wire.client_items import LocalShellAction, PatchOperation, ShellAction

Json = dict[str, Any]


@pytest.mark.parametrize(
    ("written", "commands"),
    [
        ({"commands": ["ls", "pwd"]}, ["ls", "pwd"]),
        ({"commands": "ls"}, ["ls"]),
        ({"command": "ls -l | wc"}, ["ls -l | wc"]),
        ({"command": ["ls -la", "pwd"]}, ["ls -la", "pwd"]),
        ({"command": ["git", "commit", "-m", "a b"]}, ["git commit -m 'a b'"]),
        ({"command": ["ls"]}, ["ls"]),
        ({"cmd": ["bash", "-lc", "ls | wc"]}, ["ls | wc"]),
        ({"commands": ["bash", "-lc", "ls | wc"]}, ["ls | wc"]),
        ({"commands": [["bash", "-c", "ls"], {"command": "pwd"}, None, ""]}, ["ls", "pwd"]),
        ({"commands": '["ls", "pwd"]'}, ["ls", "pwd"]),
        ({"script": "[ -f a ] && rm a"}, ["[ -f a ] && rm a"]),
        ({"action": {"commands": ["ls"]}}, ["ls"]),
        ({"action": '{"commands": ["ls"]}'}, ["ls"]),
    ],
)
def test_commands(written: Json, commands: list[str]) -> None:
    assert read_commands(written) == ShellAction(tuple(commands))


@pytest.mark.parametrize(
    "written", [{}, {"commands": []}, {"commands": [1]}, {"commands": [" "]}, {"command": None}, {"commands": {}}]
)
def test_arguments_without_a_command_mean_nothing(written: Json) -> None:
    assert read_commands(written) is None
    assert read_program(written) is None


@pytest.mark.parametrize(
    ("written", "milliseconds"),
    [
        ({"timeout_ms": 5}, 5),
        ({"timeout_ms": 5.0}, 5),
        ({"timeout_ms": "5"}, 5),
        ({"timeout": 30}, 30_000),
        ({"timeout": 30_000}, 30_000),
        ({"timeout": 0.5}, 500),
        ({"timeout": "0.5"}, 500),
        ({"timeout_ms": "9" * 5000}, None),
        ({"timeout": "9" * 5000}, None),
        ({"timeout_ms": 1e300}, None),
        ({"timeout_ms": "nan"}, None),
        ({"timeout_ms": 0}, None),
        ({"timeout_ms": -1}, None),
        ({"timeout_ms": True}, None),
        ({"timeout_ms": "soon"}, None),
    ],
)
def test_timeouts(written: Json, milliseconds: int | None) -> None:
    assert read_commands({"commands": ["a"], **written}) == ShellAction(("a",), milliseconds)
    assert read_program({"command": ["a"], **written}) == LocalShellAction(
        ("a",), timeout_ms=milliseconds or msgspec.UNSET
    )


@pytest.mark.parametrize(
    ("written", "command"),
    [
        ({"command": ["grep", "", "a b"]}, ["grep", "", "a b"]),
        ({"command": "ls | wc"}, ["bash", "-lc", "ls | wc"]),
        ({"cmd": '["ls", "-l"]'}, ["ls", "-l"]),
        ({"commands": ["cd a", "ls"]}, ["bash", "-lc", "cd a\nls"]),
        ({"commands": ["bash", "-lc", "ls"]}, ["bash", "-lc", "ls"]),
    ],
)
def test_programs(written: Json, command: list[str]) -> None:
    assert read_program(written) == LocalShellAction(tuple(command))


def test_a_program_has_its_surroundings() -> None:
    action = read_program(
        {"command": ["a"], "env": {"N": 1, "UNSET": None}, "cwd": "/srv", "user": "me", "timeout_ms": 5}
    )
    assert action == LocalShellAction(("a",), {"N": "1"}, timeout_ms=5, user="me", working_directory="/srv")
    assert read_program({"command": ["a"], "env": "none", "user": ""}) == LocalShellAction(("a",))


UPDATE = "@@ def f():\n a\n-b\n+c"


@pytest.mark.parametrize(
    ("written", "diff"),
    [
        ({"type": "update_file", "path": "p", "diff": UPDATE}, UPDATE),
        ({"operation": {"type": "update_file", "path": "p", "diff": UPDATE}}, UPDATE),
        ({"operations": [{"type": "update", "file_path": "p", "patch": UPDATE}]}, UPDATE),
        ({"operation": "update_file", "path": "p", "diff": UPDATE}, UPDATE),
        ({"type": "update_file", "path": "p", "diff": ["@@ def f():", " a", "-b", "+c"]}, UPDATE),
        ({"patch": f"*** Begin Patch\n*** Update File: p\n{UPDATE}\n*** End Patch\n"}, UPDATE),
        ({"input": f"*** Update File: p\n{UPDATE}"}, UPDATE),
        ({"command": ["apply_patch", f"*** Begin Patch\n*** Update File: p\n{UPDATE}\n*** End Patch"]}, UPDATE),
        (
            {
                "type": "update_file",
                "path": "p",
                "diff": f"*** Begin Patch\n*** Update File: p\n{UPDATE}\n*** End Patch",
            },
            UPDATE,
        ),
        ({"diff": "--- a/p\n+++ b/p\n@@ -1,2 +1,2 @@ def f():\n a\n-b\n+c"}, UPDATE),
        ({"type": "edit", "path": "p", "diff": "@@ -1 +1 @@\n-a\n+b\n\\ No newline at end of file"}, "@@\n-a\n+b\n"),
    ],
)
def test_a_file_is_changed(written: Json, diff: str) -> None:
    assert read_operation(written) == PatchOperation("update_file", "p", diff)


@pytest.mark.parametrize(
    ("written", "diff"),
    [
        ({"type": "create_file", "path": "p", "diff": "+a\n+\n+b"}, "+a\n+\n+b"),
        ({"type": "create_file", "path": "p", "diff": "+a\n\n+b\n"}, "+a\n+\n+b"),
        ({"type": "add", "path": "p", "content": "a\n\nb\n"}, "+a\n+\n+b"),
        ({"type": "create_file", "path": "p", "content": '["a"]'}, '+["a"]'),
        ({"type": "create_file", "path": "p", "diff": ""}, ""),
        ({"type": "create_file", "path": "p"}, ""),
        ({"patch": "*** Begin Patch\n*** Add File: p\n+a\n+b\n*** End Patch"}, "+a\n+b"),
        ({"diff": "--- /dev/null\n+++ b/p\n@@ -0,0 +1,2 @@\n+a\n+b"}, "+a\n+b"),
    ],
)
def test_a_file_is_made(written: Json, diff: str) -> None:
    assert read_operation(written) == PatchOperation("create_file", "p", diff)


@pytest.mark.parametrize(
    "written",
    [
        {"type": "delete_file", "path": "p"},
        {"type": "remove", "filename": "p", "diff": "-a"},
        {"patch": "*** Begin Patch\n*** Delete File: p\n*** End Patch"},
        {"diff": "--- a/p\n+++ /dev/null\n@@ -1 +0,0 @@\n-a"},
    ],
)
def test_a_file_is_deleted(written: Json) -> None:
    assert read_operation(written) == PatchOperation("delete_file", "p", msgspec.UNSET)


@pytest.mark.parametrize(
    "written",
    [
        {},
        {"type": "update_file", "path": "p"},
        {"type": "update_file", "diff": UPDATE},
        {"type": "rename_file", "path": "p", "diff": UPDATE},
        {"path": "p", "diff": UPDATE},
        {"patch": "*** Begin Patch\n*** Add File: a\n+1\n*** Add File: b\n+1\n*** End Patch"},
        {"patch": "*** Begin Patch\n*** Update File: a\n*** Move to: b\n@@\n-1\n+2\n*** End Patch"},
    ],
)
def test_a_patch_that_is_none_or_of_many_files_means_nothing(written: Json) -> None:
    assert read_operation(written) is None


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("local_shell", '{"command":["ls"],"env":{"A":"1"},"timeout_ms":5,"user":"me","working_directory":"/"}'),
        ("local_shell", '{"command":["ls"]}'),
        ("shell", '{"commands":["ls"],"timeout_ms":5,"max_output_length":9}'),
        ("shell", '{"commands":["ls"]}'),
        ("apply_patch", '{"type":"update_file","path":"p","diff":"@@\\n-a\\n+b"}'),
        ("apply_patch", '{"type":"delete_file","path":"p"}'),
        ("tool_search", '{"paths":["a"],"limit":1.0}'),
    ],
)
def test_arguments_as_they_were_asked_for_come_back_unchanged(tool: str, arguments: str) -> None:
    payload = CLIENT_TOOLS[tool].read(msgspec.json.decode(arguments))
    assert payload is not None
    assert arguments_of(payload) == arguments
