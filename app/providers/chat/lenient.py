"""A chunk of Chat Completions that the typed decoder rejected, read field by field.

Text, calls, finish reason and usage are strict in meaning: if they cannot be understood, the answer ends. All else is
optional. A nonconforming chunk becomes as many regular ones as necessary: content parts of several kinds become choices
in their order.
"""

from __future__ import annotations

from collections.abc import Iterable
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
    as_number,
    as_object,
    encoded,
    is_part,
    parts_of,
    read_json,
    read_object,
    text_of,
    unbroken,
    without_halves,
)
from app.providers._wire import report_of
from app.providers.base import UpstreamProtocolError
from app.providers.chat.wire import Alternative, Call, Choice, Chunk, Details, Function, Logprobs, Message, Token, Usage

_BYTE = 255
_IMPOSSIBLE = -9999.0
"""The value in OpenAI's reference for a very unlikely token; JSON has no minus infinity."""
_MINUS_INFINITY = (float("-inf"), "-inf", "-infinity", "-Infinity")


class LenientReader(OddReader):
    """Reads the nonconforming chunks of one stream."""

    __slots__ = ()

    def read(self, payload: bytes) -> Chunk:
        """The chunk, as regular ones. Raises UpstreamProtocolError."""
        value = read_object(payload)
        given = value.get("choices")
        if given and not isinstance(given, list | dict):
            raise _unreadable("its choices are not a list")
        report = report_of(value)
        if report.error or (not given and report.reports()):
            return Chunk(error=True)  # whatever else it contains
        choices = [raw for raw in map(as_object, as_list(given)) if raw and not as_count(raw.get("index"))]
        return Chunk(
            choices=[choice for raw in choices for choice in self._choices(raw)],
            usage=_usage(value.get("usage")),
        )

    def _choices(self, raw: Json) -> Iterable[Choice]:
        said = raw.get("delta")
        streamed = isinstance(said, dict)
        said = said or raw.get("message") or as_object({"content": raw.get("text")})
        if said and not isinstance(said, dict):
            raise _unreadable("its message is not an object")
        message, finish = as_object(said), _finish(raw.get("finish_reason"))
        logprobs = _logprobs(raw.get("logprobs"))
        for part in self._said(message, ends=finish is not None):
            yield Choice(delta=part if streamed else None, message=None if streamed else part, logprobs=logprobs)
            logprobs = None if part.content else logprobs
        calls = Message(
            tool_calls=self._calls(message.get("tool_calls")),
            function_call=self._function(message.get("function_call")),
        )
        last = Choice(finish_reason=finish, error=raw.get("error"), usage=_usage(raw.get("usage")))
        yield msgspec.structs.replace(last, **{"delta" if streamed else "message": calls})

    def _said(self, message: Json, *, ends: bool) -> Iterable[Message]:
        """The text, one message for each of its parts."""
        thought = text_of(message.get("reasoning_content")) or text_of(message.get("reasoning"))
        spoken = [
            ("thinking", thought),
            *_content(message.get("content")),
            ("refusal", text_of(message.get("refusal"))),
        ]
        parts = [(kind, text) for kind, text in spoken if text]
        if parts:
            # Another kind of text has begun; a call's arguments may still continue.
            kinds = {kind for kind, _ in parts}
            yield from map(_lost, self._halves.given_up(lambda place: isinstance(place, str) and place not in kinds))
        for kind, text in parts:
            if whole := self._halves.join(kind, text):
                yield _words(kind, whole)
        if ends:
            yield from map(_lost, self._halves.given_up(lambda _: True))

    def _calls(self, value: Any) -> list[Call]:
        if value and not isinstance(value, list | dict):
            raise _unreadable("its calls are not a list")
        return [self._call(entry) for entry in as_list(value) if entry]

    def _call(self, value: Any) -> Call:
        if not isinstance(value, dict):
            raise _unreadable("a call is not an object")
        entry = as_object(value)
        index = as_count(entry.get("index"))
        function = self._function(_called(entry), place=(index,))
        return Call(index=index, id=as_label(entry.get("id")), function=function)

    def _function(self, value: Any, place: tuple[int | None] = (None,)) -> Function | None:
        if not value:
            return None
        function = as_object(value)
        name = function.get("name")
        if not isinstance(name, str | None):
            raise _unreadable("a function's name is not text")
        arguments = as_arguments(function.get("arguments"))
        if isinstance(arguments, str):
            arguments = self._halves.join(place, arguments)
        return Function(name and unbroken(name), arguments)


def _called(entry: Json) -> Any:
    """The object with the function's name and arguments."""
    function, custom = entry.get("function"), as_object(entry.get("custom"))
    if isinstance(function, str) and function:
        return _encoded_function(function) or {"name": function, "arguments": entry.get("arguments")}
    return function or (custom and {"name": custom.get("name"), "arguments": custom.get("input")}) or entry


def _encoded_function(text: str) -> Json:
    """The function, if the server encoded it twice; nothing if the text is its name."""
    try:
        return as_object(read_json(text.encode()))
    except (UpstreamProtocolError, UnicodeEncodeError):
        return {}


def _content(value: Any) -> Iterable[tuple[str, str]]:
    """Its parts; an object that is not a part is a JSON answer that the server forgot to encode."""
    if isinstance(value, dict) and value and not is_part(as_object(value)):
        return [("text", encoded(without_halves(value)))]
    return parts_of(value)


def _words(kind: str, text: str) -> Message:
    match kind:
        case "thinking":
            return Message(reasoning=text)
        case "refusal":
            return Message(refusal=text)
        case _:
            return Message(content=text)


def _lost(place: Any) -> Message:
    """Replaces half a surrogate pair whose other half did not arrive."""
    if isinstance(place, str):
        return _words(place, HALF_LOST)
    return Message(tool_calls=[Call(index=place[0], arguments=HALF_LOST)])


def _finish(value: Any) -> str | None:
    """The reason: text, or an object that contains it."""
    if isinstance(value, dict):
        value = as_object(value).get("type") or as_object(value).get("reason")
    if value and not isinstance(value, str):
        raise _unreadable("its finish reason is not text")
    return value or None


def _usage(value: Any) -> Usage | None:
    counted = as_object(value)
    if not counted:
        return None
    return Usage(
        as_count(counted.get("prompt_tokens")),
        as_count(counted.get("completion_tokens")),
        as_count(counted.get("total_tokens")),
        _details(counted.get("prompt_tokens_details")),
        _details(counted.get("completion_tokens_details")),
        as_count(counted.get("reasoning_tokens")),
        as_count(counted.get("input_tokens")),
        as_count(counted.get("output_tokens")),
        _details(counted.get("input_tokens_details")),
        _details(counted.get("output_tokens_details")),
    )


def _details(value: Any) -> Details | None:
    counted = as_object(value)
    return Details(*(as_count(counted.get(name)) for name in Details.__struct_fields__)) if counted else None


def _logprobs(value: Any) -> Logprobs | None:
    """The valid log probabilities; tokens without one are omitted from them, not from the text."""
    read = (_token(as_object(entry)) for entry in as_list(as_object(value).get("content")))
    content = [token for token in read if token is not None]
    return Logprobs(content) if content else None


def _token(entry: Json) -> Token | None:
    token = _alternative(entry)
    if token is None:
        return None
    others = (_alternative(as_object(other)) for other in as_list(entry.get("top_logprobs")))
    return Token(token.token, token.logprob, token.bytes, [other for other in others if other is not None])


def _alternative(entry: Json) -> Alternative | None:
    token, given = entry.get("token"), entry.get("logprob")
    logprob = _IMPOSSIBLE if given in _MINUS_INFINITY else as_number(given)
    if not isinstance(token, str) or logprob is None:
        return None
    return Alternative(unbroken(token), logprob, _bytes(entry.get("bytes")))


def _bytes(value: Any) -> tuple[int, ...] | None:
    numbers = [as_number(one) for one in as_list(value)]
    whole = tuple(int(number) for number in numbers if number is not None and 0 <= number <= _BYTE)
    return whole if len(whole) == len(numbers) else None


def _unreadable(why: str) -> UpstreamProtocolError:
    return UpstreamProtocolError(f"The upstream sent a chunk that cannot be read: {why}.")
