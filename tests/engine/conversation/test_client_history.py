"""Histories of tools that the client runs: what the model reads of each item, and which items are refused."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from app.engine.conversation.exchanges import said
from app.engine.conversation.function_names import upstream_name
from app.engine.conversation.transcript import Context, Transcript
from app.protocol.messages import Assistant, Message, ToolResult, User
from app.protocol.wire.errors import InvalidRequest
from app.protocol.wire.requests import parse_item

Json = dict[str, Any]


def spoken(*items: Json) -> list[Message]:
    """The messages that these items become."""
    transcript = Transcript(Context(), upstream_name, lambda _: None)
    raws = [msgspec.Raw(json.dumps(item).encode()) for item in items]
    for i, raw in enumerate(raws):
        place = f"input[{i}]"
        one = said(raw, parse_item(raw, place), place)
        transcript.add([] if one is None else [(place, one)])
    transcript.close()
    return transcript.messages


def round_of(call: Json, output: Json) -> tuple[str, str, str]:
    """Name, arguments and result as the model reads them."""
    asked, result = spoken(call, output)
    assert isinstance(asked, Assistant)
    assert isinstance(result, ToolResult)
    (one,) = asked.calls
    assert one.call_id == result.call_id
    return one.name, one.arguments, result.content


def ran(stdout: str, stderr: str = "", **outcome: Any) -> Json:
    return {"stdout": stdout, "stderr": stderr, "outcome": outcome or {"type": "exit", "exit_code": 0}}


SHELL: Json = {
    "type": "shell_call",
    "call_id": "c",
    "action": {"commands": ["ls", "pwd"], "timeout_ms": None, "max_output_length": 9},
}
LOCAL: Json = {
    "type": "local_shell_call",
    "id": "lsh_1",
    "call_id": "c",
    "action": {"type": "exec", "command": ["ls"], "env": None},
}
PATCH: Json = {
    "type": "apply_patch_call",
    "call_id": "c",
    "operation": {"type": "delete_file", "path": "p"},
    "caller": {"type": "direct"},
}


@pytest.mark.parametrize(
    ("output", "read"),
    [
        ([ran("a\n"), ran("", "no\n", type="exit", exit_code=2)], "a\nExit code: 0\n\nstderr:\nno\nExit code: 2"),
        ([ran("a", "b", type="timeout")], "a\nstderr:\nb\nThe command ran out of time."),
        ([{"stdout": None}], "Exit code: unknown"),
        ([], "(no output)"),
        ("a text", "a text"),
    ],
)
def test_commands_and_what_they_printed(output: object, read: str) -> None:
    told = round_of(SHELL, {"type": "shell_call_output", "call_id": "c", "output": output, "max_output_length": 9})
    assert told == ("shell", '{"commands":["ls","pwd"],"max_output_length":9}', read)


@pytest.mark.parametrize("name", [{"call_id": "c"}, {"id": "c"}])
def test_a_program_and_what_it_printed(name: Json) -> None:
    told = round_of(LOCAL, {"type": "local_shell_call_output", **name, "output": '{"output":"a"}'})
    assert told == ("local_shell", '{"command":["ls"]}', '{"output":"a"}')


def test_a_program_whose_output_comes_as_that_of_a_function() -> None:
    """Codex answers its calls of a local shell so."""
    assert round_of(LOCAL, {"type": "function_call_output", "call_id": "c", "output": "a"})[2] == "a"


@pytest.mark.parametrize(
    ("output", "read"),
    [
        ({"status": "completed"}, "Status: completed"),
        ({"status": "failed", "output": "No such file."}, "Status: failed\nNo such file."),
        ({"status": "completed", "output": None}, "Status: completed"),
        ({"output": [{"type": "input_text", "text": "a"}]}, 'Status: completed\n[{"type":"input_text","text":"a"}]'),
    ],
)
def test_a_patch_and_how_it_ended(output: Json, read: str) -> None:
    told = round_of(PATCH, {"type": "apply_patch_call_output", "call_id": "c", **output})
    assert told == ("apply_patch", '{"type":"delete_file","path":"p"}', read)


@pytest.mark.parametrize("arguments", [{"query": "a", "limit": 1}, '{"query":"a","limit":1}'])
def test_a_search_and_what_it_found(arguments: object) -> None:
    space = {"type": "namespace", "name": "ns", "tools": [{"type": "function", "name": "g", "description": "Does g."}]}
    call = {"type": "tool_search_call", "call_id": "c", "execution": "client", "arguments": arguments}
    told = round_of(
        call, {"type": "tool_search_output", "call_id": "c", "tools": [space, {"type": "function", "name": "search"}]}
    )
    found = "These functions can be called from now on:\n- ns__g: Does g.\n- fn_search"
    assert told == ("tool_search", '{"query":"a","limit":1}', found)


def test_arguments_that_could_not_be_run_are_still_told() -> None:
    odd: Json = {**SHELL, "action": {"commands": [], "x": 1}}
    assert round_of(odd, {"type": "shell_call_output", "call_id": "c", "output": []})[1] == '{"commands":[],"x":1}'


def test_an_image_of_another_server_is_told_of() -> None:
    image = {
        "type": "image_generation_call",
        "id": "ig_1",
        "status": "completed",
        "revised_prompt": "A cat.",
        "result": "aGk=",
    }
    failed = {"type": "image_generation_call", "status": "failed", "result": None}
    one, first, two, second, *rest = spoken(image, failed, failed, {"role": "user", "content": "Hi"})
    calls = [call for message in (one, two) if isinstance(message, Assistant) for call in message.calls]
    assert [(call.name, call.arguments) for call in calls] == [
        ("image_generation", '{"prompt":"A cat."}'),
        ("image_generation", '{"prompt":""}'),
    ]
    assert len({call.call_id for call in calls}) == 2
    assert [type(message) for message in rest] == [Assistant, ToolResult, User]
    assert isinstance(first, ToolResult)
    assert isinstance(second, ToolResult)
    assert ("was made" in first.content, "failed" in second.content) == (True, True)


def test_calls_side_by_side_keep_their_order() -> None:
    outputs = [
        {"type": "apply_patch_call_output", "call_id": "p", "status": "completed"},
        {"type": "shell_call_output", "call_id": "c", "output": "a"},
    ]
    user, asked, *results = spoken({"role": "user", "content": "Hi"}, SHELL, {**PATCH, "call_id": "p"}, *outputs)
    assert isinstance(user, User)
    assert isinstance(asked, Assistant)
    assert [call.name for call in asked.calls] == ["shell", "apply_patch"]
    assert [result.call_id for result in results if isinstance(result, ToolResult)] == ["c", "p"]


_WRONG: list[tuple[list[Json], str, str]] = [
    ([{"type": "shell_call", "call_id": "c"}], "input[0].action", "missing_required_parameter"),
    ([{"type": "shell_call", "call_id": "c", "action": 1}], "input[0].action", "invalid_type"),
    ([{"type": "apply_patch_call", "call_id": "c"}], "input[0].operation", "missing_required_parameter"),
    ([{**SHELL, "call_id": None}], "input[0].call_id", "missing_required_parameter"),
    ([SHELL, {"type": "shell_call_output", "call_id": "c"}], "input[1].output", "invalid_type"),
    ([SHELL, {"type": "shell_call_output", "call_id": "c", "output": [1]}], "input[1].output[0]", "invalid_type"),
    ([LOCAL, {"type": "local_shell_call_output", "call_id": "c"}], "input[1].output", "missing_required_parameter"),
    ([{"type": "tool_search_output", "call_id": "c", "tools": "a"}], "input[0].tools", "invalid_type"),
    (
        [{"type": "computer_call", "call_id": "c"}, {"type": "computer_call_output", "output": {}}],
        "input[0].type",
        "unsupported_value",
    ),
    (
        [{"type": "computer_call_output", "output": {"type": "computer_screenshot"}}],
        "input[0].type",
        "unsupported_value",
    ),
]


@pytest.mark.parametrize(("items", "param", "code"), _WRONG)
def test_what_is_wrong_is_named_where_it_stands(items: list[Json], param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        spoken(*items)
    assert (raised.value.param, raised.value.code) == (param, code)
