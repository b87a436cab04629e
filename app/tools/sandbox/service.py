"""The location of the sandbox service: a URL, or a child process, started when first needed."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import ssl
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from app.tools.sandbox.client import SandboxUnavailable
from app.tools.sandbox.shared import Address, SharedDirectory, shared_directory
from sandbox import protocol
from sandbox.protocol import BackendName, Config, Limits, StartReport

if TYPE_CHECKING:
    import httpx

_log = logging.getLogger(__name__)
_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_LOOK_SECONDS = 0.1
"""How soon a service is found that another worker is starting."""
_MEMORY_BYTES = 4 * 1024**3
"""The largest container that can be requested."""
_NOTHING_HOLDS = (
    "No sandbox works on the gateway's machine; its log says why, and GATEWAY_SANDBOX can name a service elsewhere."
)
_PASSED_ON = ("PATH", "TMPDIR", "LANG", "HOME")
_ANY_URL = "http://sandbox"
"""For a service on a socket: the name is never resolved."""


class RemoteService:
    """A service that is run separately, by its URL, or `unix:` and the path of its socket."""

    begun = True

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._token = token
        self._client: httpx.AsyncClient | None = None

    async def client(self) -> httpx.AsyncClient:
        """The HTTP client for the service; the same one each time."""
        if self._client is None:
            path = self._url.removeprefix("unix:")
            self._client = (
                _client(self._token, self._url) if path == self._url else _client(self._token, _ANY_URL, socket=path)
            )
        return self._client

    async def aclose(self) -> None:
        """Close the connections; the service keeps running."""
        if self._client is not None:
            await self._client.aclose()


class LocalService:
    """A child process on a Unix socket that only this server can reach.

    It ends with this process, however that ends, and is restarted if it has died; its sessions are then lost. With
    several workers, the first one that needs it starts it, for all of them.
    """

    def __init__(self, backend: BackendName | None, seconds: float) -> None:
        self._backend: BackendName | None = backend
        self._seconds = seconds
        self._lock = asyncio.Lock()
        self._directory: Path | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._client: httpx.AsyncClient | None = None
        self._refusal: str | None = None
        self._shared = shared_directory()
        self._joined: Address | None = None
        """The service of another worker, if that one is used."""

    @property
    def begun(self) -> bool:
        """Whether it has been started."""
        return self._process is not None or (self._shared is not None and self._shared.address is not None)

    @property
    def pid(self) -> int | None:
        """The child's process id."""
        return self._process.pid if self._process is not None else None

    async def client(self) -> httpx.AsyncClient:
        """The HTTP client for the service, which is started if it is not running. Raises SandboxUnavailable."""
        async with self._lock:
            if self._refusal is not None:
                raise SandboxUnavailable(self._refusal)
            if self._client is None or not self._runs:
                await self._end()
                self._client = await (self._start() if self._shared is None else self._join_or_start(self._shared))
            return self._client

    async def aclose(self) -> None:
        """Stop the child process and remove its socket."""
        async with self._lock:
            await self._end()

    @property
    def _runs(self) -> bool:
        if self._process is not None:
            return not _has_ended(self._process)
        return self._shared is not None and self._shared.is_held and self._shared.address == self._joined

    async def _join_or_start(self, shared: SharedDirectory) -> httpx.AsyncClient:
        """Use the service of another worker, or start one for all workers."""
        for _ in range(int(_START_SECONDS / _LOOK_SECONDS)):
            held = shared.claim()
            if held is not None:
                try:
                    return await self._start(shared, held)
                finally:
                    os.close(held)
            self._joined = shared.address
            if self._joined is not None:
                return _client(self._joined.token, _ANY_URL, socket=self._joined.socket)
            await asyncio.sleep(_LOOK_SECONDS)
        raise SandboxUnavailable("The sandbox service does not start.")

    async def _start(self, shared: SharedDirectory | None = None, *held: int) -> httpx.AsyncClient:
        """Start the child, which keeps the file descriptors `held`, and publish its address for other workers."""
        self._directory = Path(tempfile.mkdtemp(prefix="gateway-sandbox-"))
        path, token = self._directory / "socket", secrets.token_urlsafe(32)
        limits = Limits(memory_bytes=_MEMORY_BYTES, seconds=self._seconds, cpu_seconds=int(self._seconds) + 1)
        config = Config(token=token, listen=f"unix:{path}", backend=self._backend, limits=limits)
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "sandbox",
            "--child",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment | {"PYTHONPATH": str(Path(protocol.__file__).parents[1])},
            pass_fds=held,
            start_new_session=True,  # a Ctrl-C is for the gateway, which then shuts it down
        )
        report = await self._greet(process, config)
        if report.backend is None:
            _log.error("the sandbox service does not start: %s", report.refused or "no message")
            # it will refuse again; anything else is worth another attempt
            self._refusal = _NOTHING_HOLDS if report.refused else None
            raise SandboxUnavailable(self._refusal or "The sandbox service does not start.")
        if shared is not None:
            shared.announce(Address(str(path), token))
        return _client(token, _ANY_URL, socket=str(path))

    async def _greet(self, process: asyncio.subprocess.Process, config: Config) -> StartReport:
        """Its startup report.

        It gets the token on its standard input, which stays open: when that closes, the service ends.
        """
        stdin, stdout = process.stdin, process.stdout
        if stdin is None or stdout is None:
            raise TypeError("a process with pipes has them")
        try:
            async with asyncio.timeout(_START_SECONDS):
                stdin.write(msgspec.json.encode(config) + b"\n")
                await stdin.drain()
                return msgspec.json.decode(await stdout.readline(), type=StartReport)
        except (TimeoutError, OSError, msgspec.MsgspecError):
            return StartReport()

    async def _end(self) -> None:
        process, client, directory = self._process, self._client, self._directory
        self._process = self._client = self._directory = None
        if client is not None:
            await client.aclose()
        if process is not None and process.returncode is None:
            if process.stdin is not None:
                process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), _STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)


def _has_ended(process: asyncio.subprocess.Process) -> bool:
    """Also if the event loop has not been notified yet."""
    if process.returncode is not None:
        return True
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # it has already been reaped
        return True


def _client(token: str, url: str, socket: str | None = None) -> httpx.AsyncClient:
    import httpx  # noqa: PLC0415 - as in `_sandbox.py`

    no_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reading the system's certificates takes 20 ms
    transport = (
        httpx.AsyncHTTPTransport(uds=socket, verify=no_tls) if socket is not None else httpx.AsyncHTTPTransport()
    )
    return httpx.AsyncClient(
        base_url=url.rstrip("/"), headers={"authorization": f"Bearer {token}"}, transport=transport, trust_env=False
    )
