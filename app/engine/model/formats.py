"""Whether upstreams that promise to enforce an answer's format have been seen to do so."""

from __future__ import annotations

from app.providers.base import JsonObject, JsonSchema

Format = JsonSchema | JsonObject


class Formats:
    """By upstream, model and kind of format.

    Some servers accept `response_format` and ignore it, so a promise is trusted after it has been kept once, and no
    longer after it has been broken.
    """

    def __init__(self) -> None:
        self._kept: set[tuple[str, str, type[Format]]] = set()
        self._broken: set[tuple[str, str, type[Format]]] = set()

    def believed(self, upstream: str, model: str, wanted: Format) -> bool:
        """Whether its answers can be relied on to match the format, so that they need not be held back until
        complete.
        """
        return (upstream, model, type(wanted)) in self._kept

    def note(self, upstream: str, model: str, wanted: Format, *, kept: bool) -> None:
        """Record whether an answer matched the format that the upstream was to enforce."""
        promise = (upstream, model, type(wanted))
        if not kept:
            self._broken.add(promise)
            self._kept.discard(promise)
        elif promise not in self._broken:
            self._kept.add(promise)
