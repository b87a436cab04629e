"""A web site on a loopback port: pages, redirects, endless and slow bodies, compression, other charsets, robots.txt.

A real HTTP/1.1 server (optionally with TLS) with its own thread and event loop. It records every visit, including those
to missing pages.
"""

from __future__ import annotations

import asyncio
import gzip
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus

import msgspec

from tests.support.processes import PATIENCE


class Visit(msgspec.Struct, frozen=True):
    """A request as it arrived; header names are in lower case."""

    method: str
    path: str
    """Including the query."""
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> object:
        """The body, decoded."""
        return msgspec.json.decode(self.body)


class Answer(msgspec.Struct, frozen=True):
    """The answer of a path. The connection is closed after it."""

    body: bytes = b""
    status: int = 200
    content_type: str | None = "text/html; charset=utf-8"
    headers: Mapping[str, str] = {}
    repeat: float | None = None
    """Instead of one body of known length: the body repeatedly, this many seconds apart, until the client leaves."""
    silent: bool = False
    """Send nothing at all until the client leaves."""

    @classmethod
    def html(cls, text: str, *, status: int = 200, title: str = "A page") -> Answer:
        """A page in UTF-8; `text` goes into its article unchanged."""
        page = (
            f"<!doctype "
            f"html><html><head><title>{title}</title></head><body><article><h1>{title}</h1>{text}</article></body></html>"
        )
        return cls(page.encode(), status)

    @classmethod
    def json(cls, value: object, *, status: int = 200) -> Answer:
        """A JSON body."""
        return cls(msgspec.json.encode(value), status, "application/json")

    @classmethod
    def text(cls, text: str, *, status: int = 200) -> Answer:
        """A plain text."""
        return cls(text.encode(), status, "text/plain; charset=utf-8")

    @classmethod
    def redirect(cls, location: str, *, status: int = 302) -> Answer:
        """Look elsewhere."""
        return cls(b"", status, None, {"location": location})

    @classmethod
    def gzip_bomb(cls, size: int, *, content_type: str = "text/html") -> Answer:
        """`size` zero bytes, compressed about a thousand times."""
        return cls(gzip.compress(bytes(size)), 200, content_type, {"content-encoding": "gzip"})

    @classmethod
    def drip(cls, piece: bytes = b"<p>.</p>", *, every: float = 0.02) -> Answer:
        """A body that never ends, in small pieces: never idle for long, never done."""
        return cls(piece, repeat=every)

    @classmethod
    def endless(cls) -> Answer:
        """A body that never ends, as fast as the client reads."""
        return cls(b"<p>all work and no play</p>" * 2000, repeat=0.0)

    @classmethod
    def never(cls) -> Answer:
        """No answer, although the connection stays open."""
        return cls(silent=True)


class Site:
    """Pages and records; both may be used from any thread."""

    def __init__(self) -> None:
        self.origin = ""
        """`http://127.0.0.1:port`."""
        self.port = 0
        self.reset()

    def reset(self) -> None:
        """Reset the pages and the records."""
        self.pages: dict[str, Answer | Callable[[Visit], Answer]] = {}
        """The answers, by path without query; `*` answers all other paths, otherwise they are a 404."""
        self.visits: list[Visit] = []
        """Every request, oldest first."""
        self.connections = 0
        """Every connection that was opened, including those without a request."""

    @property
    def paths(self) -> list[str]:
        """The requested paths, oldest first."""
        return [visit.path for visit in self.visits]

    def url(self, path: str = "/", *, host: str = "127.0.0.1") -> str:
        """A path's URL, perhaps under another name of this machine."""
        return f"{self.origin.partition('://')[0]}://{host}:{self.port}{path}"

    def answer(self, visit: Visit) -> Answer:
        """The answer to a visit (the server's side)."""
        self.visits.append(visit)
        page = self.pages.get(visit.path.partition("?")[0], self.pages.get("*", Answer.text("not found", status=404)))
        return page(visit) if callable(page) else page


@contextmanager
def serving_site(*, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Generator[Site]:
    """Serve on a free port while the block runs."""
    site = Site()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(_listen(site, host, tls), loop).result(PATIENCE)
    site.port = server.sockets[0].getsockname()[1]
    site.origin = f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{site.port}"
    try:
        yield site
    finally:
        asyncio.run_coroutine_threadsafe(_close(server), loop).result(PATIENCE)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        loop.close()


async def _listen(site: Site, host: str, tls: ssl.SSLContext | None) -> asyncio.Server:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        site.connections += 1
        with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, asyncio.CancelledError):
            answer = site.answer(await _visit(reader))
            if answer.silent:
                await reader.read()
            else:
                await _send(answer, reader, writer)
        writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()

    return await asyncio.start_server(serve, host, 0, ssl=tls)


async def _close(server: asyncio.Server) -> None:
    server.close()
    others = asyncio.all_tasks() - {task for task in (asyncio.current_task(),) if task}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await server.wait_closed()


async def _visit(reader: asyncio.StreamReader) -> Visit:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    request, *lines = head.rstrip("\r\n").split("\r\n")
    method, path, _ = request.split(" ", 2)
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        body = b"".join([piece async for piece in _chunks(reader)])
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Visit(method, path, headers, body)


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int(await reader.readline(), 16):
        yield await reader.readexactly(size)
        await reader.readline()
    await reader.readline()


async def _send(answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    headers = {"connection": "close", **answer.headers}
    if answer.content_type is not None:
        headers.setdefault("content-type", answer.content_type)
    if answer.repeat is None:
        headers.setdefault("content-length", str(len(answer.body)))
    head = [
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    writer.write("\r\n".join([*head, "", ""]).encode("latin-1"))
    writer.write(answer.body)
    await writer.drain()
    while answer.repeat is not None and not reader.at_eof():
        await asyncio.sleep(answer.repeat)
        writer.write(answer.body)
        await writer.drain()
