"""An event of the Responses API that the typed decoders refused, read field by field: text, calls and usage are strict in meaning, all
else is optional."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from app.providers._lenient import (
    Halves,
    Json,
    as_arguments,
    as_count,
    as_label,
    as_list,
    as_object,
    encoded,
    parts_of,
    read_json,
    unbroken,
    without_halves,
)
from app.providers._responses_wire import Event

_COUNTERS = ("input_tokens", "output_tokens", "total_tokens")
_DETAILS = ("input_tokens_details", "prompt_tokens_details", "output_tokens_details")
_DETAIL_COUNTERS = ("cached_tokens", "cache_creation_input_tokens", "reasoning_tokens")
_READ_ITEMS = frozenset({"message", "reasoning", "function_call"})


class LenientReader:
    """Reads the odd events of one stream; it remembers what an event has left unfinished."""

    __slots__ = ("_halves",)

    def __init__(self) -> None:
        self._halves = Halves()

    def __bool__(self) -> bool:
        """Whether the next event must be read here, too."""
        return bool(self._halves)

    def type_of(self, payload: bytes) -> str | None:
        """What the event says it is; None for what is no event. Raises UpstreamProtocolError."""
        value = read_json(payload)
        kind = as_object(value).get("type")
        return (kind if isinstance(kind, str) else "") if isinstance(value, dict) else None

    def read(self, payload: bytes) -> Sequence[Event]:
        """The event as the protocol has it, behind what now stands for half a character whose other half did not come.

        Raises UpstreamProtocolError.
        """
        event = as_object(read_json(payload))
        kind, item_id = str(event.get("type")), as_label(event.get("item_id"))
        place = (kind, item_id)
        lost = [Event(of, at, "\ufffd") for of, at in self._halves.given_up(lambda waiting: waiting != place)]
        delta = event.get("delta")
        words = _text(as_arguments(delta)) if kind.endswith("arguments.delta") else "".join(text for _, text in parts_of(delta))
        read = Event(
            kind,
            item_id,
            self._halves.join(place, words),
            unbroken(_text(as_arguments(event.get("arguments")))),
            plain_item(event.get("item")),
            _raw(_response(as_object(event.get("response")))),
        )
        return [*lost, read]


def plain_item(value: Any) -> msgspec.Raw:
    """An output item as the protocol has it. Raises UpstreamProtocolError."""
    item = as_object(value)
    if item.get("type") not in _READ_ITEMS:
        return _raw(item)
    plain: Json = {
        "type": item["type"],
        "id": as_label(item.get("id")),
        "call_id": as_label(item.get("call_id")) or "",
        "name": item["name"] if isinstance(item.get("name"), str) else "",
        "arguments": _text(as_arguments(item.get("arguments"))),
        "content": _parts(item.get("content")),
        "summary": _parts(item.get("summary")) or None,
    }
    return _raw(plain)


def _parts(content: Any) -> list[Json]:
    return [{"refusal" if kind == "refusal" else "text": text} for kind, text in parts_of(content)]


def _response(response: Json) -> Json:
    reason = as_object(response.get("incomplete_details")).get("reason", response.get("incomplete_details"))
    return response | {
        "usage": _usage(response.get("usage")),
        "incomplete_details": {"reason": reason} if isinstance(reason, str) else None,
    }


def _usage(value: Any) -> Json | None:
    usage = as_object(value)
    entries = [_billed(as_object(entry)) for entry in as_list(usage.get("x_details"))]
    return _counters(usage, _COUNTERS) | _billed(usage) | {"x_details": entries} if usage else None


def _billed(entry: Json) -> Json:
    return {name: _counters(as_object(entry.get(name)), _DETAIL_COUNTERS) for name in _DETAILS if entry.get(name)}


def _counters(value: Json, names: Sequence[str]) -> Json:
    return {name: as_count(value.get(name)) or 0 for name in names}


def _text(arguments: str | Json | None) -> str:
    return encoded(arguments) if isinstance(arguments, dict) else arguments or ""


def _raw(value: Json) -> msgspec.Raw:
    return msgspec.Raw(encoded(without_halves(value)).encode())
