"""The protocol between the gateway and a worker.

The gateway sends pickles, since it is trusted. A worker reads untrusted input, so it is not: its answers are
MessagePack of the types below, limited in length, and the result inside is decoded as the function's annotated return
type.
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
    """The limits of one call. Times in seconds."""

    seconds: float
    """Wall-clock time."""
    cpu_seconds: float | None = None
    """CPU time, of all threads."""
    memory_bytes: int = 4 * 1024**3
    """Writable memory of the process; mapped files do not count."""
    answer_bytes: int = 256 * 1024**2


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The work's result."""

    result: msgspec.Raw


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The work refused its input with the exception that its kind of worker defines for this."""

    message: str


class OutOfMemory(msgspec.Struct, frozen=True, tag="memory"):
    """The work needs more memory than allowed."""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The work raised an unexpected exception, or the process could not be set up."""

    traceback: str


Answer = Done | Refused | OutOfMemory | Failed


class BrokenAnswer(Exception):
    """The answer is invalid; the message, a clause, gives the reason."""


_decode_answer = msgspec.msgpack.Decoder(Answer).decode


def write(stream: IO[bytes], content: bytes) -> None:
    """Write one message. Raises OSError."""
    stream.write(_LENGTH.pack(len(content)))
    stream.write(content)
    stream.flush()


def read(stream: IO[bytes], most: int) -> bytes:
    """Read one message. Raises EOFError, OSError, and BrokenAnswer if it is longer than `most` bytes."""
    size: int = _LENGTH.unpack(_exactly(stream, _LENGTH.size))[0]
    if size > most:
        raise BrokenAnswer(f"the result is larger than {most // 2**20} MiB")
    return _exactly(stream, size)


def answer(content: bytes) -> Answer:
    """Decode a worker's message. Raises BrokenAnswer."""
    try:
        return _decode_answer(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BrokenAnswer("the worker process sent an invalid answer") from error


def result(done: Done, work: Callable[..., Any]) -> Any:
    """The work's result, decoded as its annotated type. Raises BrokenAnswer."""
    try:
        return _result_decoder(work).decode(done.result)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BrokenAnswer("the worker process sent an invalid answer") from error


@cache
def _result_decoder(work: Callable[..., Any]) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(get_type_hints(work)["return"])


def _exactly(stream: IO[bytes], size: int) -> bytes:
    """Read in pieces as they come: a claimed length allocates no memory."""
    content = bytearray()
    while len(content) < size:
        piece = stream.read(min(_PIECE, size - len(content)))
        if not piece:
            raise EOFError
        content += piece
    return bytes(content)
