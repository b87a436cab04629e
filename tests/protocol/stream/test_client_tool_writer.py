"""Calls of tools that the client runs: their events, what was cut, and their replay."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.protocol import deltas as d
from app.protocol.stream.replay import catch_up, encode_cuts
from tests.protocol.assembling import Assembled, assemble, new_assembler, replayed
from tests.support.judge import judge

Json = dict[str, Any]


def made(tool: str, arguments: str, *, finish: Any = "tool_calls", quiet: bool = False) -> Assembled:
    """A response with one call, whose arguments come in two pieces."""
    half = len(arguments) // 2
    pieces = [d.CallArguments(0, arguments[:half]), d.CallArguments(0, arguments[half:])]
    return assemble([d.CallOpened(0, "call_1", tool), *pieces, d.TurnFinished(finish)], quiet=quiet)


def told(assembled: Assembled) -> list[tuple[str, Json]]:
    """The events between the first two and the last, without the numbers."""
    events = judge(b"".join(assembled.frames)).events[2:-1]
    numbers = ("type", "sequence_number", "output_index")
    return [
        (event["type"].removeprefix("response."), {k: v for k, v in event.items() if k not in numbers})
        for event in events
    ]


def test_commands_are_events_of_their_own() -> None:
    (_, added), *commands, (_, done) = told(made("shell", '{"commands": ["ls", "pwd"], "timeout_ms": 5}'))
    assert added["item"]["action"] == {"commands": [], "timeout_ms": 5, "max_output_length": None}
    assert commands == [
        ("shell_call_command.added", {"command_index": 0, "command": ""}),
        ("shell_call_command.delta", {"command_index": 0, "delta": "ls"}),
        ("shell_call_command.done", {"command_index": 0, "command": "ls"}),
        ("shell_call_command.added", {"command_index": 1, "command": ""}),
        ("shell_call_command.delta", {"command_index": 1, "delta": "pwd"}),
        ("shell_call_command.done", {"command_index": 1, "command": "pwd"}),
    ]
    assert done["item"] == {
        "type": "shell_call",
        "id": done["item"]["id"],
        "status": "completed",
        "call_id": "call_1",
        "action": {"commands": ["ls", "pwd"], "timeout_ms": 5, "max_output_length": None},
        "environment": {"type": "local"},
    }


@pytest.mark.parametrize(
    ("tool", "arguments", "field", "begun", "whole"),
    [
        (
            "local_shell",
            '{"command": ["ls"], "cwd": "/"}',
            "action",
            {"command": ["ls"], "env": {}, "type": "exec", "working_directory": "/"},
            {"command": ["ls"], "env": {}, "type": "exec", "working_directory": "/"},
        ),
        (
            "apply_patch",
            '{"type": "create_file", "path": "p", "diff": "+a"}',
            "operation",
            {"type": "create_file", "path": "p", "diff": ""},
            {"type": "create_file", "path": "p", "diff": "+a"},
        ),
        (
            "apply_patch",
            '{"type": "delete_file", "path": "p"}',
            "operation",
            {"type": "delete_file", "path": "p"},
            {"type": "delete_file", "path": "p"},
        ),
        ("tool_search", '{"query": "weather",\n "limit": 2}', "arguments", {}, {"query": "weather", "limit": 2}),
    ],
)
def test_other_calls_are_shown_whole(tool: str, arguments: str, field: str, begun: Json, whole: Json) -> None:
    (_, added), (_, done) = told(made(tool, arguments))
    assert added["item"] == {
        **added["item"],
        "type": f"{tool}_call",
        "status": "in_progress",
        "call_id": "call_1",
        field: begun,
    }
    assert done["item"] == {**added["item"], "status": "completed", field: whole}


@pytest.mark.parametrize(
    ("tool", "arguments", "field", "meant"),
    [
        ("shell", '["ls", "pwd"]', "commands", ["ls", "pwd"]),
        ("shell", '"ls | wc"', "commands", ["ls | wc"]),
        ("shell", '"a\nb"', "commands", ["a\nb"]),
        ("local_shell", '["ls", "-l"]', "command", ["ls", "-l"]),
        ("apply_patch", '"*** Begin Patch\\n*** Delete File: p\\n*** End Patch"', "path", "p"),
        ("apply_patch", "*** Begin Patch\n*** Delete File: p\n*** End Patch", "path", "p"),
    ],
)
def test_a_list_or_a_text_may_stand_for_the_arguments(tool: str, arguments: str, field: str, meant: object) -> None:
    item = json.loads(made(tool, arguments).body)["output"][0]
    assert item["status"] == "completed"
    assert item["operation" if tool == "apply_patch" else "action"][field] == meant


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("shell", '{"commands": []}'),
        ("shell", "ls"),
        ("local_shell", "{}"),
        ("apply_patch", '{"path": "p"}'),
        ("tool_search", "[1]"),
    ],
)
def test_arguments_that_mean_nothing_fail_the_response(tool: str, arguments: str) -> None:
    response = made(tool, arguments).response
    assert response.status == "failed"
    assert response.error is not None
    assert tool in response.error.message


@pytest.mark.parametrize(
    ("tool", "status", "field", "value"),
    [
        ("local_shell", "incomplete", "action", {"command": [], "env": {}, "type": "exec"}),
        ("shell", "incomplete", "action", {"commands": [], "timeout_ms": None, "max_output_length": None}),
        ("apply_patch", "in_progress", "operation", {"type": "update_file", "path": "", "diff": ""}),
        ("tool_search", "incomplete", "arguments", {}),
    ],
)
def test_a_call_that_was_cut_says_nothing_that_could_be_run(tool: str, status: str, field: str, value: Json) -> None:
    item = json.loads(made(tool, '{"commands": ["rm -r a', finish="length").body)["output"][0]
    assert (item["type"], item["status"], item[field]) == (f"{tool}_call", status, value)


@pytest.mark.parametrize("finish", ["tool_calls", "length"])
@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("shell", '{"cmd": ["ls", "-l"]}'),
        ("local_shell", '{"command": "ls"}'),
        ("apply_patch", '{"diff": "--- a/p\\n+++ b/p\\n@@ -1 +1 @@\\n--- a\\n+++ b"}'),
        ("tool_search", '{"b": 1.0,  "a": "\\u2028"}'),
        ("shell", '{"commands": ["l'),
        ("apply_patch", ""),
    ],
)
def test_a_stored_stream_comes_back_byte_for_byte(tool: str, arguments: str, finish: str) -> None:
    shown = made(tool, arguments, finish=finish)
    if shown.response.status != "failed":
        assert replayed(shown.body, encode_cuts(shown.cuts)) == replayed(shown.body, None) == shown.frames
    assert made(tool, arguments, finish=finish, quiet=True).body == shown.body


def test_a_call_that_is_being_written_is_not_shown_before_it_is_whole() -> None:
    assembler = new_assembler()
    assembler.start()
    assembler.receive([d.Text("a"), d.CallOpened(0, "call_1", "shell"), d.CallArguments(0, '{"commands": ["l')])
    shown = assembler.take()
    assert catch_up(assembler) == shown
    assert b"shell_call" not in b"".join(shown)
