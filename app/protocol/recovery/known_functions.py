"""The functions that an answer may call, for the readers of written calls. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

import msgspec

from app.protocol.recovery.call_grammar import Beginnings
from app.protocol.recovery.names import may_become
from app.protocol.recovery.schema_values import Properties
from app.protocol.recovery.written_calls import read_calls

Resolve = Callable[[str], str | None]
"""The function meant by an unknown name; None: unclear or none."""


class KnownFunctions:
    """Names and JSON schemas of the functions; each name is resolved, and each schema read, once."""

    def __init__(self, schemas: Mapping[str, msgspec.Raw], resolve: Resolve | None) -> None:
        self._schemas = schemas
        self._resolver = resolve
        self._resolved: dict[str, str | None] = {}
        """Unknown names and the functions they mean."""
        self._properties: dict[str, Properties] = {}
        """Of the schemas that were needed."""

    @cached_property
    def beginnings(self) -> Beginnings:
        """How calls of these functions begin. Created on demand, since most answers contain nothing like a call."""
        return Beginnings(lambda name: self._resolve(name) is not None, lambda begun: may_become(begun, self._schemas))

    def calls(self, body: str, *, whole: bool) -> list[tuple[str, str]]:
        """Name and arguments of each call in the text; none if any part of it is not a call of a known function.

        `whole`: the text is complete.
        """
        try:
            written = read_calls(body, self._properties_of, whole=whole)
        except (ValueError, RecursionError):  # not a call, or nested too deeply
            return []
        named = [(self._resolve(call.name), call.arguments) for call in written]
        found = [(name, arguments) for name, arguments in named if name is not None]
        return found if len(found) == len(named) else []

    def _resolve(self, name: str) -> str | None:
        """The function that the model means by this name."""
        if name in self._schemas or self._resolver is None:
            return name if name in self._schemas else None
        if name not in self._resolved:
            found = self._resolver(name)
            self._resolved[name] = found if found in self._schemas else None
        return self._resolved[name]

    def _properties_of(self, name: str) -> Properties | None:
        resolved = self._resolve(name)
        if resolved is None:
            return None
        if resolved not in self._properties:
            self._properties[resolved] = Properties(bytes(self._schemas[resolved]))
        return self._properties[resolved]
