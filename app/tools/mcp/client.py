"""A connection to an MCP server with the official SDK. Importing it takes half a second and 27 MiB, so it is not
imported at startup.

The SDK's contexts hold task groups, which must be left in the task that entered them. Calls come from separate tasks,
so every call opens a new SDK session in its own task, and leaves it there. What is expensive outlives it: the open
sockets, what was negotiated with the server, and over streamable HTTP the server's session id, so a stateful server
sees one session per response. Over SSE the session is the connection, so there every call has its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, TypeVar, cast
from uuid import uuid4

import httpx2
from mcp.client._transport import TransportStreams
from mcp.client.session import ClientSession
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.dispatcher import CallOptions
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import find_invalid_x_mcp_header
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp_types import (
    CONNECTION_CLOSED,
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    PARSE_ERROR,
    REQUEST_TIMEOUT,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    DiscoverResult,
    Implementation,
    InitializeResult,
    PaginatedRequestParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from app.protocol.wire.hosted import McpHttpError
from app.tools._once import Once
from app.tools.mcp.answer import Answer, Listing, McpFailure
from app.tools.mcp.content import answer
from app.tools.mcp.entry import Server
from app.tools.mcp.results import RAW, UnknownVersion, fit
from app.tools.mcp.transport import HTTP_FAILURE, LARGEST_ANSWER, ServerRefused, ServerTransport, SessionEnded, TooLarge
from app.tools.ports.fetcher import FetchRefused

T = TypeVar("T")
Agreed = InitializeResult | DiscoverResult
"""The result of the negotiation with the server, for all calls of a response."""

_log = logging.getLogger(__name__)

# They log addresses with their secrets, the servers' texts and every message, some of it at `info`.
for _chatty in ("mcp", "httpx2", "httpcore2"):
    logging.getLogger(_chatty).setLevel(logging.CRITICAL)

_ABOUT = Implementation(name="responses-gateway", version="1")
_CONNECT_SECONDS = 10.0
_PROBE_SECONDS = 3.0
"""For servers from before 2026 that do not answer unknown requests."""
_FAREWELL_SECONDS = 2.0
_MOST_PAGES = 20
_MOST_LISTED = 2000
_LONGEST_MESSAGE = 500
_STATUS_DIGITS = 3
_WRONG_TYPE = "Unexpected content type:"
"""The beginning of the SDK's message for an HTML page, for example."""
_SESSION = "mcp-session-id"
_REASONS = {401: "the credentials were rejected", 403: "access is forbidden", 429: "there were too many requests"}


class Connection:
    """One server, on behalf of one response. Calls may run concurrently."""

    def __init__(self, server: Server, transport: httpx2.AsyncBaseTransport, seconds: float) -> None:
        """`transport` guards the network and is not closed here; `seconds`: the longest silence of the server."""
        self._server = server
        self._door = ServerTransport(transport)
        self._seconds = seconds
        self._http = self._client(server.credentials.headers)
        self._agreement: Once[Agreed] = Once()

    async def tools(self) -> Listing:
        """The server's tools. Raises McpFailure."""
        return await self._ask(_list)

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Answer:
        """Call a tool. Raises McpFailure."""
        request = CallToolRequest(params=CallToolRequestParams(name=name, arguments=dict(arguments)))
        return answer(await self._ask(lambda session: _call(session, request)))

    async def aclose(self) -> None:
        """End the server's session."""
        try:
            if self._door.session is not None:
                with suppress(httpx2.HTTPError, FetchRefused, ServerRefused, SessionEnded, TimeoutError):
                    async with asyncio.timeout(_FAREWELL_SECONDS):
                        await self._http.delete(self._server.url)
        finally:
            await self._http.aclose()

    async def _ask(self, question: Callable[[ClientSession], Awaitable[T]], *, again: bool = True) -> T:
        sse = self._server.protocol == "sse"
        agreement: Once[Agreed] = Once() if sse else self._agreement
        agreed: Agreed | None = None
        try:
            async with agreement.turn() as known, self._session() as session:
                if known is not None:
                    session.adopt(known)
                agreed = known or await (session.initialize() if sse else _negotiate(session))
                agreement.settle(agreed)
                return await question(session)
        except Exception as error:  # noqa: BLE001 - the SDK raises anything that went wrong in its tasks, in groups
            if not (again and any(isinstance(cause, SessionEnded) for cause in _leaves(error))):
                raise _failure(error, self._server) from None
        agreement.forget(agreed)
        return await self._ask(question, again=False)

    @asynccontextmanager
    async def _session(self) -> AsyncGenerator[ClientSession]:
        """A session before negotiation; entered and left in one task."""
        async with (
            self._streams() as (reading, writing),
            ClientSession(dispatcher=_Dispatcher(reading, writing), client_info=_ABOUT) as session,
        ):
            yield session

    def _streams(self) -> AbstractAsyncContextManager[TransportStreams]:
        server = self._server
        if server.protocol == "sse":
            return sse_client(
                server.url,
                headers=server.credentials.headers,
                timeout=_CONNECT_SECONDS,
                sse_read_timeout=self._seconds,
                httpx_client_factory=self._client,
            )
        return streamable_http_client(
            server.url, http_client=self._http, terminate_on_close=False, max_sse_event_size=LARGEST_ANSWER
        )

    def _client(
        self,
        headers: dict[str, str] | None = None,
        timeout: httpx2.Timeout | None = None,
        auth: httpx2.Auth | None = None,
    ) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            transport=self._door,
            headers={**(headers or {}), "accept-encoding": "identity"},
            timeout=timeout or httpx2.Timeout(_CONNECT_SECONDS, read=self._seconds),
            auth=auth,
            trust_env=False,
        )


async def _list(session: ClientSession) -> Listing:
    found: list[Any] = []
    cursors: set[str | None] = {None}
    cursor: str | None = None
    for _ in range(_MOST_PAGES):
        page = await session.list_tools(params=PaginatedRequestParams(cursor=cursor))
        tools = (page.meta or {})[RAW]
        found += tools
        cursor = page.next_cursor
        more = cursor not in cursors and bool(tools)  # a hostile list can be circular, or continue without a tool
        cursors.add(cursor)
        if not more or len(found) >= _MOST_LISTED:
            return Listing(found, _forbidden(session, found), more)
    return Listing(found, _forbidden(session, found), more=True)


def _forbidden(session: ClientSession, tools: list[Any]) -> frozenset[str]:
    if session.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        return frozenset()
    named = [cast("dict[str, Any]", tool) for tool in tools if isinstance(tool, dict)]
    return frozenset(
        str(tool.get("name")) for tool in named if find_invalid_x_mcp_header(tool.get("inputSchema")) is not None
    )


async def _call(session: ClientSession, request: CallToolRequest) -> dict[str, Any]:
    # Not by the session's `call_tool`: it validates the result against the server's own schema, on this thread, where a
    # hostile combination of the two would block the gateway.
    try:
        return _raw(await session.send_request(request, CallToolResult))
    except MCPError as error:
        if error.code != HEADER_MISMATCH:
            raise
    # The server requires some arguments as headers, too; the session learns which from the list (MCP 2026-07-28).
    await session.list_tools()
    return _raw(await session.send_request(request, CallToolResult))


def _raw(result: CallToolResult) -> dict[str, Any]:
    return (result.meta or {})[RAW]


async def _negotiate(session: ClientSession) -> Agreed:
    """Negotiate by MCP 2026-07-28, then the older way, like the SDK's own client."""
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            return await session.discover()
    except (MCPError, RuntimeError, ValidationError, TimeoutError):
        return await session.initialize()


class _Dispatcher(JSONRPCDispatcher[Any]):
    """Request ids that are unique on the server, whose session outlives this connection.

    And results that the SDK can read.
    """

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None, **internal: Any
    ) -> dict[str, Any]:
        named: CallOptions = {"request_id": f"call-{uuid4().hex}", **(opts or {})}
        return fit(method, await super().send_raw_request(method, params, named, **internal))


def _failure(error: Exception, server: Server) -> McpFailure:
    """What went wrong, in a sentence. Of several errors the most informative."""
    causes = list(_leaves(error))
    for kind, explain in _SENTENCES.items():
        for cause in causes:
            if isinstance(cause, kind):
                return explain(cause, server)
    _log.warning("The MCP SDK failed on a server's response: %s", ", ".join(type(cause).__name__ for cause in causes))
    return _not_mcp(server)


def _leaves(error: BaseException) -> Generator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        for one in group.exceptions:
            yield from _leaves(one)
    else:
        yield error


def _turned_away(cause: BaseException, server: Server) -> McpFailure:
    status = cause.status if isinstance(cause, ServerRefused) else 0
    sentence = (
        f"The MCP server '{server.label}' answers with HTTP status {status}: {_REASONS.get(status, 'it refuses')}."
    )
    return McpFailure(sentence, McpHttpError(status, sentence))


def _http_status(cause: BaseException, server: Server) -> McpFailure:
    return _status(cause.response.status_code if isinstance(cause, httpx2.HTTPStatusError) else 0, server)


def _status(status: int, server: Server) -> McpFailure:
    sentence = f"The MCP server '{server.label}' answers with HTTP status {status}."
    return McpFailure(sentence, McpHttpError(status, sentence))


def _said(cause: BaseException, server: Server) -> McpFailure:
    code, message = (cause.code, cause.message) if isinstance(cause, MCPError) else (INTERNAL_ERROR, "")
    if code == REQUEST_TIMEOUT:
        return _too_slow(cause, server)
    if code == CONNECTION_CLOSED:  # also used by the SDK for a stream with too much data
        return _broken(cause, server)
    if code == HTTP_FAILURE:
        return _status(int(message) if message.isdecimal() and len(message) == _STATUS_DIGITS else 0, server)
    if code == PARSE_ERROR or message.startswith(_WRONG_TYPE):  # with the SDK's comments on the response
        return _not_mcp(server)
    message = server.credentials.hide(message)[:_LONGEST_MESSAGE]
    return McpFailure.protocol(code, f"The MCP server '{server.label}' answers with an error: {message}")


def _unknown_version(_: BaseException, server: Server) -> McpFailure:
    sentence = f"The MCP server '{server.label}' uses a protocol version that this gateway does not support."
    return McpFailure.protocol(INTERNAL_ERROR, sentence)


def _not_mcp(server: Server) -> McpFailure:
    return McpFailure.protocol(INTERNAL_ERROR, f"The MCP server '{server.label}' does not answer as MCP servers do.")


def _too_slow(_: BaseException, server: Server) -> McpFailure:
    return McpFailure.protocol(REQUEST_TIMEOUT, f"The MCP server '{server.label}' takes too long.")


def _broken(_: BaseException, server: Server) -> McpFailure:
    return McpFailure.protocol(
        CONNECTION_CLOSED, f"The answer of the MCP server '{server.label}' is malformed, truncated or too large."
    )


_SENTENCES: dict[type[BaseException], Callable[[BaseException, Server], McpFailure]] = {
    FetchRefused: lambda cause, server: McpFailure.protocol(
        CONNECTION_CLOSED, f"The MCP server '{server.label}' was not called: {cause}"
    ),
    ServerRefused: _turned_away,
    TooLarge: _broken,
    httpx2.SSEError: _broken,
    httpx2.HTTPStatusError: _http_status,
    httpx2.TimeoutException: _too_slow,
    TimeoutError: _too_slow,
    httpx2.TransportError: lambda _, server: McpFailure.protocol(
        CONNECTION_CLOSED, f"The MCP server '{server.label}' cannot be reached."
    ),
    UnknownVersion: _unknown_version,
    MCPError: _said,
}
"""Most informative first: the SDK often adds its own error to the one that was the cause."""
