"""`/v1/responses` over WebSocket, as a plain ASGI endpoint."""

from __future__ import annotations

import logging
from collections.abc import Callable

from starlette.types import Receive, Scope, Send

from app.api.responses.websocket import handshake
from app.api.responses.websocket.serving import Requests, Services
from app.api.responses.websocket.session import Session
from app.engine.upstreams import failures
from app.protocol.wire.errors import ApiError, InvalidRequest
from app.stores.ports.errors import StoreUnavailable

_log = logging.getLogger(__name__)
_GOING_AWAY = 1001


class WebSockets:
    """The endpoint."""

    def __init__(self, services: Services, seconds: float, drain: Callable[[], None]) -> None:
        """`seconds`: how long a connection stays open. `drain` drains the rest of the process."""
        self._services = services
        self._seconds = seconds
        self._drain = drain
        self._open: set[Session] = set()
        self._draining = False

    def __len__(self) -> int:
        """The number of open connections."""
        return len(self._open)

    def drain(self) -> None:
        """The process is to stop: each connection is closed when what it generates has ended."""
        self._draining = True
        for session in tuple(self._open):
            session.end(failures.server_is_stopping(), _GOING_AWAY)
        self._drain()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; the handshake's id is in `scope["state"]["request_id"]`."""
        request_id: str = scope["state"]["request_id"]
        headers: dict[bytes, bytes] = dict(scope["headers"])
        refusal = await self._refusal(headers)
        if refusal is not None:
            await handshake.deny(refusal, request_id, send)
            return
        await handshake.accept(request_id, send)
        requests = Requests(self._services, headers)
        session = Session(requests, receive, send)
        self._open.add(session)
        try:
            await session.run(self._seconds, _limit_reached(self._seconds))
        finally:
            self._open.discard(session)
            requests.close()

    async def _refusal(self, headers: dict[bytes, bytes]) -> ApiError | None:
        """Why no connection is opened."""
        if self._draining:
            return failures.server_is_stopping()
        try:
            await self._services.principal(headers)
        except ApiError as error:
            return error
        except StoreUnavailable as error:
            _log.error("the database is unavailable: %s", error)
            return failures.store_unavailable()
        return None


def _limit_reached(seconds: float) -> ApiError:
    minutes = seconds / 60
    message = f"This connection has reached its limit of {minutes:g} minutes; open another one to continue."
    return InvalidRequest(message, code="websocket_connection_limit_reached")
