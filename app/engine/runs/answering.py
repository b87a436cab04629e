"""Has the model answer a request that an upstream has accepted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from app.engine.hosted.sessions import Hosted
from app.engine.model import turn
from app.engine.model.turn import TurnDependencies
from app.engine.runs.loop import Bounds, Loop
from app.engine.runs.opening import UpstreamRequests
from app.engine.runs.ports import Ports
from app.engine.runs.progress import Note, Progress
from app.engine.upstreams.routing import Started
from app.protocol.stream.assembler import Assembler
from app.protocol.wire.requests import CreateResponse


async def unpublished() -> None:
    """Answers that are not streamed send no events."""


class Answering:
    """Feeds the model's answer into the assembler: one turn, or several if built-in tools are offered."""

    def __init__(self, ports: Ports, opening: UpstreamRequests, request: CreateResponse) -> None:
        self._ports = ports
        self._opening = opening
        self._bounds = Bounds(ports.policy.limits.tool_rounds, request.max_tool_calls, request.max_output_tokens)
        self.note: Note | None = None
        """Stores what a background run has finished."""

    async def run(
        self,
        started: Started,
        assembler: Assembler,
        hosted: Hosted | None,
        publish: Callable[[], Awaitable[None]],
        earlier: Progress | None,
    ) -> None:
        """The whole answer; `earlier`: what another process has done of it. Raises what a turn raises."""
        ports, prepared = self._ports, self._opening.ready
        around = TurnDependencies(
            ports.validator, ports.traits, self._opening.again, publish, ports.formats, ports.router.note_failure
        )
        if hosted is None:
            await turn.run(prepared, started, assembler, around)
            return
        loop = Loop(prepared, assembler, hosted, around, self.note)
        rounds = earlier.rounds if earlier is not None else None
        if rounds is None:
            rounds = self._bounds.start(len(prepared.resumed))
            await loop.begin(rounds)
        await loop.run(started, rounds, self._bounds)
