"""A real MCP server on a loopback port, built with the SDK's server side, in its own thread and event loop.

Three addresses: `modern` (streamable HTTP, MCP 2026-07-28), `legacy` (streamable HTTP with sessions, the older
handshake) and `sse`. It records every request, and counts those in progress.
"""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import anyio
import mcp_types as types
import msgspec
import uvicorn
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.sse import SseServerTransport
from mcp.shared.exceptions import MCPError
from starlette.types import Message, Receive, Scope, Send

from tests.support.processes import PATIENCE

_NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}}
PIXEL = base64.b64encode(
    base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
).decode()

Address = Literal["modern", "legacy", "sse"]
Context = ServerRequestContext[Any, Any]
Handler = Callable[[Context, Mapping[str, Any]], Awaitable[types.CallToolResult]]


class Seen(msgspec.Struct, frozen=True):
    """A request as it arrived; header names are in lower case."""

    verb: str
    path: str
    headers: Mapping[str, str]
    message: Mapping[str, Any]
    """JSON-RPC's."""


class McpServer:
    """Its tools, the requests seen, and its requirements."""

    def __init__(self) -> None:
        self.port = 0
        self.idle = threading.Event()
        """Set while no `tools/call` is in progress and no stream of `sse` is open."""
        self.called = threading.Event()
        """Set once a `tools/call` has arrived."""
        self.reset()

    def reset(self) -> None:
        """Reset records and requirements."""
        self.seen: list[Seen] = []
        self.token: str | None = None
        """The required bearer token."""
        self.status: int | None = None
        """Answer everything with this HTTP status."""
        self.forgets = False
        """Answer the next request within a session as if the session were unknown."""
        self.page_size = 100
        self.tools: dict[str, tuple[types.Tool, Handler]] = {tool.name: (tool, handler) for tool, handler in _TOOLS}
        self.called.clear()
        self.idle.set()

    def url(self, address: Address = "modern") -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.port}/{address}" + ("" if address == "sse" else "/mcp")

    def add(self, tool: types.Tool, text: str = "done") -> None:
        """Add a tool, with this result."""
        self.tools[tool.name] = (tool, _says(text))

    @property
    def methods(self) -> list[str]:
        """The methods of the JSON-RPC requests seen, oldest first."""
        return [seen.message["method"] for seen in self.seen if "method" in seen.message]


def _says(text: str) -> Handler:
    async def handler(_: Context, __: Mapping[str, Any]) -> types.CallToolResult:
        return types.CallToolResult(content=[types.TextContent(text=text)])

    return handler


async def _add(_: Context, arguments: Mapping[str, Any]) -> types.CallToolResult:
    total = arguments["a"] + arguments["b"]
    return types.CallToolResult(content=[types.TextContent(text=str(total))], structured_content={"result": total})


async def _measure(_: Context, __: Mapping[str, Any]) -> types.CallToolResult:
    return types.CallToolResult(content=[], structured_content={"kelvin": 293.5})


async def _slow(_: Context, __: Mapping[str, Any]) -> types.CallToolResult:
    await anyio.sleep_forever()
    raise AssertionError("it never wakes")


async def _fail(_: Context, __: Mapping[str, Any]) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text="the shelf is empty")], is_error=True)


async def _refuse(_: Context, __: Mapping[str, Any]) -> types.CallToolResult:
    raise MCPError(types.INVALID_PARAMS, "no such city")


async def _huge(_: Context, arguments: Mapping[str, Any]) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text="汉" * int(arguments["characters"]))])


async def _gallery(_: Context, __: Mapping[str, Any]) -> types.CallToolResult:
    return types.CallToolResult(
        content=[
            types.TextContent(text="two pictures"),
            types.ImageContent(data=PIXEL, mime_type="image/png"),
            types.ImageContent(data="%%%", mime_type="image/png"),
            types.AudioContent(data=PIXEL, mime_type="audio/wav"),
            types.ResourceLink(name="manual", uri="https://example.com/manual"),
            types.EmbeddedResource(
                resource=types.TextResourceContents(uri="file:///notes.txt", text="remember the milk")
            ),
            types.EmbeddedResource(
                resource=types.BlobResourceContents(uri="file:///x.png", blob=PIXEL, mime_type="image/png")
            ),
        ]
    )


async def _whoami(context: Context, _: Mapping[str, Any]) -> types.CallToolResult:
    headers: Mapping[str, str] = context.request.headers if context.request else {}
    return types.CallToolResult(
        content=[types.TextContent(text=f"you sent {headers.get('authorization')} from {headers.get('x-place')}")]
    )


_TWO_NUMBERS: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
    "required": ["a", "b"],
}
_READ_ONLY = types.ToolAnnotations(read_only_hint=True)
_TOOLS: list[tuple[types.Tool, Handler]] = [
    (types.Tool(name="add", description="Adds two numbers.", input_schema=_TWO_NUMBERS, annotations=_READ_ONLY), _add),
    (types.Tool(name="measure", description="Measures.", input_schema=_NO_ARGUMENTS, annotations=_READ_ONLY), _measure),
    (types.Tool(name="delete", description="Deletes everything.", input_schema=_NO_ARGUMENTS), _says("gone")),
    (types.Tool(name="slow", input_schema=_NO_ARGUMENTS), _slow),
    (types.Tool(name="fail", input_schema=_NO_ARGUMENTS), _fail),
    (types.Tool(name="refuse", input_schema=_NO_ARGUMENTS), _refuse),
    (types.Tool(name="huge", input_schema=_NO_ARGUMENTS), _huge),
    (types.Tool(name="gallery", input_schema=_NO_ARGUMENTS), _gallery),
    (types.Tool(name="whoami", input_schema=_NO_ARGUMENTS), _whoami),
]


class _App:
    """ASGI: records, checks requirements, then the SDK."""

    def __init__(self, state: McpServer) -> None:
        self._state = state
        self._busy = 0
        self._server: Server[Any] = Server(
            "test", on_list_tools=self._list, on_call_tool=self._call, get_tool_input_schema=self._schema
        )
        self._http = self._server.streamable_http_app()
        self._sse = SseServerTransport("/sse/messages/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._http(scope, receive, send)
            return
        seen, replay = await _read(scope, receive)
        self._state.seen.append(seen)
        refusal = self._refusal(seen)
        if refusal is not None:
            await send({"type": "http.response.start", "status": refusal, "headers": []})
            await send({"type": "http.response.body", "body": b"no"})
            return
        calls = seen.message.get("method") == "tools/call"
        self._busy += calls or seen.path == "/sse"
        if self._busy:
            self._state.idle.clear()
        if calls:
            self._state.called.set()
        try:
            await self._route(scope, replay, send)
        finally:
            self._busy -= calls or seen.path == "/sse"
            if not self._busy:
                self._state.idle.set()

    def _refusal(self, seen: Seen) -> int | None:
        if self._state.status is not None:
            return self._state.status
        if self._state.token is not None and seen.headers.get("authorization") != f"Bearer {self._state.token}":
            return 401
        if self._state.forgets and "mcp-session-id" in seen.headers:
            self._state.forgets = False
            return 404
        return 400 if seen.path.startswith("/legacy") and seen.message.get("method") == "server/discover" else None

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["path"]:
            case "/sse":
                async with self._sse.connect_sse(scope, receive, send) as (reading, writing):
                    await self._server.run(reading, writing, self._server.create_initialization_options())
            case path if path.startswith("/sse/"):
                await self._sse.handle_post_message(scope, receive, send)
            case _:
                await self._http({**scope, "path": "/mcp", "raw_path": b"/mcp"}, receive, send)

    def _schema(self, name: str) -> Mapping[str, Any] | None:
        return self._state.tools[name][0].input_schema if name in self._state.tools else None

    async def _list(self, _: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        start = int(params.cursor) if params is not None and params.cursor else 0
        end = start + self._state.page_size
        tools = [tool for tool, _ in self._state.tools.values()]
        return types.ListToolsResult(tools=tools[start:end], next_cursor=str(end) if end < len(tools) else None)

    async def _call(self, context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        return await self._state.tools[params.name][1](context, params.arguments or {})


async def _read(scope: Scope, receive: Receive) -> tuple[Seen, Receive]:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
    return Seen(scope["method"], scope["path"], headers, msgspec.json.decode(body or b"{}")), replay


@contextmanager
def serving_mcp() -> Generator[McpServer]:
    """Serve on a free port while the block runs."""
    state = McpServer()
    listener = socket.create_server(("127.0.0.1", 0))
    state.port = listener.getsockname()[1]
    config = uvicorn.Config(_App(state), ws="none", log_config=None, access_log=False, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        listener.close()
