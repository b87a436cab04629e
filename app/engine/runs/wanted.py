"""Foreground streams of this process that readers of other processes ask for: from then on they are written to the
event log.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from app.engine.runs.run import Run
from app.engine.runs.supervisor import Runs
from app.engine.runs.tape import Recorder
from app.eventlog.base import EventLog, EventLogUnavailable

_log = logging.getLogger(__name__)
LOOK_SECONDS = 1.0
"""How often the owners of streams look what is asked for."""


class WantedStreams:
    """Answers the readers of other processes."""

    def __init__(self, runs: Runs, log: EventLog, recorder: Recorder) -> None:
        self._runs = runs
        self._log = log
        self._recorder = recorder

    async def look(self) -> None:
        """Begin to log what is asked for and generated here; one call to the log, none if nothing is streamed."""
        if not self._runs.are_streamed:
            return
        try:
            found = [self._runs.find(*wanted) for wanted in await self._log.wanted()]
            mine = [run for run in found if run is not None and run.can_be_followed]
            if mine:
                await self._answer(mine)
        except EventLogUnavailable as error:
            _log.warning("live streams cannot be followed in other processes: %s", error)

    async def _answer(self, mine: Sequence[Run]) -> None:
        for run in mine:
            if not run.followers.recorded or not await self._log.exists(run.project_id, run.id):
                run.followers.record(run.so_far, self._recorder)
        await self._log.confirm([(run.project_id, run.id) for run in mine])
