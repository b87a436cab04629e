"""Whether a back end really works on this machine: code that tries to escape is run in it, and every attempt must
fail.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from sandbox.backends import load
from sandbox.inside import seccomp
from sandbox.interpreter import InterpreterFailed
from sandbox.limits import Limits
from sandbox.protocol import BACKENDS, BackendName
from sandbox.session import Session, Workplace
from sandbox.stage import Stage

_SECONDS = 10.0
_ATTEMPTS = """
import errno, json, os, socket, struct

def fork():
    if os.fork() == 0:
        os._exit(0)

def connect(kind):
    with socket.socket(socket.AF_INET, kind) as outside:
        outside.settimeout(1)
        outside.connect(("127.0.0.1", facts["port"]))
        outside.send(b"x")

def write_far():
    with open("/mnt/data/probe", "wb") as file:
        file.seek(facts["disk"])
        file.write(b"x")
        file.flush()

def reserve():
    import ctypes
    with open("/mnt/data/probe", "wb") as file:
        size = ctypes.c_longlong(facts["disk"] + 1)
        keep_size = 1
        if ctypes.CDLL(None).fallocate(file.fileno(), keep_size, ctypes.c_longlong(0), size) < 0:
            raise OSError

def disk():
    found = os.statvfs("/mnt/data")
    if not facts["hard"] or found.f_blocks * found.f_frsize <= facts["disk"] * 1.25:
        raise OSError

def control(command, argument):
    import fcntl
    with socket.socketpair()[0] as mine:
        fcntl.fcntl(mine, command, argument)

def device(command, argument):
    import fcntl
    with socket.socketpair()[0] as mine:
        fcntl.ioctl(mine, command, struct.pack("i", argument))

def call(number):
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    failed = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(-1)] * 6) < 0
    if failed and ctypes.get_errno() in (errno.EPERM, errno.ENOSYS):
        raise OSError

me = facts["pid"]
attempts = {
    "reads files outside": lambda: open(facts["canary"]).read(),
    "lists the sessions": lambda: os.listdir(facts["stage"]),
    "sees the service's process": lambda: open(f"/proc/{me}/environ", "rb").read(1),
    "sees where the service is": lambda: os.readlink(f"/proc/{me}/cwd"),
    "signals the service": lambda: os.kill(me, 0),
    "signals all processes": lambda: os.kill(-1, 0),
    "has the service signalled": lambda: control(8, me),
    "has the service's threads signalled": lambda: control(15, struct.pack("ii", 0, me)),
    "chooses the signal": lambda: control(10, 9),
    "asks for signals": lambda: control(4, 0o20000),
    "is told of changes": lambda: __import__("fcntl").fcntl(os.open("/mnt/data", os.O_RDONLY), 1026, 2),
    "makes others wait": lambda: __import__("fcntl").fcntl(os.open("/dev/zero", os.O_RDONLY), 1024, 0),
    "has the service signalled by a device": lambda: device(0x8901, me),
    "has the service signalled by a socket": lambda: device(0x8902, me),
    "asks a device for signals": lambda: device(0x5452, 1),
    "empties what it may only read": lambda: os.open("/dev/zero", os.O_RDONLY | os.O_TRUNC),
    "opens without reading or writing": lambda: os.open("/dev/zero", 3),
    "writes outside": lambda: open("/var/tmp/sandbox-probe", "w"),
    "opens TCP connections": lambda: connect(socket.SOCK_STREAM),
    "sends UDP datagrams": lambda: connect(socket.SOCK_DGRAM),
    "starts processes": fork,
    "limits the service": lambda: __import__("resource").prlimit(me, 7, (64, 64)),
    "allocates without limit": lambda: bytearray(facts["memory"] + 1),
    "maps without limit": lambda: __import__("mmap").mmap(-1, 8 * facts["memory"]),
    "writes files without limit": write_far,
    "reserves space without limit": reserve,
    "has a larger disk than it may fill": disk,
    **{f"calls {name}": lambda number=number: call(number) for name, number in facts["calls"].items()},
}
# WASI lacks the means for some
refusals = (OSError, ValueError, MemoryError, OverflowError, AttributeError, ImportError)
escapes = []
for name, attempt in attempts.items():
    try:
        attempt()
    except refusals:
        continue
    escapes.append(name)
json.dumps({"token": facts["token"], "escapes": escapes})
"""


class NoBackend(Exception):
    """No back end confines code on this machine; the message lists what was tried and what to do."""


async def choose(wanted: BackendName | None, stage: Stage, limits: Limits) -> tuple[BackendName, Workplace]:
    """The requested back end, or for None the first that passes. Raises NoBackend."""
    reasons: list[str] = []
    for name in BACKENDS if wanted is None else (wanted,):
        backend = load(name)
        workplace = Workplace(stage, backend)
        reason = backend.missing() or await escapes(workplace, limits)
        if reason is None:
            return name, workplace
        reasons.append(f"{name}: {reason}")
    raise NoBackend(
        f"No sandbox works on this machine, so no code is run ({'; '.join(reasons)}). Allow user namespaces for "
        f"bubblewrap, or use a kernel with Landlock, or install the extra `wasi`."
    )


async def escapes(workplace: Workplace, limits: Limits) -> str | None:
    """Run the attempts in a separate session: those that succeeded, or why it cannot run; None if all failed."""
    token = secrets.token_hex(16)
    with _canary(token) as canary, socket.create_server(("127.0.0.1", 0)) as outside:
        session = Session(f"cntr_{secrets.token_hex(16)}", "", "", workplace, limits)
        facts = {
            "calls": seccomp.forbidden(),
            "canary": canary,
            "disk": limits.disk_bytes,
            "hard": session.volume.hard,
            "memory": limits.memory_bytes,
            "pid": os.getpid(),
            "port": outside.getsockname()[1],
            "stage": str(workplace.stage.root),
            "token": token,
        }
        try:
            result = await session.run(f"facts = {facts!r}\n{_ATTEMPTS}", _SECONDS)
        except InterpreterFailed as error:
            return str(error)
        finally:
            await session.close()
    return _verdict(result.logs, token)


@contextmanager
def _canary(text: str) -> Generator[str]:
    """A file that everybody on this machine may read."""
    with tempfile.NamedTemporaryFile("w", prefix="sandbox-canary-") as file:
        file.write(text)
        file.flush()
        Path(file.name).chmod(0o644)
        yield file.name


def _verdict(logs: str, token: str) -> str | None:
    try:
        report = json.loads(logs.strip()[1:-1])  # the echo of a string, in quotes
        found: list[str] = report["escapes"] if report["token"] == token else ["answers strangely"]
    except (ValueError, KeyError, TypeError):
        return f"its self-test failed: {logs.strip()[-300:]}"
    return f"code in it {', '.join(found)}" if found else None
