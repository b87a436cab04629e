"""A conversation with the tool `mcp`, as the engine would have it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from app.protocol.messages import ImagePart
from app.protocol.wire.hosted import HostedCall, McpCall, McpListTools
from app.settings import Settings
from app.tools.mcp.tool import RemoteServers
from app.tools.ports.tool import Source, ToolContext, ToolFailure, ToolOutcome, ToolSession

LOOPBACK = Settings(fetch_allow=("127.0.0.1",))


async def _ask(question: str, *, images: Sequence[ImagePart] = (), max_tokens: int = 1000) -> str:
    raise ToolFailure(f"nobody answers {question!r}, {len(images)} images, {max_tokens} tokens")


def _cite(source: Source) -> int:
    raise AssertionError(f"{source} is cited")


def context(note: str | None = None) -> ToolContext:
    """A response, perhaps a later one of its conversation."""
    return ToolContext(
        project_id="p1", response_id="r1", model="qwen", images=(), include=frozenset(), note=note, ask=_ask, cite=_cite
    )


@asynccontextmanager
async def session(
    url: str, *, note: str | None = None, settings: Settings = LOOPBACK, open_seconds: float = 10.0, **fields: Any
) -> AsyncGenerator[ToolSession]:
    """The server at the service of a response; no call needs consent unless the fields say so."""
    entry = {"type": "mcp", "server_label": "shop", "server_url": url, "require_approval": "never", **fields}
    tool = RemoteServers(settings, open_seconds=open_seconds)
    opened = await tool.configure(msgspec.Raw(msgspec.json.encode(entry)), "tools[0]").open(context(note))
    try:
        yield opened
    finally:
        await opened.aclose()
        await tool.aclose()


def a_call(name: str, approval: str | None = None, **arguments: Any) -> HostedCall:
    """A call of a tool of the server `shop`."""
    return HostedCall("call_1", f"mcp__shop__{name}", msgspec.json.encode(arguments).decode(), approval)


async def call(opened: ToolSession, name: str, **arguments: Any) -> tuple[ToolOutcome, McpCall]:
    """Run it; the outcome and its item."""
    outcome = await opened.run(a_call(name, **arguments))
    assert isinstance(outcome.item, McpCall)
    return outcome, outcome.item


def listed(opened: ToolSession) -> McpListTools:
    """The announcement."""
    (item,) = opened.announcements
    assert isinstance(item, McpListTools)
    return item


def names(opened: ToolSession) -> list[str]:
    """The functions on offer."""
    return [function.name for function in opened.functions]
