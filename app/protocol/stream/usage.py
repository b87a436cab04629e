"""The usage of a response, counted over its turns."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from app.protocol.wire.items import OutputItem, ReasoningItem
from app.protocol.wire.tokens import TokenUsage

_BYTES_PER_TOKEN = 4


class UsageCounter:
    """Tokens as the upstream reports them, and calls of the server's own tools."""

    def __init__(self) -> None:
        self.tokens: TokenUsage | None = None
        """Of all turns so far; None while nothing has been reported."""
        self.tools: dict[str, dict[str, int]] = {}
        self.estimated = False

    def add(self, usage: TokenUsage) -> None:
        """Count a turn, or a question of a tool."""
        if self.tokens is None:
            self.tokens = usage
            return
        pairs = zip(msgspec.structs.astuple(self.tokens), msgspec.structs.astuple(usage), strict=True)
        self.tokens = TokenUsage(*(before + more for before, more in pairs))

    def add_tool(self, tool: str) -> None:
        """Count one call."""
        self.tools.setdefault(tool, {"count": 0})["count"] += 1

    def estimate(self, *, read: int, output: Sequence[OutputItem]) -> None:
        """Estimate the tokens if none were reported, at four bytes per token. `read`: bytes of the prompt."""
        if self.tokens is not None:
            return
        sizes = [(item, len(msgspec.json.encode(item))) for item in output]
        wrote = sum(size for _, size in sizes) // _BYTES_PER_TOKEN
        thought = sum(size for item, size in sizes if isinstance(item, ReasoningItem)) // _BYTES_PER_TOKEN
        self.tokens = TokenUsage(
            read // _BYTES_PER_TOKEN, wrote, read // _BYTES_PER_TOKEN + wrote, reasoning_tokens=thought
        )
        self.estimated = True
