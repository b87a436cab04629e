"""The results of requests to an MCP server."""

from __future__ import annotations

from typing import Any

import msgspec

from app.protocol.messages import ImagePart
from app.protocol.wire.hosted import McpError, McpProtocolError


class McpFailure(Exception):
    """The server cannot be reached, or does not answer; the message is a sentence without internals."""

    def __init__(self, message: str, error: McpError) -> None:
        super().__init__(message)
        self.error = error

    @classmethod
    def protocol(cls, code: int, sentence: str) -> McpFailure:
        """A failure with a JSON-RPC code."""
        return cls(sentence, McpProtocolError(code, sentence))


class Answer(msgspec.Struct, frozen=True):
    """A tool's result."""

    text: str
    images: tuple[ImagePart, ...] = ()
    failed: bool = False
    """The tool itself reports a failure."""


class Listing(msgspec.Struct, frozen=True):
    """A server's tools as received."""

    tools: list[Any]
    """The entries as received, not validated."""
    forbidden: frozenset[str] = frozenset()
    """Names of tools that the protocol forbids to offer: they require arguments in headers that HTTP does not allow."""
    more: bool = False
    """There are more than were read."""
