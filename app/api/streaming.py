"""Frames to the client: whole frames a write, a heartbeat before the line is silent for too long."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf

from starlette.types import Message, Send

from app.protocol.sse import HEARTBEAT

_log = logging.getLogger(__name__)
_LOOKS = 16
"""How often an interval the timer looks at the streams."""
_PATIENCE = 0.1
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class StreamWriter:
    """Writes one SSE answer. Its head goes out with the first frames, or with the opening events when the others are long in coming.

    `head` makes the message that begins the answer. `opening` gives the frames that may go out before an upstream has accepted the
    request, none as long as there are none.
    """

    __slots__ = ("_begun", "_head", "_one_at_a_time", "_opening", "_send", "_unsent", "silent")

    def __init__(self, send: Send, head: Callable[[], Message], opening: Callable[[], Sequence[bytes]]) -> None:
        self._send = send
        self._head = head
        self._opening = opening
        self._begun = False
        self._one_at_a_time: asyncio.Lock | None = None
        """Made when the timer begins the answer, which is seldom."""
        self._unsent: list[Message] = []
        """What begins the answer and has not gone out yet."""
        self.silent = 0.0
        """Seconds without a frame, as far as the timer has counted; minus infinity while one is being written."""

    async def write(self, frames: Sequence[bytes]) -> None:
        """Send whole frames in one write; the per-token path."""
        self.silent = -inf
        if not self._begun:
            if self._one_at_a_time is None:  # with `silent` as it is now, the timer keeps out
                self._begun = True
                await self._send(self._head())
            else:
                await self._begin(self._one_at_a_time)
        await self._send(_body(frames))
        self.silent = 0.0

    async def beat(self) -> None:
        """Send a sign of life: a comment, or what begins the answer."""
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
        """Send what begins the answer. The timer and the answer itself may both be about to: the second one waits, and finds it done."""
        async with one_at_a_time:
            while self._unsent:
                await self._send(self._unsent[0])  # a write that is given up has sent nothing
                del self._unsent[0]
            self._begun = True


class Heartbeats:
    """The open streams. One timer serves all, so that a token costs none."""

    def __init__(self, interval: float) -> None:
        """No stream is silent longer than `interval` seconds. Call `look` every `pause`."""
        self.pause = interval / _LOOKS
        self._patience = min(_PATIENCE, self.pause)
        self.longest = interval - self.pause - self._patience
        """Seconds of silence after which the next look would come too late."""
        self._looked = inf
        self._writers: set[StreamWriter] = set()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._writers)

    def add(self, writer: StreamWriter) -> None:
        """Keep this stream's line alive."""
        self._writers.add(writer)

    def discard(self, writer: StreamWriter) -> None:
        """The stream is over."""
        self._writers.discard(writer)

    async def look(self) -> None:
        """Count everybody's silence, and end those that become too long, all at once."""
        now = asyncio.get_running_loop().time()
        passed, self._looked = max(now - self._looked, 0.0), now
        due: list[StreamWriter] = []
        for writer in self._writers:
            writer.silent += passed
            if writer.silent >= self.longest:
                due.append(writer)
        if due:
            async with asyncio.TaskGroup() as group:
                for writer in due:
                    group.create_task(self._beat(writer))

    async def _beat(self, writer: StreamWriter) -> None:
        if writer not in self._writers or writer.silent < self.longest:  # it has ended or spoken meanwhile
            return
        # A client that does not read needs no sign of life, and must not keep the others from theirs.
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience):
                try:
                    await writer.beat()
                except Exception:  # noqa: BLE001 - one stream's failure must not end the others' beats
                    _log.exception("a stream's heartbeat failed")


def _body(frames: Sequence[bytes]) -> Message:
    return {"type": "http.response.body", "body": frames[0] if len(frames) == 1 else b"".join(frames), "more_body": True}
