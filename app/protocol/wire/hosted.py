"""The items of tools that the server runs itself, as data, so that the core does not depend on any tool.

Shapes: the openai SDK's `ResponseOutputItem` and, for the items that only Qwen's vendor has (`web_extractor_call` and
the two image searches), its reference. `phases.py` defines the events of each.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec

CallStatus = Literal["in_progress", "searching", "interpreting", "calling", "completed", "incomplete", "failed"]


class HostedCall(msgspec.Struct, frozen=True):
    """One call of a built-in tool by the model."""

    call_id: str
    name: str
    """The function's name."""
    arguments: str
    """JSON text as the model wrote it; possibly not JSON, or of the wrong shape. "" while it is still being written."""
    approval_request_id: str | None = None
    """Set if the client has approved this call."""


class UrlSource(msgspec.Struct, frozen=True, tag="url"):
    """A page a search found."""

    url: str


class SearchAction(msgspec.Struct, frozen=True, tag="search"):
    """Search the web. `query` is the first of `queries`."""

    query: str
    queries: tuple[str, ...] = ()
    sources: tuple[UrlSource, ...] | msgspec.UnsetType = msgspec.UNSET


class OpenPageAction(msgspec.Struct, frozen=True, tag="open_page"):
    """Read one page."""

    url: str | None = None


class FindAction(msgspec.Struct, frozen=True, tag="find_in_page"):
    """Look for a text in one page."""

    pattern: str
    url: str


class WebSearchCall(msgspec.Struct, frozen=True, tag="web_search_call"):
    """A web search, or reading a page that it found."""

    id: str
    status: CallStatus
    action: SearchAction | OpenPageAction | FindAction


class WebExtractorCall(msgspec.Struct, frozen=True, tag="web_extractor_call"):
    """Pages read for a goal (vendor's item)."""

    id: str
    status: CallStatus
    urls: tuple[str, ...]
    goal: str = ""
    output: str = ""


class Logs(msgspec.Struct, frozen=True, tag="logs"):
    """What the code printed."""

    logs: str


class PlotImage(msgspec.Struct, frozen=True, tag="image"):
    """An image created by the code."""

    url: str


class CodeInterpreterCall(msgspec.Struct, frozen=True, tag="code_interpreter_call"):
    """Code that is run."""

    id: str
    status: CallStatus
    container_id: str
    code: str = ""
    outputs: tuple[Logs | PlotImage, ...] | None = None


class FileResult(msgspec.Struct, frozen=True):
    """A passage of a file that matches a query."""

    file_id: str
    filename: str
    score: float
    text: str
    attributes: dict[str, str | float | bool] = msgspec.field(default_factory=dict[str, str | float | bool])


class FileSearchCall(msgspec.Struct, frozen=True, tag="file_search_call"):
    """A search of uploaded files."""

    id: str
    status: CallStatus
    queries: tuple[str, ...]
    results: tuple[FileResult, ...] | None = None


class WebSearchImageCall(msgspec.Struct, frozen=True, tag="web_search_image_call"):
    """An image search by text (vendor's item); `arguments` and `output` are JSON text."""

    id: str
    status: CallStatus
    name: str = "web_search_image"
    arguments: str = "{}"
    output: str = ""


class ImageSearchCall(msgspec.Struct, frozen=True, tag="image_search_call"):
    """An image search by image (vendor's item); `arguments` and `output` are JSON text."""

    id: str
    status: CallStatus
    name: str = "image_search"
    arguments: str = "{}"
    output: str = ""


class McpProtocolError(msgspec.Struct, frozen=True, tag="mcp_protocol_error"):
    """The server refused the call, or communication failed; `code` is JSON-RPC's."""

    code: int
    message: str


class McpExecutionError(msgspec.Struct, frozen=True, tag="mcp_tool_execution_error"):
    """The tool ran and reported an error."""

    content: Any


class McpHttpError(msgspec.Struct, frozen=True, tag="http_error"):
    """The server rejected the request; `code` is the HTTP status."""

    code: int
    message: str


McpError = McpProtocolError | McpExecutionError | McpHttpError


class McpCall(msgspec.Struct, frozen=True, tag="mcp_call", omit_defaults=True):
    """A call of a remote MCP server's tool. Null fields are left out: the AI SDK refuses them."""

    id: str
    status: CallStatus
    name: str
    server_label: str
    arguments: str
    output: str | None = None
    error: McpError | None = None
    approval_request_id: str | None = None


class McpTool(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tool of an MCP server."""

    name: str
    input_schema: dict[str, Any]
    description: str | None = None
    annotations: dict[str, Any] | None = None


class McpListTools(msgspec.Struct, frozen=True, tag="mcp_list_tools", omit_defaults=True):
    """The tools of an MCP server."""

    id: str
    server_label: str
    tools: tuple[McpTool, ...]
    error: str | None = None


class McpApprovalRequest(msgspec.Struct, frozen=True, tag="mcp_approval_request"):
    """A call that waits for the client's approval."""

    id: str
    name: str
    server_label: str
    arguments: str


class ToolCall(msgspec.Struct, frozen=True, tag="x_tool_call"):
    """A call of a tool for which no public API has an item; `arguments` is JSON text."""

    id: str
    status: CallStatus
    name: str
    arguments: str = "{}"
    output: str = ""


HostedItem = (
    WebSearchCall
    | WebExtractorCall
    | CodeInterpreterCall
    | FileSearchCall
    | WebSearchImageCall
    | ImageSearchCall
    | McpCall
    | McpListTools
    | McpApprovalRequest
    | ToolCall
)
HOSTED_TYPES = frozenset(str(item.__struct_config__.tag) for item in get_args(HostedItem))
"""The `type` of each of them."""
