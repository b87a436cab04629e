"""Containers: sandbox service sessions as objects of the API, with uploaded files copied in."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, AsyncIterable, Generator, Sequence
from contextlib import aclosing, contextmanager
from typing import Final

from app.protocol.wire.errors import InvalidRequest, NotFound, PayloadTooLarge, RateLimited, Unavailable
from app.tools.ports.containers import Container, ContainerEntry, NewContainer
from app.tools.ports.files import FileContent, Files
from app.tools.sandbox.client import NotThere, Sandbox, SandboxBusy, SandboxRefused, SandboxUnavailable
from sandbox.protocol import FileInfo, NewSession, SessionInfo

MEMORY_LIMITS: Final = {"1g": 1024**3, "4g": 4 * 1024**3}
IDLE_MINUTES: Final = 20
_NAME_BYTES = 255
_RETRY_SECONDS = 5.0


def new_container_id() -> str:
    """Ids cannot be guessed, so a container can be announced before it is created."""
    return f"cntr_{secrets.token_hex(24)}"


class SandboxContainers:
    """Implements `Containers`."""

    def __init__(self, sandbox: Sandbox, files: Files | None, file_bytes: int) -> None:
        self._sandbox = sandbox
        self._files = files
        self._file_bytes = file_bytes

    async def create(self, project_id: str, wanted: NewContainer) -> Container:
        """Start a container with the requested uploaded files."""
        return await self.open(project_id, new_container_id(), wanted, "")

    async def open(self, project_id: str, container_id: str, wanted: NewContainer, place: str) -> Container:
        """The container with this id, created if there is none.

        `place` is where the request describes it, with a trailing dot.
        """
        new = NewSession(
            name=wanted.name[:_NAME_BYTES],
            memory_bytes=_memory(wanted.memory_limit, f"{place}memory_limit"),
            idle_seconds=_idle(wanted.idle_minutes, f"{place}expires_after.minutes") * 60,
        )
        with _told(param=f"{place}memory_limit"):
            session = await self._sandbox.open(project_id, container_id, new)
        there = {entry.path for entry in await self.files(project_id, container_id)} if wanted.file_ids else set[str]()
        for number, file_id in enumerate(wanted.file_ids):
            param = f"{place}file_ids[{number}]"
            file = await self._read(project_id, file_id, param)
            if f"/mnt/data/{file.filename}" not in there:
                await self._put(project_id, container_id, file, param)
        return _shown(session)

    async def list(self, project_id: str) -> Sequence[Container]:
        """The project's containers, newest first."""
        with _told():
            return [_shown(session) for session in await self._sandbox.sessions(project_id)]

    async def get(self, project_id: str, container_id: str) -> Container:
        """One container. Raises NotFound."""
        with _told(container_id):
            return _shown(await self._sandbox.session(project_id, container_id))

    async def delete(self, project_id: str, container_id: str) -> None:
        """End the container and remove its files. Raises NotFound."""
        with _told(container_id):
            await self._sandbox.close(project_id, container_id)

    async def add(
        self, project_id: str, container_id: str, filename: str, content: AsyncIterable[bytes]
    ) -> ContainerEntry:
        """Write a file into the container. Raises NotFound, InvalidRequest for an invalid name, PayloadTooLarge."""
        with _told(container_id, param="file"):
            return _entry(
                await self._sandbox.put(project_id, container_id, filename, _limited(content, self._file_bytes))
            )

    async def add_uploaded(self, project_id: str, container_id: str, file_id: str) -> ContainerEntry:
        """Copy an uploaded file into the container.

        Raises NotFound, PayloadTooLarge, InvalidRequest if there is no such file.
        """
        await self.get(project_id, container_id)
        return await self._put(project_id, container_id, await self._read(project_id, file_id, "file_id"), "file_id")

    async def files(self, project_id: str, container_id: str) -> Sequence[ContainerEntry]:
        """The container's files, newest first. Raises NotFound."""
        with _told(container_id):
            return [_entry(info) for info in await self._sandbox.files(project_id, container_id)]

    async def file(self, project_id: str, container_id: str, file_id: str) -> ContainerEntry:
        """One file's record. Raises NotFound."""
        with _told(container_id, file_id):
            return _entry(await self._sandbox.file(project_id, container_id, file_id))

    async def content(self, project_id: str, container_id: str, file_id: str) -> AsyncGenerator[bytes]:
        """The file's bytes as they arrive; close the iterator. The first read raises NotFound."""
        with _told(container_id, file_id):
            async with aclosing(self._sandbox.content(project_id, container_id, file_id)) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def delete_file(self, project_id: str, container_id: str, file_id: str) -> None:
        """Remove a file from the container. Raises NotFound."""
        with _told(container_id, file_id):
            await self._sandbox.remove(project_id, container_id, file_id)

    async def _read(self, project_id: str, file_id: str, param: str) -> FileContent:
        if self._files is None:
            raise InvalidRequest(
                "Files are disabled on this gateway; set GATEWAY_FILES_DIR to enable them.", param=param
            )
        try:
            file = await self._files.read(project_id, file_id)
        except NotFound as error:
            raise InvalidRequest(f"No such file: '{file_id[:64]}'.", code="invalid_value", param=param) from error
        except InvalidRequest as error:  # it is too large
            raise InvalidRequest(error.message, code=error.code, param=param) from error
        if len(file.content) > self._file_bytes:
            raise InvalidRequest(
                f"The file is larger than {self._file_bytes} bytes.", code="invalid_value", param=param
            )
        return file

    async def _put(self, project_id: str, container_id: str, file: FileContent, param: str) -> ContainerEntry:
        with _told(container_id, param=param):
            return _entry(await self._sandbox.put(project_id, container_id, file.filename, file.content))


async def _limited(content: AsyncIterable[bytes], limit: int) -> AsyncGenerator[bytes]:
    size = 0
    async for chunk in content:
        size += len(chunk)
        if size > limit:
            raise PayloadTooLarge(f"The file is larger than {limit} bytes.", code="file_too_large", param="file")
        yield chunk


@contextmanager
def _told(container_id: str = "", file_id: str = "", *, param: str | None = None) -> Generator[None]:
    """Convert the service's errors to the API's."""
    try:
        yield
    except NotThere as error:
        if error.file:
            raise NotFound(f"File with id '{file_id[:80]}' not found in container.", param="file_id") from error
        raise NotFound(f"Container with id '{container_id[:80]}' not found.", param="container_id") from error
    except SandboxRefused as error:
        raise InvalidRequest(
            f"The request failed in the container: {error}.", code="invalid_value", param=param
        ) from error
    except SandboxBusy as error:
        raise RateLimited(str(error), code="sandboxes_busy", retry_after=_RETRY_SECONDS) from error
    except SandboxUnavailable as error:
        raise Unavailable(str(error), code="sandbox_unavailable") from error


def _memory(limit: str | None, param: str) -> int:
    if limit is not None and limit not in MEMORY_LIMITS:
        allowed = " and ".join(f"'{name}'" for name in MEMORY_LIMITS)
        raise InvalidRequest(f"Invalid '{param}': containers here have {allowed}.", code="invalid_value", param=param)
    return MEMORY_LIMITS[limit or "1g"]


def _idle(minutes: int | None, param: str) -> int:
    if minutes is not None and not 1 <= minutes <= IDLE_MINUTES:
        raise InvalidRequest(f"Invalid '{param}': expected 1 to {IDLE_MINUTES}.", code="invalid_value", param=param)
    return minutes or IDLE_MINUTES


def _shown(session: SessionInfo) -> Container:
    return Container(
        id=session.id,
        name=session.name,
        created_at=session.created_at,
        last_active_at=session.last_active_at,
        idle_minutes=max(1, int(session.idle_seconds // 60)),
        memory_limit=next((name for name, size in MEMORY_LIMITS.items() if size >= session.memory_bytes), "4g"),
    )


def _entry(info: FileInfo) -> ContainerEntry:
    return ContainerEntry(id=info.id, path=info.path, bytes=info.bytes, created_at=info.created_at, source=info.source)
