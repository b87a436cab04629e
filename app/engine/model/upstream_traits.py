"""What upstreams were seen to do that no API says.

It may save holding text back, and never more: each answer is read for itself (`reading`).
"""

from __future__ import annotations

from typing import Literal

from app.engine.model.reading import Reader
from app.providers.base import ModelCall

Thoughts = Literal["apart", "none", "unopened"]
"""How thinking came with the last answer that told: separated by the upstream; not at all; or at the beginning of the text, without a
tag before it."""


class UpstreamTraits:
    """The traits of each upstream's models, apart for thinking on, off and unsaid. The newest answer counts."""

    def __init__(self) -> None:
        self._thoughts: dict[tuple[str, str, bool | None], Thoughts] = {}

    def thoughts(self, upstream: str, call: ModelCall, *, enabled: bool | None) -> Thoughts | None:
        """How thinking comes with answers to such calls; None: nothing was seen yet."""
        return self._thoughts.get((upstream, call.model, enabled))

    def note(self, upstream: str, call: ModelCall, reader: Reader, *, enabled: bool | None) -> None:
        """What reading an answer has shown."""
        seen: Thoughts | None = None
        if reader.met_unopened:
            seen = "unopened"
        elif reader.reasoned:
            seen = "apart"
        elif reader.held_in_vain:
            seen = "none"
        if seen is not None:
            self._thoughts[upstream, call.model, enabled] = seen
