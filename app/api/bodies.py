"""Requests of cold routes: the key is checked before anything is read, the body is limited in size, and its characters
are checked.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Scope

from app.api import characters, encodings
from app.api.dependencies import Services, principal_of
from app.protocol.wire.errors import ApiError, InvalidRequest, PayloadTooLarge, UnsupportedEncoding

_Handle = Callable[[Request], Coroutine[Any, Any, Response]]


class CheckedRoute(APIRoute):
    """A route that requires a key and accepts encoded bodies of at most `limits.body_bytes`: for
    `APIRouter(route_class=CheckedRoute)`.

    The framework would read the whole body before checking the key, and its own limit does not answer in the error
    envelope. Forms with files have their own limits and are streamed.
    """

    def get_route_handler(self) -> _Handle:
        """The framework's handler, after the check of the key."""
        handle = super().get_route_handler()

        async def checked(request: Request) -> Response:
            await principal_of(request)
            characters.check_query(request.scope["query_string"])
            if request.method != "POST":
                return await handle(request)
            is_form = request.headers.get("content-type", "").lower().startswith("multipart/")
            coding = encodings.named(request.scope)
            if is_form and encodings.codings(coding):
                message = "Unsupported 'Content-Encoding': send forms with files without a content coding."
                raise UnsupportedEncoding(message, "identity")
            return await handle(request if is_form else await _whole(request, coding))

        return checked


async def _whole(request: Request, coding: str) -> Request:
    """The request with its body in memory and decoded. Raises ApiError."""
    services: Services = request.app.state.services
    encodings.codings(coding)  # unsupported codings are refused before the body is read
    body = await encodings.decoded(await _read(request, services.body_bytes), coding, services.body_bytes)
    characters.check_json(body)
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return left.pop() if left else await request.receive()

    return Request(request.scope, receive)


async def _read(request: Request, limit: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise _too_large(limit)
    except ClientDisconnect:
        raise cut_off(request.scope) from None
    return bytes(body)


def cut_off(scope: Scope) -> ApiError:
    """Why a body ended too soon: what the connection has refused it for and told the client, or that the client is
    gone.
    """
    refusal: ApiError | None = scope["state"].get("refusal")
    return refusal or InvalidRequest("The request body was cut off.", code="incomplete_body")


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The request body is larger than {limit} bytes.", code="request_too_large")
