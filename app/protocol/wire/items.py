"""Output items and their parts, as the Responses API shows them (openai SDK types `ResponseOutputItem`, Open Responses
`ItemField`).

Required-but-empty fields carry their zero value (`annotations: []`), since typed clients fail if they are null or
absent.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from app.protocol.wire.client_items import ClientItem, ItemStatus
from app.protocol.wire.hosted import HostedItem
from app.protocol.wire.tokens import TokenLogprob


class UrlCitation(msgspec.Struct, frozen=True, tag="url_citation"):
    """A page cited by a part of the text; indexes count code points, the end is exclusive."""

    url: str
    title: str
    start_index: int
    end_index: int


class FileCitation(msgspec.Struct, frozen=True, tag="file_citation"):
    """An uploaded file cited by the text before `index`."""

    file_id: str
    filename: str
    index: int


class ContainerFileCitation(msgspec.Struct, frozen=True, tag="container_file_citation"):
    """A file created by code, where the text mentions it."""

    container_id: str
    file_id: str
    filename: str
    start_index: int
    end_index: int


Annotation = UrlCitation | FileCitation | ContainerFileCitation


class OutputText(msgspec.Struct, frozen=True, tag="output_text"):
    """Text of an answer."""

    text: str
    annotations: tuple[Annotation, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


class RefusalPart(msgspec.Struct, frozen=True, tag="refusal"):
    """The model's refusal."""

    refusal: str


class SummaryText(msgspec.Struct, frozen=True, tag="summary_text"):
    """Thinking, in the form every client shows."""

    text: str


class ReasoningText(msgspec.Struct, frozen=True, tag="reasoning_text"):
    """Thinking, in the raw form."""

    text: str


ContentPart = OutputText | RefusalPart | ReasoningText


class MessageItem(msgspec.Struct, frozen=True, tag="message"):
    """The assistant's message."""

    id: str
    status: ItemStatus
    content: tuple[OutputText | RefusalPart, ...] = ()
    role: Literal["assistant"] = "assistant"


class ReasoningItem(msgspec.Struct, frozen=True, tag="reasoning"):
    """The model's thinking."""

    id: str
    status: ItemStatus
    summary: tuple[SummaryText, ...] = ()
    content: tuple[ReasoningText, ...] | msgspec.UnsetType = msgspec.UNSET
    encrypted_content: str | msgspec.UnsetType = msgspec.UNSET


class FunctionCallItem(msgspec.Struct, frozen=True, tag="function_call"):
    """A call of one of the client's functions."""

    id: str
    status: ItemStatus
    call_id: str
    name: str
    arguments: str = ""
    namespace: str | msgspec.UnsetType = msgspec.UNSET


class CustomToolCallItem(msgspec.Struct, frozen=True, tag="custom_tool_call"):
    """A call of one of the client's free-form tools."""

    id: str
    status: ItemStatus
    call_id: str
    name: str
    input: str = ""
    namespace: str | msgspec.UnsetType = msgspec.UNSET


ClientCall = FunctionCallItem | CustomToolCallItem | ClientItem
"""A call that the client answers."""
OutputItem = MessageItem | ReasoningItem | ClientCall | HostedItem
