"""What readers of runs in other processes have in common, for background and foreground runs alike."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from app.engine.runs.replaying import BeyondEnd, replayed
from app.eventlog.base import EventLog, EventLogUnavailable
from app.protocol.stream.projection import fold, parse_frame
from app.protocol.wire.events import ErrorEvent, NestedError
from app.protocol.wire.response import encode
from app.protocol.wire.sse import frame
from app.stores.ports.responses import ResponseRecord

_log = logging.getLogger(__name__)
_ENDS = tuple(b"event: response.%b\n" % name for name in (b"completed", b"incomplete", b"failed"))


def is_end(frames: Sequence[bytes]) -> bool:
    """Whether the last frame is the terminal event."""
    return frames[-1].startswith(_ENDS)


def snapshot(frames: Sequence[bytes]) -> bytes | None:
    """The response after these frames, as JSON; None if there are none."""
    response = fold(event for frame in frames if (event := parse_frame(frame)))
    return None if response is None else encode(response)


def lost(position: int, message: str) -> bytes:
    """The `error` event that has the number of one that is lost."""
    nested = NestedError("server_error", "server_error", message, None)
    return frame(ErrorEvent(sequence_number=position, code="server_error", message=message, param=None, error=nested))


def beyond_end(position: int, last: int) -> bytes:
    """The `error` event for a reader that waited for one beyond the last: then what was shown was not all kept."""
    return lost(position, f"The last event that was kept of this response has the number {last}.")


async def read_until_silent(
    log: EventLog, project_id: str, run_id: str, position: int
) -> AsyncGenerator[Sequence[bytes], None]:
    """The frames from `position` on, until the log ends, is silent or does not answer: the run may have ended without
    it.
    """
    try:
        async with aclosing(log.read(project_id, run_id, position - 1)) as batches:
            async for frames in batches:
                if not frames:
                    return
                yield frames
    except EventLogUnavailable as error:
        _log.warning("response %s is followed when the event log answers: %s", run_id, error)


async def rest_of(record: ResponseRecord, position: int) -> AsyncGenerator[Sequence[bytes], None]:
    """The frames of a stored response from `position` on; an `error` event if there are none so late."""
    try:
        async with aclosing(replayed(record, position)) as batches:
            async for frames in batches:
                yield frames
    except BeyondEnd as error:
        yield [beyond_end(position, error.last)]
