"""Encodes events as Server-Sent Events frames.

One frame is one `bytes`, since some clients lose a frame whose lines arrive in different reads. No `id:` lines:
together with comment heartbeats they make the openai SDK dispatch an empty event.
"""

from __future__ import annotations

import msgspec

from app.protocol.wire.events import Event, TextualDelta

HEARTBEAT = b": ping\n\n"
DONE = b"data: [DONE]\n\n"

_encoder = msgspec.json.Encoder()
_encode = _encoder.encode


def frame(event: Event) -> bytes:
    """The event's complete frame."""
    data = _encode(event)
    if not data.isascii():
        data = one_line(data)
    return b"event: %b\ndata: %b\n\n" % (event.__struct_config__.tag.encode(), data)  # type: ignore[union-attr]


def one_line(data: bytes) -> bytes:
    """The JSON with characters escaped that some clients take as line breaks: NEL (U+0085), U+2028 and U+2029, which
    JSON allows raw.

    In a client that splits text like Python's `splitlines`, the model could otherwise inject an event.
    """
    return (
        data.replace(b"\xc2\x85", rb"\u0085").replace(b"\xe2\x80\xa8", rb"\u2028").replace(b"\xe2\x80\xa9", rb"\u2029")
    )


class DeltaFrames:
    """Frames of one run of deltas, which differ only in number and text.

    The fixed parts come from encoding the typed event once, so template and type cannot diverge; a delta then costs a
    string encoding and one formatting, about a third of building and encoding the event.
    """

    __slots__ = ("_between", "_head", "_tail")

    def __init__(self, sample: TextualDelta) -> None:
        """`sample`: the run's event with sequence_number 0 and an empty delta."""
        self._head, rest = frame(sample).split(b'"sequence_number":0,', 1)
        self._between, self._tail = rest.split(b'"delta":""', 1)

    def frame(self, number: int, text: str) -> bytes:
        """The frame of the delta `text`."""
        delta = _encode(text)
        if not text.isascii():
            delta = one_line(delta)
        return b'%b"sequence_number":%d,%b"delta":%b%b' % (self._head, number, self._between, delta, self._tail)
