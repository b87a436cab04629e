"""Errors inside answers of status 200, in every shape that servers give them, and what both dialects make of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from app.protocol.deltas import Delta, Text, TurnFinished
from app.providers.base import UpstreamError, UpstreamProtocolError
from app.providers.chat.decode import ChatDecoder
from app.providers.errors import error_from_reply
from app.providers.responses.decode import ResponsesDecoder
from tests.providers.chat_stream import Json, chunk, event

BUSY = {"message": "Too many users.", "code": "Throttling"}
SAID = {
    ChatDecoder: chunk({"content": "Hi"}),
    ResponsesDecoder: event({"type": "response.output_text.delta", "item_id": "m", "delta": "Hi"}),
}
ENDED = {
    ChatDecoder: chunk({}, "stop"),
    ResponsesDecoder: event({"type": "response.completed", "response": {"output": []}}),
}
Decoder = type[ChatDecoder] | type[ResponsesDecoder]
both = pytest.mark.parametrize("decoder", [ChatDecoder, ResponsesDecoder])


def fed(pieces: Sequence[bytes], decoder: Decoder) -> tuple[list[Delta], UpstreamError | None]:
    """The deltas of a stream, and what broke it."""
    reader = decoder()
    deltas: list[Delta] = []
    for piece in pieces:
        deltas += reader.feed(piece)
        if reader.failure is not None:
            return deltas, reader.failure
    try:
        return deltas + reader.end(), None
    except UpstreamError as error:
        return deltas, error


def failed(stream: bytes, decoder: Decoder) -> UpstreamError:
    """The error in a stream that began well; it is the same however the stream is cut, and where it was not announced
    as one.
    """
    stream = SAID[decoder] + stream
    whole, byte_by_byte = fed([stream], decoder), fed([stream[at : at + 1] for at in range(len(stream))], decoder)
    assert whole[0] == byte_by_byte[0] == [Text("Hi")]
    assert whole[1] is not None
    assert byte_by_byte[1] is not None
    with pytest.raises(UpstreamError) as caught:
        decoder().whole(stream)
    assert str(whole[1]) == str(byte_by_byte[1]) == str(caught.value)
    return whole[1]


SHAPES: dict[str, Any] = {
    "nested": {"error": BUSY},
    "flat": BUSY,
    "flat without a type": {"type": None, **BUSY},
    "flat with the type of the mistake": {"object": "error", "type": "RateLimitError", **BUSY},
    "beside a type": {"type": "notice", "error": BUSY},
    "beside null choices": {"choices": None, "error_message": "Too many users.", "code": "Throttling"},
    "a list": [{"error": BUSY}],
    "a list of flat errors": [BUSY],
    "plural": {"errors": [BUSY, {"message": "second"}]},
    "plural, one": {"errors": BUSY},
    "twice nested": {"error": {"error": BUSY}},
    "MiniMax": {"id": "1", "choices": None, "base_resp": {"status_code": 1002, "status_msg": "Too many users."}},
    "MiniMax, in text": {"base_resp": {"status_code": "1002", "status_msg": "Too many users."}},
    "an all-clear of MiniMax beside it": {"error": BUSY, "base_resp": {"status_code": 0, "status_msg": "success"}},
    "a status": {"error": {"message": "Too many users.", "code": 429}},
    "a status in text": {"error": {"message": "Too many users.", "code": "429"}},
}


@both
@pytest.mark.parametrize("body", SHAPES.values(), ids=SHAPES.keys())
def test_errors_in_the_place_of_an_event(body: Any, decoder: Decoder) -> None:
    payload = json.dumps(body).encode()
    for stream in (
        b"data: %b\n\n" % payload,
        b"event: error\ndata: %b\n\n" % payload,
        b"error: %b\n\n" % payload,
        b"%b\n" % payload,
        json.dumps(body, indent=2).encode(),
        b"data: %b\n" % payload + ENDED[decoder],
    ):
        error = failed(stream, decoder)

        assert (error.message, error.status, error.retryable) == ("Too many users.", 429, True)


@both
@pytest.mark.parametrize(
    "body",
    [
        {"error": "Too many users."},
        {"errors": ["Too many users."]},
        {"error": {"msg": "Too many users."}},
        {"message": "Too many users."},
        {"detail": "Too many users."},
        {"detail": {"message": "Too many users."}},
    ],
)
def test_errors_without_a_name(body: Json, decoder: Decoder) -> None:
    error = failed(event(body), decoder)

    assert (error.message, error.status, error.code, error.retryable) == (
        "Too many users.",
        502,
        "upstream_error",
        True,
    )


@both
@pytest.mark.parametrize(
    "frame",
    [
        b"event: error\ndata: Too many users.\n\n",
        b"event:error\ndata:Too many users.\n\n",
        b"event: error\r\ndata: Too many users.\r\n\r\n",
        b"error: Too many users.\n\n",
        b'error: {"message": "Too many users."}\n\n',
        b'error: {"message": "Too many users."}\n\ndata: [DONE]\n\n',
        b'event: error\ndata: {"message": "Too many users."}\ndata: [DONE]\n',
        b'event: error\ndata: {"error_msg": "Too many users."}\n\n',
        b"event: error\ndata: Too many users.",
    ],
)
def test_errors_that_only_their_field_tells(frame: bytes, decoder: Decoder) -> None:
    assert failed(frame, decoder).message == "Too many users."


@both
def test_an_error_that_only_looks_like_json(decoder: Decoder) -> None:
    assert failed(b"event: error\ndata: [ENGINE] It died.\n\n", decoder).message == "[ENGINE] It died."


@both
@pytest.mark.parametrize(
    "frame", [b"event: error\n\n", b"error:\n\n", b"event: error\ndata: [DONE]\n\n", b"event: message\n\n"]
)
def test_an_error_that_says_nothing_is_none(frame: bytes, decoder: Decoder) -> None:
    deltas, failure = fed([SAID[decoder] + ENDED[decoder] + frame], decoder)

    assert (deltas, failure) == ([Text("Hi"), TurnFinished("stop")], None)


@both
@pytest.mark.parametrize(
    "fields",
    [
        {"error": None, "errors": [], "message": None, "detail": None},
        {"error": {}, "error_message": ""},
        {"base_resp": {"status_code": 0, "status_msg": ""}},
        {"base_resp": None},
    ],
)
def test_fields_of_errors_where_nothing_is_wrong(fields: Json, decoder: Decoder) -> None:
    plain = json.loads(SAID[decoder].removeprefix(b"data: ")) | fields

    assert fed([event(plain), event(fields), ENDED[decoder]], decoder) == ([Text("Hi"), TurnFinished("stop")], None)


def test_a_proxy_that_answers_with_markup() -> None:
    for decoder in (ChatDecoder(), ResponsesDecoder()):
        with pytest.raises(UpstreamProtocolError, match="cannot be read"):
            decoder.whole(b"<html>internal-host-7</html>")


# --- Chat
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "choice",
    [
        {"index": 0, "delta": {}, "error": BUSY},
        {"delta": {"content": ""}, "finish_reason": "error", "error": BUSY},
        {"index": "0", "delta": {"content": []}, "error": BUSY},
        {"index": 0, "message": {"content": None}, "error": BUSY},
        {"index": 0, "error": [BUSY]},
    ],
)
def test_an_error_in_a_choice(choice: Json) -> None:
    error = failed(event({"choices": [choice]}), ChatDecoder)

    assert (error.message, error.status) == ("Too many users.", 429)


def test_what_a_choice_says_before_its_error_is_kept() -> None:
    deltas, failure = fed([event({"choices": [{"delta": {"content": "Hi"}, "error": "It died."}]})], ChatDecoder)

    assert deltas == [Text("Hi")]
    assert str(failure) == "It died."


def test_an_error_in_another_choice_is_not_ours() -> None:
    other = event({"choices": [{"index": 1, "delta": {}, "error": BUSY}]})

    assert fed([SAID[ChatDecoder], other, ENDED[ChatDecoder]], ChatDecoder) == (
        [Text("Hi"), TurnFinished("stop")],
        None,
    )


# --- Responses
# -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken",
    [
        {"type": "error", **BUSY},
        {"type": "error", "error": BUSY},
        {"type": "error", "delta": 5, "item_id": [], **BUSY},
        {"type": "response.error", **BUSY},
        {"type": "response.failed", "response": {"status": "failed", "error": BUSY}},
        {"type": "response.failed", "response": {"status": "failed", "error": None}, "error": BUSY},
        {"type": "response.failed", "response": {"status": "failed"}, **BUSY},
        {"type": "response.failed", "response": None, "error": BUSY},
        {"type": "response.failed", "delta": 5, "error": BUSY},
        {"type": "response.failed", **BUSY},
        {"type": "response.completed", "response": {"status": "failed", "error": BUSY}},
        {"type": "response.completed", "response": {"status": "failed", "error": BUSY, "incomplete_details": []}},
        {"object": "response", "status": "failed", "output": [], "error": BUSY},
        {"object": "response", "status": "failed", "error": BUSY},
    ],
)
def test_events_that_are_errors(broken: Json) -> None:
    error = failed(event(broken), ResponsesDecoder)

    assert (error.message, error.status) == ("Too many users.", 429)


def test_a_failure_without_a_word_is_one() -> None:
    assert failed(event({"type": "response.failed"}), ResponsesDecoder).status == 502
    assert failed(event({"type": "error"}), ResponsesDecoder).status == 502


@pytest.mark.parametrize("kind", ["ping", "response.new", "codex.rate_limits"])
def test_events_that_only_have_a_message_are_none(kind: str) -> None:
    unknown = event({"type": kind, "message": "Still here.", "delta": 5})

    assert fed([SAID[ResponsesDecoder], unknown, ENDED[ResponsesDecoder]], ResponsesDecoder) == (
        [Text("Hi"), TurnFinished("stop")],
        None,
    )


# --- Other statuses
# ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b'data: {"error":{"message":"Too hot.","param":"temperature"}}\n\ndata: [DONE]\n\n',
        b'event: error\ndata: {"message":"Too hot.","param":"temperature"}\n\n',
        (
            b'id:1\nevent:error\n:HTTP_STATUS/400\ndata:{"code":"InvalidParameter","message":"Too '
            b'hot.","param":"temperature"}\n\n'
        ),
        b'error: {"message":"Too hot.","param":"temperature"}\n',
        b'[{"error":{"message":"Too hot.","param":"temperature"}}]',
        b'{"errors":[{"message":"Too hot.","param":"temperature"}]}',
    ],
)
def test_a_refusal_whose_body_is_an_event_stream(body: bytes) -> None:
    error = error_from_reply(400, {}, body)

    assert (error.status, error.message, error.param, error.retryable) == (400, "Too hot.", "temperature", False)


@pytest.mark.parametrize(
    ("number", "status", "code"),
    [
        (1002, 429, "rate_limit_exceeded"),
        (1004, 502, "upstream_authentication"),
        (1008, 502, "upstream_billing"),
        (2013, 400, "upstream_rejected"),
        (1000, 502, "upstream_error"),
        ([], 502, "upstream_error"),
    ],
)
def test_minimax_numbers_its_mistakes(number: Any, status: int, code: str) -> None:
    body = {"base_resp": {"status_code": number, "status_msg": "No."}, "message": "No."}
    with pytest.raises(UpstreamError) as caught:
        ChatDecoder().whole(json.dumps(body).encode())

    assert (caught.value.status, caught.value.code) == (status, code)
