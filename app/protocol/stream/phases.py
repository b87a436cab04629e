"""The events of hosted items, as data.

The order is `added -> begun -> arguments, if streamed -> running -> succeeded or failed -> done`; phases without an
event are left out. The vendor's items (`web_extractor_call`, the image searches) have no events of their own at all.
"""

from __future__ import annotations

from typing import Any

import msgspec

from app.protocol.wire import events as e
from app.protocol.wire import hosted as h
from app.protocol.wire.hosted import HostedItem


class ArgumentStream(msgspec.Struct, frozen=True):
    """Arguments that are streamed while the model writes them."""

    field: str
    """The field of the item, and of the event that ends the arguments."""
    delta: type[e.CodeDelta | e.McpArgumentsDelta]
    done: type[e.CodeDone | e.McpArgumentsDone]
    key: str | None = None
    """The member of the arguments' JSON object that is streamed; None: the JSON text itself."""


class HostedCallSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The events of one kind of item, and the fields that its initial item does not show."""

    begun: type[e.HostedPhase] | None = None
    arguments: ArgumentStream | None = None
    running: type[e.HostedPhase] | None = None
    succeeded: type[e.HostedPhase] | None = None
    failed: type[e.HostedPhase] | None = None
    results: dict[str, Any] = {}
    """Fields that are filled only at the end, with their initial values."""


SPECS: dict[type[HostedItem], HostedCallSpec] = {
    h.WebSearchCall: HostedCallSpec(begun=e.WebSearchBegun, running=e.WebSearchRunning, succeeded=e.WebSearchSucceeded),
    h.FileSearchCall: HostedCallSpec(
        begun=e.FileSearchBegun, running=e.FileSearchRunning, succeeded=e.FileSearchSucceeded, results={"results": None}
    ),
    h.CodeInterpreterCall: HostedCallSpec(
        begun=e.CodeBegun,
        arguments=ArgumentStream("code", e.CodeDelta, e.CodeDone, key="code"),
        running=e.CodeRunning,
        succeeded=e.CodeSucceeded,
        results={"outputs": None},
    ),
    h.WebExtractorCall: HostedCallSpec(results={"output": ""}),
    h.WebSearchImageCall: HostedCallSpec(results={"output": ""}),
    h.ImageSearchCall: HostedCallSpec(results={"output": ""}),
    h.ToolCall: HostedCallSpec(results={"output": ""}),
    h.McpCall: HostedCallSpec(
        begun=e.McpBegun,
        arguments=ArgumentStream("arguments", e.McpArgumentsDelta, e.McpArgumentsDone),
        succeeded=e.McpSucceeded,
        failed=e.McpFailed,
        results={"output": None, "error": None},
    ),
    h.McpListTools: HostedCallSpec(
        begun=e.McpListBegun, succeeded=e.McpListSucceeded, failed=e.McpListFailed, results={"tools": (), "error": None}
    ),
    h.McpApprovalRequest: HostedCallSpec(),
}


def kind(item: HostedItem) -> str:
    """The item's `type`."""
    return str(item.__struct_config__.tag)


def opening(item: HostedItem, item_id: str) -> HostedItem:
    """The item as `response.output_item.added` shows it."""
    spec = SPECS[type(item)]
    changes: dict[str, Any] = {"id": item_id, **spec.results}
    if "status" in item.__struct_fields__:
        changes["status"] = "in_progress"
    if spec.arguments is not None:
        changes[spec.arguments.field] = ""
    if isinstance(item, h.WebSearchCall) and isinstance(item.action, h.SearchAction):
        changes["action"] = msgspec.structs.replace(item.action, sources=msgspec.UNSET)
    return msgspec.structs.replace(item, **changes)


def tells_arguments(item: HostedItem) -> bool:
    """Whether the item already has its arguments; an upstream's native tool may send code only at the end."""
    stream = SPECS[type(item)].arguments
    return stream is None or bool(getattr(item, stream.field))


def status(item: HostedItem) -> h.CallStatus:
    """The final status; for items without one, derived from whether there is an error."""
    if isinstance(item, h.McpListTools) and item.tools:  # its error names tools that were left out
        return "completed"
    found: h.CallStatus | None = getattr(item, "status", None)
    return found or ("failed" if getattr(item, "error", None) else "completed")
