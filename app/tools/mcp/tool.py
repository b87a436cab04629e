"""Tools of remote MCP servers, over streamable HTTP and SSE (https://modelcontextprotocol.io), beyond the vendor's
documentation.

The server's tools are listed when the session opens, once per conversation; the model calls them as functions. A server
that is down is an item with an error, and the response continues. Calls that need the client's consent become approval
requests, by default all.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from app.protocol.messages import FunctionTool
from app.protocol.wire.hosted import (
    HostedCall,
    HostedItem,
    McpApprovalRequest,
    McpCall,
    McpExecutionError,
    McpListTools,
    McpTool,
)
from app.settings import Settings
from app.shortening import beginning
from app.tools.fetch.fetcher import guarded_transport
from app.tools.mcp import entry, listing
from app.tools.mcp.answer import Answer, McpFailure
from app.tools.ports.mcp_names import MCP, is_of_mcp_server
from app.tools.ports.tool import Price, ToolContext, ToolOutcome, ToolRequest, ToolServices, ToolSession, ToolSpec

if TYPE_CHECKING:
    import httpx2

    from app.tools.mcp.client import Connection

_INVALID_PARAMS = -32602
_REQUEST_TIMEOUT = -32001


class RemoteServers:
    """The tool: every entry of `tools` becomes a session with its server."""

    def __init__(self, settings: Settings, *, open_seconds: float = 10.0) -> None:
        """`open_seconds`: for a server to list its tools; the response waits for it."""
        self._open_seconds = open_seconds
        self._allow = settings.fetch_allow
        self._limits = settings.limits
        self._transport: httpx2.AsyncBaseTransport | None = None
        self._preparing = threading.Lock()

    def configure(self, raw: msgspec.Raw, place: str) -> ToolRequest:
        """Validate one entry of `tools`; its function names are known only once the server has listed them."""
        server, echo = entry.read(raw, place)
        return ToolRequest(open=partial(self._open, server), echo=echo, label=server.label)

    async def aclose(self) -> None:
        """Close the connections to every server."""
        if self._transport is not None:
            await self._transport.aclose()

    async def _open(self, server: entry.Server, context: ToolContext) -> ToolSession:
        connection = await self._connection(server)
        known = listing.noted(context.note, server)
        if known is not None:
            return _Session(server, connection, known, self._limits.tool_output_bytes)
        sent = listing.sent(context.note, server)
        if sent is not None:
            session = _Session(server, connection, sent, self._limits.tool_output_bytes)
            session.note = listing.note(server, sent)
            return session
        try:
            async with asyncio.timeout(self._open_seconds):
                offer = listing.bounded(await connection.tools(), server)
        except McpFailure as failure:
            return await _unreachable(server, connection, failure)
        except TimeoutError:
            sentence = f"The MCP server '{server.label}' takes too long to list its tools."
            return await _unreachable(server, connection, McpFailure.protocol(_REQUEST_TIMEOUT, sentence))
        except BaseException:
            await connection.aclose()
            raise
        session = _Session(server, connection, offer.tools, self._limits.tool_output_bytes)
        session.announcements = (McpListTools("", server.label, session.tools, offer.left_out),)
        session.note = listing.note(server, offer.tools)
        return session

    async def _connection(self, server: entry.Server) -> Connection:
        # In a thread: the first time, the import would block every stream for half a second.
        connection, transport = await asyncio.to_thread(self._prepare)
        return connection(server, transport, self._limits.tool_seconds)

    def _prepare(self) -> tuple[type[Connection], httpx2.AsyncBaseTransport]:
        from app.tools.mcp.client import Connection  # noqa: PLC0415 - the SDK: half a second and 27 MiB, for requests that name a server

        with self._preparing:
            if self._transport is None:
                self._transport = guarded_transport(self._allow)
            return Connection, self._transport


async def _unreachable(server: entry.Server, connection: Connection, failure: McpFailure) -> ToolSession:
    session = _Session(server, connection, (), 0)
    session.announcements = (McpListTools("", server.label, (), str(failure)),)
    session.failure = failure
    await connection.aclose()
    return session


class _Session:
    """A server in use by one response."""

    def __init__(
        self, server: entry.Server, connection: Connection, tools: Sequence[McpTool], output_bytes: int
    ) -> None:
        self.tools = tuple(tool for tool in tools if server.allowed.matches(tool))
        self.announcements: Sequence[HostedItem] = ()
        self.note: str | None = None
        self.failure: McpFailure | None = None
        """Why there are no tools."""
        self._server = server
        self._connection = connection
        self._output_bytes = output_bytes
        offered = listing.functions(server, self.tools)
        self.functions: Sequence[FunctionTool] = tuple(function for function, _ in offered.values())
        self._behind: Mapping[str, McpTool] = {name: tool for name, (_, tool) in offered.items()}

    def item(self, call: HostedCall) -> HostedItem:
        """The call, or the approval request for it."""
        tool = self._behind.get(call.name)
        asks = (
            tool is not None and self._needs_consent(tool, call) and entry.server_arguments(call.arguments) is not None
        )
        if tool and asks:
            return McpApprovalRequest("", tool.name, self._server.label, call.arguments)
        return self._call(tool, call)

    def may_repeat(self, call: HostedCall) -> bool:
        """If the server declares that the tool changes nothing, or nothing more when it is called again."""
        tool = self._behind.get(call.name)
        hints = (tool.annotations or {}) if tool is not None else {}
        return hints.get("readOnlyHint") is True or hints.get("idempotentHint") is True

    async def run(self, call: HostedCall) -> ToolOutcome:
        """Call the server. A refusal or failure is a failed item with the server's message."""
        tool = self._behind.get(call.name)
        item = self._call(tool, call)
        try:
            answer = await self._ask(tool, call)
        except McpFailure as failure:
            return ToolOutcome(
                text=str(failure), item=msgspec.structs.replace(item, status="failed", error=failure.error)
            )
        return self._outcome(item, answer)

    async def aclose(self) -> None:
        """End the session on the server."""
        await self._connection.aclose()

    async def _ask(self, tool: McpTool | None, call: HostedCall) -> Answer:
        arguments = entry.server_arguments(call.arguments)
        if self.failure is not None:
            raise self.failure
        if tool is None:
            raise McpFailure.protocol(_INVALID_PARAMS, f"The MCP server '{self._server.label}' has no such tool.")
        if arguments is None:
            raise McpFailure.protocol(_INVALID_PARAMS, "The arguments must be a JSON object.")
        if self._needs_consent(tool, call):
            raise McpFailure.protocol(_INVALID_PARAMS, f"'{tool.name}' may be called only with the user's consent.")
        return await self._connection.call(tool.name, arguments)

    def _outcome(self, item: McpCall, answer: Answer) -> ToolOutcome:
        text = beginning(self._server.credentials.hide(answer.text), self._output_bytes, "\n[cut]")
        if answer.failed:
            content: list[dict[str, Any]] = [{"type": "text", "text": text}]
            failed = msgspec.structs.replace(item, status="failed", error=McpExecutionError(content))
            return ToolOutcome(text=f"The tool failed: {text}", item=failed)
        done = msgspec.structs.replace(item, status="completed", output=text)
        return ToolOutcome(text=text, item=done, images=answer.images)

    def _call(self, tool: McpTool | None, call: HostedCall) -> McpCall:
        return McpCall(
            id="",
            status="in_progress",
            name=tool.name if tool else _own_name(call.name, self._server.label),
            server_label=self._server.label,
            arguments=call.arguments,
            approval_request_id=call.approval_request_id,
        )

    def _needs_consent(self, tool: McpTool, call: HostedCall) -> bool:
        return call.approval_request_id is None and self._server.approval.needed(tool)


def _own_name(function: str, label: str) -> str:
    """The called tool's name on the server; the whole function name if that is unknown."""
    own = function[len(f"mcp__{label}__") :]
    return own if own and is_of_mcp_server(function, label) else function


def _build(services: ToolServices) -> RemoteServers:
    return RemoteServers(services.settings)


TOOL = ToolSpec(
    type=MCP,
    build=_build,
    example=msgspec.Raw(
        b'{"type":"mcp","server_label":"deepwiki","server_url":"https://mcp.deepwiki.com/mcp","require_approval":"never",'
        b'"allowed_tools":["ask_question","read_wiki_structure"]}'
    ),
    description="Calls the tools of a remote MCP server, over streamable HTTP or SSE.",
    price=Price(0.0, note="the server may charge"),
)
