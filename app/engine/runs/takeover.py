"""Goes on with a run that had another owner."""

from __future__ import annotations

import asyncio
import logging

import msgspec

from app.engine.runs.tape import Tape
from app.engine.upstreams import failures
from app.eventlog.base import EventLog, EventLogUnavailable, FencedOff
from app.protocol.stream.assembler import Assembler
from app.protocol.stream.options import Options
from app.protocol.stream.replay import encode_cuts
from app.protocol.stream.restore import NotRestorable, restore
from app.protocol.wire.errors import ApiError
from app.protocol.wire.response import Response, decode
from app.stores.ports.responses import ResponseRecord
from app.stores.ports.runs import StoredRun

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 1.0
_TRIES = 10


class Lost(Exception):
    """The run has another owner now: nothing of it may be written here."""


class Restored(msgspec.Struct, frozen=True):
    """What an earlier owner has left."""

    shown: bool
    """Somebody may have seen more than the beginning."""
    assembler: Assembler | None
    """With what was shown; None: nothing was, or it cannot be read."""


class Takeover:
    """Reads what earlier owners have written."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    async def restore(self, stored: StoredRun, fence: int, tape: Tape | None) -> Restored:
        """Seal the log against earlier owners, and read it."""
        if tape is None:
            return Restored(shown=False, assembler=None)
        frames = await self._read(stored, fence)
        if frames is None:
            return Restored(shown=True, assembler=None)
        tape.adopt(frames)
        if not shown(stored, tape):
            return Restored(shown=False, assembler=None)
        try:
            return Restored(shown=True, assembler=restore(frames))
        except NotRestorable as error:
            _log.warning("response %s cannot be restored from its events: %s", stored.id, error)
            return Restored(shown=True, assembler=None)

    async def _read(self, stored: StoredRun, fence: int) -> list[bytes] | None:
        """The frames in the log; None if it does not answer."""
        for _ in range(_TRIES):
            try:
                await self._log.seal(stored.project_id, stored.id, fence)
                return list(await self._log.frames(stored.project_id, stored.id))
            except FencedOff as error:
                raise Lost from error
            except EventLogUnavailable as error:
                _log.warning("response %s is taken over when the event log answers: %s", stored.id, error)
            await asyncio.sleep(_RETRY_SECONDS)
        return None


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
