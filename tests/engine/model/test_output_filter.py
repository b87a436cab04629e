"""Whatever a model says, and however it comes in pieces: a stream ends like the plain answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.request.structured import Validator
from app.engine.upstreams.failures import ModelFailure
from app.protocol.deltas import CallArguments, CallOpened, Delta, FinishReason, Reasoning, Refusal, Text, TurnFinished
from app.protocol.recovery.arguments import InvalidArguments
from app.protocol.wire.items import (
    CustomToolCallItem,
    FunctionCallItem,
    MessageItem,
    OutputItem,
    OutputText,
    ReasoningItem,
    RefusalPart,
)
from app.providers.base import Capabilities
from tests.engine.model.test_turn import Played
from tests.engine.scripted import Turn

SAYINGS = st.one_of(
    st.sampled_from(["hm", '{"a": 1}']).map(Reasoning),
    st.sampled_from(["Look: ", '{"a": ', "1}", "```json\n", "\n```", "</think>", " "]).map(Text),
    st.just(Refusal("No.")),
    st.sampled_from(["f", "ns.s", "F", "g", "h", "functions.h"]),
)
"""A word stands for a call: of `f` or `ns__s`, of `g`, which may be withheld, or of a function that there is not."""
REQUESTS: list[dict[str, Any]] = [
    {},
    {"text": {"format": {"type": "json_object"}}},
    {"tool_choice": "required"},
    {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]}},
    {"parallel_tool_calls": False},
]
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "name": "f"},
    {"type": "function", "name": "g"},
    {"type": "namespace", "name": "ns", "tools": [{"type": "function", "name": "s"}]},
]


def turn_of(sayings: Sequence[Delta | str], finish: FinishReason, cuts: Sequence[bool]) -> Turn:
    """The sayings as deltas, with a new batch at every cut."""
    deltas: list[Delta] = []
    for number, one in enumerate(sayings):
        deltas += [CallOpened(number, "", one), CallArguments(number, "{}")] if isinstance(one, str) else [one]
    batches: list[list[Delta]] = [[]]
    for delta, cut in zip(deltas, [*cuts, *[False] * len(deltas)], strict=False):
        batches[-1].append(delta)
        if cut:
            batches.append([])
    return [*batches, [TurnFinished(finish)]]


def outline(output: Sequence[OutputItem]) -> list[tuple[str, str]]:
    """What a client would read of each item."""
    return [_read(item) for item in output]


def _read(item: OutputItem) -> tuple[str, str]:
    match item:
        case MessageItem():
            words = [
                part.text if isinstance(part, OutputText) else part.refusal for part in item.content if _worded(part)
            ]
            return "message", "|".join(words)
        case FunctionCallItem() | CustomToolCallItem():
            return "call", f"{item.namespace} {item.name}"
        case ReasoningItem():
            return "reasoning", item.summary[0].text
        case _:
            return type(item).__name__, ""


def _worded(part: object) -> bool:
    return isinstance(part, OutputText | RefusalPart)


async def ending(turn: Turn, request: dict[str, Any], *, stream: bool) -> list[tuple[str, str]] | str:
    """How the response ends when the model says the same each time it is asked."""
    played = Played(turn, turn, can=Capabilities(reasoning_field=True))
    try:
        return outline(await played.play(stream=stream, tools=TOOLS, **request))
    except (ModelFailure, InvalidArguments) as error:
        return str(error)


@settings(max_examples=300, deadline=None)
@given(
    sayings=st.lists(SAYINGS, max_size=6),
    finish=st.sampled_from(["stop", "stop", "tool_calls", "length"]),
    cuts=st.lists(st.booleans(), max_size=12),
    request_fields=st.sampled_from(REQUESTS),
)
def test_a_stream_ends_like_the_plain_answer(
    sayings: list[Delta | str], finish: FinishReason, cuts: list[bool], request_fields: dict[str, Any]
) -> None:
    async def endings() -> list[object]:
        whole, cut = turn_of(sayings, finish, ()), turn_of(sayings, finish, cuts)
        return [await ending(turn, request_fields, stream=stream) for turn in (whole, cut) for stream in (False, True)]

    plain, *others = asyncio.run(endings())
    assert others == [plain] * 3


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("request_fields", REQUESTS)
async def test_no_function_that_was_not_offered_is_ever_shown(request_fields: dict[str, Any], stream: bool) -> None:
    shown = await ending(turn_of(["h"], "tool_calls", ()), request_fields, stream=stream)
    assert shown == "The model called the function 'h', which was not offered to it."


@pytest.mark.parametrize(("text", "checked"), [('{"b": 1}', 1), ('{"b": 1}\n', 1), ('Look: {"b": 1}', 2)])
async def test_an_answer_is_checked_once_however_often_it_is_found(
    monkeypatch: pytest.MonkeyPatch, text: str, checked: int
) -> None:
    read: list[str] = []

    def violation(_: Validator, value: str, _schema: bytes | None) -> str:
        read.append(value)
        return "it is wrong"

    monkeypatch.setattr(Validator, "violation", violation)
    turn = turn_of([Text(text)], "stop", ())
    await ending(turn, {"text": {"format": {"type": "json_object"}}}, stream=False)
    assert len(read) == 2 * checked  # the model is asked twice
