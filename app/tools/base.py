"""The tool port: what the engine requires of a built-in tool, and what a tool may use.

A tool is one file with a constant `TOOL: ToolSpec`, which `app.discovery` finds. The engine offers its functions to the model, runs the
model's calls, limits them in time and size, and shows them as items; a tool never sees events, ids or the stream.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from app.protocol.errors import InvalidRequest
from app.protocol.hosted import HostedCall, HostedItem
from app.protocol.messages import FunctionTool, ImagePart
from app.settings import Settings

_FUNCTION_NAME = 64


class UrlCitation(msgspec.Struct, frozen=True):
    """A page the model has read."""

    url: str
    title: str


class FileCitation(msgspec.Struct, frozen=True):
    """A file of the user that the model has read."""

    file_id: str
    filename: str


class ContainerFile(msgspec.Struct, frozen=True):
    """A file created by code; the model refers to it as `sandbox:` and its path."""

    container_id: str
    file_id: str
    filename: str
    path: str
    """Absolute, inside the container: `/mnt/data/plot.png`."""


Source = UrlCitation | FileCitation | ContainerFile


def mcp_function(label: str, name: str) -> str:
    """The function name for the tool `name` of the MCP server `label`: valid for every upstream, and always the same."""
    full = f"mcp__{label}__{name}"
    safe = _safe(full)
    other_readings = "__" in label or label.endswith("_")  # `a__b` + `c` is not `a` + `b__c`, which another server may offer
    if safe == full and len(full) <= _FUNCTION_NAME and not other_readings:
        return full
    return f"{safe[: _FUNCTION_NAME - 9]}_{zlib.crc32(full.encode()):08x}"


def is_of_mcp_server(function: str, label: str) -> bool:
    """Whether `mcp_function` may have produced the name for a tool of that server."""
    return function.startswith(_safe(f"mcp__{label}__")[: _FUNCTION_NAME - 9])


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)


class ToolOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a call ended."""

    text: str
    """What the model reads. The engine marks it as data that contains no instructions, and truncates it to the size limit."""
    item: HostedItem
    """The final item, `status` "completed" or "failed"; its id is ignored. The fields shown by `ToolSession.item` stay unchanged."""
    note: str | None = None
    """Kept privately with the conversation: the next turn's session gets it in `ToolContext.note`."""
    images: Sequence[ImagePart] = ()
    """Shown to the model together with the text, if it accepts images."""


class ToolFailure(Exception):
    """The call cannot be done; the message is a sentence for the model, without internals. The engine turns it into a failed item."""


class Ask(Protocol):
    """Asks the model that answers the request a question outside the conversation; its tokens count towards the response."""

    async def __call__(self, question: str, *, images: Sequence[ImagePart] = (), max_tokens: int = 1000) -> str:
        """The answer's text, without thinking. Raises ToolFailure if the model cannot be asked."""
        ...


class Cite(Protocol):
    """Makes a source citable."""

    def __call__(self, source: Source) -> int:
        """The source's number in this response, from 1: the tool shows it to the model as `[n]`, and if the model writes `[n]` in its
        answer (or the page's URL, or the file's `sandbox:` path), the answer gets the annotation. A source keeps its first number."""
        ...


class ToolContext(msgspec.Struct, frozen=True, kw_only=True):
    """The response for which a tool is opened."""

    project_id: str
    """The tenant; every lookup is scoped to it."""
    response_id: str
    model: str
    images: Sequence[ImagePart]
    """Images of the conversation, oldest first; `img_idx` counts them from 0."""
    include: frozenset[str]
    """`include` of the request."""
    note: str | None
    """This tool's last note in this conversation."""
    ask: Ask
    cite: Cite


class ToolSession(Protocol):
    """A tool in use by one response. Calls may run concurrently."""

    functions: Sequence[FunctionTool]
    """What the model may call."""
    announcements: Sequence[HostedItem]
    """Final items that precede everything else; their ids are ignored."""
    note: str | None
    """Like `ToolOutcome.note`, from opening the session; None: nothing."""

    def item(self, call: HostedCall) -> HostedItem:
        """The item when the call begins, `status` "in_progress", without results. Pure and fast; never raises, whatever the arguments.

        A McpApprovalRequest instead means that the client must consent: the call is not run, and the response ends with it.
        """
        ...

    async def run(self, call: HostedCall) -> ToolOutcome:
        """Run the call. Raises ToolFailure; any other exception becomes a failed item, too, and is logged. Cancelled at the time limit."""
        ...

    async def aclose(self) -> None:
        """The response is over."""
        ...


class ToolRequest(msgspec.Struct, frozen=True):
    """One validated entry of a request's `tools`."""

    open: Callable[[ToolContext], Awaitable[ToolSession]]
    """Begin the session. Raises ApiError for client errors that only a lookup reveals (a vector store that does not exist)."""
    echo: msgspec.Raw
    """The entry as the response shows it: without secrets, with the defaults in effect."""
    names: tuple[str, ...] = ()
    """The names of the functions that the session will offer, as far as known."""
    label: str = ""
    """Distinguishes entries of one type (an MCP server's label)."""
    native: msgspec.Raw | None = None
    """The entry in the vendor's format, if it can be forwarded to the vendor's own tool; None: that does not support its options."""


class Tool(Protocol):
    """A built-in tool that can run here."""

    def configure(self, raw: msgspec.Raw, place: str) -> ToolRequest:
        """Validate one entry of `tools`; `place` is its position, like `tools[0]`. Pure. Raises InvalidRequest naming the parameter."""
        ...

    async def aclose(self) -> None:
        """Release resources."""
        ...


class Missing(msgspec.Struct, frozen=True):
    """Why a tool cannot run here."""

    setting: str
    """The environment variable that would change it: `GATEWAY_SEARXNG_URL`."""
    reason: str
    """A sentence that says what to do."""


class ToolSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a tool's module exports as `TOOL`."""

    type: str
    """The value of `tools[].type`, and the key in `usage.x_tools`."""
    aliases: tuple[str, ...] = ()
    """Other spellings of the type that clients send."""
    build: Callable[[Workshop], Tool | Missing]
    """Opens no connection yet."""
    example: msgspec.Raw
    """A complete, working entry of `tools`, for `GET /v1/tools`."""
    description: str
    """One sentence for people."""
    details: Callable[[Tool], Awaitable[Mapping[str, object]]] | None = None
    """More for `GET /v1/tools`, for a tool that runs here; it never fails, and takes seconds at most."""


class Page(msgspec.Struct, frozen=True):
    """The result of a fetch."""

    url: str
    """After redirects."""
    content_type: str
    """Lower case, without parameters."""
    charset: str | None
    body: bytes


class FetchRefused(Exception):
    """The address may not or cannot be fetched; the message is a sentence without internals."""


class Fetcher(Protocol):
    """Fetches from the public web only: see `app/tools/_fetch.py` for the protections."""

    async def get(
        self, url: str, *, limit: int, seconds: float, accept: Sequence[str] = (), headers: Sequence[tuple[str, str]] = ()
    ) -> Page:
        """The page. `limit`: bytes of the body after decompression. `accept`: content types (`text/html`, `image/*`); empty: any.

        Raises FetchRefused: forbidden address, too large, too slow, wrong type, error status, no answer.
        """
        ...

    async def check(self, url: str) -> None:
        """Raises FetchRefused unless the address may be fetched (for libraries that connect by themselves, such as MCP's)."""
        ...

    def on_behalf(self, project_id: str) -> Fetcher:
        """The same for one project, which shares capacity fairly with others; without a project, all fetches share as one."""
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
    """False: it is among the best, but hardly answers the query."""


class FileQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A query over vector stores."""

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
    """Uploaded files and their contents. Every method is scoped to the project; another project's id is treated as unknown."""

    async def read(self, project_id: str, file_id: str) -> FileContent:
        """The file. Raises NotFound."""
        ...

    async def check(self, project_id: str, vector_store_ids: Sequence[str]) -> None:
        """Raises NotFound for the first one that is unknown or expired."""
        ...

    async def search(self, project_id: str, query: FileQuery) -> Sequence[FileHit]:
        """The best passages, best first. Raises NotFound, InvalidRequest for a bad filter."""
        ...


class Workshop(msgspec.Struct, frozen=True, kw_only=True):
    """The dependencies of tools."""

    settings: Settings
    fetcher: Fetcher
    files: Files | None
    """None: files are disabled."""


class NewContainer(msgspec.Struct, frozen=True, kw_only=True):
    """A container as a request describes it."""

    name: str
    file_ids: tuple[str, ...] = ()
    """Uploaded files to copy into it."""
    memory_limit: str | None = None
    idle_minutes: int | None = None
    """It expires if unused for this long."""


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
    """Whether it was uploaded or created by code."""


class Containers(Protocol):
    """The containers of `code_interpreter`. Another project's id counts as unknown. All raise Unavailable if no sandbox can be reached."""

    async def create(self, project_id: str, wanted: NewContainer) -> Container:
        """Raises InvalidRequest for invalid options, and for a file that does not exist."""
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
        """Write a file. Raises NotFound, InvalidRequest for an invalid name, PayloadTooLarge."""
        ...

    async def add_uploaded(self, project_id: str, container_id: str, file_id: str) -> ContainerEntry:
        """Copy an uploaded file. Raises NotFound, PayloadTooLarge, InvalidRequest if the file does not exist."""
        ...

    async def files(self, project_id: str, container_id: str) -> Sequence[ContainerEntry]:
        """Newest first. Raises NotFound."""
        ...

    async def file(self, project_id: str, container_id: str, file_id: str) -> ContainerEntry:
        """Raises NotFound."""
        ...

    def content(self, project_id: str, container_id: str, file_id: str) -> AsyncGenerator[bytes]:
        """The file's bytes as they arrive, for the caller to close. The first one raises NotFound."""
        ...

    async def delete_file(self, project_id: str, container_id: str, file_id: str) -> None:
        """Raises NotFound."""
        ...


def check_entry(raw: msgspec.Raw, place: str) -> None:
    """For a tool that accepts only `type`. Raises InvalidRequest for anything else."""
    for name in msgspec.json.decode(raw, type=dict[str, msgspec.Raw]):
        if name != "type":
            raise InvalidRequest(f"Unknown parameter: '{place}.{name}'.", code="unknown_parameter", param=f"{place}.{name}")
