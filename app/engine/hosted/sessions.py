"""The built-in tools of one response: sessions, parallel calls, and the exchanges with the model."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from app.engine.conversation.exchanges import Exchange, Exchanges
from app.engine.conversation.untrusted import wrap
from app.engine.hosted.catalog import Entry, unavailable
from app.engine.hosted.citations import Citations
from app.engine.hosted.native import UpstreamConditions, native_entries
from app.protocol.messages import Call, FunctionTool, ImagePart, ToolResult
from app.protocol.recovery.arguments import read_object, sendable
from app.protocol.stream.phases import SPECS, status
from app.protocol.wire.errors import ApiError, InvalidRequest
from app.protocol.wire.hosted import HostedCall, HostedItem, McpApprovalRequest, McpCall, McpProtocolError
from app.settings import Limits
from app.tools.ports.mcp_names import is_of_mcp_server
from app.tools.ports.tool import Cite, Source, ToolContext, ToolFailure, ToolOutcome, ToolSession

_log = logging.getLogger(__name__)
_INTERNAL_ERROR = -32603
"""JSON-RPC's code for internal errors."""

MakeContext = Callable[[str | None, Sequence[ImagePart], Cite], ToolContext]
"""(the tool's note, the conversation's images, the citations) -> the tool's view of the response."""

Count = Callable[[str, str, float], None]
"""Counts a call: (tool, its final status, seconds)."""


class FinishedCall(msgspec.Struct, frozen=True):
    """A finished call."""

    call: HostedCall
    item: HostedItem
    result: ToolResult
    images: Sequence[ImagePart] = ()

    @property
    def asked(self) -> Call:
        """The call as the model reads it later, in a form that every upstream accepts."""
        return Call(self.call.call_id, self.call.name, sendable(self.call.arguments))


class ToolsState(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the tools of a response have done, for another process to go on from there."""

    calls: dict[str, Exchange] = {}
    notes: dict[str, str] = {}
    turns: int = 0
    sources: tuple[Source, ...] = ()
    shown: tuple[str, ...] = ()
    """Ids of files that are already annotated."""
    resumed: tuple[FinishedCall, ...] = ()
    """Calls that the client had approved."""


_NOTHING = ToolsState()


class OfferedTools(msgspec.Struct, frozen=True):
    """The tools offered to the model at one upstream."""

    functions: tuple[FunctionTool, ...] = ()
    native: tuple[msgspec.Raw, ...] = ()


class Hosted:
    """The built-in tools of one request. Call `offer` first and `aclose` at the end."""

    def __init__(
        self,
        entries: Sequence[Entry],
        limits: Limits,
        make_context: MakeContext,
        count: Count,
        earlier: ToolsState = _NOTHING,
    ) -> None:
        """`earlier`: what was done for this response in another process."""
        self.entries = entries
        """The entries of `tools`; the conversation may add to them before `offer`."""
        self._count = count
        self._limits = limits
        self._make_context = make_context
        self._sessions: dict[str, ToolSession] = {}
        self._owners: dict[str, str] = {}
        """Function -> the entry's key."""
        self._at_once = asyncio.Semaphore(limits.tool_calls_at_once)
        self._resumed = {ran.call.call_id: ran for ran in earlier.resumed}
        self._turns = earlier.turns
        self.citations = Citations(earlier.sources, earlier.shown)
        self.exchanges = Exchanges(dict(earlier.calls), dict(earlier.notes))

    async def offer(
        self, where: UpstreamConditions, notes: Mapping[str, str], images: Sequence[ImagePart]
    ) -> OfferedTools:
        """Open sessions for the tools that run here, and return those and the ones that the upstream runs.

        Raises ApiError.
        """
        native, notes = native_entries(self.entries, where), {**notes, **self.exchanges.notes}
        for entry in self.entries:
            if entry.key in native:
                continue
            if entry.request is None:
                raise unavailable(entry)
            if entry.key not in self._sessions:
                session = await entry.request.open(
                    self._make_context(notes.get(entry.key), images, self.citations.cite)
                )
                self._sessions[entry.key] = session
                self._owners.update(dict.fromkeys((function.name for function in session.functions), entry.key))
                if session.note is not None:
                    self.exchanges.notes[entry.key] = session.note
        functions = [function for session in self._sessions.values() for function in session.functions]
        return OfferedTools(tuple(functions), tuple(native.values()))

    @property
    def announcements(self) -> Sequence[HostedItem]:
        """Items to show before everything else."""
        return [item for session in self._sessions.values() for item in session.announcements]

    @property
    def openers(self) -> Mapping[str, Callable[[HostedCall], HostedItem]]:
        """Functions that create the item of a call, by function name."""
        return dict.fromkeys(self._owners, self.item)

    def item(self, call: HostedCall) -> HostedItem:
        """The call's initial item. If it shows the arguments' text, that stays as the model wrote it."""
        item = self._sessions[self._owners[call.name]].item(_as_meant(call))
        stream = SPECS[type(item)].arguments
        if stream is None or stream.key is not None:
            return item
        return msgspec.structs.replace(item, **{stream.field: call.arguments})

    def may_repeat(self, call: HostedCall) -> bool:
        """Whether the call can be made again if its result is lost with this process."""
        return self._sessions[self._owners[call.name]].may_repeat(_as_meant(call))

    @property
    def state(self) -> ToolsState:
        """What has been done."""
        done, cited = self.exchanges, self.citations
        resumed = tuple(self._resumed.values())
        return ToolsState(
            dict(done.calls), dict(done.notes), self._turns, tuple(cited.sources), tuple(cited.shown), resumed
        )

    def tool(self, call: HostedCall) -> str:
        """The type of the called tool."""
        return self._owners[call.name].partition(":")[0]

    async def run(self, call: HostedCall) -> FinishedCall:
        """Run the call; a failure becomes an item and a message for the model."""
        begun, loop = self.item(call), asyncio.get_running_loop()
        if isinstance(begun, McpApprovalRequest):
            return FinishedCall(call, begun, ToolResult(call.call_id, ""))
        async with self._at_once:
            start = loop.time()
            outcome = await self._outcome(call, begun)
        self._count(self.tool(call), status(outcome.item), loop.time() - start)
        if outcome.note is not None:
            self.exchanges.notes[self._owners[call.name]] = outcome.note
        text = wrap(self.tool(call), outcome.text, self._limits.tool_output_bytes)
        return FinishedCall(call, outcome.item, ToolResult(call.call_id, text), outcome.images)

    async def resume(self, calls: Sequence[HostedCall]) -> Sequence[FinishedCall]:
        """Run the calls that the client has approved, once. Raises InvalidRequest if their server is no longer among
        the tools.

        If the server is present but unreachable, or no longer has the tool, the call fails.
        """
        for call in calls:
            if call.name not in self._owners:
                self._owners[call.name] = self._server(call.name)
            if call.call_id not in self._resumed:
                self._resumed[call.call_id] = await self.run(call)
        return list(self._resumed.values())

    def keep(self, ran: Sequence[FinishedCall], item_ids: Sequence[str], *, beside_client: bool) -> None:
        """Record the results of one turn's calls as the model read them; `item_ids` are the ids of their items."""
        self._turns += 1
        for one, item_id in zip(ran, item_ids, strict=True):
            text = None if isinstance(one.item, McpApprovalRequest) else one.result.content
            self.exchanges.calls[item_id] = Exchange(item_id, one.asked, text, self._turns, beside_client)

    async def aclose(self) -> None:
        """Close the sessions; `exchanges` stay readable.

        All references to the run are dropped: without cycles its memory, which can be megabytes, is freed at once
        instead of at a later garbage collection.
        """
        self._make_context = _closed
        while self._sessions:
            key, session = self._sessions.popitem()
            try:
                await session.aclose()
            except Exception:  # noqa: BLE001 - the answer is complete, and the other sessions must be closed, too
                _log.exception("tool %s could not be closed", key)

    def _server(self, function: str) -> str:
        """The key of the function's MCP server. Raises InvalidRequest."""
        labels = {
            entry.key: entry.request.label
            for entry in self.entries
            if entry.key in self._sessions and entry.request is not None
        }
        fitting = [key for key, label in labels.items() if label and is_of_mcp_server(function, label)]
        if not fitting:
            raise missing_server()
        return max(fitting, key=len)  # a function that may be of `a` or of `a__b` is of the latter

    async def _outcome(self, call: HostedCall, begun: HostedItem) -> ToolOutcome:
        try:
            async with asyncio.timeout(self._limits.tool_seconds):
                return await self._sessions[self._owners[call.name]].run(_as_meant(call))
        except (ToolFailure, ApiError) as error:
            return _failed(begun, str(error))
        except TimeoutError:
            return _failed(begun, f"The call took longer than {self._limits.tool_seconds:g} seconds and was stopped.")
        except Exception:  # noqa: BLE001 - an error in one tool must not end the response
            _log.exception("tool %s failed", self.tool(call))
            return _failed(begun, "The tool failed unexpectedly.")


def missing_server() -> InvalidRequest:
    """The error for an approval whose server the request does not name."""
    message = (
        "The MCP server of an approved call is not in 'tools', or is left out by 'tool_choice'; send the same 'mcp' "
        "entry again."
    )
    return InvalidRequest(message, code="invalid_value", param="tools")


def _closed(_note: str | None, _images: Sequence[ImagePart], _cite: Cite) -> ToolContext:
    raise RuntimeError("the response is over")


def _as_meant(call: HostedCall) -> HostedCall:
    """With the arguments corrected to those meant; if they are not an object at all, the tool handles them."""
    meant = read_object(call.arguments) if call.arguments else None
    return call if meant is None or meant == call.arguments else msgspec.structs.replace(call, arguments=meant)


def _failed(begun: HostedItem, sentence: str) -> ToolOutcome:
    changes: dict[str, Any] = {"status": "failed"}
    if isinstance(begun, McpCall):
        changes["error"] = McpProtocolError(_INTERNAL_ERROR, sentence)
    elif "output" in begun.__struct_fields__:
        changes["output"] = sentence
    return ToolOutcome(text=sentence, item=msgspec.structs.replace(begun, **changes))
