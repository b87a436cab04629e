"""What comes of a question to an MCP server."""

from __future__ import annotations

from typing import Any

import msgspec

from app.protocol.messages import ImagePart
from app.protocol.wire.hosted import McpError, McpProtocolError


class McpFailure(Exception):
    """The server cannot be asked, or would not answer; the message is a sentence without internals."""

    def __init__(self, message: str, error: McpError) -> None:
        super().__init__(message)
        self.error = error

    @classmethod
    def protocol(cls, code: int, sentence: str) -> McpFailure:
        """A failure with a code of JSON-RPC's."""
        return cls(sentence, McpProtocolError(code, sentence))


class Answer(msgspec.Struct, frozen=True):
    """A tool's result."""

    text: str
    images: tuple[ImagePart, ...] = ()
    failed: bool = False
    """The tool itself says so."""


class Listing(msgspec.Struct, frozen=True):
    """A server's tools in its own words."""

    tools: list[Any]
    """The entries as received, not validated."""
    forbidden: frozenset[str] = frozenset()
    """Names of those that the protocol forbids to offer: they want arguments in headers that HTTP does not allow."""
    more: bool = False
    """There are more than were read."""
