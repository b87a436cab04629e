"""The lanes of a WebSocket: requests of one lane are served one after the other, lanes beside each other."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator

from app.api.responses.websocket.events import Create
from app.protocol.wire.errors import InvalidRequest, RateLimited

ACTIVE = 16
"""Responses generated at once on one connection."""
_NAMES = 32
_WAITING = 64
"""Requests that may wait on one connection."""
_WAITING_BYTES = 32 * 1024 * 1024


class Lane:
    """One lane, by its name; None: the default one."""

    def __init__(self, name: str | None) -> None:
        self.name = name
        self.waiting: deque[Create] = deque()
        self.task: asyncio.Task[None] | None = None
        """Serves its requests, as long as there are any."""
        self.continues = False
        """What it generates goes on when the client hangs up."""


class Lanes:
    """The lanes of one connection."""

    def __init__(self) -> None:
        self._lanes: dict[str | None, Lane] = {None: Lane(None)}
        self._waiting = 0
        self._bytes = 0

    def __iter__(self) -> Iterator[Lane]:
        """All lanes."""
        return iter(self._lanes.values())

    @property
    def busy(self) -> bool:
        """Whether a lane has anything to do."""
        return any(lane.task is not None for lane in self)

    def put(self, create: Create) -> Lane:
        """Add a request to its lane. Raises InvalidRequest and RateLimited."""
        lane = self._lanes.get(create.lane)
        if lane is None:
            if len(self._lanes) > _NAMES:
                message = f"A connection has at most {_NAMES} named lanes; reuse one, or open another connection."
                raise InvalidRequest(message, code="websocket_stream_limit_reached", param="stream_id")
            lane = self._lanes[create.lane] = Lane(create.lane)
        if self._waiting >= _WAITING or self._bytes + len(create.body) > _WAITING_BYTES:
            message = "Too many requests wait on this connection; send the next one when one of them has ended."
            raise RateLimited(message, code="websocket_stream_limit_reached", retry_after=1.0)
        lane.waiting.append(create)
        self._waiting += 1
        self._bytes += len(create.body)
        return lane

    def take(self, lane: Lane) -> Create | None:
        """The lane's next request."""
        if not lane.waiting:
            return None
        create = lane.waiting.popleft()
        self._waiting -= 1
        self._bytes -= len(create.body)
        return create
