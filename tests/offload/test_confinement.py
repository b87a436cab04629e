"""What a worker that a document has taken over can do: nothing.

Its code here is Python, as good as any machine code.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from app.documents.base import UnreadableDocument
from app.offload import confinement
from app.offload.protocol import Limits
from app.offload.workers import OffloadFailed, Workers

_ROOT = Path(__file__).parents[2]
_NOT_HERE = "worker processes cannot be confined on this machine"

confined = pytest.mark.skipif(bool(confinement.lacking()), reason=_NOT_HERE)
pytestmark = pytest.mark.asyncio(loop_scope="module")


def hostile() -> Workers:
    return Workers(Limits(seconds=60, cpu_seconds=20, answer_bytes=1024 * 1024), refusal=UnreadableDocument)


def attempt(act: Callable[..., object], *arguments: object) -> str:
    """What comes of it."""
    try:
        return f"done: {act(*arguments)!r}"
    except OSError as error:
        return type(error).__name__


def read(path: str) -> str:
    return attempt(lambda: Path(path).read_bytes()[:10])


def listed(path: str) -> str:
    return attempt(os.listdir, path)


def write(path: str) -> str:
    return attempt(lambda: Path(path).write_text("x"))


def connect(port: int) -> str:
    return attempt(lambda: socket.create_connection(("127.0.0.1", port), 5))


def look_up() -> str:
    return attempt(socket.getaddrinfo, "localhost", 80)


def unix_socket() -> str:
    return attempt(lambda: socket.socket(socket.AF_UNIX).connect("/run/x"))


def fork() -> str:
    return attempt(os.fork)


def spawn() -> str:
    return attempt(subprocess.run, [sys.executable, "-c", ""])


def strike(pid: int) -> str:
    return attempt(os.kill, pid, signal.SIGKILL)


def trace(pid: int) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    return "done" if libc.ptrace(16, pid, None, None) == 0 else "PermissionError"


def print_to_files(path: str) -> str:
    """By a descriptor that came with the process; only a limit of the size of files is left then."""
    return attempt(lambda: os.open(path, os.O_RDWR | os.O_CREAT))


def join_groups() -> str:
    return attempt(os.setgroups, [5])


def grow(size: int) -> str:
    """Memory that is shared counts as nobody's own."""
    return attempt(lambda: mmap.mmap(-1, size))


def thread() -> str:
    """What libraries do, and may."""
    ran: list[int] = []
    one = threading.Thread(target=ran.append, args=(1,))
    one.start()
    one.join()
    return str(ran)


@confined
@pytest.mark.parametrize("act", [read, listed])
async def test_no_file_is_open_to_it_but_the_programs(act: Callable[[str], str], tmp_path: Path) -> None:
    workers = hostile()
    (tmp_path / "secret").write_text("secret")
    target = tmp_path / "secret" if act is read else tmp_path
    assert await workers.run(act, str(target)) == "PermissionError"
    beside = _ROOT / "pyproject.toml" if act is read else _ROOT
    assert await workers.run(act, str(beside)) == "PermissionError"
    assert (
        await workers.run(act, f"/proc/{os.getpid()}/environ" if act is read else f"/proc/{os.getpid()}/fd")
        == "PermissionError"
    )
    assert (await workers.run(act, str(Path(confinement.__file__) if act is read else _ROOT / "app"))).startswith(
        "done"
    )


@confined
async def test_it_writes_nowhere(tmp_path: Path) -> None:
    workers = hostile()
    shared = (Path("/tmp/new-by-a-worker"), Path("/dev/shm/new-by-a-worker"))  # noqa: S108 - must not come to be
    for path in (tmp_path / "new", _ROOT / "app" / "new.py", *shared):
        assert await workers.run(write, str(path)) == "PermissionError"
        assert await workers.run(print_to_files, str(path)) == "PermissionError"
        assert not path.exists()


@confined
async def test_it_reaches_no_network() -> None:
    workers = hostile()
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert await workers.run(connect, server.getsockname()[1]) == "PermissionError"
    assert await workers.run(look_up) != "done"
    assert await workers.run(unix_socket) == "PermissionError"


@confined
async def test_it_starts_and_touches_no_processes() -> None:
    workers = hostile()
    assert await workers.run(fork) == "PermissionError"
    assert await workers.run(spawn) == "PermissionError"
    assert await workers.run(strike, os.getpid()) == "PermissionError"
    assert await workers.run(trace, os.getpid()) == "PermissionError"
    assert await workers.run(thread) == "[1]"


@confined
async def test_it_maps_no_more_than_it_may() -> None:
    assert await hostile().run(grow, 64 * 1024**3) == "OSError"


@confined
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has what is given up here")
async def test_root_is_given_up() -> None:
    assert await hostile().run(join_groups) == "PermissionError"


# --- What it answers
# --------------------------------------------------------------------------------------------------------------


class Bomb:
    """Unpickled it would write a file."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path(self._path),))


def say(content: bytes) -> str:
    """Answer in the worker's place, by whichever descriptor it is that leads to the gateway, and end."""
    for descriptor in range(3, 64):
        with suppress(OSError):
            os.write(descriptor, content)
    os._exit(0)


def message(content: bytes) -> bytes:
    return struct.pack(">Q", len(content)) + content


def as_done(result: object) -> bytes:
    return message(msgspec.msgpack.encode({"type": "done", "result": result}))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        b"garbage that goes on and on",
        message(b""),
        message(b"garbage"),
        message(msgspec.msgpack.encode({"type": "done"})),
        message(msgspec.msgpack.encode({"type": "another", "result": "x"})),
        message(msgspec.msgpack.encode("x")),
        as_done(5),
        as_done(None),
        as_done({"a": "b"}),
        as_done("whole")[:-1],
        message(b"\xdb\xff\xff\xff\xff"),
        message(b"\x91" * 100_000),
        message(msgspec.msgpack.encode({"type": "done"})[:-1] + b"\xa6result\xa2\xff\xff"),
        struct.pack(">Q", 2**63) + b"x" * 100,
        struct.pack(">Q", 1024 * 1024) + b"x" * 100,
    ],
)
async def test_nonsense_fails_that_one_call(content: bytes) -> None:
    workers = hostile()
    with pytest.raises(OffloadFailed):
        await workers.run(say, content)
    assert await workers.run(thread) == "[1]"


async def test_nothing_is_unpickled(tmp_path: Path) -> None:
    trace = tmp_path / "unpickled"
    bomb = pickle.dumps(Bomb(str(trace)))
    for content in (bomb, message(bomb), as_done(bomb)):
        with pytest.raises(OffloadFailed):
            await hostile().run(say, content)
    assert not trace.exists()


def long_text(size: int) -> str:
    return "x" * size


async def test_the_answer_is_of_limited_length() -> None:
    workers = hostile()
    with pytest.raises(OffloadFailed, match="larger than 1 MiB"):
        await workers.run(long_text, 1024 * 1024)
    assert len(await workers.run(long_text, 1024 * 1024 - 100)) == 1024 * 1024 - 100


def long_refusal() -> None:
    raise UnreadableDocument("because " * 100_000)


async def test_a_refusal_is_of_limited_length() -> None:
    with pytest.raises(UnreadableDocument) as refused:
        await hostile().run(long_refusal)
    assert len(str(refused.value)) <= 1000


def surrogate() -> str:
    return "\ud800"


async def test_what_cannot_be_encoded_is_a_failure_and_not_the_end() -> None:
    workers = hostile()
    with pytest.raises(OffloadFailed):
        await workers.run(surrogate)
    assert await workers.run(thread) == "[1]"
