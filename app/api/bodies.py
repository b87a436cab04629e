"""Bodies of cold routes, which the framework would read however large they are, and however they are encoded."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive

from app.api import encodings
from app.api.dependencies import Services
from app.protocol.errors import InvalidRequest, PayloadTooLarge, UnsupportedEncoding

_Handle = Callable[[Request], Coroutine[Any, Any, Response]]


class BodyRoute(APIRoute):
    """A route whose body may be encoded, and is at most `limits.body_bytes`: for `APIRouter(route_class=BodyRoute)`.

    The framework's own limit does not answer in the envelope. Forms have limits of their own, and are read as they come.
    """

    def get_route_handler(self) -> _Handle:
        """The framework's handler, with a body that ends at the limit."""
        handle = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            services: Services = request.app.state.services
            is_form = request.headers.get("content-type", "").lower().startswith("multipart/")
            if "content-encoding" in request.headers:
                value = encodings.named(request.scope)
                if encodings.codings(value):
                    return await handle(await _plain(request, value, services, is_form=is_form))
            return await handle(request if is_form else Request(request.scope, _limited(request.receive, services.body_bytes)))

        return bounded


def _limited(receive: Receive, left: int) -> Receive:
    async def limited() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise HTTPException(413)
        return message

    return limited


async def _plain(request: Request, value: str, services: Services, *, is_form: bool) -> Request:
    """The request without its `Content-Encoding`. Raises ApiError."""
    if is_form:
        message = "Unsupported 'Content-Encoding': forms with files are read as they are; send them without a coding."
        raise UnsupportedEncoding(message, "identity")
    given = request.headers.get("authorization")
    await services.access.principal(given.encode("latin-1") if given is not None else None)  # no work for strangers
    body = await encodings.decoded(await _whole(request, services.body_bytes), value, services.body_bytes)
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return left.pop() if left else await request.receive()

    return Request(request.scope, receive)


async def _whole(request: Request, limit: int) -> bytes:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise PayloadTooLarge(f"The request body is larger than {limit} bytes.", code="request_too_large")
    except ClientDisconnect:
        raise InvalidRequest("The request body was cut off.", code="incomplete_body") from None
    return bytes(body)
