"""The protocol over HTTP; see `protocol.py`."""

from __future__ import annotations

import asyncio
import hmac
import os
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from sandbox import packages, protocol
from sandbox.interpreter import InterpreterFailed
from sandbox.protocol import Confinement, Health, NewSession, Problem, RunCode
from sandbox.session import Closed, NoSpace, Session, UnknownFile
from sandbox.sessions import Sessions, UnknownSession
from sandbox.turns import Busy

T = TypeVar("T")

_CHUNK = 128 * 1024
_CLIENT_CLOSED = 499
_DISCARDED_BYTES = 64 * 1024 * 1024
_MAX_JSON = protocol.MAX_CODE_BYTES * 2
_STATUS = {
    UnknownSession: (404, "unknown_session", "There is no such session, or it has expired."),
    UnknownFile: (404, "unknown_file", "There is no such file in this session."),
    NoSpace: (413, "no_space", None),
    Closed: (404, "unknown_session", "The session has ended."),
    Busy: (429, "busy", None),
    InterpreterFailed: (500, "failed", "The interpreter does not start."),
    ValueError: (400, "bad_request", None),
    msgspec.ValidationError: (400, "bad_request", None),
    msgspec.DecodeError: (400, "bad_request", None),
}


def application(sessions: Sessions, confinement: Confinement, token: str) -> ASGIApp:
    """The service; sessions end with it."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        async with asyncio.TaskGroup() as group:
            sweeping = group.create_task(sessions.sweep())
            yield
            sweeping.cancel()
        await sessions.aclose()

    endpoints = _Endpoints(sessions, confinement)
    one = "/v1/sessions/{session_id}"
    routes = [
        Route("/v1/health", endpoints.health),
        Route("/v1/sessions", endpoints.list_sessions),
        Route(one, endpoints.get_session),
        Route(one, endpoints.put_session, methods=["PUT"]),
        Route(one, endpoints.delete_session, methods=["DELETE"]),
        Route(f"{one}/run", endpoints.run, methods=["POST"]),
        Route(f"{one}/files", endpoints.list_files),
        Route(f"{one}/files/{{name}}", endpoints.get_file),
        Route(f"{one}/files/{{name}}", endpoints.put_file, methods=["PUT"]),
        Route(f"{one}/files/{{name}}", endpoints.delete_file, methods=["DELETE"]),
        Route(f"{one}/files/{{name}}/content", endpoints.content),
    ]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=dict.fromkeys(_STATUS, _problem))
    return _Authorised(app, token)


class _Authorised:
    """Rejects every request without the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, self._expected):
                await _json(Problem("unauthorized", "The token is missing or wrong."), 401)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class _Endpoints:
    def __init__(self, sessions: Sessions, confinement: Confinement) -> None:
        self._sessions = sessions
        self._confinement = confinement

    async def health(self, _request: Request) -> Response:
        return _json(
            Health(
                protocol.VERSION, self._confinement.backend, len(self._sessions), packages.names(), self._confinement
            )
        )

    async def list_sessions(self, request: Request) -> Response:
        return _json([session.info for session in self._sessions.owned(_owner(request))])

    async def get_session(self, request: Request) -> Response:
        return _json(self._session(request).info)

    async def put_session(self, request: Request) -> Response:
        wanted = await _body(request, NewSession)
        session = await self._sessions.open(_owner(request), request.path_params["session_id"], wanted)
        session.touch()
        return _json(session.info)

    async def delete_session(self, request: Request) -> Response:
        await self._sessions.close(_owner(request), request.path_params["session_id"])
        return Response(status_code=204)

    async def run(self, request: Request) -> Response:
        session = self._session(request)
        wanted = await _body(request, RunCode)
        if len(wanted.code.encode(errors="replace")) > protocol.MAX_CODE_BYTES or wanted.seconds <= 0:
            raise ValueError("the code is too long, or 'seconds' is not positive")
        async with asyncio.TaskGroup() as group:
            running = group.create_task(_outcome(session.run(wanted.code, wanted.seconds)))
            watching = group.create_task(_cancel_at_hang_up(request, running))
            await asyncio.wait({running})
            watching.cancel()
        if running.cancelled():
            return Response(status_code=_CLIENT_CLOSED)
        result = running.result()
        if isinstance(result, Exception):
            raise result
        return _json(result)

    async def list_files(self, request: Request) -> Response:
        return _json(await self._session(request).list())

    async def get_file(self, request: Request) -> Response:
        return _json(await self._session(request).find(request.path_params["name"]))

    async def put_file(self, request: Request) -> Response:
        session, body = self._session(request), request.stream()
        try:
            return _json(await session.put(request.path_params["name"], body))
        except (NoSpace, ValueError):
            await _discard(body)
            raise

    async def delete_file(self, request: Request) -> Response:
        await self._session(request).remove(request.path_params["name"])
        return Response(status_code=204)

    async def content(self, request: Request) -> Response:
        opened, size = await self._session(request).open(request.path_params["name"])
        return StreamingResponse(
            _read(opened, size), media_type="application/octet-stream", headers={"content-length": str(size)}
        )

    def _session(self, request: Request) -> Session:
        return self._sessions.get(_owner(request), request.path_params["session_id"])


async def _read(opened: int, size: int) -> AsyncIterator[bytes]:
    """Exactly `size` bytes: a file that was truncated meanwhile is padded with zeros, as its length has already been
    sent.
    """
    try:
        while size > 0:
            chunk = await asyncio.to_thread(os.read, opened, min(_CHUNK, size)) or bytes(min(_CHUNK, size))
            size -= len(chunk)
            yield chunk
    finally:
        os.close(opened)


async def _discard(body: AsyncIterator[bytes]) -> None:
    """Keep reading for a while: a client that is still sending would not see the response."""
    left = _DISCARDED_BYTES
    async for chunk in body:
        left -= len(chunk)
        if left < 0:
            return


async def _outcome(running: Coroutine[None, None, T]) -> T | Exception:
    """Its exceptions are returned, so that they do not cancel the task group."""
    try:
        return await running
    except Exception as error:  # noqa: BLE001 - it is re-raised
        return error


async def _cancel_at_hang_up(request: Request, running: asyncio.Task[object]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    running.cancel()


async def _body(request: Request, kind: type[T]) -> T:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_JSON:
            raise ValueError("the body is too large")
    return msgspec.json.decode(body, type=kind)


def _owner(request: Request) -> str:
    owner = request.headers.get(protocol.OWNER_HEADER)
    if not owner:
        raise ValueError(f"the header {protocol.OWNER_HEADER} is missing")
    return owner


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


async def _problem(_request: Request, error: Exception) -> Response:
    status, code, message = next(found for kind, found in _STATUS.items() if isinstance(error, kind))
    response = _json({"code": code, "message": message or str(error)}, status)
    response.headers["connection"] = "close"  # the body may not have been read to its end
    return response
