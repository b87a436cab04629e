"""JSON whose fields deviate from the protocol, read one by one: what can be understood is used, everything else counts
as absent.

Both dialects use this if the typed decoder rejects a payload.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, cast

import msgspec

from app.providers.base import UpstreamProtocolError

Json = dict[str, Any]

_log = logging.getLogger(__name__)

_LARGEST = 2**53
"""Larger counters are ignored: JSON numbers are not exact there."""
_HALF = re.compile("[\ud800-\udfff]")
_LONGEST_TYPE = 64
HALF_LOST = "\ufffd"
"""Replaces half a surrogate pair whose other half did not arrive."""
Kind = Literal["text", "thinking", "refusal"]
_PART_FIELDS: Mapping[Kind, Sequence[str]] = {
    "thinking": ("thinking", "reasoning", "reasoning_content", "summary"),
    "refusal": ("refusal",),
    "text": ("text", "content"),
}
"""The text fields of a content part, by kind; a part's type may say that its `text` is thinking."""
_READ_NAMES = frozenset(name for fields in _PART_FIELDS.values() for name in fields)
_PART_NAMES = _READ_NAMES | {"type", "id", "index", "annotations", "logprobs", "signature"}
_TEXT_TYPES = frozenset({"text", "output_text", "input_text", "refusal"})
_THINKING_TYPES = frozenset({"thinking", "reasoning", "thought", "reasoning_text", "summary_text", "reasoning.text"})


def read_json(payload: bytes) -> Any:
    """The value; control characters inside strings, unpaired surrogates, NaN and a byte order mark are accepted.

    Raises UpstreamProtocolError.
    """
    try:
        return json.loads(payload, strict=False)
    except (ValueError, RecursionError) as error:
        raise UpstreamProtocolError(f"The upstream sent a chunk that cannot be read: {error}") from error


def read_object(payload: bytes) -> Json:
    """The object; the first one of a list, since some servers wrap errors in one. Raises UpstreamProtocolError."""
    entries = as_list(read_json(payload))
    return as_object(entries[0]) if entries else {}


def as_object(value: Any) -> Json:
    """An object as it is; anything else is an empty one."""
    return cast("Json", value) if isinstance(value, dict) else {}


def as_list(value: Any) -> Sequence[Any]:
    """A list as it is, an object as its only member; anything else is empty."""
    if isinstance(value, list):
        return cast("list[Any]", value)
    return [value] if value and isinstance(value, dict) else []


def as_label(value: Any) -> str | None:
    """An id: text, or a number as text."""
    if isinstance(value, str):
        return unbroken(value)
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def as_number(value: Any) -> float | None:
    """A number, also as text; booleans, NaN and infinities count as absent."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) else None


def as_count(value: Any) -> int | None:
    """A counter: a non-negative number, also as a float or as text."""
    number = as_number(value)
    return int(number) if number is not None and 0 <= number <= _LARGEST else None


def as_arguments(value: Any) -> str | Json | None:
    """The arguments of a call: text, or an object; any other value as its JSON, which will be rejected later."""
    if value is None or isinstance(value, str):
        return value
    try:
        return cast("Json", without_halves(value)) if isinstance(value, dict) else encoded(without_halves(value))
    except RecursionError as error:
        raise UpstreamProtocolError(
            "The upstream sent a chunk that cannot be read: its values are nested too deeply."
        ) from error


def encoded(value: Any) -> str:
    """A value as JSON text. Raises UpstreamProtocolError."""
    try:
        return msgspec.json.encode(value).decode()
    except RecursionError as error:
        raise UpstreamProtocolError("The upstream sent a value that is nested too deeply.") from error


def parts_of(value: Any) -> Iterable[tuple[Kind, str]]:
    """Text, or content parts, as pairs of a kind (`text`, `thinking`, `refusal`) and a string, in order.

    Parts of other kinds are skipped. Raises UpstreamProtocolError for anything that is not content.
    """
    if value is None or value == []:
        return
    if isinstance(value, str):
        yield "text", value
    elif isinstance(value, list):
        for part in cast("list[Any]", value):
            if not isinstance(part, str | dict):
                raise UpstreamProtocolError(
                    "The upstream sent a chunk that cannot be read: its content is neither text nor parts."
                )
            yield from parts_of(part)
    elif isinstance(value, dict):
        yield from _part(cast("Json", value))
    else:
        raise UpstreamProtocolError("The upstream sent a chunk that cannot be read: its content is not text.")


def is_part(value: Json) -> bool:
    """Whether the object is a content part and not JSON written by the model."""
    kind = value.get("type")
    if isinstance(kind, str) and (kind in _THINKING_TYPES or kind in _TEXT_TYPES or kind in value):
        return True
    return value.keys() <= _PART_NAMES and not value.keys().isdisjoint(_READ_NAMES)


def text_of(value: Any) -> str:
    """All strings of a text or of its parts, whatever their kind; "" for anything else."""
    try:
        return "".join(text for _, text in parts_of(value))
    except UpstreamProtocolError:
        return ""


def _part(part: Json) -> Iterable[tuple[Kind, str]]:
    thinks = part.get("type") in _THINKING_TYPES
    for kind, fields in _PART_FIELDS.items():
        for name in fields:
            if name in part:
                yield ("thinking" if thinks and kind == "text" else kind), text_of(part[name])
                return
    _log.info("skipped a content part of unknown type: %r", str(part.get("type"))[:_LONGEST_TYPE])


def unbroken(text: str) -> str:
    """The text with surrogate pairs joined, and U+FFFD for each unpaired one."""
    if not _HALF.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def without_halves(value: Any) -> Any:
    """The value with `unbroken` applied to every string in it."""
    if isinstance(value, str):
        return unbroken(value)
    if isinstance(value, list):
        return [without_halves(one) for one in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {unbroken(name): without_halves(one) for name, one in cast("Json", value).items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class Halves:
    """Surrogate pairs split between two chunks: the first half waits for the second, by the place of both."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[Any, str] = {}

    def __bool__(self) -> bool:
        """Whether a half is waiting."""
        return bool(self._waiting)

    def join(self, place: Any, text: str) -> str:
        """The next text of this place, without a half at its end."""
        if not text:
            return ""
        text = self._waiting.pop(place, "") + text
        if "\ud800" <= text[-1] <= "\udbff":
            self._waiting[place] = text[-1]
            text = text[:-1]
        return unbroken(text)

    def given_up(self, fits: Callable[[Any], bool]) -> Sequence[Any]:
        """The matching places whose half will not get its second one; U+FFFD replaces it."""
        places = [place for place in self._waiting if fits(place)]
        for place in places:
            del self._waiting[place]
        return places


class OddReader:
    """Reads the nonconforming payloads of one stream; it keeps what one has left incomplete."""

    __slots__ = ("_halves",)

    def __init__(self) -> None:
        self._halves = Halves()

    def __bool__(self) -> bool:
        """Whether the next payload must be read here, too."""
        return bool(self._halves)
