"""The state of a conversation between two requests. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from sys import getsizeof

import msgspec

from app.engine.conversation.items import MoreTools
from app.engine.conversation.known_calls import KnownCalls
from app.protocol.messages import Assistant, Call, ImagePart, Message, Part, ToolResult, User


class Context(msgspec.Struct, frozen=True):
    """The conversation so far, ready to be continued. `prefix` is encoded for one upstream dialect."""

    turns: frozenset[str] = frozenset()
    """Ids of its responses."""
    item_ids: frozenset[str] = frozenset()
    """Ids of its items, if they are those of a conversation."""
    system: tuple[str, ...] = ()
    prefix: bytes = b""
    tail: tuple[Message, ...] = ()
    """Messages not yet in `prefix`: since the last user message."""
    known: KnownCalls = KnownCalls()
    """Its calls and their results."""
    cut: bool = False
    """Open calls in `tail` belong to a response that was cut off."""
    awaited: Mapping[str, Call] = {}
    """Calls that wait for the client's approval, by the id of the approval request.

    With the arguments as the model wrote them.
    """
    images: tuple[ImagePart, ...] = ()
    """Images that tools may refer to, oldest first."""
    notes: Mapping[str, str] = {}
    """Each tool's latest note."""
    tools: tuple[MoreTools, ...] = ()
    """Tools that items of the conversation have added."""
    uploads: bool = False
    """It contains uploaded files, which their owner may delete."""
    expires_at: int = 0
    """When the tip expires, Unix seconds."""


def weight(message: Message) -> int:
    """Approximate memory in bytes: a single character beyond the BMP makes a text four times as large."""
    if type(message) is User:
        content = message.content
        return 200 + (getsizeof(content) if isinstance(content, str) else sum(map(part_weight, content)))
    if type(message) is Assistant:
        return (
            200
            + getsizeof(message.text)
            + getsizeof(message.reasoning)
            + sum(getsizeof(call.arguments) + 100 for call in message.calls)
        )
    return 200 + getsizeof(message.content)


def part_weight(part: Part) -> int:
    """Approximate memory of a part of a user message, in bytes."""
    return 50 + sum(map(getsizeof, msgspec.structs.astuple(part)))


def last_user(messages: Sequence[Message]) -> int:
    """Index of the last user message; 0 if there is none. The running tool loop follows it."""
    for i in range(len(messages) - 1, -1, -1):
        if type(messages[i]) is User:
            return i
    return 0


def unanswered(messages: Sequence[Message]) -> Sequence[Message]:
    """The model's last turn with its results so far, if any is missing: hosted calls get their results before the
    client's do.
    """
    start = len(messages) - 1
    while start >= 0 and isinstance(messages[start], ToolResult):
        start -= 1
    last = messages[start] if start >= 0 else None
    results = messages[start + 1 :]
    return messages[start:] if isinstance(last, Assistant) and len(last.calls) > len(results) else ()
