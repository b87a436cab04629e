"""Server-sent events, sans-io: pieces of bytes in, the data of complete events out.

Works on bytes, so that a line ends where the standard says (LF, CRLF, CR) and nowhere else: U+2028 inside JSON is text.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from contextlib import suppress

import msgspec

from app.providers._lenient import read_json
from app.providers.base import UpstreamProtocolError

DONE = b"[DONE]"
"""The payload with which Chat Completions streams end."""

_LIMIT = 16 * 1024 * 1024
_STATUS = b":HTTP_STATUS/"
_NUMBER = re.compile(rb" *\d{3} *")
_EVENT = b"event:"
_ERROR = b"error:"
"""A field in which older versions of llama.cpp send an error; also what the data of any event that is an error begins with here."""
_BEGINNINGS = (_EVENT, _ERROR)
_SILENT = b"ir"  # of `id:` and `retry:`
_JSON = (b"{", b"[")
_INSIDE_JSON = (b" ", b"\t", b"{", b"}", b"[", b"]", b'"')
_FIELDS = (b"data:", *_BEGINNINGS, b"id:", b"retry:", b":")
_NEAR = 100
"""How many bytes are enough to see whether a body is an event stream."""
_CR = 13  # as a number: `13 in piece` takes a tenth of the time of `b"\r" in piece`


_Data = bytes | bytearray | None
"""Of the event that is open. Of several lines, it grows in place: to copy it for each takes seconds."""


class SSEDecoder:
    """Splits one stream. Event names and ids are not kept: the payloads say what they are, except for errors that are mere text.

    A line of JSON without a field's name is a payload, too: some servers answer so when something is wrong.
    """

    __slots__ = ("_after_cr", "_data", "_failed", "_rest", "status")

    def __init__(self) -> None:
        self.status: int | None = None
        """The last `:HTTP_STATUS/429` comment, with which DashScope accompanies an error inside a 200 stream."""
        self._data: _Data = None
        """Of the event that is open."""
        self._rest = b""
        """Of the line that is open."""
        self._after_cr = False
        self._failed = False
        """An event that is an error has begun somewhere in the stream."""

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that `piece` completes. Raises UpstreamProtocolError when one event exceeds 16 MiB."""
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
        """What an event without its closing blank line still holds; the standard drops it, servers that forget the line mean it."""
        return self.feed(b"\n\n")

    def _with_newlines(self, piece: bytes) -> bytes:
        """Every line end as LF. A CR counts at once, so that nothing is held back; an LF that follows it in the next piece does not."""
        if self._after_cr and piece.startswith(b"\n"):
            piece = piece[1:]
            self._after_cr = False
        if piece:
            self._after_cr = piece.endswith(b"\r")
        return piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _field(self, line: bytes, data: _Data, payloads: list[bytes]) -> _Data:
        """The event's data after a line that is not the plain one."""
        if line.startswith(b"data:"):
            return _joined(data, line[5:].removeprefix(b" "))
        if line[0] in _SILENT:
            return data
        if line.startswith(_STATUS):
            self._note(line[len(_STATUS) :])
        elif line.startswith(_BEGINNINGS):
            if data:
                payloads.append(bytes(data))  # an event begins with these, so the blank line before it was left out
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
        """What the data of an event begins with."""
        name, told = line.split(b":", 1)
        if name == b"event" and told.strip() != b"error":
            return None
        self._failed = True
        return _ERROR if name == b"event" else b"%b\n%b" % (_ERROR, told.strip())

    def whole(self, body: bytes) -> list[bytes]:
        """The payloads of a body that was not announced as an event stream; some are one, and all others are their only payload."""
        return [*self.feed(body), *self.end()] if _is_events(body) else [body]


def _is_events(body: bytes) -> bool:
    """Whether the body is an event stream, whatever it was announced as."""
    return body[:_NEAR].removeprefix(BOM_UTF8).lstrip().startswith(_FIELDS)


def _bare(line: bytes, data: _Data, payloads: list[bytes]) -> _Data:
    """The event's data after a line that may be JSON without a field. JSON over several lines begins with a line end."""
    if data is None and line.startswith(b"{") and line.rstrip().endswith(b"}"):
        payloads.append(line)
    elif data is None and line.startswith(_JSON):
        return b"\n" + line
    elif data is not None and data.startswith(b"\n"):
        return _joined(data, line)
    return data


def lines_of(payload: bytes) -> list[bytes]:
    """The payloads of events that had no blank lines between them."""
    return [line.strip() for line in payload.split(b"\n") if line.strip()]


def _joined(data: _Data, line: bytes) -> bytes | bytearray:
    if data is None:
        return line
    whole = data if isinstance(data, bytearray) else bytearray(data)
    whole += b"\n"
    whole += line
    return whole


def _as_error(payload: bytes) -> bytes:
    """The payload of an event that is an error as JSON; any other as it is."""
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
