"""A conversation as it stands between two requests. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from sys import getsizeof

import msgspec

from app.engine.conversation.items import MoreTools
from app.engine.conversation.known_calls import KnownCalls
from app.protocol.messages import Assistant, Call, ImagePart, Message, Part, ToolResult, User


class Context(msgspec.Struct, frozen=True):
    """Everything said so far, ready to be continued. `prefix` is encoded for one upstream dialect."""

    turns: frozenset[str] = frozenset()
    """Ids of the responses in it."""
    system: tuple[str, ...] = ()
    prefix: bytes = b""
    tail: tuple[Message, ...] = ()
    """Messages not in `prefix` yet: since the last thing the user said."""
    known: KnownCalls = KnownCalls()
    """The calls in it, and their results."""
    cut: bool = False
    """Calls that are open in `tail` are of a response that was cut."""
    awaited: Mapping[str, Call] = {}
    """Calls that wait for the client's consent, by the id of the request's item; with the arguments that the model wrote."""
    images: tuple[ImagePart, ...] = ()
    """What tools may be pointed to, oldest first."""
    notes: Mapping[str, str] = {}
    """What tools noted last."""
    tools: tuple[MoreTools, ...] = ()
    """What items of the conversation have added to the tools."""
    uploads: bool = False
    """Uploaded files are in it, whose owner may delete them."""
    expires_at: int = 0
    """When the tip expires, Unix seconds."""


def weight(message: Message) -> int:
    """About how many bytes of memory it takes: one rare character makes a text four times as large."""
    if type(message) is User:
        content = message.content
        return 200 + (getsizeof(content) if isinstance(content, str) else sum(map(part_weight, content)))
    if type(message) is Assistant:
        return 200 + getsizeof(message.text) + getsizeof(message.reasoning) + sum(getsizeof(call.arguments) + 100 for call in message.calls)
    return 200 + getsizeof(message.content)


def part_weight(part: Part) -> int:
    """As `weight`, of a part of what the user says."""
    return 50 + sum(map(getsizeof, msgspec.structs.astuple(part)))


def last_user(messages: Sequence[Message]) -> int:
    """Index of the last user message; 0 when there is none. What follows it is the running tool loop."""
    for i in range(len(messages) - 1, -1, -1):
        if type(messages[i]) is User:
            return i
    return 0


def unanswered(messages: Sequence[Message]) -> Sequence[Message]:
    """The model's last turn with the results it has so far, when one is missing: hosted calls are answered before the client's are."""
    start = len(messages) - 1
    while start >= 0 and isinstance(messages[start], ToolResult):
        start -= 1
    last = messages[start] if start >= 0 else None
    results = messages[start + 1 :]
    return messages[start:] if isinstance(last, Assistant) and len(last.calls) > len(results) else ()
