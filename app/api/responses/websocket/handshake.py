"""The answer to a request for a WebSocket."""

from __future__ import annotations

from starlette.types import Send

from app.api import errors
from app.protocol.wire.errors import ApiError


async def accept(request_id: str, send: Send) -> None:
    """Open the WebSocket."""
    await send({"type": "websocket.accept", "headers": [(b"x-request-id", request_id.encode())]})


async def deny(error: ApiError, request_id: str, send: Send) -> None:
    """Answer with the error, over HTTP."""
    status, headers, body = errors.render(error)
    headers = [*headers, (b"x-request-id", request_id.encode())]
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})
