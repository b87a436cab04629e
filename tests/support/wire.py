"""Raw bytes to a running gateway and back, for what no HTTP client would send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from tests.support.gateway import Gateway

_SECONDS = 30


class Wire:
    """A connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, *pieces: bytes) -> bool:
        """Write all of it; False if the gateway closes the connection meanwhile."""
        try:
            for piece in pieces:
                self._writer.write(piece)
                await self._writer.drain()
        except ConnectionError:
            return False
        return True

    async def answer(self) -> Answer:
        """The next answer, which has a length."""
        async with asyncio.timeout(_SECONDS):
            head = await self._reader.readuntil(b"\r\n\r\n")
            line, *fields = head.decode().split("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields if field)
            }
            body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(int(line.split()[1]), headers, body)

    async def rest(self) -> bytes:
        """Everything until the gateway closes the connection."""
        async with asyncio.timeout(_SECONDS):
            try:
                return await self._reader.read()
            except ConnectionError:
                return b""


class Answer(msgspec.Struct, frozen=True):
    """A parsed answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The error in the envelope."""
        return msgspec.json.decode(self.body)["error"]


@asynccontextmanager
async def connected(gateway: Gateway) -> AsyncGenerator[Wire]:
    """A connection to the gateway."""
    host, _, port = gateway.base_url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()


def head(method: str, path: str, *fields: str, key: str | None = None) -> bytes:
    """A request's head, including its empty line."""
    given: Iterable[str] = (
        f"{method} {path} HTTP/1.1",
        "Host: localhost",
        *fields,
        *([f"Authorization: Bearer {key}"] if key else ()),
    )
    return "\r\n".join((*given, "", "")).encode()
