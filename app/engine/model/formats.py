"""What was seen of upstreams' promises to enforce an answer's format."""

from __future__ import annotations

from app.providers.base import JsonObject, JsonSchema

Format = JsonSchema | JsonObject


class Formats:
    """By upstream, model and kind of format. Some servers take `response_format` and ignore it, so a promise is believed when it has been
    seen kept, and not any more once it has been broken."""

    def __init__(self) -> None:
        self._kept: set[tuple[str, str, type[Format]]] = set()
        self._broken: set[tuple[str, str, type[Format]]] = set()

    def believed(self, upstream: str, model: str, wanted: Format) -> bool:
        """Its answers are in the format, so that they need not be held back until they are whole."""
        return (upstream, model, type(wanted)) in self._kept

    def note(self, upstream: str, model: str, wanted: Format, *, kept: bool) -> None:
        """What an answer has shown, whose format was to be enforced."""
        promise = (upstream, model, type(wanted))
        if not kept:
            self._broken.add(promise)
            self._kept.discard(promise)
        elif promise not in self._broken:
            self._kept.add(promise)
