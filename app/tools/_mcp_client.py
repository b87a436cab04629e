"""A connection to an MCP server by the official SDK. Importing it takes half a second and 27 MiB, so nothing does at start.

The SDK's contexts hold task groups, which have to be left in the task that entered them. Calls come from tasks of their own, so every
call opens the SDK's session anew, in its own task, and leaves it there. What is dear outlives it: the open sockets, what was agreed on
with the server, and over streamable HTTP the server's session id, so a server that keeps state sees one session per response. Over SSE
the session is the connection, so there every call has one of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Mapping
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Any, TypeVar, cast
from uuid import uuid4

import httpx2
from mcp.client.session import ClientSession
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.dispatcher import CallOptions
from mcp.shared.exceptions import MCPError
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
from pydantic import ValidationError

from app.protocol.hosted import McpHttpError, McpTool
from app.tools._mcp_answer import Answer, McpFailure
from app.tools._mcp_content import answer
from app.tools._mcp_entry import Server
from app.tools._mcp_listing import MOST_TOOLS
from app.tools._once import Once
from app.tools.base import FetchRefused

T = TypeVar("T")
Agreed = InitializeResult | DiscoverResult
"""What was agreed on with the server, for all calls of a response."""

_log = logging.getLogger(__name__)

# They tell addresses with their secrets, what servers say and every message, some of it at `info`.
for _chatty in ("mcp", "httpx2", "httpcore2"):
    logging.getLogger(_chatty).setLevel(logging.CRITICAL)

_ABOUT = Implementation(name="responses-gateway", version="1")
_CONNECT_SECONDS = 10.0
_PROBE_SECONDS = 3.0
"""For servers of before 2026 that leave an unknown question unanswered."""
_FAREWELL_SECONDS = 2.0
_LARGEST_ANSWER = 4 * 1024 * 1024
_MOST_PAGES = 20
_LONGEST_MESSAGE = 500
_SESSION = "mcp-session-id"
_TURNED_AWAY = {401: "it wants other credentials", 403: "it does not allow this", 429: "it is asked too often"}


class Connection:
    """One server, on behalf of one response. Calls may run side by side."""

    def __init__(self, server: Server, transport: httpx2.AsyncBaseTransport, seconds: float) -> None:
        """`transport` guards the network and is not closed here; `seconds`: the longest silence of the server."""
        self._server = server
        self._door = _Door(transport)
        self._seconds = seconds
        self._http = self._client(server.credentials.headers)
        self._agreement: Once[Agreed] = Once()

    async def tools(self) -> list[McpTool]:
        """What the server offers. Raises McpFailure."""
        return await self._ask(_list)

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Answer:
        """Call a tool. Raises McpFailure."""
        request = CallToolRequest(params=CallToolRequestParams(name=name, arguments=dict(arguments)))
        return answer(await self._ask(lambda session: _call(session, request)))

    async def aclose(self) -> None:
        """End the server's session."""
        try:
            if self._door.session is not None:
                with suppress(httpx2.HTTPError, FetchRefused, _TurnedAway, _SessionEnded, TimeoutError):
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
        except Exception as error:  # noqa: BLE001 - the SDK lets through whatever went wrong in its tasks, in groups
            if not (again and any(isinstance(cause, _SessionEnded) for cause in _leaves(error))):
                raise _failure(error, self._server) from None
        agreement.forget(agreed)
        return await self._ask(question, again=False)

    @asynccontextmanager
    async def _session(self) -> AsyncGenerator[ClientSession]:
        """A session without an agreement yet; entered and left within one task."""
        streams = (
            sse_client(
                self._server.url,
                headers=self._server.credentials.headers,
                timeout=_CONNECT_SECONDS,
                sse_read_timeout=self._seconds,
                httpx_client_factory=self._client,
            )
            if self._server.protocol == "sse"
            else streamable_http_client(
                self._server.url, http_client=self._http, terminate_on_close=False, max_sse_event_size=_LARGEST_ANSWER
            )
        )
        async with (
            streams as (reading, writing),
            ClientSession(dispatcher=_Dispatcher(reading, writing), client_info=_ABOUT) as session,
        ):
            yield session

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


async def _list(session: ClientSession) -> list[McpTool]:
    found: list[McpTool] = []
    cursor: str | None = None
    for _ in range(_MOST_PAGES):
        page = await session.list_tools(params=PaginatedRequestParams(cursor=cursor))
        for tool in page.tools:
            notes = tool.annotations.model_dump(by_alias=True, exclude_none=True) if tool.annotations else None
            found.append(McpTool(tool.name, tool.input_schema, tool.description or tool.title, notes))
        cursor = page.next_cursor
        if cursor is None or len(found) >= MOST_TOOLS:
            break
    return found


async def _call(session: ClientSession, request: CallToolRequest) -> CallToolResult:
    # Not by the session's `call_tool`: it checks the result against the server's own schema, on this thread, where a hostile pair of
    # the two would stop the gateway.
    try:
        return await session.send_request(request, CallToolResult)
    except MCPError as error:
        if error.code != HEADER_MISMATCH:
            raise
    # The server wants some arguments as headers, too; the session learns which from the list (MCP 2026-07-28).
    await session.list_tools()
    return await session.send_request(request, CallToolResult)


async def _negotiate(session: ClientSession) -> Agreed:
    """Ask the way of MCP 2026-07-28, then the older one, as the SDK's own client does."""
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            return await session.discover()
    except (MCPError, RuntimeError, ValidationError, TimeoutError):
        return await session.initialize()


class _Dispatcher(JSONRPCDispatcher[Any]):
    """Request ids that are unique on the server, whose session outlives this connection."""

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None, **internal: Any
    ) -> dict[str, Any]:
        return await super().send_raw_request(method, params, {"request_id": f"call-{uuid4().hex}", **(opts or {})}, **internal)


class _TurnedAway(Exception):
    """The server answered with a status that says why."""

    def __init__(self, status: int) -> None:
        self.status = status


class _SessionEnded(Exception):
    """The server has forgotten the session; MCP wants a new one then."""


class _TooLarge(Exception):
    """The server says more than anybody reads."""


class _Door(httpx2.AsyncBaseTransport):
    """The guarded transport, with the limits of MCP, and the server's session id kept over connections."""

    def __init__(self, guarded: httpx2.AsyncBaseTransport) -> None:
        self._guarded = guarded
        self.session: str | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send it. Raises FetchRefused, _TurnedAway, _TooLarge, _SessionEnded."""
        if self.session is not None:
            request.headers.setdefault(_SESSION, self.session)
        sent = request.headers.get(_SESSION)
        response = await self._guarded.handle_async_request(request)
        if self.session == sent:  # an answer in a session that another call has replaced meanwhile says nothing about the new one
            ended = response.status_code == HTTPStatus.NOT_FOUND
            self.session = None if ended else response.headers.get(_SESSION) or self.session
        if response.status_code == HTTPStatus.NOT_FOUND and sent is not None:
            await response.aclose()
            raise _SessionEnded
        packed = response.headers.get("content-encoding", "identity") != "identity"
        if packed or response.status_code in _TURNED_AWAY:
            await response.aclose()
            raise _TooLarge if packed else _TurnedAway(response.status_code)
        stream = _Bounded(response)
        return httpx2.Response(response.status_code, headers=response.headers, stream=stream, extensions=response.extensions)


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, response: httpx2.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = _LARGEST_ANSWER
        async for piece in self._response.aiter_raw():
            left -= len(piece)
            if left < 0:
                raise _TooLarge
            yield piece

    async def aclose(self) -> None:
        await self._response.aclose()


def _failure(error: Exception, server: Server) -> McpFailure:
    """What went wrong, in a sentence. Of several errors the one that says most."""
    causes = list(_leaves(error))
    for kind, explain in _SENTENCES.items():
        for cause in causes:
            if isinstance(cause, kind):
                return explain(cause, server)
    _log.warning("An MCP server made the SDK fail: %s", ", ".join(type(cause).__name__ for cause in causes))
    return _not_mcp(server)


def _leaves(error: BaseException) -> Generator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        for one in group.exceptions:
            yield from _leaves(one)
    else:
        yield error


def _turned_away(cause: BaseException, server: Server) -> McpFailure:
    status = cause.status if isinstance(cause, _TurnedAway) else 0
    sentence = f"The MCP server '{server.label}' answers with HTTP status {status}: {_TURNED_AWAY.get(status, 'it refuses')}."
    return McpFailure(sentence, McpHttpError(status, sentence))


def _http_status(cause: BaseException, server: Server) -> McpFailure:
    status = cause.response.status_code if isinstance(cause, httpx2.HTTPStatusError) else 0
    sentence = f"The MCP server '{server.label}' answers with HTTP status {status}."
    return McpFailure(sentence, McpHttpError(status, sentence))


def _said(cause: BaseException, server: Server) -> McpFailure:
    code, message = (cause.code, cause.message) if isinstance(cause, MCPError) else (INTERNAL_ERROR, "")
    if code == REQUEST_TIMEOUT:
        return _too_slow(cause, server)
    if code == CONNECTION_CLOSED:  # also the SDK's word for a stream that had too much in it
        return _broken(cause, server)
    if code == PARSE_ERROR:  # with the SDK's thoughts about the answer
        return _not_mcp(server)
    message = server.credentials.hide(message)[:_LONGEST_MESSAGE]
    return McpFailure.protocol(code, f"The MCP server '{server.label}' answers with an error: {message}")


def _not_mcp(server: Server) -> McpFailure:
    return McpFailure.protocol(INTERNAL_ERROR, f"The MCP server '{server.label}' does not answer as MCP servers do.")


def _too_slow(_: BaseException, server: Server) -> McpFailure:
    return McpFailure.protocol(REQUEST_TIMEOUT, f"The MCP server '{server.label}' takes too long.")


def _broken(_: BaseException, server: Server) -> McpFailure:
    return McpFailure.protocol(
        CONNECTION_CLOSED, f"The answer of the MCP server '{server.label}' is malformed, breaks off or is too large."
    )


_SENTENCES: dict[type[BaseException], Callable[[BaseException, Server], McpFailure]] = {
    FetchRefused: lambda cause, server: McpFailure.protocol(CONNECTION_CLOSED, f"The MCP server '{server.label}' is not asked: {cause}"),
    _TurnedAway: _turned_away,
    _TooLarge: _broken,
    httpx2.SSEError: _broken,
    httpx2.HTTPStatusError: _http_status,
    httpx2.TimeoutException: _too_slow,
    TimeoutError: _too_slow,
    httpx2.TransportError: lambda _, server: McpFailure.protocol(CONNECTION_CLOSED, f"The MCP server '{server.label}' cannot be reached."),
    MCPError: _said,
}
"""Most telling first: the SDK often adds an error of its own to the one that was the cause."""
