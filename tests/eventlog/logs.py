"""What the tests of logs share: a run, its frames, a reader."""

from __future__ import annotations

from contextlib import aclosing

from app.eventlog.base import Batch, EventLog

PROJECT = "project-a"
RUN = "6f1c1b52-7d0f-4a6e-9f0a-000000000001"


def batch(first: int, count: int, *, final: bool = False, fence: int = 1) -> Batch:
    """Frames with these numbers."""
    return Batch(first, tuple(frames(first, first + count)), final, fence)


def frames(first: int, end: int) -> list[bytes]:
    """The frames from one number up to another."""
    return [f"data: {number} é\n\n".encode() for number in range(first, end)]


async def read(log: EventLog, after: int = -1, *, project: str = PROJECT) -> list[bytes]:
    """Every frame until the reader ends by itself."""
    seen: list[bytes] = []
    async with aclosing(log.read(project, RUN, after)) as batches:
        async for fresh in batches:
            seen += fresh
    return seen
