"""WebSocket clients: raw, with the gateway's key, and the headers of a handshake."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.support.gateway import Gateway

Json = dict[str, Any]

UPGRADE = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}
NO_UPGRADE = {**UPGRADE, "sec-websocket-version": "8"}
"""A handshake that no current client sends."""
_ENDS = {"response.completed", "response.failed", "response.incomplete", "error"}
_MOST = 64 * 1024 * 1024


class Socket:
    """One WebSocket, which speaks JSON."""

    def __init__(self, connection: ClientConnection, model: str) -> None:
        self.connection = connection
        self._model = model

    async def create(self, **request: Any) -> None:
        """Send `response.create`; the model is given unless it is named."""
        await self.send({"type": "response.create", "model": self._model, **request})

    async def send(self, event: Any) -> None:
        """Send one event."""
        await self.connection.send(json.dumps(event))

    async def take(self) -> Json:
        """The next event."""
        event: Json = json.loads(await self.connection.recv())
        return event

    async def until(self, kind: str, lane: str | None = None) -> Json:
        """The next event of this type on this lane; those before it are passed over."""
        while True:
            event = await self.take()
            if event["type"] == kind and event.get("stream_id") == lane:
                return event
            assert event["type"] != "error", event

    async def events(self) -> list[Json]:
        """The events up to the end of a response."""
        taken = [await self.take()]
        while taken[-1]["type"] not in _ENDS:
            taken.append(await self.take())
        return taken

    async def answer(self, **request: Any) -> Json:
        """The response to a request."""
        await self.create(**request)
        response: Json = (await self.events())[-1]["response"]
        return response

    async def error(self, **request: Any) -> Json:
        """The error event that a request gets."""
        await self.create(**request)
        return (await self.events())[-1]

    async def closed(self) -> int | None:
        """The code with which the server closes the connection; what it sends before is passed over."""
        await self.connection.wait_closed()
        return self.connection.close_code


@asynccontextmanager
async def socket(gateway: Gateway, model: str, key: str | None = None, **headers: str) -> AsyncGenerator[Socket]:
    """A connection to the gateway; `headers` are of the handshake, with underscores for hyphens."""
    address = f"ws{gateway.base_url.removeprefix('http')}/v1/responses"
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    given["authorization"] = f"Bearer {key or gateway.key}"
    async with connect(address, additional_headers=given, max_size=_MOST, proxy=None) as connection:
        yield Socket(connection, model)
