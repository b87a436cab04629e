"""The event-stream decoder: what comes out does not depend on how the bytes were cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers._sse import SSEDecoder
from app.providers.base import UpstreamProtocolError

STREAMS: dict[str, tuple[bytes, list[bytes]]] = {
    "plain": (b'data: {"a":1}\n\ndata: {"b":2}\n\n', [b'{"a":1}', b'{"b":2}']),
    "no blank after the colon": (b"data:x\n\n", [b"x"]),
    "only one blank is taken away": (b"data:  x\n\n", [b" x"]),
    "CRLF": (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
    "CR": (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
    "mixed line ends": (b"data: a\r\n\ndata: b\r\r\ndata: c\n\r", [b"a", b"b", b"c"]),
    "several lines of data": (b"data: a\ndata\ndata: b\ndata:\n\n", [b"a\nb\n"]),
    "comments and other fields": (b": ping\n\nevent: x\nid: 7\nretry: 5\ndata: a\n: inside\n\n", [b"a"]),
    "events without data": (b"event: x\n\n\n\ndata: a\n\n", [b"a"]),
    "a name that only begins like data": (b"database: x\ndata: a\n\n", [b"a"]),
    "other Unicode line ends are text": (
        "data: a\u2028b\u2029c\u0085d\x0ce\n\n".encode(),
        ["a\u2028b\u2029c\u0085d\x0ce".encode()],
    ),
    "a byte order mark": (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
    "a byte order mark on a line of its own": (b"\xef\xbb\xbf\ndata: a\n\n", [b"a"]),
    "no blank line before the next event's name": (b"event: x\ndata: a\nevent: y\ndata: b\n\n", [b"a", b"b"]),
    "a line of JSON": (b'{"a": 1}\n{"b": 2}\r\ndata: c\n\n', [b'{"a": 1}', b'{"b": 2}', b"c"]),
    "JSON over several lines": (b'{\n  "a": [\n    1\n  ]\n}\n\ndata: c\n\n', [b'\n{\n  "a": [\n    1\n  ]\n}', b"c"]),
    "other lines without a field": (b"a\nid\nretry\n}\ndata: a\n{b}\n\n", [b"a"]),
    "an error as text": (b"event: error\ndata: a\ndata: b\n\n", [b'{"error":"a\\nb"}']),
    "an error as JSON": (b'event: error\ndata: {"a":1}\n\nevent: x\ndata: b\n\n', [b'{"error":{"a":1}}', b"b"]),
    "an error in a field of its own": (
        b'data: a\nerror: {"b":1}\n\nerror:c\n\n',
        [b"a", b'{"error":{"b":1}}', b'{"error":"c"}'],
    ),
    "an error without a word": (b"event: error\n\nerror:\n\ndata: a\n\n", [b"a"]),
    "events whose name only begins like one": (b"event: errors\ndata: a\n\n", [b"a"]),
    "nothing": (b"", []),
}


@pytest.mark.parametrize(("stream", "payloads"), STREAMS.values(), ids=STREAMS.keys())
def test_whole_and_byte_by_byte(stream: bytes, payloads: list[bytes]) -> None:
    whole, slow = SSEDecoder(), SSEDecoder()

    assert whole.feed(stream) == payloads
    assert [payload for byte in stream for payload in slow.feed(bytes([byte]))] == payloads
    assert whole.end() == slow.end() == []


@given(st.data())
def test_any_cut_gives_the_same_events(data: st.DataObject) -> None:
    stream = b"".join(stream for stream, _ in STREAMS.values())
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    decoder = SSEDecoder()

    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    assert [payload for piece in pieces for payload in decoder.feed(piece)] == [
        p for _, payloads in STREAMS.values() for p in payloads
    ]


@pytest.mark.parametrize("tail", [b"data: a", b"data: a\n", b"data: a\r", b"data: a\r\n"])
def test_an_event_without_its_blank_line_comes_at_the_end(tail: bytes) -> None:
    decoder = SSEDecoder()

    assert decoder.feed(tail) == []
    assert decoder.end() == [b"a"]


def test_an_event_leaves_with_its_last_byte() -> None:
    decoder = SSEDecoder()

    assert decoder.feed(b"data: a\r\r") == [b"a"]
    assert decoder.feed(b"\ndata: b\r\r") == [b"b"]


@pytest.mark.parametrize(("line", "joined"), [(b"data: abcdefghi", b"abcdefghi"), (b'  "abcdefghi"', b'  "abcdefghi"')])
def test_an_event_of_many_lines_takes_time_by_its_length(line: bytes, joined: bytes) -> None:
    decoder = SSEDecoder()
    head = b"" if line.startswith(b"data") else b"{\n"

    assert decoder.feed(head + (line + b"\n") * 100_000) == []
    (payload,) = decoder.end()

    assert payload.count(b"\n" + joined) >= 99_999


def test_the_status_comment_is_kept() -> None:
    decoder = SSEDecoder()
    decoder.feed(b"data: a\n\n: HTTP_STATUS/500\n:HTTP_STATUS/many\n:HTTP_STATUS/" + b"9" * 5000 + b"\n")
    assert decoder.status is None

    decoder.feed(b"id:1\nevent:error\n:HTTP_STATUS/429\ndata:{}\n\n")

    assert decoder.status == 429


@pytest.mark.parametrize(
    "piece", [b"x" * (1 << 20), b"data: " + b"x" * (1 << 20) + b"\n"], ids=["one line", "many lines"]
)
def test_an_endless_event_is_refused(piece: bytes) -> None:
    decoder = SSEDecoder()

    for _ in range(15):
        assert decoder.feed(piece) == []

    with pytest.raises(UpstreamProtocolError, match="16 MiB") as caught:
        decoder.feed(piece * 2)

    assert not caught.value.retryable
