"""The calls of one turn of the model while their results come in. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import count

import msgspec

from app.protocol.arguments import MALFORMED
from app.protocol.messages import Call, ToolResult

MALFORMED_NOTE = f"The arguments of this call were not a JSON object; they stand under '{MALFORMED}'.\n"
"""What a model reads before the result of a call whose arguments could not be sent up as they were."""

_MARK = f'{{"{MALFORMED}":'


def result_of(call: Call, text: str) -> ToolResult:
    """The result of a call as the model reads it; the call's arguments are `sendable` already."""
    return ToolResult(call.call_id, MALFORMED_NOTE + text if call.arguments.startswith(_MARK) else text)


class OpenCall(msgspec.Struct):
    """A call that has its result, or waits for it."""

    call: Call
    place: str
    """Where it stands in the request; "" for one of the chain."""
    result: ToolResult | None = None


class OpenCalls:
    """The calls in their order. Ids need not be unique: a result belongs to the oldest call of its id that waits."""

    __slots__ = ("_all", "_waiting", "answered", "cut")

    def __init__(self) -> None:
        self._all: list[OpenCall] = []
        self._waiting: dict[str, list[OpenCall]] = {}
        self.answered = False
        """One of them has its result."""
        self.cut = False
        """The model was cut off in this turn: what has no result need not get one."""

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._all)

    @property
    def complete(self) -> bool:
        """None waits."""
        return not self._waiting

    @property
    def unanswered(self) -> Sequence[OpenCall]:
        """Those that wait."""
        return [one for one in self._all if one.result is None]

    def add(self, call: Call, place: str = "", result: ToolResult | None = None) -> None:
        """The model calls; with `result` it is known what came of it."""
        one = OpenCall(call, place, result)
        self._all.append(one)
        if result is not None:
            self.answered = True
        elif call.call_id in self._waiting:
            self._waiting[call.call_id].append(one)
        else:
            self._waiting[call.call_id] = [one]

    def resume(self, calls: Sequence[Call], results: Sequence[ToolResult]) -> None:
        """Go on with a turn that was taken from here once."""
        for call in calls:
            self.add(call)
        for result in results:
            one = self._next(result.call_id)
            if one is not None:
                one.result = result

    def waits(self, call_id: str) -> bool:
        """A call of this id has no result yet."""
        return call_id in self._waiting

    def answer(self, call_id: str, text: str) -> bool:
        """Give the result to the call it belongs to; False when none of that id waits."""
        one = self._next(call_id)
        if one is None:
            return False
        one.result = result_of(one.call, text)
        return True

    def _next(self, call_id: str) -> OpenCall | None:
        waiting = self._waiting.get(call_id)
        if waiting is None:
            return None
        one = waiting.pop(0)
        if not waiting:
            del self._waiting[call_id]
        self.answered = True
        return one

    def leave_out(self, *, but: Collection[str] = ()) -> Sequence[Call]:
        """Take away the calls that wait, except for those of the ids in `but`."""
        gone = [one.call for one in self._all if one.result is None and one.call.call_id not in but]
        self._all = [one for one in self._all if one.result is not None or one.call.call_id in but]
        self._waiting = {call_id: waiting for call_id, waiting in self._waiting.items() if call_id in but}
        return gone

    def rename_twins(self) -> Sequence[Call | ToolResult]:
        """Give every call an id of its own, as upstreams want it; what was renamed, as it was before."""
        if len(self._all) == 1:
            return ()
        ids = {one.call.call_id for one in self._all}
        if len(ids) == len(self._all):
            return ()
        seen: set[str] = set()
        before: list[Call | ToolResult] = []
        numbers = count(2)
        for one in self._all:
            call_id = one.call.call_id
            if call_id in seen:
                before += (one.call,) if one.result is None else (one.call, one.result)
                call_id = next(fresh for number in numbers if (fresh := f"{call_id}_{number}") not in ids)
                one.call = msgspec.structs.replace(one.call, call_id=call_id)
                one.result = one.result and msgspec.structs.replace(one.result, call_id=call_id)
            seen.add(call_id)
            ids.add(call_id)
        return before

    def take(self) -> tuple[tuple[Call, ...], Sequence[ToolResult]]:
        """The calls, and the results that are there; then it is empty."""
        calls = tuple([one.call for one in self._all])
        results = [one.result for one in self._all if one.result is not None]
        self._all, self._waiting = [], {}
        self.answered = self.cut = False
        return calls, results
