"""The response as the fold of its events.

Other processes, and tests, get the response from a log this way. Tests compare it with the assembler's own result.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from app.protocol.wire import events as e
from app.protocol.wire.items import OutputItem
from app.protocol.wire.response import Response, decode

_event_decoder: msgspec.json.Decoder[e.Event] = msgspec.json.Decoder(e.Event)


def parse_frame(frame: bytes) -> e.Event | None:
    """The event in a frame written by `sse.frame`; None for a comment or the `[DONE]` marker. Raises ValueError."""
    _, marker, data = frame.partition(b"data: ")
    if not marker or data.startswith(b"[DONE]"):
        return None
    return _event_decoder.decode(data)


def fold(events: Iterable[e.Event]) -> Response | None:
    """The response after the events; None before the first. Items still being written are not in its output."""
    response: Response | None = None
    output: list[OutputItem] = []
    for event in events:
        match event:
            case e.Created() | e.Queued() | e.InProgress() | e.Completed() | e.Failed() | e.Incomplete():
                response = decode(bytes(event.response))
            case e.ItemDone():
                output.append(event.item)
            case _:
                continue
    if response is None or response.status != "in_progress":
        return response
    return msgspec.structs.replace(response, output=tuple(output))
