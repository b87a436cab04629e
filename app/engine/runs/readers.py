"""Reads background runs, wherever they are: here, in another process, or ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from app.engine.runs.background import BackgroundRuns, queued
from app.engine.runs.logged import is_end, read_until_silent, rest_of, snapshot
from app.engine.runs.ports import Ports
from app.engine.runs.takeover import opening
from app.eventlog.base import EventLogUnavailable
from app.protocol.wire.response import decode
from app.stores.ports.errors import StoreUnavailable
from app.stores.ports.runs import RunState

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.25
_STORE_SECONDS = 1.0
"""Between two looks at a store that does not answer."""
_QUEUED = 2
"""The events of a run that waits: `response.created`, `response.queued`."""


class ReaderMustLeave(Exception):
    """This process stops, and another one has or gets the run: its readers resume there."""


class BackgroundReader:
    """The reader of background runs that are not stored yet."""

    def __init__(self, ports: Ports, background: BackgroundRuns) -> None:
        self._ports = ports
        self._background = background

    async def state(self, project_id: str, run_id: str) -> RunState | None:
        """The run's row; None: it has ended, or never was. Raises StoreUnavailable."""
        return await self._ports.runs.get(project_id, run_id)

    async def snapshot(self, project_id: str, run_id: str) -> bytes | None:
        """The response so far; None if there is no such run. Raises StoreUnavailable."""
        held = self._background.find(project_id, run_id)
        if held is not None:
            return held.run.snapshot()
        state = await self.state(project_id, run_id)
        if state is None:
            return None
        if state.owner is None:
            return queued(decode(state.run.seed))
        return await self._logged(state) or state.run.seed

    async def follow(self, project_id: str, run_id: str, after: int) -> AsyncGenerator[Sequence[bytes], None]:
        """The frames after number `after`, up to the terminal event, whoever generates the run meanwhile; outages are
        waited for.

        An `error` event if it has ended before: then what was shown was not kept. Ends early only if the response was
        deleted. Raises ReaderMustLeave.
        """
        position = after + 1
        while True:
            try:
                async with aclosing(self._until_silent(project_id, run_id, position)) as batches:
                    async for frames in batches:
                        position += len(frames)
                        yield frames
                        if is_end(frames):
                            return
                        self._check_stay(project_id, run_id)
                self._check_stay(project_id, run_id)
                if await self.state(project_id, run_id) is None:
                    record = await self._ports.store.get(project_id, run_id, int(self._ports.clock()))
                    break
            except StoreUnavailable as error:
                _log.warning("the readers of response %s wait for the database: %s", run_id, error)
                await asyncio.sleep(_STORE_SECONDS)
            await asyncio.sleep(_POLL_SECONDS)
        if record is not None:
            async with aclosing(rest_of(record, position)) as batches:
                async for frames in batches:
                    yield frames

    def _check_stay(self, project_id: str, run_id: str) -> None:
        """Raises ReaderMustLeave if this process stops and has no part in the run."""
        if self._background.draining and self._background.find(project_id, run_id) is None:
            raise ReaderMustLeave

    async def _until_silent(self, project_id: str, run_id: str, position: int) -> AsyncGenerator[Sequence[bytes], None]:
        """Frames from `position` on, as long as their source has them."""
        held = self._background.find(project_id, run_id)
        if held is not None and held.tape is not None:
            async with aclosing(held.tape.read(position - 1)) as batches:
                async for frames in batches:
                    yield frames
            return
        state = await self.state(project_id, run_id)
        if state is not None and state.owner is None and position < _QUEUED:
            yield opening(decode(state.run.seed))[position:_QUEUED]
        elif state is not None and state.owner is not None:
            async with aclosing(read_until_silent(self._ports.log, project_id, run_id, position)) as batches:
                async for frames in batches:
                    yield frames

    async def _logged(self, state: RunState) -> bytes | None:
        """The response so far of a run in another process, if it is streamed."""
        if not state.run.streamed:
            return None
        try:
            frames = await self._ports.log.frames(state.run.project_id, state.run.id)
        except EventLogUnavailable:
            return None
        return snapshot(frames)
