"""The events of a WebSocket: what clients send, and what they get, one JSON text each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from app.api import characters, errors
from app.protocol.wire.errors import ApiError, InvalidRequest
from app.shortening import printable

_LANE = re.compile(r"[A-Za-z0-9_.-]{1,256}")
_DATA = len(b"\ndata: ")
_END = len(b"\n\n")
_ERROR = b"event: error\n"
_FAILED = b"event: response.failed\n"
_SHOWN = 64
_TRUE = msgspec.Raw(b"true")
_NOT_IN_A_REQUEST = ("type", "stream_id", "generate", "stream", "background")
"""Fields of `response.create` that are not parameters of a request, or only over HTTP."""
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder().encode


class Create(msgspec.Struct, frozen=True):
    """`response.create`."""

    lane: str | None
    """None: the default lane."""
    body: bytes
    """The request, as it would be sent over HTTP with `stream` true."""
    previous: str | None
    store: bool
    warm_up: bool
    """`generate` is false: the model is not asked."""


class Steer(msgspec.Struct, frozen=True):
    """`response.steer`."""

    previous: str | None
    input: Any


class Refused(Exception):
    """What a client sent is refused; `lane` is where the error belongs."""

    def __init__(self, error: ApiError, lane: str | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.lane = lane


def read(text: str | None) -> Create | Steer:
    """The event of one message, None if that is not text. Raises Refused."""
    if text is None:
        raise Refused(_unreadable("Send JSON in text messages; binary ones are not read."))
    data = text.encode()
    try:
        fields = _fields.decode(data)
    except (msgspec.DecodeError, RecursionError):
        raise Refused(_problem(data)) from None
    kind = _value(fields, "type")
    if kind == "response.steer":
        return Steer(_text(fields, "previous_response_id"), _value(fields, "input"))
    lane = _lane(fields)
    try:
        if kind != "response.create":
            raise _unknown(kind)
        return _create(fields, lane)
    except InvalidRequest as error:
        raise Refused(error, lane) from None


def _create(fields: dict[str, msgspec.Raw], lane: str | None) -> Create:
    """Raises InvalidRequest."""
    generate, background = _flag(fields, "generate"), _flag(fields, "background")
    if background:
        message = "Background responses are not served over WebSocket: leave 'background' out, or use HTTP."
        raise InvalidRequest(message, code="unsupported_parameter", param="background")
    store, previous = _value(fields, "store"), _text(fields, "previous_response_id")
    for name in _NOT_IN_A_REQUEST:
        fields.pop(name, None)
    fields["stream"] = _TRUE
    return Create(lane, _encode(fields), previous, store is not False, generate is False)


def texts(frames: Sequence[bytes], lane: str | None, *, last: bool) -> list[bytes]:
    """The JSON of server-sent events.

    A failed response ends with `response.failed` alone: clients take an `error` event as an end, too, and would take
    what follows it as the beginning of their next response. `last`: these frames are a response's last ones.
    """
    if last and failed(frames):
        frames = [frame for frame in frames if not frame.startswith(_ERROR)]
    if lane is None:
        return [frame[frame.index(b"\n") + _DATA : -_END] for frame in frames]
    tail = b',"stream_id":"%b"}' % lane.encode()
    return [frame[frame.index(b"\n") + _DATA : -_END - 1] + tail for frame in frames]


def failed(frames: Sequence[bytes]) -> bool:
    """Whether these last frames of a response say that it failed."""
    return any(frame.startswith(_FAILED) for frame in frames)


def error_text(error: ApiError, lane: str | None) -> bytes:
    """The error event; the log line of the request gets the reason."""
    status, headers, body = errors.render(error)
    shown = {str(name, "ascii"): str(value, "ascii") for name, value in headers if name != b"content-type"}
    inner: dict[str, Any] = msgspec.json.decode(body)["error"]
    if shown:
        inner["headers"] = shown
    event = {"type": "error", "status": status, "error": inner}
    return _encode(event if lane is None else {**event, "stream_id": lane})


def steer_failed(steer: Steer) -> bytes:
    """The answer to `response.steer`: there is no steering."""
    message = "Steering is not served: wait for the response's end, and continue it with 'response.create'."
    return _encode(
        {
            "type": "response.steer.failed",
            "sequence_number": 0,
            "error": {"code": "steering_not_supported", "message": message},
            "steer": {"previous_response_id": steer.previous or "", "input": steer.input},
        }
    )


def _lane(fields: dict[str, msgspec.Raw]) -> str | None:
    """Raises Refused."""
    lane = _value(fields, "stream_id")
    if lane is None or (isinstance(lane, str) and _LANE.fullmatch(lane)):
        return lane
    message = "Invalid 'stream_id': expected 1 to 256 ASCII letters, digits, '_', '-' or '.'."
    raise Refused(InvalidRequest(message, code="invalid_stream_id", param="stream_id"))


def _value(fields: dict[str, msgspec.Raw], name: str) -> Any:
    raw = fields.get(name)
    try:
        return None if raw is None else msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):  # surrogates, which the decoder has not looked at before
        raise Refused(_problem(bytes(raw or b""))) from None


def _flag(fields: dict[str, msgspec.Raw], name: str) -> bool | None:
    value = _value(fields, name)
    if value is None or isinstance(value, bool):
        return value
    raise InvalidRequest(f"Invalid '{name}': expected a boolean.", code="invalid_type", param=name)


def _text(fields: dict[str, msgspec.Raw], name: str) -> str | None:
    value = _value(fields, name)
    return value if isinstance(value, str) else None


def _unknown(kind: Any) -> InvalidRequest:
    if kind is None:
        return InvalidRequest("Missing required parameter: 'type'.", code="missing_required_parameter", param="type")
    return InvalidRequest(
        f"Unknown event type '{printable(str(kind))[:_SHOWN]}': only 'response.create' is served.",
        code="invalid_value",
        param="type",
    )


def _problem(data: bytes) -> InvalidRequest:
    try:
        characters.check_json(data)
    except InvalidRequest as error:
        return error
    return _unreadable("We could not parse the message: expected a JSON object.")


def _unreadable(message: str) -> InvalidRequest:
    return InvalidRequest(message, code="json_parse_error")
