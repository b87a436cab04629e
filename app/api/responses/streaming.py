"""Frames to the client: whole frames per write, and a heartbeat before a stream is silent for too long."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from typing import Protocol

from starlette.types import Message, Send

from app.protocol.wire.sse import HEARTBEAT

_log = logging.getLogger(__name__)
_LOOKS = 16
"""How many times per interval the timer checks the streams."""
_PATIENCE = 0.1
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class StreamWriter:
    """Writes one SSE response. Its head is sent with the first frames, or with the opening events if those take too
    long.

    `head` creates the message that begins the response. `opening` returns the frames that may be sent before an
    upstream has accepted the request; empty if there are none yet. `tail` follows the last frames.
    """

    __slots__ = ("_begun", "_head", "_one_at_a_time", "_opening", "_send", "_tail", "_unsent", "silent")

    def __init__(
        self,
        send: Send,
        head: Callable[[], Message],
        opening: Callable[[], Sequence[bytes]],
        tail: Sequence[bytes] = (),
    ) -> None:
        self._send = send
        self._tail = tail
        self._head = head
        self._opening = opening
        self._begun = False
        self._one_at_a_time: asyncio.Lock | None = None
        """Created when the timer begins the response, which is rare."""
        self._unsent: list[Message] = []
        """Messages that begin the response and have not been sent yet."""
        self.silent = 0.0
        """Seconds without a frame, as counted by the timer; minus infinity while one is being written."""

    async def write(self, frames: Sequence[bytes], *, last: bool = False) -> None:
        """Send whole frames in one write, the last ones with the end of the response; the per-token path."""
        self.silent = -inf
        if not self._begun:
            if self._one_at_a_time is None:  # with `silent` at this value, the timer does not interfere
                self._begun = True
                await self._send(self._head())
            else:
                await self._begin(self._one_at_a_time)
        await self._send(_body((*frames, *self._tail), more=False) if last else _body(frames))
        self.silent = 0.0

    async def beat(self) -> None:
        """Send a heartbeat: a comment, or the beginning of the response."""
        if self._begun:
            self.silent = 0.0
            await self._send(_body((HEARTBEAT,)))
            return
        frames = self._opening()
        if frames:
            self._unsent = [self._head(), _body(frames)]
        if self._unsent:
            self.silent = 0.0
            self._one_at_a_time = self._one_at_a_time or asyncio.Lock()
            await self._begin(self._one_at_a_time)

    async def _begin(self, one_at_a_time: asyncio.Lock) -> None:
        """Send the beginning of the response.

        The timer and the response may both try: the second one waits, and finds it sent.
        """
        async with one_at_a_time:
            while self._unsent:
                await self._send(self._unsent[0])  # a cancelled write has sent nothing
                del self._unsent[0]
            self._begun = True


class Stream(Protocol):
    """What gets heartbeats."""

    silent: float
    """Seconds without a frame; minus infinity while one is being written."""

    async def beat(self) -> None:
        """Show that the stream is alive."""
        ...


class Heartbeats:
    """The open streams. One timer serves all, so that tokens need none."""

    def __init__(self, interval: float) -> None:
        """No stream is silent longer than `interval` seconds. Call `look` every `pause`."""
        self.pause = interval / _LOOKS
        self._patience = min(_PATIENCE, self.pause)
        self.longest = interval - self.pause - self._patience
        """Seconds of silence after which the next check would come too late."""
        self._looked = inf
        self._writers: set[Stream] = set()

    def __len__(self) -> int:
        """The number of open streams."""
        return len(self._writers)

    def add(self, writer: Stream) -> None:
        """Send heartbeats to this stream from now on."""
        self._writers.add(writer)

    def discard(self, writer: Stream) -> None:
        """The stream has ended."""
        self._writers.discard(writer)

    async def look(self) -> None:
        """Update the silence of all streams, and send the heartbeats that are due, concurrently."""
        now = asyncio.get_running_loop().time()
        passed, self._looked = max(now - self._looked, 0.0), now
        due: list[Stream] = []
        for writer in self._writers:
            writer.silent += passed
            if writer.silent >= self.longest:
                due.append(writer)
        if due:
            async with asyncio.TaskGroup() as group:
                for writer in due:
                    group.create_task(self._beat(writer))

    async def _beat(self, writer: Stream) -> None:
        if writer not in self._writers or writer.silent < self.longest:  # it has ended or sent something meanwhile
            return
        # A client that does not read needs no heartbeat, and must not delay those of others.
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience):
                try:
                    await writer.beat()
                except Exception:  # noqa: BLE001 - one stream's failure must not stop the other heartbeats
                    _log.exception("a stream's heartbeat failed")


def _body(frames: Sequence[bytes], *, more: bool = True) -> Message:
    return {
        "type": "http.response.body",
        "body": frames[0] if len(frames) == 1 else b"".join(frames),
        "more_body": more,
    }
