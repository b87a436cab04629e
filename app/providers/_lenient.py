"""JSON whose fields are not as the protocol has them, read one by one: what can be understood is, what cannot is taken for absent.

Both dialects use this where the typed decoder refused a payload.
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
"""Counters above it are none: JSON's numbers are not exact there."""
_HALF = re.compile("[\ud800-\udfff]")
_LONGEST_TYPE = 64
HALF_LOST = "\ufffd"
"""What stands for half a character whose other half did not come."""
Kind = Literal["text", "thinking", "refusal"]
_PART_FIELDS: Mapping[Kind, Sequence[str]] = {
    "thinking": ("thinking", "reasoning", "reasoning_content", "summary"),
    "refusal": ("refusal",),
    "text": ("text", "content"),
}
"""The fields of a content part, by what they hold; a part's type may say that its `text` is thinking."""
_READ_NAMES = frozenset(name for fields in _PART_FIELDS.values() for name in fields)
_PART_NAMES = _READ_NAMES | {"type", "id", "index", "annotations", "logprobs", "signature"}
_TEXT_TYPES = frozenset({"text", "output_text", "input_text", "refusal"})
_THINKING_TYPES = frozenset({"thinking", "reasoning", "thought", "reasoning_text", "summary_text", "reasoning.text"})


def read_json(payload: bytes) -> Any:
    """The value: control characters inside strings, halves of surrogate pairs, NaN and a byte order mark are let pass.

    Raises UpstreamProtocolError.
    """
    try:
        return json.loads(payload, strict=False)
    except (ValueError, RecursionError) as error:
        raise UpstreamProtocolError(f"The upstream sent a chunk that cannot be read: {error}") from error


def read_object(payload: bytes) -> Json:
    """The object; of a list the first, since some servers put one around an error. Raises UpstreamProtocolError."""
    entries = as_list(read_json(payload))
    return as_object(entries[0]) if entries else {}


def as_object(value: Any) -> Json:
    """An object as it is; all else is none."""
    return cast("Json", value) if isinstance(value, dict) else {}


def as_list(value: Any) -> Sequence[Any]:
    """A list as it is, an object as its only member; all else is empty."""
    if isinstance(value, list):
        return cast("list[Any]", value)
    return [value] if value and isinstance(value, dict) else []


def as_label(value: Any) -> str | None:
    """An id: text, or a number as text."""
    if isinstance(value, str):
        return unbroken(value)
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def as_number(value: Any) -> float | None:
    """A number, also one written as text; booleans, NaN and infinities are none."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) else None


def as_count(value: Any) -> int | None:
    """A counter: a number that is not negative, also as a float or as text."""
    number = as_number(value)
    return int(number) if number is not None and 0 <= number <= _LARGEST else None


def as_arguments(value: Any) -> str | Json | None:
    """The arguments of a call: text, or an object; any other value as its JSON, which whoever reads them will refuse."""
    if value is None or isinstance(value, str):
        return value
    try:
        return cast("Json", without_halves(value)) if isinstance(value, dict) else encoded(without_halves(value))
    except RecursionError as error:
        raise UpstreamProtocolError("The upstream sent a chunk that cannot be read: its values are nested too deeply.") from error


def encoded(value: Any) -> str:
    """A value as JSON text. Raises UpstreamProtocolError."""
    try:
        return msgspec.json.encode(value).decode()
    except RecursionError as error:
        raise UpstreamProtocolError("The upstream sent a value that is nested too deeply.") from error


def parts_of(value: Any) -> Iterable[tuple[Kind, str]]:
    """Text, or content parts, as pairs of a kind (`text`, `thinking`, `refusal`) and a string, in their order.

    Parts of other kinds are passed over. Raises UpstreamProtocolError for what is no content.
    """
    if value is None or value == []:
        return
    if isinstance(value, str):
        yield "text", value
    elif isinstance(value, list):
        for part in cast("list[Any]", value):
            if not isinstance(part, str | dict):
                raise UpstreamProtocolError("The upstream sent a chunk that cannot be read: its content is neither text nor parts.")
            yield from parts_of(part)
    elif isinstance(value, dict):
        yield from _part(cast("Json", value))
    else:
        raise UpstreamProtocolError("The upstream sent a chunk that cannot be read: its content is not text.")


def is_part(value: Json) -> bool:
    """Whether the object is a content part rather than content of the model's own making."""
    kind = value.get("type")
    if isinstance(kind, str) and (kind in _THINKING_TYPES or kind in _TEXT_TYPES or kind in value):
        return True
    return value.keys() <= _PART_NAMES and not value.keys().isdisjoint(_READ_NAMES)


def text_of(value: Any) -> str:
    """All strings of a text or of its parts, whatever their kind; "" for what is no content."""
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
    _log.info("passed over a content part of an unknown type: %r", str(part.get("type"))[:_LONGEST_TYPE])


def unbroken(text: str) -> str:
    """The text with surrogate pairs joined, and U+FFFD for each half that stands alone."""
    if not _HALF.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def without_halves(value: Any) -> Any:
    """The value with every string in it unbroken."""
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
    """Surrogate pairs that were cut between two chunks: the first half waits for the second, by the place both stand in."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[Any, str] = {}

    def __bool__(self) -> bool:
        """Whether a half waits."""
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
        """The places that fit and whose half gets no second one any more; U+FFFD is to stand there."""
        places = [place for place in self._waiting if fits(place)]
        for place in places:
            del self._waiting[place]
        return places


class OddReader:
    """Reads the odd payloads of one stream; it remembers what one has left unfinished."""

    __slots__ = ("_halves",)

    def __init__(self) -> None:
        self._halves = Halves()

    def __bool__(self) -> bool:
        """Whether the next payload must be read here, too."""
        return bool(self._halves)
