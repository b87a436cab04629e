"""A Qwen server that sends what the test scripted: a real HTTP/1.1 server on a loopback port, with its own thread and
event loop.

It fails a test that leaves scripted replies unused, and records every request and every client that disconnected.
"""

from __future__ import annotations

import asyncio
import json
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import cast

import httptools
import msgspec

from tests.support.processes import PATIENCE
from tests.support.script import Cut, Gate, Json, Reply, stream_writes, whole_body


class Request(msgspec.Struct, frozen=True):
    """A request as it arrived; header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Json


class ScriptedUpstream:
    """Script and records; both may be used from any thread."""

    def __init__(self) -> None:
        self.url = ""
        """The server's address, up to and including `/v1`."""
        self.reset()

    def reset(self) -> None:
        """Reset the script and the records."""
        self.requests: list[Request] = []
        """Every POST, oldest first."""
        self.default: Reply | None = Reply.say("Hello", " there.")
        """For requests beyond the script; None makes them an error."""
        self.respond: Callable[[Json], Reply] | None = None
        """Answers requests beyond the script by their body, before `default`."""
        self.pages: dict[str, Json] = {"/v1/models": models_page("qwen3-8b")}
        """The answers to GET, by path; all others are a 404."""
        self._script: deque[Reply] = deque()
        self._mistakes: list[str] = []
        self._hang_ups: queue.SimpleQueue[Request] = queue.SimpleQueue()

    def script(self, *replies: Reply) -> None:
        """Answer the next requests with these, in order."""
        self._script.extend(replies)

    async def hang_up(self) -> Request:
        """Wait for the next client that closes an answer before its end, and return its request."""
        return await asyncio.to_thread(self._hang_ups.get, timeout=PATIENCE)

    def assert_consumed(self) -> None:
        """Fail unless every scripted reply was requested and no request went wrong."""
        assert not self._mistakes, "\n".join(self._mistakes)
        assert not self._script, f"scripted replies never asked for: {len(self._script)}"

    def answer(self, request: Request) -> Reply:
        """The reply to a request (the server's side)."""
        if request.method == "GET":
            page = self.pages.get(request.path)
            return Reply.error(404, {"error": {"message": "not found"}}) if page is None else Reply.json(page)
        self.requests.append(request)
        if self._script:
            return self._script.popleft()
        reply = self.respond(request.body) if self.respond else self.default
        if reply is None:
            raise LookupError(f"no reply was scripted for {request.path}")
        return reply

    def note_mistake(self, request: Request, error: Exception) -> None:
        """The script had no suitable reply (the server's side)."""
        self._mistakes.append(f"{request.method} {request.path}: {error!r}")

    def note_hang_up(self, request: Request) -> None:
        """A client left early (the server's side)."""
        self._hang_ups.put(request)


def models_page(*names: str, owned_by: str = "vllm") -> Json:
    """A model list as sent by OpenAI-compatible servers."""
    return {
        "object": "list",
        "data": [{"id": name, "object": "model", "created": 1, "owned_by": owned_by} for name in names],
    }


@contextmanager
def serving(upstream: ScriptedUpstream) -> Generator[ScriptedUpstream]:
    """Serve on a free loopback port while the block runs."""
    loop = asyncio.new_event_loop()
    connections: set[_Connection] = set()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    listening = loop.create_server(lambda: _Connection(loop, upstream, connections), "127.0.0.1", 0)
    server = asyncio.run_coroutine_threadsafe(listening, loop).result(PATIENCE)
    upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield upstream
    finally:
        asyncio.run_coroutine_threadsafe(_close(server, connections), loop).result(PATIENCE)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        loop.close()


async def _close(server: asyncio.Server, connections: set[_Connection]) -> None:
    server.close()
    await asyncio.gather(*(connection.close() for connection in connections))
    await server.wait_closed()


class _Connection(asyncio.Protocol):
    """One client. Its answer is a task, so that a disconnecting client is noticed meanwhile."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, upstream: ScriptedUpstream, connections: set[_Connection]
    ) -> None:
        self._loop = loop
        self._upstream = upstream
        self._connections = connections
        self._parser = httptools.HttpRequestParser(self)
        self._answering: asyncio.Task[None] | None = None
        self._lost = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if self._answering and not self._answering.done():
            self._answering.cancel()
            self._upstream.note_hang_up(self._request)
        self._lost.set_result(None)

    async def close(self) -> None:
        """Close from this side, and wait until it is closed."""
        self._transport.abort()
        await self._lost

    def on_message_begin(self) -> None:
        self._path = b""
        self._headers: dict[str, str] = {}
        self._body = b""

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        method = self._parser.get_method().decode()
        self._request = Request(method, self._path.decode(), self._headers, json.loads(self._body or b"{}"))
        self._answering = self._loop.create_task(self._answer(self._request))

    async def _answer(self, request: Request) -> None:
        try:
            reply = self._upstream.answer(request)
        except Exception as error:  # noqa: BLE001 - an exception of the test's own function is the test's failure, not this connection's
            self._upstream.note_mistake(request, error)
            reply = Reply.error(500, {"error": {"message": "the script has no answer"}})
        if request.body.get("stream") and reply.body is None:
            await self._send_stream(reply, request)
        else:
            await self._send_whole(reply, request)

    async def _send_stream(self, reply: Reply, request: Request) -> None:
        self._send_head(reply, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        for write in stream_writes(reply, request.body):
            match write:
                case Gate():
                    await write.hold()
                case Cut():
                    self._transport.close()
                    return
                case bytes():
                    self._transport.write(b"%x\r\n%s\r\n" % (len(write), write))
                    await asyncio.sleep(0)  # one iteration of the loop, in which a client that left is noticed
        self._transport.write(b"0\r\n\r\n")

    async def _send_whole(self, reply: Reply, request: Request) -> None:
        body = whole_body(reply, request.body) if reply.body is None else reply.body
        for gate in (piece for piece in reply.pieces if isinstance(piece, Gate)):
            await gate.hold()
        self._send_head(reply, {"content-type": "application/json", "content-length": str(len(body))})
        if any(isinstance(piece, Cut) for piece in reply.pieces):
            self._transport.write(body[: len(body) // 2])
            self._transport.close()
        else:
            self._transport.write(body)

    def _send_head(self, reply: Reply, headers: Mapping[str, str]) -> None:
        lines = [
            f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}",
            *(f"{k}: {v}" for k, v in {**headers, **reply.headers}.items()),
        ]
        self._transport.write("\r\n".join([*lines, "", ""]).encode())
