"""The tool port: what the engine asks of a built-in tool, and what a tool may use.

A tool is one file with a constant `TOOL: ToolSpec`, which `app.discovery` finds. The engine offers its functions to the model, runs the
calls the model makes, limits them in time and size, and shows them as items; a tool never sees events, ids or the stream.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from app.protocol.messages import FunctionTool, ImagePart
from app.protocol.wire.errors import InvalidRequest
from app.protocol.wire.hosted import HostedCall, HostedItem
from app.settings import Settings

_FUNCTION_NAME = 64


class UrlCitation(msgspec.Struct, frozen=True):
    """A page the model has read."""

    url: str
    title: str


class FileCitation(msgspec.Struct, frozen=True):
    """A file of the user the model has read."""

    file_id: str
    filename: str


class ContainerFile(msgspec.Struct, frozen=True):
    """A file that code has made; the model mentions it as `sandbox:` and its path."""

    container_id: str
    file_id: str
    filename: str
    path: str
    """Absolute, inside the container: `/mnt/data/plot.png`."""


Source = UrlCitation | FileCitation | ContainerFile


def mcp_function(label: str, name: str) -> str:
    """The function the model is offered for the tool `name` of the MCP server `label`: safe for every upstream, and always the same."""
    full = f"mcp__{label}__{name}"
    safe = _safe(full)
    other_readings = "__" in label or label.endswith("_")  # `a__b` + `c` is not `a` + `b__c`, which another server may offer
    if safe == full and len(full) <= _FUNCTION_NAME and not other_readings:
        return full
    return f"{safe[: _FUNCTION_NAME - 9]}_{zlib.crc32(full.encode()):08x}"


def is_of_mcp_server(function: str, label: str) -> bool:
    """Whether `mcp_function` may have made the name for a tool of that server."""
    return function.startswith(_safe(f"mcp__{label}__")[: _FUNCTION_NAME - 9])


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)


class ToolOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a call ended."""

    text: str
    """What the model reads. The engine wraps it as data that gives no orders, and cuts it to the size limit."""
    item: HostedItem
    """The item as it stays, `status` "completed" or "failed"; its id is not looked at. What `ToolSession.item` showed stays as it is."""
    note: str | None = None
    """Kept privately with the conversation: the next turn's session finds it in `ToolContext.note`."""
    images: Sequence[ImagePart] = ()
    """Shown to the model beside the text, where it takes images."""


class ToolFailure(Exception):
    """The call cannot be done; the message is a sentence for the model, without internals. The engine makes a failed item of it."""


class Ask(Protocol):
    """A question to the model that answers the request, beside the conversation; its tokens count to the response."""

    async def __call__(self, question: str, *, images: Sequence[ImagePart] = (), max_tokens: int = 1000) -> str:
        """The answer's text, without thinking. Raises ToolFailure when the model cannot be asked."""
        ...


class Cite(Protocol):
    """Makes a source citable."""

    def __call__(self, source: Source) -> int:
        """The source's number in this response, from 1: the tool shows it to the model as `[n]`, and where the model writes `[n]` in its
        answer (or the page's URL, or the file's `sandbox:` path), the answer gets the annotation. A source keeps its first number."""
        ...


class ToolContext(msgspec.Struct, frozen=True, kw_only=True):
    """The response on whose behalf a tool is opened."""

    project_id: str
    """The tenant; every look-up is scoped to it."""
    response_id: str
    model: str
    images: Sequence[ImagePart]
    """Images of the conversation, oldest first; `img_idx` counts them from 0."""
    include: frozenset[str]
    """`include` of the request."""
    note: str | None
    """What this tool noted last in this conversation."""
    ask: Ask
    cite: Cite


class ToolSession(Protocol):
    """A tool at the service of one response. Calls may run side by side."""

    functions: Sequence[FunctionTool]
    """What the model may call."""
    announcements: Sequence[HostedItem]
    """Items that go before everything else, as they stay; ids are not looked at."""
    note: str | None
    """As `ToolOutcome.note`, for what opening has brought; None: nothing."""

    def item(self, call: HostedCall) -> HostedItem:
        """The item as it begins, `status` "in_progress", without results. Pure and quick; never raises, whatever the arguments are.

        A McpApprovalRequest instead means that the client has to consent: the call is not run, and the response ends with it.
        """
        ...

    async def run(self, call: HostedCall) -> ToolOutcome:
        """Do it. Raises ToolFailure; any other exception becomes a failed item, too, and is logged. Cancelled at the time limit."""
        ...

    async def aclose(self) -> None:
        """The response is over."""
        ...


class ToolRequest(msgspec.Struct, frozen=True):
    """One entry of a request's `tools`, checked."""

    open: Callable[[ToolContext], Awaitable[ToolSession]]
    """Begin the session. Raises ApiError for what only a look-up shows to be the client's mistake (a vector store that is not there)."""
    echo: msgspec.Raw
    """The entry as the response shows it: without secrets, with the defaults in effect."""
    names: tuple[str, ...] = ()
    """Names of the functions the session will offer, as far as they are known."""
    label: str = ""
    """Tells entries of one type apart (an MCP server's label)."""
    native: msgspec.Raw | None = None
    """The entry in the vendor's words, where it can be forwarded to the vendor's own tool; None: it asks for what that cannot do."""


class Tool(Protocol):
    """A built-in tool that can run here."""

    def configure(self, raw: msgspec.Raw, place: str) -> ToolRequest:
        """Check one entry of `tools`; `place` is where it stands, like `tools[0]`. Pure. Raises InvalidRequest naming the parameter."""
        ...

    async def aclose(self) -> None:
        """Free what it holds."""
        ...


class Missing(msgspec.Struct, frozen=True):
    """Why a tool cannot run here."""

    setting: str
    """The environment variable that would change it: `GATEWAY_SEARXNG_URL`."""
    reason: str
    """A sentence that says what to do."""


class ToolSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a tool's module offers under the name `TOOL`."""

    type: str
    """As in `tools[].type`, and in `usage.x_tools`."""
    aliases: tuple[str, ...] = ()
    """Other spellings of the type that clients send."""
    build: Callable[[Workshop], Tool | Missing]
    """Opens no connection yet."""
    example: msgspec.Raw
    """An entry of `tools` that works as it stands, for `GET /v1/tools`."""
    description: str
    """One sentence for people."""
    details: Callable[[Tool], Awaitable[Mapping[str, object]]] | None = None
    """What `GET /v1/tools` tells besides, of a tool that runs here; it never fails, and takes seconds at most."""


class Page(msgspec.Struct, frozen=True):
    """What a fetch brought."""

    url: str
    """After redirects."""
    content_type: str
    """Lower case, without parameters."""
    charset: str | None
    body: bytes


class FetchRefused(Exception):
    """The address may not be fetched, or cannot be; the message is a sentence without internals."""


class Fetcher(Protocol):
    """Gets what is on the web and nothing else: see `app/tools/fetch/fetcher.py` for what it guards against."""

    async def get(
        self, url: str, *, limit: int, seconds: float, accept: Sequence[str] = (), headers: Sequence[tuple[str, str]] = ()
    ) -> Page:
        """The page. `limit`: bytes of the body after decompression. `accept`: content types (`text/html`, `image/*`); empty: any.

        Raises FetchRefused: forbidden address, too large, too slow, wrong type, error status, no answer.
        """
        ...

    async def check(self, url: str) -> None:
        """Raises FetchRefused unless the address may be asked (for libraries that connect by themselves, such as MCP's)."""
        ...

    def on_behalf(self, project_id: str) -> Fetcher:
        """The same for one project, whose turns these fetches then are; without, all take turns as one."""
        ...


class FileContent(msgspec.Struct, frozen=True):
    """An uploaded file."""

    file_id: str
    filename: str
    content: bytes


class FileHit(msgspec.Struct, frozen=True):
    """A passage of an uploaded file."""

    file_id: str
    filename: str
    score: float
    """0 to 1."""
    text: str
    attributes: dict[str, str | float | bool]
    fits: bool = True
    """False: it is among the best, and yet hardly answers the query."""


class FileQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What to look for in vector stores."""

    vector_store_ids: tuple[str, ...]
    queries: tuple[str, ...]
    limit: int = 10
    filters: msgspec.Raw | None = None
    """As in the request: a comparison or compound filter over attributes."""
    score_threshold: float = 0.0
    embedding_weight: float = 1.0
    text_weight: float = 1.0
    ranker: Literal["auto", "default-2024-11-15", "none"] = "auto"


class Files(Protocol):
    """Uploaded files and what is known from them. Every method is scoped to the project; a foreign id is an unknown id."""

    async def read(self, project_id: str, file_id: str) -> FileContent:
        """The file. Raises NotFound."""
        ...

    async def check(self, project_id: str, vector_store_ids: Sequence[str]) -> None:
        """Raises NotFound for the first that is unknown or expired."""
        ...

    async def search(self, project_id: str, query: FileQuery) -> Sequence[FileHit]:
        """The best passages, best first. Raises NotFound, InvalidRequest for a bad filter."""
        ...


class Workshop(msgspec.Struct, frozen=True, kw_only=True):
    """What tools are built with."""

    settings: Settings
    fetcher: Fetcher
    files: Files | None
    """None: files are switched off."""


class NewContainer(msgspec.Struct, frozen=True, kw_only=True):
    """A container as a request describes it."""

    name: str
    file_ids: tuple[str, ...] = ()
    """Uploaded files to copy into it."""
    memory_limit: str | None = None
    idle_minutes: int | None = None
    """It expires when it is not used for this long."""


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """A sandbox that keeps variables and files for a while; times are Unix seconds."""

    id: str
    name: str
    created_at: int
    last_active_at: int
    idle_minutes: int
    memory_limit: str


class ContainerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A file in a container."""

    id: str
    path: str
    """Absolute, inside the container."""
    bytes: int
    created_at: int
    source: Literal["user", "assistant"]
    """Whether it was put there or made by code."""


class Containers(Protocol):
    """The containers of `code_interpreter`. A foreign id is an unknown id. Everything raises Unavailable when no sandbox can be reached."""

    async def create(self, project_id: str, wanted: NewContainer) -> Container:
        """Raises InvalidRequest for what cannot be, and for a file that is not there."""
        ...

    async def list(self, project_id: str) -> Sequence[Container]:
        """Newest first."""
        ...

    async def get(self, project_id: str, container_id: str) -> Container:
        """Raises NotFound."""
        ...

    async def delete(self, project_id: str, container_id: str) -> None:
        """Raises NotFound."""
        ...

    async def add(self, project_id: str, container_id: str, filename: str, content: AsyncIterable[bytes]) -> ContainerEntry:
        """Write a file. Raises NotFound, InvalidRequest for its name, PayloadTooLarge."""
        ...

    async def add_uploaded(self, project_id: str, container_id: str, file_id: str) -> ContainerEntry:
        """Copy an uploaded file. Raises NotFound, PayloadTooLarge, InvalidRequest when the file is not there."""
        ...

    async def files(self, project_id: str, container_id: str) -> Sequence[ContainerEntry]:
        """Newest first. Raises NotFound."""
        ...

    async def file(self, project_id: str, container_id: str, file_id: str) -> ContainerEntry:
        """Raises NotFound."""
        ...

    def content(self, project_id: str, container_id: str, file_id: str) -> AsyncGenerator[bytes]:
        """The file's bytes as they come, for the caller to close. The first one raises NotFound."""
        ...

    async def delete_file(self, project_id: str, container_id: str, file_id: str) -> None:
        """Raises NotFound."""
        ...


def check_entry(raw: msgspec.Raw, place: str) -> None:
    """For a tool that takes nothing but its type. Raises InvalidRequest for anything else."""
    for name in msgspec.json.decode(raw, type=dict[str, msgspec.Raw]):
        if name != "type":
            raise InvalidRequest(f"Unknown parameter: '{place}.{name}'.", code="unknown_parameter", param=f"{place}.{name}")
