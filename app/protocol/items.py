"""Output items and their parts, as the Responses API shows them (openai SDK types `ResponseOutputItem`, Open Responses `ItemField`).

Required-but-empty fields carry their zero value (`annotations: []`), since typed clients fail on null or absence.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from app.protocol.deltas import TokenLogprob

ItemStatus = Literal["in_progress", "completed", "incomplete"]


class OutputText(msgspec.Struct, frozen=True, tag="output_text"):
    """Text of an answer."""

    text: str
    annotations: tuple[dict[str, Any], ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


class RefusalPart(msgspec.Struct, frozen=True, tag="refusal"):
    """The model declines."""

    refusal: str


class SummaryText(msgspec.Struct, frozen=True, tag="summary_text"):
    """Thinking, in the form every client shows."""

    text: str


class ReasoningText(msgspec.Struct, frozen=True, tag="reasoning_text"):
    """Thinking, in the raw form."""

    text: str


ContentPart = OutputText | RefusalPart | ReasoningText


class MessageItem(msgspec.Struct, frozen=True, tag="message"):
    """What the assistant says."""

    id: str
    status: ItemStatus
    content: tuple[OutputText | RefusalPart, ...] = ()
    role: Literal["assistant"] = "assistant"


class ReasoningItem(msgspec.Struct, frozen=True, tag="reasoning"):
    """What the model thought."""

    id: str
    status: ItemStatus
    summary: tuple[SummaryText, ...] = ()
    content: tuple[ReasoningText, ...] | msgspec.UnsetType = msgspec.UNSET
    encrypted_content: str | msgspec.UnsetType = msgspec.UNSET


class FunctionCallItem(msgspec.Struct, frozen=True, tag="function_call"):
    """The model calls one of the client's functions."""

    id: str
    status: ItemStatus
    call_id: str
    name: str
    arguments: str = ""
    namespace: str | msgspec.UnsetType = msgspec.UNSET


class CustomToolCallItem(msgspec.Struct, frozen=True, tag="custom_tool_call"):
    """The model calls one of the client's free-form tools."""

    id: str
    status: ItemStatus
    call_id: str
    name: str
    input: str = ""
    namespace: str | msgspec.UnsetType = msgspec.UNSET


OutputItem = MessageItem | ReasoningItem | FunctionCallItem | CustomToolCallItem
