"""Checks a stream of the gateway against everything its clients rely on.

Three checks, each independent of the code that wrote the stream: the grammar (`app.protocol.stream.lifecycle`), the
official SDK's types in pydantic's strict mode, and the consistency of pieces, whole texts, items and the final
response.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import msgspec
from openai import BaseModel
from openai.types.responses import ResponseStreamEvent

from app.protocol.recovery.client_tools import CALLS
from app.protocol.stream.lifecycle import Lifecycle
from app.protocol.stream.phases import SPECS
from app.protocol.wire import ids
from app.protocol.wire.events import Event
from app.protocol.wire.response import Response, decode

Json = dict[str, Any]

_NOT_NULL = frozenset(
    {
        "id",
        "object",
        "created_at",
        "status",
        "model",
        "output",
        "tools",
        "tool_choice",
        "truncation",
        "parallel_tool_calls",
        "text",
        "top_p",
    }
    | {
        "presence_penalty",
        "frequency_penalty",
        "top_logprobs",
        "temperature",
        "store",
        "background",
        "service_tier",
        "metadata",
    }
)
_NULLABLE = frozenset(
    {"completed_at", "incomplete_details", "previous_response_id", "instructions", "error", "reasoning", "usage"}
    | {"max_output_tokens", "max_tool_calls", "safety_identifier", "prompt_cache_key"}
)
REQUIRED = _NOT_NULL | _NULLABLE
"""The 31 fields that Open Responses requires of every response object."""

_OUTCOME = frozenset({"status", "completed_at", "error", "incomplete_details", "output", "usage", "tool_usage"})
"""The fields that may differ between the first and the last snapshot."""

_ENDS: Mapping[str, frozenset[str]] = {
    "response.completed": frozenset({"completed"}),
    "response.failed": frozenset({"failed"}),
    "response.incomplete": frozenset({"incomplete", "cancelled"}),
}
_WHOLE = {
    "response.output_text": "text",
    "response.refusal": "refusal",
    "response.reasoning_text": "text",
    "response.reasoning_summary_text": "text",
    "response.function_call_arguments": "arguments",
    "response.custom_tool_call_input": "input",
    "response.code_interpreter_call_code": "code",
    "response.mcp_call_arguments": "arguments",
}
"""Family of events -> the field that contains the whole text in its `done` event."""

_SDK: Mapping[str, type[BaseModel]] = {
    get_args(kind.model_fields["type"].annotation)[0]: kind for kind in get_args(get_args(ResponseStreamEvent)[0])
}
_event = msgspec.json.Decoder(Event)
SPECS_BY_TYPE = {str(item.__struct_config__.tag): spec for item, spec in SPECS.items()}

VENDOR_TOOLS = frozenset({"web_extractor", "web_search_image", "image_search"})
"""The vendor's tools and items (`…_call`) for which the SDK has no types; tools of no public API begin with `x_`."""
_UNKNOWN = frozenset({f"{tool}_call" for tool in VENDOR_TOOLS} | {"x_tool_call"})
_RESULTS = frozenset({"action", "output", "outputs", "results", "code", "error", "tools"})
"""The fields that a hosted item may have only at its end."""


class Judged(msgspec.Struct, frozen=True):
    """A stream that passed all checks."""

    events: tuple[Json, ...]
    response: Response
    """From the terminal event."""
    comments: int
    """Heartbeats."""
    marked: bool
    """It ended with `[DONE]`."""

    @property
    def types(self) -> Sequence[str]:
        """The types of the events, in order."""
        return [event["type"] for event in self.events]

    @property
    def text(self) -> str:
        """The concatenated deltas of the answer."""
        return "".join(event["delta"] for event in self.events if event["type"] == "response.output_text.delta")


def judge(stream: bytes) -> Judged:
    """The whole body of a streamed answer, from `response.created` to the end.

    Raises AssertionError (or the SDK's ValidationError).
    """
    assert stream.endswith(b"\n\n"), "the last frame is cut"
    events: list[Json] = []
    comments, marked = 0, False
    grammar = Lifecycle()
    for frame in stream[:-2].split(b"\n\n"):
        assert not marked, "[DONE] is the last frame"
        if frame.startswith(b":"):
            comments += 1
        elif frame == b"data: [DONE]":
            marked = True
        else:
            name, data = _lines(frame)
            event = json.loads(data)
            assert event["type"] == name, "the `event:` line and `type` differ"
            _SDK[name].model_validate(_known_to_the_sdk(event), strict=True)
            grammar.advance(_event.decode(data))
            events.append(event)
    assert grammar.state == "end", f"the stream breaks off in state {grammar.state!r}"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    _check_snapshots(events)
    items = _check_items(events)
    final = events[-1]["response"]
    assert final["output"] == items, "the final output differs from the items that were done"
    return Judged(tuple(events), decode(msgspec.json.encode(final)), comments, marked)


def _known_to_the_sdk(event: Json) -> Json:
    """The event without the vendor's own parts, for which the SDK has no types."""
    if event.get("item", {}).get("type") in _UNKNOWN:
        return {
            **event,
            "item": {
                "type": "message",
                "id": event["item"]["id"],
                "role": "assistant",
                "status": "completed",
                "content": [],
            },
        }
    if "response" not in event:
        return event
    response: Json = dict(event["response"])
    response["output"] = [item for item in response["output"] if item["type"] not in _UNKNOWN]
    response["tools"] = [tool for tool in response["tools"] if not _ours(tool["type"])]
    choice: Any = response["tool_choice"]
    if not isinstance(choice, str) and (_ours(choice["type"]) or choice["type"] == "web_search"):
        # the SDK knows only its preview
        response["tool_choice"] = "auto"
    return {**event, "response": response}


def _ours(tool_type: str) -> bool:
    return tool_type in VENDOR_TOOLS or tool_type.startswith("x_")


def judge_response(response: Json) -> None:
    """A response object in any state, from a plain answer, a lookup or an event."""
    assert response.keys() >= REQUIRED, f"missing: {REQUIRED - response.keys()}"
    nulls = {name for name in REQUIRED if response[name] is None}
    assert nulls <= _NULLABLE, f"null: {nulls - _NULLABLE}"
    assert response["object"] == "response"
    response_id = ids.normalize_response_id(response["id"])
    assert response_id, "the id is not a UUID"
    assert (response["completed_at"] is not None) == (response["status"] == "completed")
    assert (response["error"] is not None) == (response["status"] == "failed")
    assert (response["incomplete_details"] is not None) == (response["status"] == "incomplete")
    for position, item in enumerate(response["output"]):
        _judge_item(item)
        assert ids.locate(item["id"]) == ids.ItemLocation(response_id, output=True, position=position), (
            "an item's id contains its location"
        )
    call_ids = [item["call_id"] for item in response["output"] if "call_id" in item]
    assert len(set(call_ids)) == len(call_ids), "a call id occurs twice"


def _lines(frame: bytes) -> tuple[str, bytes]:
    lines = frame.split(b"\n")
    assert len(lines) == 2, f"not one `event:` and one `data:` line: {frame!r}"
    assert lines[0].startswith(b"event: ")
    assert lines[1].startswith(b"data: ")
    return lines[0][7:].decode(), lines[1][6:]


def _judge_item(item: Json) -> None:
    assert item["id"].startswith(f"{ids.item_prefix(item['type'])}_")
    hosted = SPECS_BY_TYPE.get(item["type"])
    if hosted is not None:
        assert item.get("status", "completed") in ("completed", "incomplete", "failed")
        if item["type"].startswith("mcp_"):
            assert None not in [
                *item.values(),
                *(value for tool in item.get("tools", ()) for value in tool.values()),
            ], "the AI SDK refuses null"
        return
    client = CALLS.get(item["type"])
    if client is not None:
        assert item["status"] in ("completed", client.cut)
        assert item["call_id"]
        assert isinstance(item[client.field], dict)
        return
    assert item["status"] in ("completed", "incomplete")
    match item["type"]:
        case "message":
            assert item["role"] == "assistant"
            assert item["content"], "a message has content"
            for part in item["content"]:
                for annotation in part.get("annotations", []):
                    assert (
                        0
                        <= annotation.get("start_index", 0)
                        <= annotation.get("end_index", len(part["text"]))
                        <= len(part["text"])
                    )
        case "reasoning":
            assert isinstance(item["summary"], list)
        case "function_call":
            assert item["call_id"]
            assert item["status"] == "incomplete" or json.loads(item["arguments"]) is not None
        case "custom_tool_call":
            assert item["call_id"]
            assert isinstance(item["input"], str)
        case other:
            raise AssertionError(f"an item of an unknown type: {other}")


def _check_snapshots(events: Sequence[Json]) -> None:
    created, *others, last = events
    if created["response"]["background"]:
        queued, *others = others
        assert queued["type"] == "response.queued"
        assert created["response"] == queued["response"] == {**others[0]["response"], "status": "queued"}
        judge_response(created["response"])
    else:
        assert created["response"] == others[0]["response"]
    started, *others = others
    assert not any("response" in event for event in others)
    begun, ended = started["response"], last["response"]
    assert (begun["status"], begun["output"], begun["usage"]) == ("in_progress", [], None)
    judge_response(begun)
    judge_response(ended)
    assert ended["status"] in _ENDS[last["type"]]
    differing = {name for name in begun.keys() | ended.keys() if begun.get(name) != ended.get(name)}
    assert differing <= _OUTCOME, f"the response changed during the stream: {differing - _OUTCOME}"
    errors = [event for event in others if event["type"] == "error"]
    assert len(errors) == (ended["status"] == "failed")
    for error in errors:
        assert ended["error"] == {"code": error["code"], "message": error["message"]}
        assert {name: error["error"][name] for name in ("code", "message", "param")} == {
            n: error[n] for n in ("code", "message", "param")
        }


def _check_items(events: Sequence[Json]) -> Sequence[Json]:
    """The items from `output_item.done`, each checked against the events before it."""
    done: list[Json] = []
    inside: list[Json] = []
    for event in events:
        if event["type"] == "response.output_item.added":
            inside = [event]
        elif event["type"] == "response.output_item.done":
            _check_item(inside[0]["item"], event["item"], inside[1:])
            done.append(event["item"])
        elif "output_index" in event:
            inside.append(event)
    return done


def _check_hosted(added: Json, done: Json, inside: Sequence[Json]) -> None:
    changing = _RESULTS | {"status"} | ({"arguments"} if done["type"] == "mcp_call" else set[str]())
    assert {k: v for k, v in added.items() if k not in changing} == {k: v for k, v in done.items() if k not in changing}
    assert added.get("status", "in_progress") == "in_progress"
    assert not any(added.get(name) for name in ("output", "outputs", "results", "code", "error", "tools"))
    streamed = [event for event in inside if event["type"].rpartition(".")[0] in _WHOLE]
    if streamed:
        assert _whole(streamed)[0] == (done["code"] if "code" in done else done["arguments"])


def _check_client_call(added: Json, done: Json, inside: Sequence[Json]) -> None:
    field = CALLS[done["type"]].field
    changing = {"status", field}
    assert {k: v for k, v in added.items() if k not in changing} == {k: v for k, v in done.items() if k not in changing}
    assert added["status"] == "in_progress"
    commands = [event["command"] for event in inside if event["type"] == "response.shell_call_command.done"]
    assert commands == (done[field]["commands"] if done["type"] == "shell_call" else [])
    assert [event["delta"] for event in inside if event["type"] == "response.shell_call_command.delta"] == commands
    assert [event["command_index"] for event in inside] == [number for number in range(len(commands)) for _ in range(3)]


def _check_item(added: Json, done: Json, inside: Sequence[Json]) -> None:
    if done["type"] in SPECS_BY_TYPE:
        _check_hosted(added, done, inside)
        return
    if done["type"] in CALLS:
        _check_client_call(added, done, inside)
        return
    changing = {"status", "content", "summary", "arguments", "input", "encrypted_content"}
    assert {k: v for k, v in added.items() if k not in changing} == {k: v for k, v in done.items() if k not in changing}
    assert added["status"] == "in_progress"
    assert not any(added.get(name) for name in ("content", "summary", "arguments", "input"))
    if "call_id" in done:
        field = "arguments" if done["type"] == "function_call" else "input"
        assert _whole(inside)[0] == done[field]
        return
    parts = [*done.get("summary", []), *done.get("content", [])]
    sections = _sections(inside)
    assert len(sections) == len(parts), "parts and the item's content differ"
    for index, (section, part) in enumerate(zip(sections, parts, strict=True)):
        opening, *middle, closing = section
        assert {event.get("content_index", event.get("summary_index")) for event in section} == {index}
        assert opening["part"]["type"] == closing["part"]["type"]
        assert closing["part"] == part
        text, logprobs = _whole(middle)
        assert text == part.get("text", part.get("refusal"))
        assert logprobs == part.get("logprobs", [])


def _sections(inside: Sequence[Json]) -> Sequence[Sequence[Json]]:
    """Events of an item, split where a part begins."""
    starts = [i for i, event in enumerate(inside) if event["type"].endswith("part.added")]
    return [inside[start:end] for start, end in zip(starts, [*starts[1:], len(inside)], strict=True)]


def _whole(events: Sequence[Json]) -> tuple[str, list[Json]]:
    """The text and log probabilities of one run of deltas, which must add up to the text in `done`."""
    *said, done = events
    deltas = [event for event in said if event["type"] != "response.output_text.annotation.added"]
    family = done["type"].removesuffix(".done")
    assert all(event["type"] == f"{family}.delta" for event in deltas), "a delta of another kind"
    assert all(event["delta"] or event.get("logprobs") for event in deltas), "an empty delta"
    whole: str = done[_WHOLE[family]]
    assert "".join(event["delta"] for event in deltas) == whole, "the deltas do not add up"
    logprobs: list[Json] = [entry for event in deltas for entry in event.get("logprobs", [])]
    assert logprobs == done.get("logprobs", [])
    return whole, logprobs
