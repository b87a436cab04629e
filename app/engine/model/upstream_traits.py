"""Observed behaviour of upstreams that no API declares.

It only decides whether text is held back: each answer is read on its own (`reading`).
"""

from __future__ import annotations

from typing import Literal

from app.engine.model.reading import Reader
from app.providers.base import ModelCall

Thoughts = Literal["apart", "none", "unopened"]
"""How thinking came in the last answer that showed it: separated by the upstream; not at all; or at the beginning of
the text, without an opening tag.
"""


class UpstreamTraits:
    """The traits of each upstream's models, separately for thinking on, off and unspecified.

    The latest answer counts.
    """

    def __init__(self) -> None:
        self._thoughts: dict[tuple[str, str, bool | None], Thoughts] = {}

    def thoughts(self, upstream: str, call: ModelCall, *, enabled: bool | None) -> Thoughts | None:
        """How thinking comes in answers to such calls; None: not seen yet."""
        return self._thoughts.get((upstream, call.model, enabled))

    def note(self, upstream: str, call: ModelCall, reader: Reader, *, enabled: bool | None) -> None:
        """Record what reading an answer has shown."""
        seen: Thoughts | None = None
        if reader.met_unopened:
            seen = "unopened"
        elif reader.reasoned:
            seen = "apart"
        elif reader.held_in_vain:
            seen = "none"
        if seen is not None:
            self._thoughts[upstream, call.model, enabled] = seen
