"""What the task of a background run does: generate the response, go on with it, or end it."""

from __future__ import annotations

from app.engine.runs.held import Held
from app.engine.runs.ports import Ports
from app.engine.runs.takeover import Restored, Takeover, begin
from app.engine.upstreams.failures import STOPPED
from app.protocol.stream.assembler import Assembler
from app.protocol.wire.response import ResponseError

_MOST_CLAIMS = 4
"""A run that has ended so many processes is not tried again."""
_HOPELESS = ResponseError("server_error", "The response could not be generated: the servers that tried have stopped.")


class Work:
    """Works on the runs that this process owns."""

    def __init__(self, ports: Ports) -> None:
        self._takeover = Takeover(ports.log)
        self._metrics = ports.metrics

    async def generate(self, held: Held) -> None:
        """Generate the response, from its beginning or from where it is continued."""
        run, tape = held.run, held.tape
        if tape is not None:
            begin(tape, held.stored)
        await run.open()
        await run.stream(tape.make_room if tape is not None else _discard)
        run.remember()

    async def go_on(self, held: Held) -> None:
        """Generate the response of a run that had another owner, or end it where that is not possible."""
        restored = await self._restore(held)
        if held.fence > _MOST_CLAIMS or (restored.begun and not restored.may_go_on):
            self._metrics.taken_over("ended")
            await _end(held, STOPPED if restored.begun else _HOPELESS, restored)
        elif restored.assembler is not None:
            self._metrics.taken_over("continued")
            await self._continue(held, restored.assembler)
        else:
            self._metrics.taken_over("repeated")
            await self.generate(held)

    async def end(self, held: Held) -> None:
        """End a run that is not generated, with what its earlier owner has left.

        It is cancelled, unless it was stopped for another reason.
        """
        await _end(held, held.run.interruption, await self._restore(held))

    async def _restore(self, held: Held) -> Restored:
        return await self._takeover.restore(held.stored, held.fence, held.tape, held.done)

    async def _continue(self, held: Held, shown: Assembler) -> None:
        """Generate the rest of the response, with a new turn of the model."""
        shown.close_item("incomplete")
        frames = shown.take()
        if held.tape is not None and frames:
            held.tape.publish(frames)
        held.run.go_on(shown)
        await self.generate(held)


async def _end(held: Held, why: ResponseError | None, restored: Restored) -> None:
    if held.tape is not None and restored.begun and restored.assembler is None:
        held.tape.lose()  # its events cannot be continued; readers get what is stored
    elif held.tape is not None:
        begin(held.tape, held.stored)
    await held.run.end(why, restored.assembler)


async def _discard(_frames: list[bytes]) -> None:
    """A run that is not streamed has no readers."""
