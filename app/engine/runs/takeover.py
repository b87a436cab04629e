"""Goes on with a run that had another owner."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import msgspec

from app.engine.runs.progress import Progress
from app.engine.runs.tape import Tape
from app.engine.upstreams import failures
from app.eventlog.base import EventLog, EventLogUnavailable, FencedOff
from app.protocol.recovery.arguments import InvalidArguments
from app.protocol.stream.assembler import Assembler
from app.protocol.stream.lifecycle import IllegalEvent
from app.protocol.stream.options import Options
from app.protocol.stream.replay import emit_again, encode_cuts
from app.protocol.stream.restore import NotRestorable, restore
from app.protocol.wire.errors import ApiError
from app.protocol.wire.hosted import HostedItem, McpApprovalRequest
from app.protocol.wire.items import OutputItem, ReasoningItem
from app.protocol.wire.response import Response, decode
from app.stores.ports.responses import ResponseRecord
from app.stores.ports.runs import StoredRun

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 1.0
_TRIES = 10


class Lost(Exception):
    """The run has another owner now: nothing of it may be written here."""


class Restored(msgspec.Struct, frozen=True):
    """What earlier owners have left."""

    begun: bool
    """Somebody may have seen more than the beginning, or something was done that must not be done twice."""
    assembler: Assembler | None = None
    """With what there is of the answer; None: nothing, or it cannot be read."""
    may_go_on: bool = False
    """The model can be asked again after what there is."""


class Takeover:
    """Reads what earlier owners have written."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    async def restore(self, stored: StoredRun, fence: int, tape: Tape | None, done: Progress | None) -> Restored:
        """Seal the log against earlier owners, and read it.

        `done`: what they have noted. The tape then has what there is.
        """
        try:
            kept = None if done is None else emit_again(decode(stored.seed), done.output, done.cuts, open_last=False)
            if tape is None:
                return Restored(begun=kept is not None, assembler=kept, may_go_on=done is not None and done.repeatable)
            tape.adopt(await self._read(stored, fence))
            return _restored(stored, tape, done or Progress(), kept)
        except (ValueError, IllegalEvent, InvalidArguments) as error:
            _log.warning("response %s cannot be restored: %s", stored.id, error)
            return Restored(begun=True)

    async def _read(self, stored: StoredRun, fence: int) -> Sequence[bytes]:
        """The frames in the log. Raises NotRestorable if it does not answer."""
        for _ in range(_TRIES):
            try:
                await self._log.seal(stored.project_id, stored.id, fence)
                return await self._log.frames(stored.project_id, stored.id)
            except FencedOff as error:
                raise Lost from error
            except EventLogUnavailable as error:
                _log.warning("response %s is taken over when the event log answers: %s", stored.id, error)
            await asyncio.sleep(_RETRY_SECONDS)
        raise NotRestorable("the event log does not answer")


def _restored(stored: StoredRun, tape: Tape, done: Progress, kept: Assembler | None) -> Restored:
    """What was shown of a stream, or done and not shown yet. Raises NotRestorable."""
    if kept is not None and _complete(tape, kept.take()):
        return Restored(begun=True, assembler=kept, may_go_on=done.repeatable and not tape.full)
    if kept is None and not shown(stored, tape):
        return Restored(begun=False)
    assembler, items = restore(tape.frames)
    return Restored(begun=True, assembler=assembler, may_go_on=not tape.full and _may_ask_again(items, done))


def _complete(tape: Tape, frames: list[bytes]) -> bool:
    """Add to the tape what was done but not logged yet. False: what was logged is more than that, or something else."""
    logged = len(tape.frames)
    if tape.frames != frames[:logged]:
        return False
    if logged < len(frames):
        tape.publish(frames[logged:])
    return True


def _may_ask_again(items: Sequence[OutputItem], done: Progress) -> bool:
    """Whether of the turn that was interrupted only thinking and calls were shown, and no call that must not be made
    twice has begun.

    An answer would come twice, and a call of the client's tools might be made twice.
    """
    finished, rest = items[: len(done.output)], items[len(done.output) :]
    harmless = all(
        isinstance(item, ReasoningItem | HostedItem) and not isinstance(item, McpApprovalRequest) for item in rest
    )
    return done.repeatable and harmless and tuple(finished) == done.output


def begin(tape: Tape, stored: StoredRun) -> None:
    """Write the opening events, those that are not in the log yet."""
    frames = opening(decode(stored.seed))[len(tape.frames) :]
    if frames:
        tape.publish(frames)


def unreadable(stored: StoredRun, error: ApiError, retention_seconds: int) -> ResponseRecord:
    """The record of a run whose request is not accepted any more."""
    assembler = Assembler(decode(stored.seed), _no_id, Options())
    assembler.start()
    assembler.fail(failures.inside(error, stored.id))
    response = assembler.response or assembler.seed
    return ResponseRecord(
        id=stored.id,
        project_id=stored.project_id,
        previous_id=stored.previous_id,
        created_at=stored.created_at,
        expires_at=stored.created_at + retention_seconds,
        status=response.status,
        model=response.model,
        response=assembler.body,
        input=b"[]",
        cuts=encode_cuts([]) if stored.streamed else None,
    )


def opening(seed: Response) -> list[bytes]:
    """The events before the first item."""
    assembler = Assembler(seed, _no_id, Options())
    assembler.start()
    return assembler.take()


def shown(stored: StoredRun, tape: Tape | None) -> bool:
    """Whether somebody may have seen more than the opening events."""
    return tape is not None and len(tape.frames) > len(opening(decode(stored.seed)))


def _no_id(_prefix: str, _position: int) -> str:
    raise RuntimeError("the opening events have no items")
