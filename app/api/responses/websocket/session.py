"""One open WebSocket: reads events, runs its lanes, and closes in an orderly way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

import msgspec
from starlette.types import Message, Receive, Send

from app.api.responses.websocket import events
from app.api.responses.websocket.lanes import ACTIVE, Lane, Lanes
from app.protocol.wire.errors import ApiError

_NORMAL = 1000


class Server(Protocol):
    """Serves the requests of a connection."""

    async def serve(self, create: events.Create, lane: Lane, session: Session) -> None:
        """Serve one request; every error becomes an event."""
        ...

    async def refuse(self, error: ApiError, lane: str | None, session: Session) -> None:
        """Answer a message that is not served."""
        ...


class _Ending(msgspec.Struct, frozen=True):
    """Why the connection is to be closed, and with which code (RFC 6455)."""

    error: ApiError
    code: int


class Session:
    """One connection."""

    def __init__(self, server: Server, receive: Receive, send: Send) -> None:
        self._server = server
        self._receive = receive
        self._send = send
        self._lanes = Lanes()
        self._active = asyncio.Semaphore(ACTIVE)
        self._ending: _Ending | None = None
        self._closing = False
        self._start: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
        """Starts a task of the connection's group."""
        self.gone = False
        """The client has hung up."""

    async def run(self, seconds: float, over: ApiError) -> None:
        """Serve until the connection is closed. After `seconds` it is closed with the error `over`."""
        timer = asyncio.get_running_loop().call_later(seconds, self.end, over, _NORMAL)
        try:
            async with asyncio.TaskGroup() as group:
                self._start = group.create_task
                while (message := await self._receive())["type"] != "websocket.disconnect":
                    if message["type"] == "websocket.receive":
                        await self._read(message)
                self._hang_up()
        finally:
            timer.cancel()

    def end(self, error: ApiError, code: int) -> None:
        """Close the connection as soon as what runs has ended; what waits and what comes gets the error."""
        if self._ending is None and not self.gone:
            self._ending = _Ending(error, code)
            if not self._lanes.busy:
                self._start(self._close())

    async def write(self, texts: Sequence[bytes]) -> None:
        """Send texts, each as one message."""
        await self._send({"type": "websocket.send", "texts": texts})

    async def fail(self, error: ApiError, lane: str | None) -> None:
        """Send an error event."""
        await self.write((events.error_text(error, lane),))

    async def _read(self, message: Message) -> None:
        try:
            event = events.read(message.get("text"))
            if isinstance(event, events.Steer):
                await self.write((events.steer_failed(event),))
            elif self._ending is not None:
                await self._server.refuse(self._ending.error, event.lane, self)
            else:
                self._enqueue(event)
        except events.Refused as refused:
            await self._server.refuse(refused.error, refused.lane, self)

    def _enqueue(self, create: events.Create) -> None:
        """Raises Refused."""
        try:
            lane = self._lanes.put(create)
        except ApiError as error:
            raise events.Refused(error, create.lane) from None
        if lane.task is None:
            lane.task = self._start(self._work(lane))

    async def _work(self, lane: Lane) -> None:
        """Serve the lane's requests, in their order."""
        try:
            while (create := self._lanes.take(lane)) is not None:
                if self._ending is not None:
                    await self._server.refuse(self._ending.error, lane.name, self)
                    continue
                async with self._active:
                    await self._server.serve(create, lane, self)
        finally:
            lane.task = None
        if self._ending is not None and not self._lanes.busy:
            await self._close()

    def _hang_up(self) -> None:
        self.gone = True
        for lane in self._lanes:
            lane.waiting.clear()
            if lane.task is not None and not lane.continues:
                lane.task.cancel()

    async def _close(self) -> None:
        if self._ending is not None and not self._closing:
            self._closing = True
            await self.fail(self._ending.error, None)
            await self._send({"type": "websocket.close", "code": self._ending.code})
