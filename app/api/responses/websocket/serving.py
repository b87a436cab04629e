"""Serves the requests of one WebSocket, each as a `POST` with `stream` true."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Mapping
from contextlib import aclosing
from functools import partial

import msgspec

from app.api import characters, errors
from app.api.responses.create import Policy
from app.api.responses.streaming import Heartbeats
from app.api.responses.websocket.events import Create
from app.api.responses.websocket.lanes import Lane
from app.api.responses.websocket.session import Session
from app.api.responses.websocket.writer import LaneWriter
from app.engine.accounts.access import Access, Principal
from app.engine.conversation.connection import ConnectionState
from app.engine.metrics import Metrics
from app.engine.responses import Responses
from app.engine.runs.readers import ReaderMustLeave
from app.engine.runs.run import Run
from app.engine.runs.supervisor import Runs
from app.engine.upstreams import failures
from app.protocol.wire.errors import ApiError, InvalidRequest, Unauthorized
from app.stores.ports.errors import StoreUnavailable
from app.stores.ports.responses import ResponseRecord
from app.telemetry import log
from app.telemetry.request import RequestSummary, current

_log = logging.getLogger(__name__)
_ROUTE, _METHOD = "/v1/responses", "WEBSOCKET"
_CLIENT_CLOSED = 499
"""Never sent: the status in the metrics if the client disconnected."""
_POLICY_VIOLATION = 1008


class Services(msgspec.Struct, frozen=True):
    """What serves all connections."""

    responses: Responses
    access: Access
    runs: Runs
    metrics: Metrics
    heartbeats: Heartbeats
    policy: Policy

    async def principal(self, headers: Mapping[bytes, bytes]) -> Principal:
        """Whose connection it is. Raises Unauthorized and StoreUnavailable."""
        return await self.access.principal(headers.get(b"authorization"))


class Requests:
    """The requests of one connection."""

    def __init__(self, services: Services, headers: Mapping[bytes, bytes]) -> None:
        """`headers`: of the handshake."""
        self._services = services
        self._headers = headers
        self._state: ConnectionState | None = None
        """Made with the first request: an idle connection costs little."""

    def close(self) -> None:
        """The connection is closed."""
        if self._state is not None:
            self._state.close()

    async def serve(self, create: Create, lane: Lane, session: Session) -> None:
        """Serve one request; every error becomes an event."""
        began, summary = time.perf_counter(), _new_summary()
        try:
            error = await self._attempt(create, lane, session)
            if error is not None:
                summary.status = error.status
                self._evict(create)
                await session.fail(error, lane.name)
        except asyncio.CancelledError:
            summary.status = _CLIENT_CLOSED
            raise
        finally:
            lane.continues = False
            self._end(summary, began)

    async def refuse(self, error: ApiError, lane: str | None, session: Session) -> None:
        """Answer a message that is no request, or is not served any more."""
        began, summary = time.perf_counter(), _new_summary()
        summary.status = error.status
        await session.fail(error, lane)
        self._end(summary, began)

    def _end(self, summary: RequestSummary, began: float) -> None:
        """Log and count a request."""
        summary.end(began)
        self._services.metrics.answered(_ROUTE, _METHOD, summary.status)
        log.write_request(summary)

    async def _attempt(self, create: Create, lane: Lane, session: Session) -> ApiError | None:
        """Serve the request; returns why that was not possible."""
        try:
            await self._serve(create, lane, session)
        except Unauthorized as error:
            session.end(error, _POLICY_VIOLATION)
            return error
        except ApiError as error:
            return error
        except StoreUnavailable as error:
            _log.error("the database is unavailable: %s", error)
            return failures.store_unavailable()
        except ReaderMustLeave:
            return failures.server_is_stopping()
        except Exception:  # noqa: BLE001 - the last resort: our own errors are answered, too
            request_id = current.get().request_id
            _log.exception("request %s failed", request_id)
            return errors.internal(request_id)
        return None

    async def _serve(self, create: Create, lane: Lane, session: Session) -> None:
        services = self._services
        summary, principal = current.get(), await services.principal(self._headers)
        summary.project, summary.key = principal.project_id, principal.key_id
        run = await self._admit(create, principal)
        summary.response, summary.model, summary.stream = run.id, run.admitted.model, True
        lifetime = services.policy.continuation.lifetime(run.admitted, self._headers)
        writer = LaneWriter(session.write, lane.name, run.begin)
        services.heartbeats.add(writer)
        try:
            if lifetime == "stored run" and not create.warm_up:
                await self._follow(run, create, writer)
            else:
                lane.continues = lifetime == "process"
                await self._generate(run, writer)
        finally:
            services.heartbeats.discard(writer)
        if writer.failed:
            self._evict(create)

    async def _admit(self, create: Create, principal: Principal) -> Run:
        """The run, not begun."""
        services, body = self._services, create.body
        size = services.policy.body_bytes
        if len(body) > size:
            raise InvalidRequest(f"The request is larger than {size} bytes.", code="request_too_large")
        characters.check_nul(body)
        state = self._state = self._state or services.responses.connection()
        local = create.previous is not None and state.has(create.previous)
        if local and create.store:
            message = (
                f"Response '{create.previous}' is not stored, so that a stored one cannot continue it: send "
                "'store': false, or the whole conversation."
            )
            raise InvalidRequest(message, code="invalid_value", param="store")
        try:
            run = await services.responses.create(
                principal,
                body,
                lenient=services.policy.is_lenient(self._headers),
                history=None if create.store else state.history,
                warm_up=create.warm_up,
            )
        except InvalidRequest as error:
            if error.code == "json_parse_error":
                characters.check_json(body)
            raise
        if not run.admitted.store:
            run.save = partial(_keep, state, create.lane)
        return run

    async def _generate(self, run: Run, writer: LaneWriter) -> None:
        runs = self._services.runs
        runs.add(run)
        try:
            await run.open()
            await run.stream(writer.write, partial(writer.write, last=True))
        finally:
            runs.discard(run)
            await run.aclose()
        run.remember()

    async def _follow(self, run: Run, create: Create, writer: LaneWriter) -> None:
        """Start a resumable run, and be one of its readers."""
        responses, lenient = self._services.responses, self._services.policy.is_lenient(self._headers)
        await responses.start(run, create.body, lenient=lenient)
        async with aclosing(responses.events(run)) as batches:
            async for frames in batches:
                await writer.write(frames, last=True)

    def _evict(self, create: Create) -> None:
        """A continuation has failed."""
        if create.previous is not None and self._state is not None:
            self._state.evict(create.previous, create.lane)


def _new_summary() -> RequestSummary:
    """Of a request that begins now, in this task."""
    summary = RequestSummary(f"req_{os.urandom(16).hex()}", _METHOD, _ROUTE, 200)
    current.set(summary)
    return summary


async def _keep(state: ConnectionState, lane: str | None, record: ResponseRecord) -> None:
    state.keep(record, lane)
