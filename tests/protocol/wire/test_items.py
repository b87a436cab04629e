"""Items as JSON: what typed clients demand is there, also when it is empty."""

from __future__ import annotations

import json

import msgspec
import pytest

from app.protocol.wire.items import (
    CustomToolCallItem,
    FunctionCallItem,
    MessageItem,
    OutputItem,
    OutputText,
    ReasoningItem,
    ReasoningText,
    RefusalPart,
    SummaryText,
)

SHAPES: list[tuple[OutputItem, dict[str, object]]] = [
    (
        MessageItem("msg_1", "completed", (OutputText("a"), RefusalPart("b"))),
        {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            "content": [
                {"type": "output_text", "text": "a", "annotations": [], "logprobs": []},
                {"type": "refusal", "refusal": "b"},
            ],
            "role": "assistant",
        },
    ),
    (ReasoningItem("rs_1", "in_progress"), {"type": "reasoning", "id": "rs_1", "status": "in_progress", "summary": []}),
    (
        ReasoningItem("rs_1", "completed", (SummaryText("a"),), (ReasoningText("b"),), "sealed"),
        {
            "type": "reasoning",
            "id": "rs_1",
            "status": "completed",
            "summary": [{"type": "summary_text", "text": "a"}],
            "content": [{"type": "reasoning_text", "text": "b"}],
            "encrypted_content": "sealed",
        },
    ),
    (
        FunctionCallItem("fc_1", "in_progress", "call_1", "f"),
        {
            "type": "function_call",
            "id": "fc_1",
            "status": "in_progress",
            "call_id": "call_1",
            "name": "f",
            "arguments": "",
        },
    ),
    (
        FunctionCallItem("fc_1", "completed", "call_1", "f", "{}", "ns"),
        {
            "type": "function_call",
            "id": "fc_1",
            "status": "completed",
            "call_id": "call_1",
            "name": "f",
            "arguments": "{}",
            "namespace": "ns",
        },
    ),
    (
        CustomToolCallItem("ctc_1", "completed", "call_1", "f", "x"),
        {
            "type": "custom_tool_call",
            "id": "ctc_1",
            "status": "completed",
            "call_id": "call_1",
            "name": "f",
            "input": "x",
        },
    ),
]


@pytest.mark.parametrize(("item", "shape"), SHAPES, ids=lambda value: type(value).__name__)
def test_the_shape_of_an_item(item: OutputItem, shape: dict[str, object]) -> None:
    data = msgspec.json.encode(item)
    assert json.loads(data) == shape
    assert msgspec.json.decode(data, type=OutputItem) == item
