"""What passed between the model and the server's tools: kept beside the response, since the public items do not say what the model read.

Where that record is missing (a client that keeps its context itself sends only the items), the exchange is made of what the item shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from sys import getsizeof
from typing import Any, cast

import msgspec

from app.engine.untrusted import wrap
from app.protocol.errors import InvalidRequest
from app.protocol.hosted import (
    CodeInterpreterCall,
    FileSearchCall,
    HostedItem,
    ImageSearchCall,
    Logs,
    McpApprovalRequest,
    McpCall,
    McpExecutionError,
    McpHttpError,
    McpListTools,
    McpProtocolError,
    SearchAction,
    ToolCall,
    WebExtractorCall,
    WebSearchCall,
    WebSearchImageCall,
)
from app.protocol.messages import Call
from app.protocol.phases import SPECS, kind
from app.protocol.requests import InputItem
from app.tools.base import mcp_function

APPROVAL = "mcp_approval_response"


class Exchange(msgspec.Struct, frozen=True):
    """A call and what the model read of its result; None while the client's consent is awaited."""

    item_id: str
    call: Call
    text: str | None
    turn: int = 0
    """Calls of one turn of the model were made side by side; 0: it is not known, and each may have needed what came before."""
    beside_client: bool = False
    """In the same turn the model called the client's functions, too."""


class Approval(msgspec.Struct, frozen=True):
    """The client's answer to an approval request."""

    approval_request_id: str
    approve: bool
    reason: str | None = None


class Exchanges(msgspec.Struct):
    """Those of one response, and of the turns it has inherited."""

    calls: dict[str, Exchange] = {}
    """By the item's id."""
    notes: dict[str, str] = {}
    """What tools noted for the conversation, by tool."""

    @property
    def weight(self) -> int:
        """About how many bytes of memory they take: one rare character makes a text four times as large."""
        return sum(500 + getsizeof(one.call.arguments) + getsizeof(one.text) for one in self.calls.values())


Said = InputItem | Exchange | Approval
"""What a transcript is made of."""

HOSTED_TYPES = frozenset(str(item.__struct_config__.tag) for item in SPECS)
_item_decoder: msgspec.json.Decoder[HostedItem] = msgspec.json.Decoder(HostedItem)
_approval_decoder = msgspec.json.Decoder(Approval)
_decoder = msgspec.msgpack.Decoder(dict[str, Exchange | str])
_NOTE = "note:"


def encode(exchanges: Exchanges) -> bytes | None:
    """What the store keeps, one map (`app/stores/lineage.py` joins those of several turns); None when there is nothing to keep."""
    notes = {_NOTE + tool: note for tool, note in exchanges.notes.items()}
    return msgspec.msgpack.encode({**exchanges.calls, **notes}) if exchanges.calls or notes else None


def decode(stored: bytes | None) -> Exchanges:
    """The exchanges of a stored response."""
    found = Exchanges()
    for key, value in (_decoder.decode(stored) if stored else {}).items():
        if isinstance(value, str):
            found.notes[key.removeprefix(_NOTE)] = value
        else:
            found.calls[key] = value
    return found


def said(raw: msgspec.Raw, fields: InputItem, place: str, known: dict[str, Exchange] | None = None) -> Said | None:
    """An item as the transcript takes it; None for one that says nothing to the model. Raises InvalidRequest.

    `known`: the exchanges of the response that the item is from.
    """
    if fields.type is None or fields.type == "message":  # nearly all of a long history
        return fields
    if fields.type == APPROVAL:
        return _read(lambda: _approval_decoder.decode(raw), place)
    if fields.type not in HOSTED_TYPES:
        return fields
    if known is not None and fields.id in known:
        return known[fields.id]
    return _of_item(_read(lambda: _item_decoder.decode(_complete(raw, fields)), place))


def _complete(raw: msgspec.Raw, fields: InputItem) -> bytes:
    """With an id and a status, which clients may leave out of what they send, and without null."""
    if fields.id is not None and fields.status is not None and b"null" not in bytes(raw):
        return bytes(raw)
    return msgspec.json.encode({"id": "", "status": "completed", **_without_nulls(msgspec.json.decode(raw))})


def _without_nulls(value: Any) -> Any:
    """What the official client writes for every field of an item that it did not get."""
    match value:
        case dict():
            members = cast("dict[str, Any]", value)
            return {name: _without_nulls(one) for name, one in members.items() if one is not None}
        case list():
            return [_without_nulls(one) for one in cast("list[Any]", value)]
        case _:
            return value


def _read(decode: Callable[[], Any], place: str) -> Any:
    try:
        return decode()
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"Invalid '{place}': {error}.", code="invalid_type", param=place) from error


def _of_item(item: HostedItem) -> Exchange | None:
    """What the item itself tells of the call."""
    name, arguments, text = kind(item).removesuffix("_call"), _json({}), ""
    match item:
        case McpListTools():
            return None
        case WebSearchCall():
            if not isinstance(item.action, SearchAction):
                return None
            arguments = _json({"queries": item.action.queries or (item.action.query,)})
            text = "\n".join(source.url for source in item.action.sources or ())
        case WebExtractorCall():
            arguments, text = _json({"urls": item.urls, "goal": item.goal}), item.output
        case CodeInterpreterCall():
            arguments = _json({"code": item.code})
            text = "\n".join(output.logs for output in item.outputs or () if isinstance(output, Logs)) or _silence(item)
        case FileSearchCall():
            name, arguments = "knowledge_search", _json({"queries": item.queries})
            text = "\n\n".join(f"{result.filename}\n{result.text}" for result in item.results or ())
        case WebSearchImageCall() | ImageSearchCall() | ToolCall():
            name, arguments, text = item.name, item.arguments, item.output
        case McpCall():
            name, arguments, text = mcp_function(item.server_label, item.name), item.arguments, item.output or _error(item)
        case McpApprovalRequest():
            return Exchange(item.id, Call(_call_id(item), mcp_function(item.server_label, item.name), item.arguments), None)
    return Exchange(item.id, Call(_call_id(item), name, arguments), wrap(kind(item).removesuffix("_call"), text)) if text else None


def _silence(item: CodeInterpreterCall | McpCall) -> str:
    """What came of a call that shows nothing; a call that never ended is left out."""
    return "(no output)" if item.status in ("completed", "failed") else ""


def _error(item: McpCall) -> str:
    match item.error:
        case McpProtocolError() | McpHttpError():
            return item.error.message
        case McpExecutionError():
            return msgspec.json.encode(item.error.content).decode()
        case _:
            return item.error or _silence(item)


def _call_id(item: HostedItem) -> str:
    """The same for an approval request and the call that was made after it."""
    approved = item.approval_request_id if isinstance(item, McpCall) else None
    return f"call_{approved or item.id}"


def _json(value: dict[str, Sequence[str] | str]) -> str:
    return msgspec.json.encode(value).decode()
