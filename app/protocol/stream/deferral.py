"""Deltas that wait for the end of a turn: calls of the server's own tools, and everything the model said after the
first of them.

So items stay in the model's order, although at most one is open at a time and hosted calls take time.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from app.protocol import deltas as d
from app.protocol.stream.hosted_writer import HostedWriter
from app.protocol.wire.hosted import HostedCall


class PendingHosted(msgspec.Struct):
    """A hosted call the model has opened."""

    index: int
    call_id: str
    name: str
    fragments: list[str] = []
    writer: HostedWriter | None = None
    """Its item, if that is shown while the model is still writing."""

    @property
    def call(self) -> HostedCall:
        """The call with the arguments received so far."""
        return HostedCall(self.call_id, self.name, "".join(self.fragments))


class Deferral:
    """The queue of one turn; empty until a hosted call is opened."""

    def __init__(self) -> None:
        self._queue: list[PendingHosted | d.Delta] = []

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._queue)

    @property
    def calls(self) -> Sequence[HostedCall]:
        """The hosted calls, in order."""
        return [one.call for one in self._queue if isinstance(one, PendingHosted)]

    @property
    def writer(self) -> HostedWriter | None:
        """Of the first call, if its item is already shown."""
        first = self._queue[0] if self._queue else None
        return first.writer if isinstance(first, PendingHosted) else None

    def add(self, one: PendingHosted | d.Delta) -> None:
        """Append it."""
        self._queue.append(one)

    def find(self, index: int) -> PendingHosted | None:
        """The hosted call with that index."""
        return next((one for one in self._queue if isinstance(one, PendingHosted) and one.index == index), None)

    def write(self, delta: d.CallArguments) -> None:
        """Add a fragment to a waiting call."""
        call = self.find(delta.index)
        if call is None:
            self._keep_together(delta)
            return
        call.fragments.append(delta.fragment)
        if call.writer is not None:
            call.writer.write(delta.fragment)

    def advance(self) -> Sequence[d.Delta]:
        """Remove the first call; returns what the model said between it and the next one."""
        said: list[d.Delta] = []
        for place, one in enumerate(self._queue[1:], 1):
            if isinstance(one, PendingHosted):
                del self._queue[:place]
                return said
            said.append(one)
        self._queue.clear()
        return said

    def clear(self) -> None:
        """Forget everything."""
        self._queue.clear()

    def _keep_together(self, delta: d.CallArguments) -> None:
        """Insert a fragment of a client's call directly after the rest of that call, even if others have been opened
        since.
        """
        for place in range(len(self._queue), 0, -1):
            one = self._queue[place - 1]
            if isinstance(one, d.CallOpened | d.CallArguments) and one.index == delta.index:
                self._queue.insert(place, delta)
                return
        self._queue.append(delta)
