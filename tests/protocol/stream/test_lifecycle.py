"""The order of events, over every state and every event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import msgspec
import pytest

from app.protocol.stream.lifecycle import TRANSITIONS, IllegalEvent, Lifecycle
from app.protocol.wire import client_items as c
from app.protocol.wire import events as e
from app.protocol.wire import hosted as h
from app.protocol.wire.items import (
    CustomToolCallItem,
    FunctionCallItem,
    MessageItem,
    OutputText,
    ReasoningItem,
    ReasoningText,
    RefusalPart,
    SummaryText,
    UrlCitation,
)

ITEMS = {
    "message": MessageItem("x", "in_progress"),
    "reasoning": ReasoningItem("x", "in_progress"),
    "function_call": FunctionCallItem("x", "in_progress", "c", "f"),
    "custom_tool_call": CustomToolCallItem("x", "in_progress", "c", "f"),
    "local_shell_call": c.LocalShellCall("x", "in_progress", "c"),
    "shell_call": c.ShellCall("x", "in_progress", "c"),
    "apply_patch_call": c.ApplyPatchCall("x", "in_progress", "c", c.PatchOperation("delete_file", "p")),
    "tool_search_call": c.ToolSearchCall("x", "in_progress", "c"),
    "web_search_call": h.WebSearchCall("x", "in_progress", h.SearchAction("q")),
    "file_search_call": h.FileSearchCall("x", "in_progress", ("q",)),
    "code_interpreter_call": h.CodeInterpreterCall("x", "in_progress", "cntr"),
    "mcp_call": h.McpCall("x", "in_progress", "n", "s", ""),
    "mcp_list_tools": h.McpListTools("x", "s", ()),
    "mcp_approval_request": h.McpApprovalRequest("x", "n", "s", "{}"),
    "web_extractor_call": h.WebExtractorCall("x", "in_progress", ("https://a.example",)),
    "web_search_image_call": h.WebSearchImageCall("x", "in_progress"),
    "image_search_call": h.ImageSearchCall("x", "in_progress"),
    "x_tool_call": h.ToolCall("x", "in_progress", "n"),
}
SILENT = ("mcp_approval_request", "web_extractor_call", "web_search_image_call", "image_search_call", "x_tool_call")
"""Items without events of their own."""
PARTS = {"output_text": OutputText(""), "refusal": RefusalPart(""), "reasoning_text": ReasoningText("")}
ENDS = {"response.completed": "end", "response.failed": "end", "response.incomplete": "end"}
WHOLE = ("local_shell_call", "apply_patch_call", "tool_search_call")
"""Calls that are shown in one piece."""
OPENINGS = {f"response.output_item.added:{item}": "call shown whole" if item in WHOLE else item for item in ITEMS}
PART_OPENINGS = {f"response.content_part.added:{part}": part for part in PARTS}

BEGUN = ("response.created", "response.in_progress")
MESSAGE = (*BEGUN, "response.output_item.added:message")
REASONING = (*BEGUN, "response.output_item.added:reasoning")
SUMMARY = (*REASONING, "response.reasoning_summary_part.added")
CALL = (*BEGUN, "response.output_item.added:function_call")
CUSTOM = (*BEGUN, "response.output_item.added:custom_tool_call")
SHELL = (*BEGUN, "response.output_item.added:shell_call")
SEARCH = (*BEGUN, "response.output_item.added:web_search_call")
FILES = (*BEGUN, "response.output_item.added:file_search_call")
CODE = (*BEGUN, "response.output_item.added:code_interpreter_call")
MCP = (*BEGUN, "response.output_item.added:mcp_call")
LISTING = (*BEGUN, "response.output_item.added:mcp_list_tools")
DONE = {"response.output_item.done": "between items"}

HOSTED: dict[str, tuple[Sequence[str], dict[str, str]]] = {
    **{item: ((*BEGUN, f"response.output_item.added:{item}"), DONE) for item in SILENT},
    "web_search_call": (SEARCH, {"response.web_search_call.in_progress": "web_search_call begun"}),
    "web_search_call begun": (
        (*SEARCH, "response.web_search_call.in_progress"),
        {"response.web_search_call.searching": "web_search_call begun, running"},
    ),
    "web_search_call begun, running": (
        (*SEARCH, "response.web_search_call.in_progress", "response.web_search_call.searching"),
        {"response.web_search_call.completed": "call done", **DONE},
    ),
    "file_search_call": (FILES, {"response.file_search_call.in_progress": "file_search_call begun"}),
    "file_search_call begun": (
        (*FILES, "response.file_search_call.in_progress"),
        {"response.file_search_call.searching": "file_search_call begun, running"},
    ),
    "file_search_call begun, running": (
        (*FILES, "response.file_search_call.in_progress", "response.file_search_call.searching"),
        {"response.file_search_call.completed": "call done", **DONE},
    ),
    "code_interpreter_call": (CODE, {"response.code_interpreter_call.in_progress": "code_interpreter_call begun"}),
    "code_interpreter_call begun": (
        (*CODE, "response.code_interpreter_call.in_progress"),
        {
            "response.code_interpreter_call_code.delta": "code_interpreter_call begun",
            "response.code_interpreter_call_code.done": "code_interpreter_call begun, arguments done",
        },
    ),
    "code_interpreter_call begun, arguments done": (
        (*CODE, "response.code_interpreter_call.in_progress", "response.code_interpreter_call_code.done"),
        {"response.code_interpreter_call.interpreting": "code_interpreter_call begun, arguments done, running"},
    ),
    "code_interpreter_call begun, arguments done, running": (
        (
            *CODE,
            "response.code_interpreter_call.in_progress",
            "response.code_interpreter_call_code.done",
            "response.code_interpreter_call.interpreting",
        ),
        {"response.code_interpreter_call.completed": "call done", **DONE},
    ),
    "mcp_call": (MCP, {"response.mcp_call.in_progress": "mcp_call begun"}),
    "mcp_call begun": (
        (*MCP, "response.mcp_call.in_progress"),
        {
            "response.mcp_call_arguments.delta": "mcp_call begun",
            "response.mcp_call_arguments.done": "mcp_call begun, arguments done",
        },
    ),
    "mcp_call begun, arguments done": (
        (*MCP, "response.mcp_call.in_progress", "response.mcp_call_arguments.done"),
        {"response.mcp_call.completed": "call done", "response.mcp_call.failed": "call done", **DONE},
    ),
    "mcp_list_tools": (LISTING, {"response.mcp_list_tools.in_progress": "mcp_list_tools begun"}),
    "mcp_list_tools begun": (
        (*LISTING, "response.mcp_list_tools.in_progress"),
        {"response.mcp_list_tools.completed": "call done", "response.mcp_list_tools.failed": "call done", **DONE},
    ),
}
"""The states of the server's own tools, in the same way as below."""

PATHS: dict[str, tuple[Sequence[str], dict[str, str]]] = {
    **HOSTED,
    "start": ((), {"response.created": "created"}),
    "created": (BEGUN[:1], {"response.queued": "queued", "response.in_progress": "between items"}),
    "queued": ((*BEGUN[:1], "response.queued"), {"response.in_progress": "between items"}),
    "between items": (BEGUN, {**OPENINGS, **ENDS, "error": "error"}),
    "error": ((*BEGUN, "error"), {"response.failed": "end"}),
    "end": ((*BEGUN, "response.completed"), {}),
    "message": (MESSAGE, {**PART_OPENINGS, "response.output_item.done": "between items"}),
    "output_text": (
        (*MESSAGE, "response.content_part.added:output_text"),
        {
            "response.output_text.delta": "output_text",
            "response.output_text.annotation.added": "output_text",
            "response.output_text.done": "part done",
        },
    ),
    "refusal": (
        (*MESSAGE, "response.content_part.added:refusal"),
        {"response.refusal.delta": "refusal", "response.refusal.done": "part done"},
    ),
    "part done": (
        (*MESSAGE, "response.content_part.added:output_text", "response.output_text.done"),
        {"response.content_part.done": "message"},
    ),
    "reasoning": (
        REASONING,
        {
            **PART_OPENINGS,
            "response.reasoning_summary_part.added": "summary",
            "response.output_item.done": "between items",
        },
    ),
    "reasoning_text": (
        (*REASONING, "response.content_part.added:reasoning_text"),
        {"response.reasoning_text.delta": "reasoning_text", "response.reasoning_text.done": "part done"},
    ),
    "summary": (
        SUMMARY,
        {"response.reasoning_summary_text.delta": "summary", "response.reasoning_summary_text.done": "summary done"},
    ),
    "summary done": (
        (*SUMMARY, "response.reasoning_summary_text.done"),
        {"response.reasoning_summary_part.done": "reasoning"},
    ),
    "function_call": (
        CALL,
        {
            "response.function_call_arguments.delta": "function_call",
            "response.function_call_arguments.done": "call done",
        },
    ),
    "custom_tool_call": (
        CUSTOM,
        {
            "response.custom_tool_call_input.delta": "custom_tool_call",
            "response.custom_tool_call_input.done": "call done",
        },
    ),
    "shell_call": (SHELL, {"response.shell_call_command.added": "shell command", **DONE}),
    "shell command": (
        (*SHELL, "response.shell_call_command.added"),
        {"response.shell_call_command.delta": "shell command", "response.shell_call_command.done": "shell_call"},
    ),
    "call shown whole": ((*BEGUN, "response.output_item.added:apply_patch_call"), DONE),
    "call done": ((*CALL, "response.function_call_arguments.done"), {"response.output_item.done": "between items"}),
}
"""State -> how to get there, and what may follow.

The states are the table's, the rules are written down a second time.
"""

KINDS: dict[str, type[Any]] = {kind.__struct_config__.tag: kind for kind in get_args(e.Event)}
NAMES = sorted({*KINDS, *OPENINGS, *PART_OPENINGS} - {"response.output_item.added", "response.content_part.added"})


def event(name: str, number: int, index: int = 0, item_id: str = "x") -> e.Event:
    """An event of that name, in place."""
    name, _, variant = name.partition(":")
    kind = KINDS[name]
    values: dict[str, Any] = {
        "response": msgspec.Raw(b"{}"),
        "output_index": index,
        "item_id": item_id,
        "item": msgspec.structs.replace(ITEMS.get(variant, ITEMS["message"]), id=item_id),
        "annotation_index": 0,
        "annotation": UrlCitation("https://a.example", "A", 0, 0),
        "part": SummaryText("") if "summary" in name else PARTS.get(variant, PARTS["output_text"]),
        "code": None,
        "param": None,
        "error": e.NestedError("server_error", None, "", None),
    }
    names = [
        field
        for field in kind.__struct_fields__
        if field not in ("sequence_number", "content_index", "summary_index", "logprobs")
    ]
    return kind(sequence_number=number, **{field: values.get(field, "") for field in names})


def at(path: Sequence[str]) -> Lifecycle:
    """A machine that has seen these events."""
    machine = Lifecycle()
    for number, name in enumerate(path):
        machine.advance(event(name, number))
    return machine


def test_every_state_of_the_table_is_reached() -> None:
    assert PATHS.keys() == TRANSITIONS.keys()


@pytest.mark.parametrize("state", PATHS)
def test_what_may_follow(state: str) -> None:
    path, legal = PATHS[state]
    for name in NAMES:
        machine = at(path)
        assert machine.state == state
        following = event(name, len(path), max(machine.output_index, 0))
        if name in legal:
            machine.advance(following)
            assert machine.state == legal[name], name
        else:
            with pytest.raises(IllegalEvent, match=name.partition(":")[0]):
                machine.advance(following)


@pytest.mark.parametrize("number", [0, 2, 3])
def test_numbers_are_contiguous(number: int) -> None:
    with pytest.raises(IllegalEvent, match=f"number {number} after 0"):
        at(BEGUN[:1]).advance(event("response.in_progress", number))


def test_deltas_that_were_not_shown_to_the_machine_still_count() -> None:
    machine = at(PATHS["output_text"][0])
    machine.sequence_number += 3
    machine.advance(event("response.output_text.done", len(PATHS["output_text"][0]) + 3))
    assert machine.state == "part done"


def test_numbers_start_at_zero() -> None:
    with pytest.raises(IllegalEvent, match="number 1 after -1"):
        Lifecycle().advance(event("response.created", 1))


def test_nothing_follows_a_refused_event() -> None:
    machine = at(BEGUN)
    with pytest.raises(IllegalEvent):
        machine.advance(event("response.created", 2))
    with pytest.raises(IllegalEvent):
        machine.advance(event("response.completed", 2))


@pytest.mark.parametrize("index", [1, 2])
def test_the_first_item_has_index_zero(index: int) -> None:
    with pytest.raises(IllegalEvent, match=f"output_index {index} after -1"):
        at(BEGUN).advance(event("response.output_item.added:message", 2, index))


def test_indexes_of_items_count_up() -> None:
    machine = at((*MESSAGE, "response.output_item.done"))
    with pytest.raises(IllegalEvent, match="output_index 0 after 0"):
        machine.advance(event("response.output_item.added:message", 4, 0))


@pytest.mark.parametrize(("index", "item_id"), [(1, "x"), (0, "y")])
@pytest.mark.parametrize("name", ["response.output_item.done", "response.content_part.added:output_text"])
def test_events_belong_to_the_open_item(name: str, index: int, item_id: str) -> None:
    with pytest.raises(IllegalEvent, match="the open item"):
        at(MESSAGE).advance(event(name, 3, index, item_id))


def test_a_second_part_may_follow_the_first() -> None:
    machine = at((*PATHS["part done"][0], "response.content_part.done"))
    machine.advance(event("response.content_part.added:refusal", machine.sequence_number + 1))
    assert machine.state == "refusal"


def test_a_part_done_leads_back_to_its_own_item() -> None:
    machine = at((*PATHS["reasoning_text"][0], "response.reasoning_text.done", "response.content_part.done"))
    assert machine.state == "reasoning"
