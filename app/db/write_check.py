"""Whether a database accepts a row: only this distinguishes a full disk, a lock and a read-only server from a working
database.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from pathlib import Path

from app.db.tables import event_batches
from app.db.writer import DatabaseUnavailable, GroupWriter, RowRefused

_REMEMBERED_SECONDS = 1.0
"""How long a result is reused, so that frequent checks cost nothing."""
_PATIENCE = 2.0
"""A slower database is of no use, even if it succeeds in the end; probes time out soon after."""
_ROW_BYTES = 16 * 1024
"""More than the free space in a file's last page."""
_LEAST_FREE_BYTES = 1024 * 1024


class WriteCheck:
    """Writes a row through the group writer, as responses are written. Concurrent callers share the result."""

    def __init__(self, writer: GroupWriter, file: str | None) -> None:
        """`file`: the path of the database's file, if it has one."""
        self._writer = writer
        self._file = file
        self._lock = asyncio.Lock()
        self._until = 0.0
        self._failure: str | None = None

    async def __call__(self) -> None:
        """Raises DatabaseUnavailable with the reason."""
        async with self._lock:
            # A success is discarded if a write has failed since.
            if time.monotonic() >= self._until or (self._failure is None and self._writer.doubtful):
                self._failure = await self._problem()
                self._until = time.monotonic() + _REMEMBERED_SECONDS
            if self._failure is not None:
                raise DatabaseUnavailable(self._failure)

    async def _problem(self) -> str | None:
        problem = _problem_of(self._file) if self._file is not None else None
        if problem is not None:
            return problem
        # A batch of frames that nobody reads and that is already expired: `SqlResponseStore.purge` removes it with the
        # others.
        row = (str(uuid.uuid4()), 0, "", bytes(_ROW_BYTES), True, 0)
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._writer.insert((event_batches, row))
        except TimeoutError:
            return f"nothing could be written within {_PATIENCE:g} s"
        except (DatabaseUnavailable, RowRefused) as error:
            return str(error)
        return None


def _problem_of(file: str) -> str | None:
    """What a write may not reveal:

    SQLite keeps writing to a deleted file, and a last small row may still fit on a full disk.
    """
    if not Path(file).exists():
        return "the database's file was deleted"
    if hasattr(os, "statvfs"):
        disk = os.statvfs(Path(file).parent)
        if disk.f_bavail * disk.f_frsize < _LEAST_FREE_BYTES:
            return "the disk is full"
    return None
