"""Reads foreground streams that another process generates.

Its owner logs one only when it is asked to, so that others cost nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from app.engine.runs.logged import is_end, lost, read_until_silent, rest_of, snapshot
from app.engine.runs.ports import Ports
from app.eventlog.base import EventLogUnavailable
from app.protocol.wire import ids
from app.protocol.wire.errors import Unavailable
from app.stores.ports.errors import StoreUnavailable

_log = logging.getLogger(__name__)
_LONGEST_SECONDS = 3600
"""No foreground response takes longer; an older one that is unknown does not exist."""
_SKEW_SECONDS = 60
"""By how much the clocks of processes may differ."""
_WAIT_SECONDS = 2.5
"""How long an owner has to answer: it looks every second."""
_POLL_SECONDS = 0.2
_LOOKS = 4
"""After so many polls the store is asked, too: the response may have ended meanwhile."""
_GONE_SECONDS = 5.0
"""How long nothing may be heard of an owner while the log answers, beyond the time for which it has confirmed."""
_STOPPED = "The server that generated this response has stopped; the rest of its events is lost."


class Elsewhere:
    """The reader of foreground streams of other processes."""

    def __init__(self, ports: Ports, *, alone: bool) -> None:
        """`alone`: there are no other processes."""
        self._ports = ports
        self._alone = alone

    async def has(self, project_id: str, response_id: str) -> bool:
        """Whether another process generates this response; then it begins to log it. Waits for its answer.

        False also if the response has ended meanwhile. Raises Unavailable if the log does not answer, and
        StoreUnavailable.
        """
        if self._alone or not self._may_be_live(response_id):
            return False
        try:
            return await self._ask(project_id, response_id)
        except EventLogUnavailable as error:
            _log.warning("live responses of other processes cannot be read: %s", error)
            raise _unavailable() from error

    async def snapshot(self, project_id: str, response_id: str) -> bytes | None:
        """The response so far; None if nothing of it is logged. Raises Unavailable if the log does not answer."""
        try:
            for _ in range(int(_WAIT_SECONDS / _POLL_SECONDS)):
                found = snapshot(await self._ports.log.frames(project_id, response_id))
                if found is not None:
                    return found
                await asyncio.sleep(_POLL_SECONDS)
        except EventLogUnavailable as error:
            raise _unavailable() from error
        return None

    async def follow(self, project_id: str, response_id: str, after: int) -> AsyncGenerator[Sequence[bytes], None]:
        """The frames after number `after`, from the log while it has them, and from the record after the end.

        An `error` event if the response will never be complete, or ends before. Ends early if it has been deleted.
        """
        position, unheard = after + 1, None
        while True:
            async with aclosing(read_until_silent(self._ports.log, project_id, response_id, position)) as batches:
                async for frames in batches:
                    position, unheard = position + len(frames), None
                    yield frames
                    if is_end(frames):
                        return
            try:
                if await self._ports.store.has_ended(project_id, response_id):
                    record = await self._ports.store.get(project_id, response_id, int(self._ports.clock()))
                    break
                if _is_over(unheard):
                    yield [lost(position, _STOPPED)]
                    return
            except StoreUnavailable as error:
                _log.warning("the readers of response %s wait for the database: %s", response_id, error)
            unheard = None if await self._is_alive(project_id, response_id) else unheard or _now()
            await asyncio.sleep(_POLL_SECONDS)
        if record is not None:
            async with aclosing(rest_of(record, position)) as batches:
                async for frames in batches:
                    yield frames

    async def forget(self, project_id: str, response_id: str) -> None:
        """Remove what is logged of a deleted response."""
        try:
            await self._ports.log.erase(project_id, response_id)
        except EventLogUnavailable as error:
            _log.warning(
                "the frames of deleted response %s stay in the event log until they expire: %s", response_id, error
            )

    def _may_be_live(self, response_id: str) -> bool:
        age = self._ports.clock() - ids.created_at(response_id)
        return -_SKEW_SECONDS < age < _LONGEST_SECONDS

    async def _ask(self, project_id: str, response_id: str) -> bool:
        log, store = self._ports.log, self._ports.store
        if await store.has_ended(project_id, response_id):
            return False
        await log.want(project_id, response_id)
        for turn in range(int(_WAIT_SECONDS / _POLL_SECONDS)):
            if await log.confirmed(project_id, response_id):
                return True
            if turn % _LOOKS == _LOOKS - 1 and await store.has_ended(project_id, response_id):
                return False
            await asyncio.sleep(_POLL_SECONDS)
        return False

    async def _is_alive(self, project_id: str, response_id: str) -> bool:
        """Whether the owner has been heard of lately; while the log does not answer, as long as it may be alive."""
        try:
            await self._ports.log.want(project_id, response_id)
            return await self._ports.log.confirmed(project_id, response_id)
        except EventLogUnavailable:
            return self._may_be_live(response_id)


def _unavailable() -> Unavailable:
    message = "Whether another server is generating this response cannot be determined at the moment. Try again."
    return Unavailable(message, code="event_log_unavailable", retry_after=1.0)


def _is_over(unheard: float | None) -> bool:
    """Whether it is too long since nothing has been heard (loop time)."""
    return unheard is not None and _now() - unheard >= _GONE_SECONDS


def _now() -> float:
    return asyncio.get_running_loop().time()
