"""`Content-Encoding` of request bodies (RFC 9110, section 8.4): decoded in steps, so that no body blocks the event loop
or exceeds the limit on bodies.
"""

from __future__ import annotations

import asyncio
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Protocol, cast

import brotli  # pyright: ignore[reportMissingTypeStubs] - has none
from starlette.types import Scope

from app.protocol.wire.errors import InvalidRequest, PayloadTooLarge, UnsupportedEncoding

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_STEP = 256 * 1024
"""Decoded bytes per step; a fraction of a millisecond."""
_SLICE = 64 * 1024
_MOST_CODINGS = 4
_MOST_FRAMES = 4096
"""gzip and zstd bodies may have many frames; each costs time, even an empty one."""
_ZSTD_WINDOW = 23
"""RFC 9659: the window that a receiver must support, as a power of two.

A larger body in a single segment is its own window.
"""
_ZSTD_LARGEST_WINDOW = 31


class _Broken(Exception):
    """The data does not match the coding."""


class _Source:
    """Compressed bytes, read in slices: decompressors copy what they do not use at once."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._place = 0

    def __bool__(self) -> bool:
        """Whether there are any left."""
        return self._place < len(self._data)

    def take(self) -> bytes:
        """The next slice; empty at the end."""
        piece = self._data[self._place : self._place + _SLICE]
        self._place += len(piece)
        return bytes(piece)

    def give_back(self, unused: bytes) -> None:
        """Return the part of the last slice that belongs to the next frame."""
        self._place -= len(unused)


class _Brotli(Protocol):
    """`brotli.Decompressor`, which has no types."""

    def process(self, data: bytes, *, output_buffer_limit: int) -> bytes: ...
    def can_accept_more_data(self) -> bool: ...
    def is_finished(self) -> bool: ...


_new_brotli = cast("Callable[[], _Brotli]", brotli.Decompressor)  # pyright: ignore[reportUnknownMemberType]
_BrotliError = cast("type[Exception]", brotli.error)  # pyright: ignore[reportUnknownMemberType]


def _zlib_pieces(source: _Source, _limit: int, *, gzip: bool) -> Iterator[bytes]:
    held = source.take()
    stream = zlib.decompressobj(16 + zlib.MAX_WBITS if gzip else _deflate_bits(held))
    while not stream.eof:
        held = held or source.take()
        piece = stream.decompress(held, _STEP)
        if not (held or piece or stream.eof):
            raise _Broken
        held = stream.unconsumed_tail
        yield piece
    source.give_back(stream.unused_data)


def _zstd_pieces(source: _Source, limit: int) -> Iterator[bytes]:
    given = source.take()
    if (zstd.get_frame_info(given).decompressed_size or 0) > limit:
        # if declared, it may also be the size of the window
        raise _too_large(limit)
    window = min(max(_ZSTD_WINDOW, limit.bit_length()), _ZSTD_LARGEST_WINDOW)
    frame = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: window})
    while not frame.eof:
        piece = frame.decompress(given, _STEP)
        if not (given or piece or frame.eof) and frame.needs_input:
            raise _Broken
        yield piece
        given = source.take() if frame.needs_input and not frame.eof else b""
    source.give_back(frame.unused_data)


def _brotli_pieces(source: _Source, _limit: int) -> Iterator[bytes]:
    stream = _new_brotli()
    while not stream.is_finished():
        given = source.take() if stream.can_accept_more_data() else b""
        piece = stream.process(given, output_buffer_limit=_STEP)
        if not (given or piece or stream.is_finished()):
            raise _Broken
        yield piece


def _deflate_bits(data: bytes) -> int:
    """`deflate` is the zlib format, but some clients send raw deflate data (RFC 9110, section 8.4.1.2)."""
    is_zlib = data[0] & 0x0F == zlib.DEFLATED and int.from_bytes(data[:2], "big") % 31 == 0
    return zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS


_Pieces = Callable[[_Source, int], Iterator[bytes]]
"""One frame's content, in pieces. `limit` is the maximum size of the whole decoded body."""

_CODINGS: Mapping[str, _Pieces] = {
    "gzip": partial(_zlib_pieces, gzip=True),
    "x-gzip": partial(_zlib_pieces, gzip=True),
    "deflate": partial(_zlib_pieces, gzip=False),
    "br": _brotli_pieces,
    "zstd": _zstd_pieces,
}
READ = "gzip, deflate, br, zstd"


def named(scope: Scope) -> str:
    """The value of the request's `Content-Encoding`; several fields are joined into one list."""
    return ",".join(value.decode("latin-1") for name, value in scope["headers"] if name == b"content-encoding")


def codings(value: str) -> tuple[str, ...]:
    """The codings that a `Content-Encoding` names, in the order in which they were applied.

    Raises UnsupportedEncoding.
    """
    named = tuple(name for part in value.lower().split(",") if (name := part.strip()) not in ("", "identity"))
    unknown = [name for name in named if name not in _CODINGS]
    if unknown or len(named) > _MOST_CODINGS:
        what = f"'{_shown(unknown[0])}'" if unknown else f"more than {_MOST_CODINGS} codings at once"
        raise UnsupportedEncoding(f"Unsupported 'Content-Encoding': {what}. Use {READ}, or no coding.", READ)
    return named


async def decoded(body: bytes, value: str, limit: int) -> bytes:
    """The body decoded from its `Content-Encoding`, which is `value`; yields to other requests meanwhile.

    Raises UnsupportedEncoding, InvalidRequest for invalid data, and PayloadTooLarge as soon as the result exceeds
    `limit` bytes.
    """
    for coding in reversed(codings(value)):
        body = await _without(coding, body, limit)
    return body


async def _without(coding: str, body: bytes, limit: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    try:
        for piece in _content(_CODINGS[coding], _Source(body), limit):
            size += len(piece)
            if size > limit:
                raise _too_large(limit)
            if pieces:
                await asyncio.sleep(0)
            pieces.append(piece)
    except (_Broken, zlib.error, zstd.ZstdError, _BrotliError) as error:
        message = (
            f"The request body is not valid {coding}, which 'Content-Encoding' declares. Compress it again, or send it "
            f"uncompressed."
        )
        raise InvalidRequest(message, code="invalid_content_encoding") from error
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _content(pieces: _Pieces, source: _Source, limit: int) -> Iterator[bytes]:
    for _ in range(_MOST_FRAMES):
        if not source:
            return
        yield from pieces(source, limit)
    raise _Broken


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"The request body is larger than {limit} bytes when decompressed.", code="request_too_large"
    )


def _shown(name: str) -> str:
    return "".join(char if char.isascii() and char.isprintable() else "?" for char in name[:40])
