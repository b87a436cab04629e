"""An event of the Responses API that the typed decoders rejected, read field by field: text, calls and usage are strict
in meaning, all else is optional.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from app.providers._lenient import (
    HALF_LOST,
    Json,
    OddReader,
    as_arguments,
    as_count,
    as_label,
    as_list,
    as_object,
    encoded,
    parts_of,
    unbroken,
    without_halves,
)
from app.providers.responses.wire import Event

_COUNTERS = ("input_tokens", "output_tokens", "total_tokens")
_DETAILS = ("input_tokens_details", "prompt_tokens_details", "output_tokens_details")
_DETAIL_COUNTERS = ("cached_tokens", "cache_creation_input_tokens", "reasoning_tokens")
_ARGUMENTS = "response.function_call_arguments."
_ENDS = frozenset({"completed", "incomplete", "failed"})
"""The statuses of an answer that has ended."""
_READ_ITEMS = frozenset({"message", "reasoning", "function_call"})


def event_of(value: Json) -> Json:
    """The event; a whole answer, which some servers send in place of a stream, becomes the event that would end it."""
    status = value.get("status")
    ends = not type_of(value) and status in _ENDS and isinstance(value.get("output"), list)
    return {"type": f"response.{status}", "response": value} if ends else value


def type_of(event: Json) -> str:
    """The event's type; "" if it has none."""
    kind = event.get("type")
    return kind if isinstance(kind, str) else ""


class LenientReader(OddReader):
    """Reads the nonconforming events of one stream."""

    __slots__ = ()

    def read(self, event: Json) -> Sequence[Event]:
        """The event according to the protocol, preceded by replacements for half surrogate pairs whose other half did
        not arrive.

        Raises UpstreamProtocolError.
        """
        kind, item_id = type_of(event), as_label(event.get("item_id"))
        place = (kind, item_id)
        lost = [Event(of, at, HALF_LOST) for of, at in self._halves.given_up(lambda waiting: _is_over(waiting, event))]
        read = Event(
            kind,
            item_id,
            self._halves.join(place, _delta_text(kind, event.get("delta"))),
            unbroken(_text(as_arguments(event.get("arguments")))),
            plain_item(event.get("item")),
            _raw(_response(as_object(event.get("response")))),
        )
        return [*lost, read]


def _is_over(place: tuple[str, str | None], event: Json) -> bool:
    """Whether the place gets nothing more.

    Text ends with any other event, but arguments may continue beside anything.
    """
    kind, (waiting, item_id) = type_of(event), place
    named = as_label(event.get("item_id"))
    if kind == waiting and named == item_id:
        return False
    if not waiting.startswith(_ARGUMENTS):
        return not kind.startswith(_ARGUMENTS)
    if kind == "response.output_item.done":
        named = as_label(as_object(event.get("item")).get("id"))
    return kind.removeprefix("response.") in _ENDS or (kind.endswith(".done") and named in (item_id, None))


def plain_item(value: Any) -> msgspec.Raw:
    """An output item according to the protocol. Raises UpstreamProtocolError."""
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


def _delta_text(kind: str, delta: object) -> str:
    if kind.endswith("arguments.delta"):
        return _text(as_arguments(delta))
    return "".join(text for _, text in parts_of(delta))


def _text(arguments: str | Json | None) -> str:
    return encoded(arguments) if isinstance(arguments, dict) else arguments or ""


def _raw(value: Json) -> msgspec.Raw:
    return msgspec.Raw(encoded(without_halves(value)).encode())
