"""Bodies of cold routes, which the framework would read however large they are."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message


class BoundedRoute(APIRoute):
    """A route whose body is at most `limits.body_bytes`: for `APIRouter(route_class=BoundedRoute)`.

    The framework's own limit does not answer in the envelope.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The framework's handler, with a body that ends at the limit."""
        handle = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            left: int = request.app.state.services.body_bytes

            async def receive() -> Message:
                nonlocal left
                message = await request.receive()
                left -= len(message.get("body", b""))
                if left < 0:
                    raise HTTPException(413)
                return message

            return await handle(Request(request.scope, receive))

        return bounded
