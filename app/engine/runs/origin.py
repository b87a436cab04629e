"""Where a run begins: with a new request, or where a background run was accepted, perhaps in another process."""

from __future__ import annotations

import os

import msgspec

from app.engine.runs.progress import Progress
from app.protocol.wire import ids
from app.protocol.wire.response import Response


class Origin(msgspec.Struct, frozen=True):
    """The identity of a run, and what earlier owners have done."""

    id: str
    """Of the response, without prefix."""
    began: float
    """Unix seconds."""
    seed: Response | None = None
    """The initial response of an accepted run: `response.created` must show the same wherever it is generated."""
    progress: Progress | None = None
    """None: nothing that could be continued."""

    @classmethod
    def new(cls, now: float) -> Origin:
        """Of a request that arrives now."""
        return cls(ids.response_id(int(now * 1000), os.urandom(10)), now)
