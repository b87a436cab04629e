"""What the gateway and a worker say to each other.

The gateway sends pickles: it is believed. A worker reads what strangers made and is not: its answers are MessagePack of the types
below, of limited length, and the result inside is decoded as the type that the function is annotated with.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from typing import IO, Any, get_type_hints

import msgspec

_LENGTH = struct.Struct(">Q")
_PIECE = 1024 * 1024


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one call may take. Times in seconds."""

    seconds: float
    """On the wall clock."""
    cpu_seconds: float | None = None
    """Of the processor, over all threads."""
    memory_bytes: int = 4 * 1024**3
    """What the process may write to; what is mapped from files does not count."""
    answer_bytes: int = 256 * 1024**2


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The work's result."""

    result: msgspec.Raw


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The work refuses its input, by the exception that its kind of worker names for this."""

    message: str


class OutOfMemory(msgspec.Struct, frozen=True, tag="memory"):
    """The work needs more memory than it may have."""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The work raised what it should not have, or the process cannot be set up."""

    traceback: str


Answer = Done | Refused | OutOfMemory | Failed


class BrokenAnswer(Exception):
    """It is none; the message, a clause, says why."""


_decode_answer = msgspec.msgpack.Decoder(Answer).decode


def write(stream: IO[bytes], content: bytes) -> None:
    """One message. Raises OSError."""
    stream.write(_LENGTH.pack(len(content)))
    stream.write(content)
    stream.flush()


def read(stream: IO[bytes], most: int) -> bytes:
    """One message. Raises EOFError, OSError, and BrokenAnswer for one of more than `most` bytes."""
    size: int = _LENGTH.unpack(_exactly(stream, _LENGTH.size))[0]
    if size > most:
        raise BrokenAnswer(f"the result is larger than {most // 2**20} MiB")
    return _exactly(stream, size)


def answer(content: bytes) -> Answer:
    """A worker's message. Raises BrokenAnswer."""
    try:
        return _decode_answer(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BrokenAnswer("the process that worked on it gave no proper answer") from error


def result(done: Done, work: Callable[..., Any]) -> Any:
    """What the work returned, of the type that it promises. Raises BrokenAnswer."""
    try:
        return _result_decoder(work).decode(done.result)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BrokenAnswer("the process that worked on it gave no proper answer") from error


@cache
def _result_decoder(work: Callable[..., Any]) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(get_type_hints(work)["return"])


def _exactly(stream: IO[bytes], size: int) -> bytes:
    """Read as it comes: a length that is only claimed takes no memory."""
    content = bytearray()
    while len(content) < size:
        piece = stream.read(min(_PIECE, size - len(content)))
        if not piece:
            raise EOFError
        content += piece
    return bytes(content)
