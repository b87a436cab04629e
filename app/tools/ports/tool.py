"""The tool port: what the engine asks of a built-in tool, and what a tool may use.

A tool is one file with a constant `TOOL: ToolSpec`, which `app.discovery` finds. The engine offers its functions to the
model, runs the calls the model makes, limits them in time and size, and shows them as items; a tool never sees events,
ids or the stream.
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


class UrlCitation(msgspec.Struct, frozen=True, tag="url"):
    """A page the model has read."""

    url: str
    title: str


class FileCitation(msgspec.Struct, frozen=True, tag="file"):
    """A file of the user that the model has read."""

    file_id: str
    filename: str


class ContainerFile(msgspec.Struct, frozen=True, tag="container_file"):
    """A file created by code; the model refers to it as `sandbox:` and its path."""

    container_id: str
    file_id: str
    filename: str
    path: str
    """Absolute, inside the container: `/mnt/data/plot.png`."""


Source = UrlCitation | FileCitation | ContainerFile


class ToolOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a call ended."""

    text: str
    """What the model reads.

    The engine marks it as data that contains no instructions, and truncates it to the size limit.
    """
    item: HostedItem
    """The final item, `status` "completed" or "failed"; its id is ignored.

    The fields shown by `ToolSession.item` stay unchanged.
    """
    note: str | None = None
    """Kept privately with the conversation: the next turn's session gets it in `ToolContext.note`."""
    images: Sequence[ImagePart] = ()
    """Shown to the model together with the text, if it accepts images."""


class ToolFailure(Exception):
    """The call cannot be done; the message is a sentence for the model, without internals.

    The engine turns it into a failed item.
    """


class Ask(Protocol):
    """Asks the model that answers the request a question outside the conversation.

    Its tokens count towards the response.
    """

    async def __call__(self, question: str, *, images: Sequence[ImagePart] = (), max_tokens: int = 1000) -> str:
        """The answer's text, without thinking. Raises ToolFailure if the model cannot be asked."""
        ...


class Cite(Protocol):
    """Makes a source citable."""

    def __call__(self, source: Source) -> int:
        """The source's number in this response, from 1: the tool shows it to the model as `[n]`, and if the model
        writes `[n]` in its answer (or the page's URL, or the file's `sandbox:` path), the answer gets the annotation.

        A source keeps its first number.
        """
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
        """The item when the call begins, `status` "in_progress", without results. Pure and fast; never raises, whatever
        the arguments.

        A McpApprovalRequest instead means that the client must consent: the call is not run, and the response ends with
        it.
        """
        ...

    def may_repeat(self, call: HostedCall) -> bool:
        """Whether the call can be made again if its result is lost with the process: it changes nothing that lasts."""
        ...

    async def run(self, call: HostedCall) -> ToolOutcome:
        """Run the call.

        Raises ToolFailure; any other exception becomes a failed item, too, and is logged. Cancelled at the time limit.
        """
        ...

    async def aclose(self) -> None:
        """The response is over."""
        ...


class ToolRequest(msgspec.Struct, frozen=True):
    """One validated entry of a request's `tools`."""

    open: Callable[[ToolContext], Awaitable[ToolSession]]
    """Begin the session.

    Raises ApiError for client errors that only a lookup reveals (a vector store that does not exist).
    """
    echo: msgspec.Raw
    """The entry as the response shows it: without secrets, with the defaults in effect."""
    names: tuple[str, ...] = ()
    """The names of the functions that the session will offer, as far as known."""
    label: str = ""
    """Distinguishes entries of one type (an MCP server's label)."""
    native: msgspec.Raw | None = None
    """The entry in the vendor's format, if it can be forwarded to the vendor's own tool.

    None: that does not support its options.
    """


class Tool(Protocol):
    """A built-in tool that can run here."""

    def configure(self, raw: msgspec.Raw, place: str) -> ToolRequest:
        """Validate one entry of `tools`; `place` is its position, like `tools[0]`.

        Pure. Raises InvalidRequest naming the parameter.
        """
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


class Price(msgspec.Struct, frozen=True):
    """The price of one call."""

    amount: float
    currency: str = "USD"
    note: str = ""
    """Source and date of the price, or what is not in it."""


class ToolSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a tool's module exports as `TOOL`."""

    type: str
    """The value of `tools[].type`, and the key in `usage.x_tools`."""
    aliases: tuple[str, ...] = ()
    """Other spellings of the type that clients send."""
    build: Callable[[ToolServices], Tool | Missing]
    """Opens no connection yet."""
    example: msgspec.Raw
    """A complete, working entry of `tools`, for `GET /v1/tools`."""
    description: str
    """One sentence for people."""
    price: Price | None = None
    """Only what the back end charges for a call that runs here, by list price; the settings can replace it."""
    details: Callable[[Tool], Awaitable[Mapping[str, object]]] | None = None
    """More for `GET /v1/tools`, for a tool that runs here; it never fails, and takes seconds at most."""


class ToolServices(msgspec.Struct, frozen=True, kw_only=True):
    """The dependencies of tools."""

    settings: Settings
    fetcher: Fetcher
    files: Files | None
    """None: files are disabled."""


def check_entry(raw: msgspec.Raw, place: str) -> None:
    """For a tool that accepts only `type`. Raises InvalidRequest for anything else."""
    for name in msgspec.json.decode(raw, type=dict[str, msgspec.Raw]):
        if name != "type":
            raise InvalidRequest(
                f"Unknown parameter: '{place}.{name}'.", code="unknown_parameter", param=f"{place}.{name}"
            )
