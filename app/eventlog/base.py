"""The event-log port: the frames of runs in progress.

A run appends, readers read; a reader that attaches late gets everything from the start, then follows. After its end,
a run's record in the store remains, from which the same events can be replayed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

import msgspec


class Batch(msgspec.Struct, frozen=True):
    """Consecutive whole SSE frames: from one read of the upstream, or several joined."""

    first: int
    """Sequence number of the first frame."""
    frames: tuple[bytes, ...]
    final: bool = False
    """The last frame is the terminal event; nothing follows."""


class EventLogUnavailable(Exception):
    """The log cannot be reached or does not work; `append` and `read` may raise it."""


class EventLog(Protocol):
    """Frames of live runs, by project and response id. Sequence numbers start at 0."""

    async def append(self, project_id: str, response_id: str, batch: Batch) -> None:
        """Add the next batch. Batches of one run are contiguous and arrive in order."""
        ...

    def read(self, project_id: str, response_id: str, after: int = -1) -> AsyncGenerator[tuple[bytes, ...]]:
        """Frames with a sequence number above `after`: those logged, then new ones until the final batch. No gaps, no duplicates.

        Ends at once if the run is unknown. Ends without a final batch if the run's owner disappeared (its entries expired).
        """
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
