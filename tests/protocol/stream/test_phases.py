"""What a hosted item shows when it begins, and how its end is told."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from app.protocol.stream.phases import SPECS, kind, opening, status
from app.protocol.wire import hosted as h
from app.protocol.wire.hosted import HostedItem

DONE: dict[str, HostedItem] = {
    "web_search_call": h.WebSearchCall(
        "x", "completed", h.SearchAction("q", ("q", "r"), (h.UrlSource("https://a.example"),))
    ),
    "file_search_call": h.FileSearchCall("x", "completed", ("q",), (h.FileResult("file_1", "a.md", 0.5, "text"),)),
    "code_interpreter_call": h.CodeInterpreterCall("x", "completed", "cntr", "1", (h.Logs("1"),)),
    "web_extractor_call": h.WebExtractorCall("x", "completed", ("https://a.example",), "why", "text"),
    "web_search_image_call": h.WebSearchImageCall("x", "completed", arguments='{"queries": ["q"]}', output="[]"),
    "image_search_call": h.ImageSearchCall("x", "completed", arguments='{"img_idx": 0}', output="[]"),
    "mcp_call": h.McpCall("x", "failed", "n", "s", '{"a": 1}', "out", h.McpHttpError(500, "no"), "mcpr_1"),
    "mcp_list_tools": h.McpListTools("x", "s", (h.McpTool("n", {}),), "gone"),
    "mcp_approval_request": h.McpApprovalRequest("x", "n", "s", '{"a": 1}'),
    "x_tool_call": h.ToolCall("x", "completed", "n", '{"a": 1}', "out"),
}
KEPT: dict[str, dict[str, Any]] = {
    "web_search_call": {"status": "in_progress", "action": {"type": "search", "query": "q", "queries": ["q", "r"]}},
    "file_search_call": {"status": "in_progress", "queries": ["q"], "results": None},
    "code_interpreter_call": {"status": "in_progress", "container_id": "cntr", "code": "", "outputs": None},
    "web_extractor_call": {"status": "in_progress", "urls": ["https://a.example"], "goal": "why", "output": ""},
    "web_search_image_call": {
        "status": "in_progress",
        "name": "web_search_image",
        "arguments": '{"queries": ["q"]}',
        "output": "",
    },
    "image_search_call": {"status": "in_progress", "name": "image_search", "arguments": '{"img_idx": 0}', "output": ""},
    "mcp_call": {
        "status": "in_progress",
        "name": "n",
        "server_label": "s",
        "arguments": "",
        "approval_request_id": "mcpr_1",
    },
    "mcp_list_tools": {"server_label": "s", "tools": []},
    "mcp_approval_request": {"name": "n", "server_label": "s", "arguments": '{"a": 1}'},
    "x_tool_call": {"status": "in_progress", "name": "n", "arguments": '{"a": 1}', "output": ""},
}


def test_every_kind_of_item_is_told() -> None:
    assert {kind(item) for item in DONE.values()} == DONE.keys() == KEPT.keys()
    assert {type(item) for item in DONE.values()} == SPECS.keys()


@pytest.mark.parametrize("name", DONE)
def test_an_item_begins_without_what_only_its_end_brings(name: str) -> None:
    shown = msgspec.json.decode(msgspec.json.encode(opening(DONE[name], "y")))
    assert shown == {"type": name, "id": "y", **KEPT[name]}


def test_a_page_that_is_read_is_known_from_the_beginning() -> None:
    action = h.OpenPageAction("https://a.example")
    begun = opening(h.WebSearchCall("x", "completed", action), "y")
    assert begun == h.WebSearchCall("y", "in_progress", action)


@pytest.mark.parametrize(
    ("item", "how"),
    [
        (DONE["mcp_call"], "failed"),
        (DONE["x_tool_call"], "completed"),
        (h.McpListTools("x", "s", (), "down"), "failed"),
        (h.McpListTools("x", "s", (h.McpTool("a", {}),), "one is left out"), "completed"),
        (h.McpListTools("x", "s", ()), "completed"),
        (DONE["mcp_approval_request"], "completed"),
    ],
)
def test_an_item_without_a_status_ends_by_whether_it_tells_an_error(item: HostedItem, how: str) -> None:
    assert status(item) == how
