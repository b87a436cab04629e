"""Frames to the client: whole frames a write, a heartbeat when the line is silent."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from starlette.types import Send

from app.protocol.sse import HEARTBEAT

_PATIENCE = 0.1
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class StreamWriter:
    """Writes one SSE answer."""

    __slots__ = ("_send", "_wrote")

    def __init__(self, send: Send) -> None:
        self._send = send
        self._wrote = True

    async def write(self, frames: Sequence[bytes]) -> None:
        """Send whole frames in one write; the per-token path."""
        self._wrote = True
        await self._send({"type": "http.response.body", "body": frames[0] if len(frames) == 1 else b"".join(frames), "more_body": True})

    async def beat(self) -> None:
        """Send a comment if nothing was written since the last call."""
        if not self._wrote:
            # A client that does not read needs no sign of life, and must not keep the others from theirs.
            with suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    await self._send({"type": "http.response.body", "body": HEARTBEAT, "more_body": True})
        self._wrote = False


class Heartbeats:
    """The open streams. One timer serves all, so that a token costs none."""

    def __init__(self) -> None:
        self._writers: set[StreamWriter] = set()

    def add(self, writer: StreamWriter) -> None:
        """Keep this stream's line alive."""
        self._writers.add(writer)

    def discard(self, writer: StreamWriter) -> None:
        """The stream is over."""
        self._writers.discard(writer)

    async def beat(self) -> None:
        """Called once an interval."""
        for writer in list(self._writers):
            await writer.beat()
