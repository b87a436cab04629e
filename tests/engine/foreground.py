"""What the engine needs of background runs and of other processes where there are none: every response is generated in
the foreground.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import partial
from typing import NoReturn, cast

from app.engine.responses import Responses
from app.engine.runs.admitting import stored_run
from app.engine.runs.background import BackgroundRuns, Capacity
from app.engine.runs.ports import Ports
from app.engine.runs.supervisor import Runs
from app.eventlog.base import Append, Batch, Outcome
from app.stores.ports.conversations import ConversationStore
from app.stores.ports.responses import ResponseRecord
from app.stores.ports.runs import Claim, Held, RunState, StoredRun


def foreground(ports: Ports, runs: Runs) -> Responses:
    """The use cases of a process that is alone and has no background runs."""
    background = BackgroundRuns(ports, runs, partial(stored_run, ports), Capacity(0, 0), alone=True)
    return Responses(ports, runs, background, alone=True)


NO_CONVERSATIONS = cast("ConversationStore", None)
"""No request names one."""


class NoRuns:
    """A store without background runs."""

    async def create(self, run: StoredRun, owner: str | None, lease_seconds: float) -> NoReturn:
        raise AssertionError("nothing here has background runs")

    async def claim(
        self, owner: str, lease_seconds: float, most: int, *, lanes: int = 2, takeover: bool
    ) -> Sequence[Claim]:
        return ()

    async def renew(self, owner: str, ids: Sequence[str], lease_seconds: float) -> Mapping[str, Held]:
        return {}

    async def request_cancel(self, project_id: str, run_id: str) -> RunState | None:
        return None

    async def seize(self, run_id: str, fence: int, owner: str, lease_seconds: float) -> Claim | None:
        return None

    async def release(self, owner: str, run_id: str, fence: int) -> bool:
        return False

    async def note(self, run_id: str, fence: int, progress: bytes) -> bool:
        return False

    async def settle(self, record: ResponseRecord, fence: int) -> bool:
        return False

    async def get(self, project_id: str, run_id: str) -> RunState | None:
        return None

    async def waiting(self) -> int:
        return 0


class NoLog:
    """A log that nobody writes."""

    patience_seconds = 1.0

    async def append(self, project_id: str, response_id: str, batch: Batch) -> NoReturn:
        raise AssertionError("nothing here has background runs")

    async def append_all(self, appends: Sequence[Append]) -> Sequence[Outcome]:
        raise AssertionError("nothing here has background runs")

    async def seal(self, project_id: str, response_id: str, fence: int) -> NoReturn:
        raise AssertionError("nothing here has background runs")

    async def read(self, project_id: str, response_id: str, after: int = -1) -> AsyncGenerator[tuple[bytes, ...]]:
        if response_id:
            return
        yield ()

    async def frames(self, project_id: str, response_id: str) -> Sequence[bytes]:
        return ()

    async def exists(self, project_id: str, response_id: str) -> bool:
        return False

    async def erase(self, project_id: str, response_id: str) -> None:
        pass

    async def want(self, project_id: str, response_id: str) -> None:
        pass

    async def wanted(self) -> Sequence[tuple[str, str]]:
        return ()

    async def confirm(self, runs: Sequence[tuple[str, str]]) -> None:
        pass

    async def confirmed(self, project_id: str, response_id: str) -> bool:
        return False

    async def aclose(self) -> None:
        pass
