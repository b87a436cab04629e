"""What an accepted background run needs to be generated, in any process."""

from __future__ import annotations

import msgspec

from app.engine.runs.progress import Progress
from app.protocol.wire.response import Response


class Accepted(msgspec.Struct, frozen=True):
    """The identity of a run, and what earlier owners have done."""

    id: str
    """Of the response, without prefix."""
    seed: Response
    """The initial response: `response.created` must show the same wherever the run is generated."""
    progress: Progress | None = None
    """None: nothing that could be continued."""
