"""The calls, results and thoughts in a conversation, to distinguish what a client sends again from what is new.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from sys import getsizeof

from app.engine.conversation.open_calls import MALFORMED_NOTE
from app.protocol.messages import Assistant, Call, Message, ToolResult

_HASH_BYTES = 32


class KnownCalls:
    """The calls of a chain, as hashes.

    Immutable, and cheap to extend: layers of similar size are merged, so there are few.
    """

    __slots__ = ("_layers",)

    def __init__(self, layers: tuple[frozenset[int], ...] = ()) -> None:
        self._layers = layers

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._layers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KnownCalls) and self._all() == other._all()

    def __hash__(self) -> int:
        return hash(self._all())

    def has_id(self, call_id: str) -> bool:
        """Whether it contains a call with this id."""
        return self._has(hash(call_id))

    def has(self, one: Call | ToolResult) -> bool:
        """Whether it contains exactly this call (same id, name and arguments) or this result (same id and text)."""
        return self._has(_hash(one))

    def extended(self, messages: Sequence[Message], more: Iterable[Call | ToolResult]) -> KnownCalls:
        """With the calls and results in the messages, and `more`."""
        added: set[int] = set()
        for one in (*more, *_calls_and_results(messages)):
            added |= {hash(one.call_id), _hash(one)}
        if not added:
            return self
        layers = list(self._layers)
        while layers and len(layers[-1]) <= 2 * len(added):
            added |= layers.pop()
        return KnownCalls((*layers, frozenset(added)))

    @property
    def weight(self) -> int:
        """Approximate memory in bytes."""
        return sum(getsizeof(layer) + _HASH_BYTES * len(layer) for layer in self._layers)

    def _all(self) -> frozenset[int]:
        return frozenset(value for layer in self._layers for value in layer)

    def _has(self, value: int) -> bool:
        return any(value in layer for layer in self._layers)


class Repeats:
    """Detects what a client sends again of the chain that it continues.

    Anything the chain contains is left out as often as it is sent.
    """

    __slots__ = ("_given", "_known", "_looked_for", "_open", "_repeated")

    def __init__(self, known: KnownCalls, waiting: Sequence[Call]) -> None:
        self._known = known
        self._open = list(waiting)
        """Open calls at the chain's end that were not sent again."""
        self._repeated: dict[str, list[Call]] = {}
        """Answered calls that were sent again, by id."""
        self._given: list[tuple[str, str]] = []
        """Results that were not in the chain; hashed only when one is looked up."""
        self._looked_for: set[tuple[str, str]] = set()

    def take_call(self, call: Call) -> bool:
        """Whether the chain contains the call."""
        if call in self._open:
            self._open.remove(call)
            return True
        if not self._known.has(call):
            return False
        self._repeated.setdefault(call.call_id, []).append(call)
        return True

    def take_result(self, call_id: str, text: str, *, waits: bool) -> bool:
        """Whether the chain, including this request so far, contains the result. `waits`: an open call has this id."""
        repeated = self._repeated.get(call_id)
        if (repeated or not waits) and self._known.has(ToolResult(call_id, text)):
            if repeated:
                repeated.pop(0)
            return True
        if waits or repeated:
            self._given.append((call_id, text))
            return False
        self._looked_for.update(self._given)
        self._given.clear()
        return (call_id, text) in self._looked_for

    def reopened(self, call_id: str) -> Call | None:
        """A call that was sent again with a result that the chain does not contain: it was made again."""
        repeated = self._repeated.get(call_id)
        return repeated.pop(0) if repeated else None


class CallIds:
    """The ids of all calls of a conversation. Those outside the chain are collected on first use."""

    __slots__ = ("_ids", "_known", "_left_out", "_messages")

    def __init__(self, known: KnownCalls, messages: Sequence[Message], left_out: Sequence[Call | ToolResult]) -> None:
        self._known = known
        self._messages = messages
        self._left_out = left_out
        self._ids: frozenset[str] | None = None

    def __contains__(self, call_id: object) -> bool:
        if self._ids is None:
            self._ids = frozenset(one.call_id for one in (*self._left_out, *_calls_and_results(self._messages)))
        return call_id in self._ids or (isinstance(call_id, str) and self._known.has_id(call_id))


def _calls_and_results(messages: Sequence[Message]) -> Iterable[Call | ToolResult]:
    for message in messages:
        if type(message) is Assistant:
            yield from message.calls
        elif type(message) is ToolResult:
            yield message


def _hash(one: Call | ToolResult) -> int:
    match one:
        case Call():
            return hash((one.call_id, one.name, one.arguments))
        case ToolResult():
            return hash((one.call_id, one.content.removeprefix(MALFORMED_NOTE)))
