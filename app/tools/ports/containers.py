"""The port to the containers of `code_interpreter`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from typing import Literal, Protocol

import msgspec


class NewContainer(msgspec.Struct, frozen=True, kw_only=True):
    """A container as a request describes it."""

    name: str
    file_ids: tuple[str, ...] = ()
    """Uploaded files to copy into it."""
    memory_limit: str | None = None
    idle_minutes: int | None = None
    """It expires if unused for this long."""


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """A sandbox that keeps variables and files for a while; times are Unix seconds."""

    id: str
    name: str
    created_at: int
    last_active_at: int
    idle_minutes: int
    memory_limit: str


class ContainerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A file in a container."""

    id: str
    path: str
    """Absolute, inside the container."""
    bytes: int
    created_at: int
    source: Literal["user", "assistant"]
    """Whether it was uploaded or created by code."""


class Containers(Protocol):
    """The containers of `code_interpreter`.

    Another project's id counts as unknown. All raise Unavailable if no sandbox can be reached.
    """

    async def create(self, project_id: str, wanted: NewContainer) -> Container:
        """Raises InvalidRequest for invalid options, and for a file that does not exist."""
        ...

    async def list(self, project_id: str) -> Sequence[Container]:
        """Newest first."""
        ...

    async def get(self, project_id: str, container_id: str) -> Container:
        """Raises NotFound."""
        ...

    async def delete(self, project_id: str, container_id: str) -> None:
        """Raises NotFound."""
        ...

    async def add(
        self, project_id: str, container_id: str, filename: str, content: AsyncIterable[bytes]
    ) -> ContainerEntry:
        """Write a file. Raises NotFound, InvalidRequest for an invalid name, PayloadTooLarge."""
        ...

    async def add_uploaded(self, project_id: str, container_id: str, file_id: str) -> ContainerEntry:
        """Copy an uploaded file. Raises NotFound, PayloadTooLarge, InvalidRequest if the file does not exist."""
        ...

    async def files(self, project_id: str, container_id: str) -> Sequence[ContainerEntry]:
        """Newest first. Raises NotFound."""
        ...

    async def file(self, project_id: str, container_id: str, file_id: str) -> ContainerEntry:
        """Raises NotFound."""
        ...

    def content(self, project_id: str, container_id: str, file_id: str) -> AsyncGenerator[bytes]:
        """The file's bytes as they arrive, for the caller to close. The first one raises NotFound."""
        ...

    async def delete_file(self, project_id: str, container_id: str, file_id: str) -> None:
        """Raises NotFound."""
        ...
