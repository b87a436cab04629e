"""The calls of one model turn while their results are read. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import count

import msgspec

from app.protocol.messages import Call, ToolResult
from app.protocol.recovery.arguments import MALFORMED

MALFORMED_NOTE = f"The arguments of this call were not a JSON object; they stand under '{MALFORMED}'.\n"
"""Prefix of a call's result, for the model, if the call's arguments could not be sent upstream as they were."""

_MARK = f'{{"{MALFORMED}":'


def result_of(call: Call, text: str) -> ToolResult:
    """The result of a call as the model reads it; the call's arguments must already be `sendable`."""
    if call.arguments.startswith(_MARK) and not text.startswith(MALFORMED_NOTE):
        text = MALFORMED_NOTE + text
    return ToolResult(call.call_id, text)


class OpenCall(msgspec.Struct):
    """A call with its result, or waiting for it."""

    call: Call
    place: str
    """Its place in the request; "" if it is from the chain."""
    result: ToolResult | None = None


class OpenCalls(list[OpenCall]):
    """The calls in order. Ids need not be unique: a result belongs to the oldest waiting call with its id."""

    __slots__ = ("_later", "answered", "cut", "waiting")

    def __init__(self) -> None:
        super().__init__()
        self.waiting: dict[str, OpenCall] = {}
        """Calls without a result; for each id the oldest."""
        self._later: dict[str, list[OpenCall]] = {}
        """Later calls with the same id."""
        self.answered = False
        """At least one of them has its result."""
        self.cut = False
        """The model was cut off in this turn: calls without a result need not get one."""

    @property
    def unanswered(self) -> Sequence[OpenCall]:
        """The calls without a result, in order."""
        return [one for one in self if one.result is None]

    def add(self, call: Call, place: str) -> None:
        """Add a call of the model that has no result yet."""
        one = OpenCall(call, place)
        self.append(one)
        if call.call_id in self.waiting:
            self._later.setdefault(call.call_id, []).append(one)
        else:
            self.waiting[call.call_id] = one

    def add_answered(self, call: Call, text: str) -> None:
        """Add a call of the model with its result."""
        self.append(OpenCall(call, "", result_of(call, text)))
        self.answered = True

    def answer(self, call_id: str, text: str) -> bool:
        """Assign the result to its call; False if no call with that id waits."""
        one = self._next(call_id)
        if one is not None:
            one.result = result_of(one.call, text)
        return one is not None

    def resume(self, calls: Sequence[Call], results: Sequence[ToolResult]) -> None:
        """Continue a turn of the chain."""
        for call in calls:
            self.add(call, "")
        for result in results:
            one = self._next(result.call_id)
            if one is not None:
                one.result = result

    def _next(self, call_id: str) -> OpenCall | None:
        one = self.waiting.pop(call_id, None)
        if one is None:
            return None
        if self._later and self._later.get(call_id):
            self.waiting[call_id] = self._later[call_id].pop(0)
        self.answered = True
        return one

    def leave_out(self, *, but: Collection[str] = ()) -> Sequence[Call]:
        """Remove the waiting calls, except those with ids in `but`."""
        gone = [one.call for one in self if one.result is None and one.call.call_id not in but]
        self[:] = [one for one in self if one.result is not None or one.call.call_id in but]
        for call in gone:
            self.waiting.pop(call.call_id, None)
        self._later = {call_id: later for call_id, later in self._later.items() if call_id in but}
        return gone

    def rename_twins(self) -> Sequence[Call | ToolResult]:
        """Make the calls' ids unique, as upstreams require; returns what was renamed, as it was before."""
        ids = {one.call.call_id for one in self}
        if len(ids) == len(self):
            return ()
        seen: set[str] = set()
        before: list[Call | ToolResult] = []
        numbers = count(2)
        for one in self:
            call_id = one.call.call_id
            if call_id in seen:
                before += (one.call,) if one.result is None else (one.call, one.result)
                call_id = next(fresh for number in numbers if (fresh := f"{call_id}_{number}") not in ids)
                one.call = msgspec.structs.replace(one.call, call_id=call_id)
                one.result = one.result and msgspec.structs.replace(one.result, call_id=call_id)
            seen.add(call_id)
            ids.add(call_id)
        return before

    def reset(self) -> None:
        """Forget the calls: their turn is over."""
        self.clear()
        self.answered = self.cut = False
        if self.waiting or self._later:
            self.waiting.clear()
            self._later.clear()
