"""Reads the events of stored responses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from app.protocol.stream.replay import replay
from app.stores.ports.responses import ResponseRecord


class BeyondEnd(Exception):
    """The response has ended before the position. `last` is the number of its last event."""

    def __init__(self, last: int) -> None:
        super().__init__(f"the last event has the number {last}")
        self.last = last


async def replayed(record: ResponseRecord, position: int) -> AsyncGenerator[Sequence[bytes], None]:
    """The frames of a stored response from `position` on. Raises BeyondEnd.

    They are made as they are read: a client that does not read holds none, and a long response holds up no others.
    """
    first = 0
    for frames in replay(record.response, record.cuts):
        if first + len(frames) > position:
            yield frames[max(position - first, 0) :]
        first += len(frames)
        await asyncio.sleep(0)  # the others' turn
    if position > first:
        raise BeyondEnd(first - 1)
