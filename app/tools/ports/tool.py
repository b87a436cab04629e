"""The tool port: what the engine asks of a built-in tool, and what a tool may use.

A tool is one file with a constant `TOOL: ToolSpec`, which `app.discovery` finds. The engine offers its functions to the model, runs the
calls the model makes, limits them in time and size, and shows them as items; a tool never sees events, ids or the stream.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from app.protocol.messages import FunctionTool, ImagePart
from app.protocol.wire.errors import InvalidRequest
from app.protocol.wire.hosted import HostedCall, HostedItem
from app.settings import Settings
from app.tools.ports.fetcher import Fetcher
from app.tools.ports.files import Files


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
    build: Callable[[ToolServices], Tool | Missing]
    """Opens no connection yet."""
    example: msgspec.Raw
    """An entry of `tools` that works as it stands, for `GET /v1/tools`."""
    description: str
    """One sentence for people."""
    details: Callable[[Tool], Awaitable[Mapping[str, object]]] | None = None
    """What `GET /v1/tools` tells besides, of a tool that runs here; it never fails, and takes seconds at most."""


class ToolServices(msgspec.Struct, frozen=True, kw_only=True):
    """What tools are built with."""

    settings: Settings
    fetcher: Fetcher
    files: Files | None
    """None: files are switched off."""


def check_entry(raw: msgspec.Raw, place: str) -> None:
    """For a tool that takes nothing but its type. Raises InvalidRequest for anything else."""
    for name in msgspec.json.decode(raw, type=dict[str, msgspec.Raw]):
        if name != "type":
            raise InvalidRequest(f"Unknown parameter: '{place}.{name}'.", code="unknown_parameter", param=f"{place}.{name}")
