"""Cancels background runs, whoever owns them."""

from __future__ import annotations

import asyncio

from app.engine.runs.background import LEASE_SECONDS, BackgroundRuns
from app.engine.runs.ports import Ports
from app.stores.ports.runs import RunState

_POLL_SECONDS = 0.1
_OWNER_SECONDS = 4.0
"""How long an owner has to react before the run is taken from it."""


class Cancellation:
    """Cancels background runs."""

    def __init__(self, ports: Ports, background: BackgroundRuns) -> None:
        self._ports = ports
        self._background = background

    async def cancel(self, project_id: str, run_id: str) -> None:
        """End the run, if it has not ended, and wait for its record. Raises StoreUnavailable."""
        held = self._background.find(project_id, run_id)
        if held is not None:
            held.stop()
            if await held.ended(_OWNER_SECONDS):
                return
        state = await self._ports.runs.request_cancel(project_id, run_id)
        if state is not None and (state.owner is None or not await self._has_ended(project_id, run_id)):
            await self._seize(state)

    async def _has_ended(self, project_id: str, run_id: str) -> bool:
        """Whether the owner has ended the run in time."""
        try:
            async with asyncio.timeout(_OWNER_SECONDS):
                while await self._ports.runs.get(project_id, run_id) is not None:  # noqa: ASYNC110 - the owner is another process
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            return False
        return True

    async def _seize(self, state: RunState) -> None:
        """End it in this process. If somebody else has claimed it meanwhile, that one sees the request to cancel."""
        claim = await self._background.seize(state.run.id, state.fence)
        if claim is None:
            await self._has_ended(state.run.project_id, state.run.id)
            return
        held = await self._background.take(claim)
        if held is not None:
            self._background.drive(held, self._background.work.end)
            await held.ended(LEASE_SECONDS)
