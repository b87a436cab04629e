"""Server-sent events, sans-io: pieces of bytes in, the data of complete events out.

Works on bytes, so that a line ends only where the standard says (LF, CRLF, CR): U+2028 inside JSON is text.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from contextlib import suppress

import msgspec

from app.providers._lenient import read_json
from app.providers.base import UpstreamProtocolError

DONE = b"[DONE]"
"""The payload that ends Chat Completions streams."""

_LIMIT = 16 * 1024 * 1024
_STATUS = b":HTTP_STATUS/"
_NUMBER = re.compile(rb" *\d{3} *")
_EVENT = b"event:"
_ERROR = b"error:"
"""A field in which older versions of llama.cpp send an error; also the prefix of the data of any error event here."""
_BEGINNINGS = (_EVENT, _ERROR)
_SILENT = b"ir"  # of `id:` and `retry:`
_JSON = (b"{", b"[")
_INSIDE_JSON = (b" ", b"\t", b"{", b"}", b"[", b"]", b'"')
_FIELDS = (b"data:", *_BEGINNINGS, b"id:", b"retry:", b":")
_NEAR = 100
"""Enough bytes to see whether a body is an event stream."""
_CR = 13  # as a number: `13 in piece` takes a tenth of the time of `b"\r" in piece`


_Data = bytes | bytearray | None
"""Of the open event. It grows in place if it has several lines: copying it for each would take seconds."""


class SSEDecoder:
    """Splits one stream. Event names and ids are not kept: the payloads have types, except for errors that are plain
    text.

    A line of JSON without a field name is a payload, too: some servers answer like this in case of errors.
    """

    __slots__ = ("_after_cr", "_data", "_failed", "_rest", "status")

    def __init__(self) -> None:
        self.status: int | None = None
        """The last `:HTTP_STATUS/429` comment, which DashScope sends with an error inside a 200 stream."""
        self._data: _Data = None
        """Of the open event."""
        self._rest = b""
        """Of the open line."""
        self._after_cr = False
        self._failed = False
        """An error event has begun somewhere in the stream."""

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that `piece` completes. Raises UpstreamProtocolError if one event exceeds 16 MiB."""
        if self._after_cr or _CR in piece:
            piece = self._with_newlines(piece)
        lines = (self._rest + piece).split(b"\n")
        self._rest = lines.pop()
        payloads: list[bytes] = []
        data = self._data
        for line in lines:
            if not line:
                if data:
                    payloads.append(data if type(data) is bytes else bytes(data))
                data = None
            elif line.startswith(b"data: ") and data is None:
                data = line[6:]
            else:
                data = self._field(line, data, payloads)
        self._data = data
        if self._failed:
            payloads = [payload for one in payloads if (payload := _as_error(one))]
        if len(self._rest) + len(data or b"") > _LIMIT:
            raise UpstreamProtocolError("The upstream sent an event of more than 16 MiB.", retryable=False)
        return payloads

    def end(self) -> list[bytes]:
        """The event without its closing blank line, if any.

        The standard drops it, but servers that forget the line mean it.
        """
        return self.feed(b"\n\n")

    def _with_newlines(self, piece: bytes) -> bytes:
        """Every line end as LF.

        A CR counts at once, so that nothing is delayed; an LF that follows it in the next piece does not.
        """
        if self._after_cr and piece.startswith(b"\n"):
            piece = piece[1:]
            self._after_cr = False
        if piece:
            self._after_cr = piece.endswith(b"\r")
        return piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _field(self, line: bytes, data: _Data, payloads: list[bytes]) -> _Data:
        """The event's data after a line that is not the common one."""
        if line.startswith(b"data:"):
            return _joined(data, line[5:].removeprefix(b" "))
        if line[0] in _SILENT:
            return data
        if line.startswith(_STATUS):
            self._note(line[len(_STATUS) :])
        elif line.startswith(_BEGINNINGS):
            if data:
                payloads.append(bytes(data))  # an event begins with these, so the blank line before it was omitted
            return self._begun(line) if b"error" in line else None
        elif line.startswith(BOM_UTF8) and line != BOM_UTF8:
            return self._field(line[len(BOM_UTF8) :], data, payloads)  # the standard allows one before the first event
        elif line.startswith(_INSIDE_JSON):
            return _bare(line, data, payloads)
        return data

    def _note(self, status: bytes) -> None:
        if _NUMBER.fullmatch(status):
            self.status = int(status)

    def _begun(self, line: bytes) -> bytes | None:
        """The initial data of an event."""
        name, told = line.split(b":", 1)
        if name == b"event" and told.strip() != b"error":
            return None
        self._failed = True
        return _ERROR if name == b"event" else b"%b\n%b" % (_ERROR, told.strip())

    def whole(self, body: bytes) -> list[bytes]:
        """The payloads of a body that was not declared as an event stream.

        Some are one, all others are their only payload.
        """
        return [*self.feed(body), *self.end()] if _is_events(body) else [body]


def _is_events(body: bytes) -> bool:
    """Whether the body is an event stream, whatever its content type."""
    return body[:_NEAR].removeprefix(BOM_UTF8).lstrip().startswith(_FIELDS)


def _bare(line: bytes, data: _Data, payloads: list[bytes]) -> _Data:
    """The event's data after a line that may be JSON without a field name.

    JSON over several lines begins with a line end.
    """
    if data is None and line.startswith(b"{") and line.rstrip().endswith(b"}"):
        payloads.append(line)
    elif data is None and line.startswith(_JSON):
        return b"\n" + line
    elif data is not None and data.startswith(b"\n"):
        return _joined(data, line)
    return data


def lines_of(payload: bytes) -> list[bytes]:
    """The payloads of events without blank lines between them."""
    return [line.strip() for line in payload.split(b"\n") if line.strip()]


def _joined(data: _Data, line: bytes) -> bytes | bytearray:
    if data is None:
        return line
    whole = data if isinstance(data, bytearray) else bytearray(data)
    whole += b"\n"
    whole += line
    return whole


def _as_error(payload: bytes) -> bytes:
    """The payload of an error event as JSON; any other unchanged."""
    if not payload.startswith(_ERROR):
        return payload
    told = payload[len(_ERROR) :].strip()
    if not told or told == DONE:
        return told
    for json in (told, *lines_of(told)[:1]):
        with suppress(UpstreamProtocolError):
            read_json(json)
            return b'{"error":%b}' % json
    return msgspec.json.encode({"error": told.decode(errors="replace")})
