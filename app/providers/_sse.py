"""Server-sent events, sans-io: pieces of bytes in, the data of complete events out.

Works on bytes, so that a line ends where the standard says (LF, CRLF, CR) and nowhere else: U+2028 inside JSON is text.
"""

from __future__ import annotations

from codecs import BOM_UTF8

from app.providers.base import UpstreamProtocolError

DONE = b"[DONE]"
"""The payload with which Chat Completions streams end."""

_LIMIT = 16 * 1024 * 1024
_STATUS = b":HTTP_STATUS/"
_CR = 13  # as a number: `13 in piece` takes a tenth of the time of `b"\r" in piece`


class SSEDecoder:
    """Splits one stream. Event names and ids are not kept: the payloads say what they are."""

    __slots__ = ("_after_cr", "_data", "_rest", "status")

    def __init__(self) -> None:
        self.status: int | None = None
        """The last `:HTTP_STATUS/429` comment, with which DashScope accompanies an error inside a 200 stream."""
        self._data: bytes | None = None
        """Of the event that is open."""
        self._rest = b""
        """Of the line that is open."""
        self._after_cr = False

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
                    payloads.append(data)
                data = None
            elif line.startswith(b"data: ") and data is None:
                data = line[6:]
            else:
                data = self._field(line, data)
        self._data = data
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

    def _field(self, line: bytes, data: bytes | None) -> bytes | None:
        """The event's data after a line that is not the plain one."""
        if line.startswith(BOM_UTF8):
            line = line[len(BOM_UTF8) :]  # the standard allows one before the first event
        if line.startswith(b"data:"):
            value = line[5:].removeprefix(b" ")
            return value if data is None else b"%b\n%b" % (data, value)
        if line.startswith(_STATUS) and line[len(_STATUS) :].strip().isdigit():
            self.status = int(line[len(_STATUS) :])
        return data
