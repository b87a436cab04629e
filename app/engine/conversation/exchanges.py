"""Exchanges between the model and the server's tools: kept beside the response, since the public items do not show what
the model read.

Where that record is missing (a client that keeps its own context sends only the items), the exchange is derived from
the item.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from sys import getsizeof
from typing import Any

import msgspec

from app.engine.conversation import client_history, sent_items
from app.engine.conversation.items import MoreTools
from app.engine.conversation.untrusted import wrap
from app.protocol.messages import Call
from app.protocol.recovery.arguments import sendable
from app.protocol.wire.errors import InvalidRequest
from app.protocol.wire.hosted import HOSTED_TYPES as _RUN_HERE
from app.protocol.wire.requests import InputItem
from app.tools.ports.mcp_names import MCP

APPROVAL = "mcp_approval_response"
LISTING = "mcp_list_tools"
REQUEST = "mcp_approval_request"


class Exchange(msgspec.Struct, frozen=True):
    """A call and its result as the model read it; None while the client's approval is pending."""

    item_id: str
    call: Call
    text: str | None
    turn: int = 0
    """The calls of one model turn were parallel; 0: unknown, and each may depend on the one before."""
    beside_client: bool = False
    """In the same turn the model also called the client's functions."""


class Approval(msgspec.Struct, frozen=True):
    """The client's answer to an approval request."""

    approval_request_id: str
    approve: bool
    reason: str | None = None


class _Listing(msgspec.Struct, frozen=True):
    server_label: Any = None
    tools: Any = None
    error: Any = None


class Exchanges(msgspec.Struct):
    """The exchanges of one response and of the turns it inherited."""

    calls: dict[str, Exchange] = {}
    """By item id."""
    notes: dict[str, str] = {}
    """Tools' notes for the conversation, by tool."""

    @property
    def weight(self) -> int:
        """Approximate memory in bytes: a single character beyond the BMP makes a text four times as large."""
        return sum(500 + getsizeof(one.call.arguments) + getsizeof(one.text) for one in self.calls.values())


Said = InputItem | Exchange | Approval | MoreTools
"""The entries of a transcript."""

HOSTED_TYPES = _RUN_HERE | {"image_generation_call"}
"""The `type` of every item of a tool that a server runs, here or elsewhere."""
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
_approval_decoder = msgspec.json.Decoder(Approval)
_listing_decoder = msgspec.json.Decoder(_Listing)
_decoder = msgspec.msgpack.Decoder(dict[str, Exchange | str])
_NOTE = "note:"


def encode(exchanges: Exchanges) -> bytes | None:
    """The stored form, one map (`app/stores/lineage.py` joins those of several turns).

    None if there is nothing to store.
    """
    notes = {_NOTE + tool: note for tool, note in exchanges.notes.items()}
    return msgspec.msgpack.encode({**exchanges.calls, **notes}) if exchanges.calls or notes else None


def decode(stored: bytes | None) -> Exchanges:
    """The exchanges of a stored response."""
    found = Exchanges()
    for key, value in (_decoder.decode(stored) if stored else {}).items():
        if isinstance(value, str):
            found.notes[key.removeprefix(_NOTE)] = value
        else:
            found.calls[key] = msgspec.structs.replace(value, call=_sendable(value.call))
    return found


def _sendable(call: Call) -> Call:
    """Earlier versions stored arguments as the model wrote them."""
    return msgspec.structs.replace(call, arguments=sendable(call.arguments))


def said(raw: msgspec.Raw, fields: InputItem, place: str, known: dict[str, Exchange] | None = None) -> Said | None:
    """The item as a transcript entry; None if it has no content for the model. Raises InvalidRequest.

    `known`: the exchanges of the response that the item is from.
    """
    if fields.type is None or fields.type == "message":  # nearly all of a long history
        return fields
    if fields.type == APPROVAL:
        return _read(lambda: _approval_decoder.decode(raw), place)
    if fields.type in client_history.ITEM_TYPES:
        return _read(lambda: client_history.read(raw, fields, place), place)
    if fields.type not in HOSTED_TYPES:
        return fields
    if known is not None and fields.id in known:
        return known[fields.id]
    return None if fields.type == LISTING else _of_item(raw, fields, place)


def listings(items: Iterable[tuple[msgspec.Raw, InputItem]]) -> dict[str, str]:
    """MCP tool lists among the items, as notes for their servers' sessions: a server whose list is known is not asked
    again.
    """
    found: dict[str, str] = {}
    for raw, fields in items:
        if fields.type == LISTING:
            listing = _read(lambda raw=raw: _listing_decoder.decode(raw), "input")
            if isinstance(listing.server_label, str) and listing.tools and listing.error is None:
                found[f"{MCP}:{listing.server_label}"] = bytes(raw).decode()
    return found


def _read(decode: Callable[[], Any], place: str) -> Any:
    try:
        return decode()
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"Invalid '{place}': {error}.", code="invalid_type", param=place) from error


def _of_item(raw: msgspec.Raw, fields: InputItem, place: str) -> Exchange | None:
    """The exchange as far as the item itself shows it."""
    kind = fields.type or ""
    told = _read(lambda: sent_items.read(kind, raw), place)
    item_id, name = fields.id or "", _UNSAFE.sub("_", fields.id or place)
    if kind == REQUEST:
        return Exchange(item_id, Call(f"call_{name}", told.name, told.arguments), None)
    if not told.text:
        return None
    # The id of the approval request; otherwise one that no other call has, since some servers give all their items the
    # same id.
    mark = told.approved or f"{name}_{told.digest}"
    return Exchange(
        item_id, Call(f"call_{mark}", told.name, told.arguments), wrap(kind.removesuffix("_call"), told.text)
    )
