"""A server of raw bytes, and an upstream client connected to it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, closing

from app.providers.http.client import ClientTimeouts, UpstreamClient, UpstreamReply

LIMITS = ClientTimeouts(connect=60, first_token=60, idle=60, total=60)
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
HELLO = OK + b"Content-Length: 5\r\n\r\nhello"


class Peer:
    """One accepted connection, as the server sees it."""

    def __init__(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        head = await self.reader.readuntil(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        body = await self.reader.readexactly(int(lengths[0].split(b":")[1])) if lengths else b""
        self.server.requests.append(head + body)
        return body

    async def say(self, *parts: bytes) -> None:
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()
            for _ in range(3):  # turns of the loop: the client's socket becomes readable, is read, and its task runs
                await asyncio.sleep(0)

    def reset(self) -> None:
        """Close with a reset, as the script ends."""
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def gone(self) -> None:
        """Until the client has closed the connection."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass
        self.server.departures.release()


Script = Callable[[Peer], Awaitable[None]]


class Server:
    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self.requests: list[bytes] = []
        self.departures = asyncio.Semaphore(0)

    async def saw_departure(self) -> None:
        async with asyncio.timeout(5):
            await self.departures.acquire()


@asynccontextmanager
async def serve(
    script: Script, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncGenerator[Server]:
    server = Server()
    handlers: list[asyncio.Task[None] | None] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.append(asyncio.current_task())
        server.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError), closing(writer):
            await script(Peer(server, reader, writer))

    listener = await asyncio.start_server(accept, host, 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    async with listener:
        yield server
    await asyncio.gather(*(handler for handler in handlers if handler))


def connect(server: Server, *, timeouts: ClientTimeouts = LIMITS, max_idle: int = 200) -> aclosing[UpstreamClient]:
    return aclosing(
        UpstreamClient(f"http://127.0.0.1:{server.port}/v1", headers={}, timeouts=timeouts, max_idle=max_idle)
    )


async def ask(client: UpstreamClient, body: bytes = b"{}") -> UpstreamReply:
    return await client.post("/chat/completions", body, accept="text/event-stream")


async def ask_whole(client: UpstreamClient) -> bytes:
    with closing(await ask(client)) as reply:
        return await reply.read(1 << 20)


def answering(*parts: bytes) -> Script:
    """Answers every request with these writes, then keeps the connection."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.say(*parts)

    return script


def answering_once(*parts: bytes) -> Script:
    """Answers one request with these writes, then closes the connection."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(*parts)

    return script


def then_silent(*parts: bytes) -> Script:
    """Answers one request with these writes, then waits for the client to leave."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(*parts)
        await peer.gone()

    return script
