"""The event-log port: the frames of runs in progress.

A run's owner appends, readers read; a reader that attaches late gets everything from the start, then follows. After its
end, a run's record in the store remains, from which the same events can be replayed.

The owner can be replaced, by one with a greater fence. The log refuses the one that was replaced and does not know it
yet.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Protocol

import msgspec

QUIET_SECONDS = 1.0
"""The longest that a reader waits for new frames before it is told that there are none."""

FIRST_READ = 4
"""How many batches a reader gets at first."""
_READ_FRAMES = 256
"""About how many frames a reader gets at once: one that is not read itself holds no more."""

WANTED_SECONDS = 3.0
CONFIRMED_SECONDS = 5.0
MOST_WANTED = 1000


class Batch(msgspec.Struct, frozen=True):
    """Consecutive whole SSE frames, at least one: from one read of the upstream, or several joined."""

    first: int
    """Sequence number of the first frame."""
    frames: tuple[bytes, ...]
    final: bool = False
    """The last frame is the terminal event; nothing follows."""
    fence: int = 1
    """The owner's fence, from 1; no two owners of a run have the same."""


class Append(msgspec.Struct, frozen=True):
    """The next batch of one run."""

    project_id: str
    response_id: str
    batch: Batch


class EventLogUnavailable(Exception):
    """The log cannot be reached or does not work; any of its methods may raise it."""


class LogLost(EventLogUnavailable):
    """The log no longer has the run's earlier frames. Its owner may append everything again, beginning with frame 0."""


class FencedOff(Exception):
    """Another owner has written since: nothing was appended. `fence` is the greatest that was found.

    If it is less than one's own, the older owner was faster once more: read `frames` and append after them. Else the
    run is lost.
    """

    def __init__(self, response_id: str, fence: int) -> None:
        super().__init__(f"response {response_id} was written to by the owner with fence {fence}")
        self.fence = fence


Outcome = FencedOff | EventLogUnavailable | None
"""Of one of several appends: None if its batch is in the log."""


class EventLog(Protocol):
    """Frames of live runs, by project and response id. Sequence numbers start at 0."""

    @property
    def patience_seconds(self) -> float:
        """How long readers wait for a log that does not answer, before they get frames that are not in it."""
        ...

    async def append(self, project_id: str, response_id: str, batch: Batch) -> None:
        """Add the next batch; it is in the log when this returns. Batches of one run are contiguous and arrive in
        order.

        An append that failed may be repeated, with more frames at its end if there are more by now: each is in the log
        once. A batch whose first number is not 0 expects the earlier frames in the log. Raises FencedOff and LogLost.
        """
        ...

    async def append_all(self, appends: Sequence[Append]) -> Sequence[Outcome]:
        """As `append`, for at most one batch each of several runs, in one round trip; the outcome of each.

        Raises nothing of its own.
        """
        ...

    async def seal(self, project_id: str, response_id: str, fence: int) -> None:
        """Let no owner with an older fence append any more, before the new one reads what there is. Raises FencedOff.

        An append of an older owner that is under way is before it or is refused.
        """
        ...

    def read(self, project_id: str, response_id: str, after: int = -1) -> AsyncGenerator[tuple[bytes, ...]]:
        """Frames with a sequence number above `after`: those logged, then new ones until the final batch. No gaps, no
        duplicates. A few batches at a time.

        While there is nothing new it yields an empty tuple at least every `QUIET_SECONDS`: the rest may be in the store
        by now. Ends at once if the run is unknown. Ends without a final batch if the run's owner disappeared (its
        entries expired).
        """
        ...

    async def frames(self, project_id: str, response_id: str) -> Sequence[bytes]:
        """The frames that are in the log now, from number 0 on; none if the run is unknown."""
        ...

    async def exists(self, project_id: str, response_id: str) -> bool:
        """Whether the log has this run."""
        ...

    async def erase(self, project_id: str, response_id: str) -> None:
        """Delete the run's frames; its readers get what was logged, and end."""
        ...

    async def aclose(self) -> None:
        """Release connections; readers end."""
        ...

    async def want(self, project_id: str, response_id: str) -> None:
        """Ask whoever generates this response to log it; to be repeated within `WANTED_SECONDS` while it is wanted."""
        ...

    async def wanted(self) -> Sequence[tuple[str, str]]:
        """Project and response id of what has been asked for lately, the newest first, at most `MOST_WANTED`."""
        ...

    async def confirm(self, runs: Sequence[tuple[str, str]]) -> None:
        """Say for `CONFIRMED_SECONDS` that these responses are being generated."""
        ...

    async def confirmed(self, project_id: str, response_id: str) -> bool:
        """Whether somebody says so of this one."""
        ...


async def append_one(log: EventLog, project_id: str, response_id: str, batch: Batch) -> None:
    """`append` by means of `append_all`."""
    (outcome,) = await log.append_all((Append(project_id, response_id, batch),))
    if outcome is not None:
        raise outcome


def joined(batches: Iterable[tuple[int, Sequence[bytes]]], position: int) -> tuple[bytes, ...]:
    """The frames from `position` on, of batches given by their first number and frames.

    Batches may overlap: what is there twice is taken once. What comes after a missing frame is left out, as a log may
    have lost its newest entries: the owner writes them again, or the record has them.
    """
    fresh: list[bytes] = []
    for first, frames in batches:
        wanted = position + len(fresh)
        if first <= wanted:
            fresh += frames[wanted - first :]
    return tuple(fresh)


def next_read(batches: int, frames: int) -> int:
    """How many batches to read next, after so many had so many frames."""
    return min(max(_READ_FRAMES * batches // max(frames, 1), 1), _READ_FRAMES)
