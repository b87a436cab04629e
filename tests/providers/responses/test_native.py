"""The vendor's own tools: how its items are read, in which order they are told, and what is written about them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest

from app.protocol.deltas import CallArguments, CallOpened, Delta, NativeItem, Reasoning, Text, TurnFinished
from app.protocol.messages import Assistant, Call, FunctionTool, Message, ToolResult, User
from app.protocol.wire.hosted import (
    CodeInterpreterCall,
    FileResult,
    FileSearchCall,
    FindAction,
    HostedItem,
    ImageSearchCall,
    Logs,
    McpCall,
    McpExecutionError,
    OpenPageAction,
    PlotImage,
    SearchAction,
    UrlSource,
    WebExtractorCall,
    WebSearchCall,
    WebSearchImageCall,
)
from app.providers.base import ModelCall
from app.providers.responses.decode import ResponsesDecoder
from app.providers.responses.encode import encode_call, encode_messages
from tests.providers.responses_stream import COMPLETED, CREATED, STARTED, STOPPED, Json, frames, text

CALLED = TurnFinished("tool_calls")
SEARCHED: Json = {
    "type": "web_search_call",
    "id": "msg_w",
    "status": "completed",
    "action": {"type": "search", "query": "Web search"},
}
ADDED, DONE = "response.output_item.added", "response.output_item.done"


def event(name: str, item: Mapping[str, Any] | None = None, item_id: str | None = None) -> Json:
    about: Json = {"item": item} if item is not None else {"item_id": item_id}
    return {"type": name, "output_index": 7, **about}  # the vendor's index is not to be relied on


def decode(*events: Mapping[str, Any]) -> list[Delta]:
    decoder = ResponsesDecoder()
    deltas = decoder.feed(frames(CREATED, STARTED, *events))
    assert decoder.failure is None, decoder.failure
    return deltas + decoder.end()


def told(deltas: Sequence[Delta]) -> list[tuple[str, str]]:
    """Item id and status, or "added", of what was told about hosted items; the kind of all else."""
    return [
        (d.item.id, str(getattr(d.item, "status", "")) if d.done else "added")
        if isinstance(d, NativeItem)
        else (type(d).__name__, "")
        for d in deltas
    ]


SOURCES = [
    {"type": "url", "url": "https://a.example"},
    {"type": "url", "url": "https://b.example"},
    {"url": "https://a.example"},
    {},
]
NO_SOURCES: list[Json] = []
TWO = (UrlSource("https://a.example"), UrlSource("https://b.example"))


@pytest.mark.parametrize(
    ("raw", "read"),
    [
        pytest.param(SEARCHED, WebSearchCall("msg_w", "completed", SearchAction("Web search")), id="placeholder"),
        pytest.param(
            SEARCHED | {"action": {"type": "search", "query": "Web search", "queries": ["a", "b"], "sources": SOURCES}},
            WebSearchCall("msg_w", "completed", SearchAction("a", ("a", "b"), TWO)),
            id="queries and repeated sources",
        ),
        pytest.param(
            SEARCHED
            | {"action": {"type": "search", "query": "a", "queries": None, "sources": NO_SOURCES}, "new": {"field": 1}},
            WebSearchCall("msg_w", "completed", SearchAction("a", (), ())),
            id="query",
        ),
        pytest.param(
            {"type": "web_search_call", "id": "x"}, WebSearchCall("x", "completed", SearchAction("")), id="nothing"
        ),
        pytest.param(
            SEARCHED | {"action": {"type": "open_page", "url": "https://a.example"}, "status": "failed"},
            WebSearchCall("msg_w", "failed", OpenPageAction("https://a.example")),
            id="page",
        ),
        pytest.param(
            SEARCHED | {"action": {"type": "find_in_page", "url": "https://a.example", "pattern": "p"}},
            WebSearchCall("msg_w", "completed", FindAction("p", "https://a.example")),
            id="find",
        ),
        pytest.param(
            {
                "type": "web_extractor_call",
                "id": "x",
                "urls": ["https://a.example"],
                "goal": "g",
                "output": "o",
                "status": "completed",
            },
            WebExtractorCall("x", "completed", ("https://a.example",), "g", "o"),
            id="extractor",
        ),
        pytest.param(
            {"type": "web_extractor_call", "id": "x", "urls": "https://a.example", "output": {"page": 1}},
            WebExtractorCall("x", "completed", ("https://a.example",), "", '{"page":1}'),
            id="extractor in another shape",
        ),
        pytest.param(
            {
                "type": "code_interpreter_call",
                "id": "x",
                "code": "print(1)",
                "container_id": "",
                "outputs": [
                    {"type": "logs", "logs": "```\n1\n```"},
                    "2",
                    {"type": "logs", "logs": 3},
                    {"type": "image", "url": "https://p"},
                ],
            },
            CodeInterpreterCall(
                "x", "completed", "", "print(1)", (Logs("```\n1\n```"), Logs("2"), Logs("3"), PlotImage("https://p"))
            ),
            id="code",
        ),
        pytest.param(
            {"type": "code_interpreter_call", "id": "x", "outputs": "1"},
            CodeInterpreterCall("x", "completed", "", "", (Logs("1"),)),
            id="code with one output and no container",
        ),
        pytest.param(
            {
                "type": "web_search_image_call",
                "id": "x",
                "name": "web_search_image",
                "arguments": '{"queries": ["cat"]}',
                "output": "[]",
            },
            WebSearchImageCall("x", "completed", "web_search_image", '{"queries": ["cat"]}', "[]"),
            id="images",
        ),
        pytest.param(
            {
                "type": "image_search_call",
                "id": "x",
                "arguments": {"img_idx": 0},
                "output": [{"index": 1}],
                "status": "incomplete",
            },
            ImageSearchCall("x", "incomplete", "image_search", '{"img_idx":0}', '[{"index":1}]'),
            id="similar images, as JSON itself",
        ),
        pytest.param(
            {
                "type": "file_search_call",
                "id": "x",
                "queries": ["q"],
                "results": [{"score": 0.5, "filename": "f", "text": "t"}, {}],
            },
            FileSearchCall("x", "completed", ("q",), (FileResult("", "f", 0.5, "t"), FileResult("", "", 0.0, ""))),
            id="files without attributes",
        ),
        pytest.param(
            {
                "type": "mcp_call",
                "id": "x",
                "name": "weather",
                "server_label": "s",
                "arguments": {"a": 1},
                "output": {"b": 2},
            },
            McpCall("x", "completed", "weather", "s", '{"a":1}', '{"b":2}'),
            id="mcp",
        ),
        pytest.param(
            {"type": "mcp_call", "id": "x", "name": "weather", "server_label": "s", "error": "no"},
            McpCall("x", "failed", "weather", "s", "", error=McpExecutionError("no")),
            id="mcp that failed",
        ),
    ],
)
def test_an_item_is_read_whatever_its_shape(raw: Json, read: HostedItem) -> None:
    assert decode(event(DONE, raw), COMPLETED) == [NativeItem(read, done=True), STOPPED]


def a_search(query: Json) -> list[Delta]:
    """A turn in the vendor's order; the item begins with `query` in its action."""
    begun = {**SEARCHED, "status": "in_progress", "action": {"type": "search", **query}}
    done = {**SEARCHED, "action": {"type": "search", "query": "Web search", "queries": ["tower"], "sources": SOURCES}}
    return decode(
        event(ADDED, {"type": "reasoning", "id": "msg_r", "summary": []}),
        {"type": "response.reasoning_text.delta", "item_id": "msg_r", "delta": "Search."},
        event(DONE, {"type": "reasoning", "id": "msg_r", "summary": [{"type": "summary_text", "text": "Search."}]}),
        event(ADDED, begun),
        event("response.web_search_call.in_progress", item_id="msg_w"),
        event("response.web_search_call.searching", item_id="msg_w"),
        event("response.web_search_call.completed", item_id="msg_w"),
        event(DONE, done),
        text("Found."),
        COMPLETED,
    )


def test_a_search_as_the_vendor_streams_it() -> None:
    found = NativeItem(WebSearchCall("msg_w", "completed", SearchAction("tower", ("tower",), TWO)), done=True)
    begun = NativeItem(WebSearchCall("msg_w", "completed", SearchAction("tower", ("tower",))), done=False)

    assert a_search({"query": "Web search"}) == [Reasoning("Search."), found, Text("Found."), STOPPED]
    assert a_search({"query": "Web search", "queries": ["tower"]}) == [
        Reasoning("Search."),
        begun,
        found,
        Text("Found."),
        STOPPED,
    ]


QUERIED: Json = {**SEARCHED, "action": {"type": "search", "queries": ["q"]}}
A, B = {**QUERIED, "id": "a"}, {**QUERIED, "id": "b"}
F: Json = {"type": "function_call", "id": "f", "call_id": "call_f", "name": "get_weather", "arguments": ""}
WHOLE = {**F, "arguments": "{}"}
SUCCEEDED = event("response.web_search_call.completed", item_id="a")
ARGUED: Json = {"type": "response.function_call_arguments.delta", "item_id": "f", "delta": "{}"}
CALL = [("CallOpened", ""), ("CallArguments", "")]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        pytest.param(
            [event(ADDED, A), event(ADDED, B), event(DONE, A), event(DONE, B)],
            [("a", "added"), ("a", "completed"), ("b", "added"), ("b", "completed")],
            id="side by side",
        ),
        pytest.param(
            [event(ADDED, A), event(ADDED, B), event(DONE, B), event(DONE, A)],
            [("a", "added"), ("a", "completed"), ("b", "completed")],
            id="the second ends first",
        ),
        pytest.param([event(DONE, A), event(ADDED, A), event(DONE, A)], [("a", "completed")], id="told twice"),
        pytest.param([event(ADDED, A)], [("a", "added"), ("a", "incomplete")], id="never done"),
        pytest.param(
            [event(ADDED, A), SUCCEEDED], [("a", "added"), ("a", "completed")], id="never done, but it succeeded"
        ),
        pytest.param(
            [event(ADDED, A), SUCCEEDED, text("Hi"), event(DONE, A)],
            [("a", "added"), ("a", "completed"), ("Text", "")],
            id="done after the model has gone on",
        ),
        pytest.param(
            [event(ADDED, A), event(ADDED, F), ARGUED, event(DONE, WHOLE), event(DONE, A)],
            [("a", "added"), ("a", "completed"), *CALL],
            id="a function's call beside it",
        ),
        pytest.param(
            [event(ADDED, F), event(ADDED, A), ARGUED, event(DONE, A), event(DONE, WHOLE)],
            [*CALL, ("a", "completed")],
            id="inside of a function's call",
        ),
        pytest.param(
            [event(ADDED, A), event(ADDED, F), ARGUED],
            [("a", "added"), ("a", "incomplete"), *CALL],
            id="neither comes to its end",
        ),
        pytest.param(
            [event(ADDED, A), event(ADDED, F), ARGUED, text("Hi")],
            [("a", "added"), ("a", "incomplete"), *CALL, ("Text", "")],
            id="words after both",
        ),
        pytest.param(
            [
                event(ADDED, {"type": "web_extractor_call", "id": "x", "urls": []}),
                event(DONE, {"type": "web_extractor_call", "id": "x", "urls": ["https://a.example"], "goal": "g"}),
            ],
            [("x", "completed")],
            id="it begins without saying what it does",
        ),
        pytest.param(
            [
                {"type": "response.mcp_call_arguments.delta", "item_id": "m", "delta": "{}"},
                {"type": "response.mcp_call_arguments.done", "item_id": "m", "arguments": "{}"},
                event(ADDED, {"type": "mcp_call", "id": "m", "name": "n", "server_label": "s"}),
                event("response.mcp_call.completed", item_id="m"),
                event(
                    DONE,
                    {"type": "mcp_call", "id": "m", "name": "n", "server_label": "s", "arguments": "{}", "output": "1"},
                ),
            ],
            [("m", "added"), ("m", "completed")],
            id="arguments before the item",
        ),
        pytest.param(
            [
                event(ADDED, {"type": "code_interpreter_call"}),
                event(DONE, {"type": "code_interpreter_call", "status": "failed"}),
            ],
            [("item_0", "added"), ("item_0", "failed")],
            id="without an id",
        ),
        pytest.param(
            [event(ADDED, A), event(DONE, {"type": "web_extractor_call", "id": "a"})],
            [("a", "added"), ("a", "incomplete")],
            id="an end of another type",
        ),
    ],
)
def test_items_are_told_one_after_the_other(events: Sequence[Json], expected: Sequence[tuple[str, str]]) -> None:
    assert told(decode(*events, COMPLETED))[:-1] == list(expected)


def test_the_terminal_event_may_know_how_an_item_ended() -> None:
    output = [
        {"type": "message"},
        A | {"id": ["?"]},
        A | {"type": ["?"]},
        7,
        A | {"type": "video_call"},
        A | {"status": "failed"},
    ]
    listed = {"type": "response.completed", "response": {"status": "completed", "output": output}}

    assert told(decode(event(ADDED, A), listed))[:-1] == [("a", "added"), ("a", "failed")]


def test_what_an_item_showed_at_its_beginning_stays() -> None:
    begun = {"type": "image_search_call", "id": "x", "name": "image_search", "arguments": '{"img_idx": 0}'}
    deltas = decode(
        event(ADDED, begun), event(DONE, {**begun, "arguments": '{"img_idx":0}', "output": "[]"}), COMPLETED
    )

    assert [d.item for d in deltas if isinstance(d, NativeItem)] == [
        ImageSearchCall("x", "completed", "image_search", '{"img_idx": 0}'),
        ImageSearchCall("x", "completed", "image_search", '{"img_idx": 0}', "[]"),
    ]


def written(
    *messages: Message, prefix: bytes = b"", tools: Sequence[FunctionTool] = (), native: Sequence[Json] = ()
) -> Json:
    entries = [msgspec.Raw(json.dumps(entry).encode()) for entry in native]
    return json.loads(
        encode_call(ModelCall(model="m", prefix=prefix, messages=messages, tools=tools, native_tools=entries))
    )


def test_native_tools_stand_beside_functions_without_options() -> None:
    body = written(
        User("Hi"),
        tools=[FunctionTool("time")],
        native=[{"type": "web_search", "search_context_size": "low"}, {"type": "web_extractor"}],
    )

    assert [(tool["type"], tool.get("name")) for tool in body["tools"]] == [
        ("web_search", None),
        ("web_extractor", None),
        ("function", "time"),
    ]
    assert body["tools"][0] == {"type": "web_search"}


@pytest.mark.parametrize(
    "name", ["web_search", "file_search", "code_interpreter", "search", "local_web_search", "get_weather"]
)
def test_a_function_is_never_taken_for_the_vendors_own_tool(name: str) -> None:
    body = written(
        User("Hi"), Assistant("", calls=(Call("c", name, "{}"),)), ToolResult("c", "r"), tools=[FunctionTool(name)]
    )
    there = body["tools"][0]["name"]

    assert there not in {"web_search", "file_search", "code_interpreter", "search"}
    assert body["input"][1]["name"] == there
    back = decode(
        event(DONE, {"type": "function_call", "id": "f", "call_id": "c", "name": there, "arguments": "{}"}), COMPLETED
    )
    assert back == [CallOpened(0, "c", name), CallArguments(0, "{}"), CALLED]


def kinds(body: Json) -> list[str]:
    return [item.get("role") or f"{item['type']}:{item.get('name', '')}" for item in body["input"]]


EARLIER = (
    User("How high?"),
    Assistant("", calls=(Call("c1", "web_search", "{}"), Call("c2", "get_weather", "{}"))),
    ToolResult("c1", "https://a.example"),
    ToolResult("c2", "sunny"),
    Assistant("321 m."),
)


@pytest.mark.parametrize("encoded", [False, True])
def test_earlier_calls_of_a_tool_the_vendor_runs_now_are_left_out(encoded: bool) -> None:
    prefix, earlier = (encode_messages(EARLIER, reasoning=False), ()) if encoded else (b"", EARLIER)
    others = ["user", "function_call:get_weather", "function_call_output:", "assistant", "user"]

    native = written(*earlier, User("And wide?"), prefix=prefix, native=[{"type": "web_search"}])
    here = written(*earlier, User("And wide?"), prefix=prefix, tools=[FunctionTool("web_search")])

    assert kinds(native) == others
    assert kinds(here) == [others[0], "function_call:local_web_search", "function_call_output:", *others[1:]]
