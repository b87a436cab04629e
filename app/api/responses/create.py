"""`POST /v1/responses`, as a plain ASGI endpoint: the hot path.

A framework's route with a parsed body costs 0.15-0.3 ms per request and several microseconds per token, more than all
the other work here. Its OpenAPI entry is in `openapi.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from functools import partial

import msgspec
from starlette.types import Message, Receive, Scope, Send

from app.api import bodies, characters, encodings, errors
from app.api.responses.continuation import Continuation
from app.api.responses.lenience import is_lenient
from app.api.responses.streaming import HEADERS, Heartbeats, StreamWriter
from app.engine.accounts.access import Access
from app.engine.metrics import Metrics
from app.engine.responses import Responses
from app.engine.runs.readers import ReaderMustLeave
from app.engine.runs.run import Run
from app.engine.runs.supervisor import Runs
from app.engine.upstreams import failures
from app.protocol.wire.errors import ApiError, InvalidRequest, PayloadTooLarge
from app.protocol.wire.sse import DONE
from app.stores.ports.errors import StoreUnavailable
from app.telemetry.request import current

_log = logging.getLogger(__name__)
_ROUTE = "/v1/responses"
_CLIENT_CLOSED = 499
"""Never sent: the status in the metrics if the client disconnected (nginx's number)."""


class Policy(msgspec.Struct, frozen=True):
    """Settings of the endpoint."""

    body_bytes: int
    done_marker: bool
    lenient_user_agents: tuple[str, ...]
    continuation: Continuation = Continuation()

    def is_lenient(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether the client is known to send tools that nobody asked for."""
        return is_lenient(headers.get(b"user-agent", b""), self.lenient_user_agents)


class CreateResponse:
    """The endpoint."""

    def __init__(
        self, responses: Responses, access: Access, runs: Runs, metrics: Metrics, heartbeats: Heartbeats, policy: Policy
    ) -> None:
        self._responses = responses
        self._access = access
        self._runs = runs
        self._metrics = metrics
        self._heartbeats = heartbeats
        self._policy = policy
        self._tail = (DONE,) if policy.done_marker else ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; the request's id is in `scope["state"]["request_id"]`."""
        request_id: str = scope["state"]["request_id"]
        reply = _Reply(send, request_id)
        try:
            headers: dict[bytes, bytes] = dict(scope["headers"])
            run, body = await self._admit(scope, headers, receive)
            lifetime = self._policy.continuation.lifetime(run.admitted, headers)
            if lifetime == "stored run":
                await self._start(run, body, headers, receive, reply)
            else:
                await self._generate(run, receive, reply, continues=lifetime == "process")
        except ApiError as error:
            await reply.fail(error)
        except StoreUnavailable as error:
            _log.error("the database is unavailable: %s", error)
            await reply.fail(failures.store_unavailable())
        except (asyncio.CancelledError, ReaderMustLeave):  # the server stops; a response that has begun is cut off
            await reply.fail(failures.server_is_stopping())
        except Exception:  # noqa: BLE001 - the last resort: our own errors are answered, too
            _log.exception("request %s failed", request_id)
            await reply.fail(errors.internal(request_id))
        finally:
            current.get().status = reply.status
            self._metrics.answered(_ROUTE, "POST", reply.status)

    async def _admit(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> tuple[Run, bytes]:
        """The run, not begun, and its request's body."""
        summary = current.get()
        principal = scope["state"]["principal"] = await self._access.principal(headers.get(b"authorization"))
        summary.project, summary.key = principal.project_id, principal.key_id
        if b"json" not in (headers.get(b"content-type") or b"json").lower():
            raise InvalidRequest(
                "Unsupported content type: send 'Content-Type: application/json'.", code="unsupported_content_type"
            )
        body = await self._read(scope, headers, receive)
        if b"content-encoding" in headers:
            body = await encodings.decoded(body, encodings.named(scope), self._policy.body_bytes)
        characters.check_nul(body)
        try:
            run = await self._responses.create(principal, body, lenient=self._policy.is_lenient(headers))
        except InvalidRequest as error:
            if error.code == "json_parse_error":
                characters.check_json(body)  # an unpaired surrogate is valid JSON, and its position can be named
            raise
        summary.response, summary.model, summary.stream = run.id, run.admitted.model, run.admitted.stream
        return run, body

    async def _generate(self, run: Run, receive: Receive, reply: _Reply, *, continues: bool) -> None:
        self._runs.add(run)
        watch = None if continues else self._runs.watch(partial(_hung_up, receive))
        try:
            await self._answer(run, reply)
        except asyncio.CancelledError:
            if watch is None or not watch.end():
                raise
            reply.status = _CLIENT_CLOSED
        finally:
            if watch is not None:
                watch.end()
            self._runs.discard(run)
            await run.aclose()
        run.remember()

    async def _start(self, run: Run, body: bytes, headers: dict[bytes, bytes], receive: Receive, reply: _Reply) -> None:
        """Start a background or resumable run.

        This request is one of its readers, whose disconnecting does not matter to it.
        """
        queued = await self._responses.start(run, body, lenient=self._policy.is_lenient(headers))
        if not run.admitted.stream:
            await reply.whole(queued, run.warnings)
            return
        writer = reply.stream(run, self._tail)
        self._heartbeats.add(writer)
        watch = self._runs.watch(partial(_hung_up, receive))
        try:
            async with aclosing(self._responses.events(run)) as batches:
                async for frames in batches:
                    await writer.write(frames)
            await writer.write((), last=True)
        except asyncio.CancelledError:
            if not watch.end():
                raise
            reply.status = _CLIENT_CLOSED
        finally:
            watch.end()
            self._heartbeats.discard(writer)

    async def _answer(self, run: Run, reply: _Reply) -> None:
        if not run.admitted.stream:
            await run.open()
            await reply.whole(await run.whole(), run.warnings)
            return
        writer = reply.stream(run, self._tail)
        self._heartbeats.add(writer)
        try:
            await run.open()
            await run.stream(writer.write, partial(writer.write, last=True))
        finally:
            self._heartbeats.discard(writer)

    async def _read(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        limit = self._policy.body_bytes
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > limit:
            raise _too_large(limit)
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise bodies.cut_off(scope)
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                raise _too_large(limit)
            chunks.append(chunk)
            if not message.get("more_body", False):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)


class _Reply:
    """The HTTP response; it can become an error until it has begun."""

    __slots__ = ("_begun", "_id", "_send", "status")

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._id = (b"x-request-id", request_id.encode())
        self._begun = False
        self.status = 200

    async def whole(self, body: bytes, warnings: tuple[str, ...]) -> None:
        await self._start(200, [(b"content-type", b"application/json"), *_warning_headers(warnings)], body)

    def stream(self, run: Run, tail: Sequence[bytes]) -> StreamWriter:
        def head() -> Message:
            self._begun = True
            return {
                "type": "http.response.start",
                "status": 200,
                "headers": [*HEADERS, *_warning_headers(run.warnings), self._id],
            }

        return StreamWriter(self._send, head, run.begin, tail)

    async def fail(self, error: ApiError) -> None:
        self.status, headers, body = errors.render(error)
        if not self._begun:
            await self._start(self.status, headers, body)

    async def _start(self, status: int, headers: errors.RawHeaders, body: bytes) -> None:
        self._begun = True
        headers = [*headers, (b"content-length", str(len(body)).encode()), self._id]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The request body is larger than {limit} bytes.", code="request_too_large")


def _warning_headers(warnings: tuple[str, ...]) -> errors.RawHeaders:
    return [(b"warning", b'299 - "%b"' % text.encode("ascii", "replace").replace(b'"', b"'")) for text in warnings]
