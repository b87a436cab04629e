"""Writes one response to its lane of a WebSocket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from math import inf

from app.api.responses.websocket import events

Write = Callable[[Sequence[bytes]], Awaitable[None]]
"""Sends texts, each as one message."""


class LaneWriter:
    """The frames of one response, in their order."""

    __slots__ = ("_lane", "_opening", "_unsent", "_write", "failed", "silent")

    def __init__(self, write: Write, lane: str | None, opening: Callable[[], Sequence[bytes]]) -> None:
        """`opening` returns the frames that may be sent before an upstream has accepted the request, once."""
        self._write = write
        self._lane = lane
        self._opening = opening
        self._unsent: list[bytes] = []
        """The opening, while the client does not read; emptied in place, since its sending may still be waiting."""
        self.failed = False
        """The response has ended as failed."""
        self.silent = 0.0

    async def write(self, frames: Sequence[bytes], *, last: bool = False) -> None:
        """Send frames; the per-token path."""
        self.silent = -inf
        if last:
            self.failed = events.failed(frames)
        texts = events.texts(frames, self._lane, last=last)
        if self._unsent:
            texts = [*self._unsent, *texts]
            self._unsent.clear()
        await self._write(texts)
        self.silent = 0.0

    async def beat(self) -> None:
        """Send the beginning of a response whose upstream is silent; after that, pings keep the connection alive."""
        self.silent = 0.0
        self._unsent.extend(events.texts(self._opening(), self._lane, last=False))
        if self._unsent:
            await self._write(self._unsent)
            self._unsent.clear()
