"""The client of the sandbox service; the protocol is in `sandbox/protocol.py`."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from contextlib import asynccontextmanager, suppress
from types import NoneType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import quote

import msgspec

from sandbox.protocol import OWNER_HEADER, FileInfo, Health, NewSession, Problem, RunCode, RunResult, SessionInfo

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 30.0
"""In addition to the code's time: starting an interpreter, waiting for a run in progress."""
_AGAIN_SECONDS = 0.1
_HEALTH_SECONDS, _ASK_AGAIN_SECONDS = 1.0, 30.0
_MOST_BYTES = 32 * 1024 * 1024
"""Of a response that is not a file: the output of a run, or the list of all files in a session."""
_ID = re.compile("[A-Za-z0-9_-]{1,128}")
_GONE = ("unknown_session", "unknown_file")
_REFUSED = ("bad_request", "too_large", "no_space")


class SandboxUnavailable(Exception):
    """No code can be run now; the message is a sentence without internals."""


class SandboxBusy(SandboxUnavailable):
    """No slot became free for the code, or there is no room; the message names the limit."""


class SandboxRefused(Exception):
    """The request cannot be fulfilled; the message says why."""


class NotThere(Exception):
    """An unknown session, or an unknown file in it."""

    def __init__(self, *, file: bool) -> None:
        super().__init__()
        self.file = file


class Service(Protocol):
    """The location of the sandbox service."""

    @property
    def begun(self) -> bool:
        """False: it has not been needed yet, so it can have no sessions."""
        ...

    async def client(self) -> httpx.AsyncClient:
        """An authorised client of the running service. Raises SandboxUnavailable."""
        ...

    async def aclose(self) -> None:
        """Release resources."""
        ...


class Sandbox:
    """Sessions by owner. Every method that waits raises SandboxUnavailable, SandboxRefused and NotThere, except
    `packages`.

    `packages`: what code can import, by name; if not given, the service is queried.
    """

    def __init__(self, service: Service, packages: Sequence[str] = ()) -> None:
        self._service = service
        self._packages = packages
        self._ask_again = 0.0

    async def packages(self) -> Sequence[str]:
        """The packages besides the standard library; empty until the service reports them."""
        now = time.monotonic()
        if not self._packages and self._service.begun and now >= self._ask_again:
            self._ask_again = now + _ASK_AGAIN_SECONDS
            with suppress(SandboxUnavailable, SandboxRefused, NotThere):
                self._packages = (await self.health(_HEALTH_SECONDS)).packages
        return self._packages

    async def open(self, owner: str, session_id: str, wanted: NewSession) -> SessionInfo:
        """The session with this id, created if there is none."""
        return await self._ask(owner, "PUT", _session(session_id), SessionInfo, content=msgspec.json.encode(wanted))

    async def health(self, seconds: float = _ANSWER_SECONDS) -> Health:
        """Whether it is running, and how it confines; a service owned by this gateway is started for that.

        `seconds`: for the response.
        """
        import httpx  # noqa: PLC0415 - as below

        client = await self._service.client()
        try:
            response = await client.get("/v1/health", timeout=seconds)
            if response.is_error:
                raise _failure(response.content)
            return msgspec.json.decode(response.content, type=Health)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SandboxUnavailable("The sandbox service does not answer.") from error
        except msgspec.MsgspecError as error:
            raise SandboxUnavailable("The sandbox service uses another version of the protocol.") from error

    async def sessions(self, owner: str) -> list[SessionInfo]:
        """All, newest first."""
        return await self._ask(owner, "GET", "", list[SessionInfo]) if self._service.begun else []

    async def session(self, owner: str, session_id: str) -> SessionInfo:
        """One."""
        return await self._ask(owner, "GET", _session(session_id), SessionInfo)

    async def close(self, owner: str, session_id: str) -> None:
        """End it."""
        await self._ask(owner, "DELETE", _session(session_id), NoneType)

    async def run(self, owner: str, session_id: str, code: str, seconds: float) -> RunResult:
        """Run code; if this is cancelled, so is the run."""
        body = msgspec.json.encode(RunCode(code.encode(errors="replace").decode(), seconds))
        return await self._ask(
            owner, "POST", f"{_session(session_id)}/run", RunResult, content=body, seconds=seconds + _ANSWER_SECONDS
        )

    async def put(self, owner: str, session_id: str, name: str, content: bytes | AsyncIterable[bytes]) -> FileInfo:
        """Write a file."""
        if name in ("", ".", ".."):
            raise SandboxRefused("a file needs a name")
        path = f"{_session(session_id)}/files/{quote(name, safe='')}"
        return await self._ask(owner, "PUT", path, FileInfo, content=content)

    async def files(self, owner: str, session_id: str) -> list[FileInfo]:
        """All, newest first."""
        return await self._ask(owner, "GET", f"{_session(session_id)}/files", list[FileInfo])

    async def file(self, owner: str, session_id: str, file_id: str) -> FileInfo:
        """One."""
        return await self._ask(owner, "GET", _file(session_id, file_id), FileInfo)

    async def remove(self, owner: str, session_id: str, file_id: str) -> None:
        """Remove a file."""
        await self._ask(owner, "DELETE", _file(session_id, file_id), NoneType)

    async def content(self, owner: str, session_id: str, file_id: str) -> AsyncGenerator[bytes]:
        """A file's bytes, as they arrive."""
        path = f"{_file(session_id, file_id)}/content"
        async with self._asked(owner, "GET", path) as response:
            async for chunk in response.aiter_bytes():
                yield chunk

    async def aclose(self) -> None:
        """Release resources; a service started by this gateway is stopped."""
        await self._service.aclose()

    async def _ask(self, owner: str, method: str, path: str, kind: type[T], **options: Any) -> T:
        async with self._asked(owner, method, path, **options) as response:
            body = await _read(response)
        try:
            return msgspec.json.decode(body or b"null", type=kind)
        except msgspec.MsgspecError as error:
            raise SandboxUnavailable("The sandbox service uses another version of the protocol.") from error

    @asynccontextmanager
    async def _asked(
        self,
        owner: str,
        method: str,
        path: str,
        *,
        content: bytes | AsyncIterable[bytes] | None = None,
        seconds: float = _ANSWER_SECONDS,
    ) -> AsyncGenerator[httpx.Response]:
        import httpx  # noqa: PLC0415 - 0.1 s and 8 MiB that a gateway without sandbox need not pay

        # Without sessions there is nothing to ask for: the service need not be started for that.
        if method != "PUT" and not self._service.begun:
            raise NotThere(file=False)
        timeout = httpx.Timeout(seconds, connect=_CONNECT_SECONDS)
        answered = False
        for last in (False, True):
            client = await self._service.client()
            try:
                async with client.stream(
                    method, f"/v1/sessions{path}", content=content, headers={OWNER_HEADER: owner}, timeout=timeout
                ) as response:
                    if response.is_error:
                        raise _failure(await _read(response))
                    answered = True
                    yield response
            except httpx.HTTPError as error:
                # A service that died is noticed by the next request; only what cannot have run is retried.
                harmless = isinstance(error, httpx.ConnectError) or (
                    method == "GET" and isinstance(error, httpx.NetworkError | httpx.ProtocolError)
                )
                if answered or last or not harmless:
                    raise SandboxUnavailable("The sandbox service does not answer.") from error
                await asyncio.sleep(_AGAIN_SECONDS)  # one that is being killed is gone then
            else:
                return


def _session(session_id: str) -> str:
    """The path of a session. Raises NotThere for an invalid id: `..` would lead elsewhere."""
    if not _ID.fullmatch(session_id):
        raise NotThere(file=False)
    return f"/{session_id}"


def _file(session_id: str, file_id: str) -> str:
    """The path of a file in it. Raises NotThere."""
    path = _session(session_id)
    if not _ID.fullmatch(file_id):
        raise NotThere(file=True)
    return f"{path}/files/{file_id}"


async def _read(response: httpx.Response) -> bytes:
    """The whole response. Raises SandboxUnavailable if it is larger than our own service would send."""
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise SandboxUnavailable("The sandbox service's response is too large.")
    return bytes(body)


def _failure(body: bytes) -> Exception:
    try:
        problem = msgspec.json.decode(body, type=Problem)
    except msgspec.MsgspecError:
        return SandboxUnavailable("The sandbox service failed.")
    if problem.code in _GONE:
        return NotThere(file=problem.code == "unknown_file")
    if problem.code in _REFUSED:
        return SandboxRefused(problem.message)
    if problem.code == "busy":
        return SandboxBusy(f"Sandboxes are busy: {problem.message}.")
    return SandboxUnavailable(
        "The sandbox service does not accept the gateway's token." if problem.code == "unauthorized" else "It fails."
    )
