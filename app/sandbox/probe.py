"""Whether a back end really holds on this machine: code that tries to get out is run in it, and must fail at everything."""

from __future__ import annotations

import json
import os
import secrets
import socket
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from app.sandbox.backends import NAMES, Name, load
from app.sandbox.interpreter import InterpreterFailed
from app.sandbox.limits import Limits
from app.sandbox.session import Session, Workplace
from app.sandbox.stage import Stage

_SECONDS = 10.0
_ATTEMPTS = """
import json, os, socket

def fork():
    if os.fork() == 0:
        os._exit(0)

def fill():
    with open("/mnt/data/probe", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, facts["disk"] + 1)

def connect(kind):
    with socket.socket(socket.AF_INET, kind) as outside:
        outside.settimeout(1)
        outside.connect(("127.0.0.1", facts["port"]))
        outside.send(b"x")

attempts = {
    "reads files outside": lambda: open(facts["canary"]).read(),
    "sees the service's process": lambda: open(f"/proc/{facts['pid']}/environ", "rb").read(1),
    "signals the service": lambda: os.kill(facts["pid"], 0),
    "writes outside": lambda: open("/var/tmp/sandbox-probe", "w"),
    "opens TCP connections": lambda: connect(socket.SOCK_STREAM),
    "sends UDP datagrams": lambda: connect(socket.SOCK_DGRAM),
    "starts processes": fork,
    "allocates without limit": lambda: bytearray(facts["memory"] + 1),
    "maps without limit": lambda: __import__("mmap").mmap(-1, 8 * facts["memory"]),
    "writes files without limit": fill,
}
escapes = []
for name, attempt in attempts.items():
    try:
        attempt()
    except (OSError, MemoryError, OverflowError, AttributeError, ImportError):  # wasi lacks the means to some
        continue
    escapes.append(name)
json.dumps({"token": facts["token"], "escapes": escapes})
"""


class NothingHolds(Exception):
    """No back end confines code on this machine; the message says what was tried and what to do."""


async def choose(wanted: Name | None, stage: Stage, limits: Limits) -> tuple[Name, Workplace]:
    """The back end that is wanted, or for None the first that holds. Raises NothingHolds."""
    reasons: list[str] = []
    for name in NAMES if wanted is None else (wanted,):
        backend = load(name)
        workplace = Workplace(stage, backend)
        reason = backend.missing() or await escapes(workplace, limits)
        if reason is None:
            return name, workplace
        reasons.append(f"{name}: {reason}")
    raise NothingHolds(
        f"No sandbox holds on this machine, so no code is run ({'; '.join(reasons)}). Allow user namespaces for bubblewrap, or use a "
        "kernel with Landlock, or install the extra `wasi`."
    )


async def escapes(workplace: Workplace, limits: Limits) -> str | None:
    """Run the attempts in a session of its own: what succeeds, or why it cannot run; None when all is well."""
    token = secrets.token_hex(16)
    with _canary(token) as canary, socket.create_server(("127.0.0.1", 0)) as outside:
        facts = {
            "canary": canary,
            "disk": limits.disk_bytes,
            "memory": limits.memory_bytes,
            "pid": os.getpid(),
            "port": outside.getsockname()[1],
            "token": token,
        }
        session = Session(f"cntr_{secrets.token_hex(16)}", "", "", workplace, limits)
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
        return f"its self-test fails: {logs.strip()[-300:]}"
    return f"code in it {', '.join(found)}" if found else None
