"""Containers, the sandboxes of `code_interpreter`, and their files."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse

from app.api.bodies import CheckedRoute, cut_off
from app.api.dependencies import ID, Principal, ServicesDep
from app.api.openapi import content, failures
from app.api.paging import ObjectList, PageQuery, listed
from app.api.uploads import UploadForm, attachment
from app.protocol.wire.errors import InvalidRequest, NotFound, PayloadTooLarge
from app.protocol.wire.paging import Page, UnknownCursor, window
from app.tools.ports.containers import Container, ContainerEntry, Containers, NewContainer

router = APIRouter(tags=["Containers"], responses=failures(404, 409, 413, 415, 502, 504), route_class=CheckedRoute)

ContainerId = Annotated[str, Path(pattern=ID, description="The container's id.")]
FileId = Annotated[str, Path(pattern=ID, description="The file's id.")]

_JSON_BYTES = 64 * 1024
_SHOWN_INLINE = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
}
"""What a browser may display: images, which run no code. Everything else is downloaded."""
_TYPES = {
    **_SHOWN_INLINE,
    ".csv": "text/csv; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".pdf": "application/pdf",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".zip": "application/zip",
}
_UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["file_id"],
                    "properties": {"file_id": {"type": "string", "maxLength": 128}},
                }
            },
        },
    }
}


class ContainerExpiry(BaseModel):
    """When an unused container expires."""

    model_config = ConfigDict(extra="forbid")

    anchor: Literal["last_active_at"] = "last_active_at"
    minutes: int = Field(ge=1, le=20)


class NetworkPolicy(BaseModel):
    """Containers have no network."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["disabled"] = "disabled"


class ContainerCreate(BaseModel):
    """A container to create."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=255)
    expires_after: ContainerExpiry | None = None
    file_ids: list[Annotated[str, Field(pattern=ID)]] = Field(
        default=[], max_length=100, description="Uploaded files to copy into it."
    )
    memory_limit: Literal["1g", "4g"] | None = None
    network_policy: NetworkPolicy | None = None


class ContainerObject(BaseModel):
    """A container."""

    id: str
    object: Literal["container"] = "container"
    created_at: int
    status: Literal["running"] = "running"
    name: str
    last_active_at: int
    expires_after: ContainerExpiry
    memory_limit: str
    network_policy: NetworkPolicy = NetworkPolicy()


class ContainerList(ObjectList):
    """A page of containers."""

    data: Sequence[ContainerObject]


class ContainerFileObject(BaseModel):
    """A file in a container."""

    id: str
    object: Literal["container.file"] = "container.file"
    container_id: str
    created_at: int
    bytes: int
    path: str
    source: Literal["user", "assistant"]


class ContainerFileList(ObjectList):
    """A page of files."""

    data: Sequence[ContainerFileObject]


class ContainerDeleted(BaseModel):
    """Confirms that the container was deleted."""

    id: str
    object: Literal["container.deleted"] = "container.deleted"
    deleted: Literal[True] = True


class ContainerFileDeleted(BaseModel):
    """Confirms that the file was deleted."""

    id: str
    object: Literal["container.file.deleted"] = "container.file.deleted"
    deleted: Literal[True] = True


Entry = TypeVar("Entry", ContainerObject, ContainerFileObject)


class ListQuery(PageQuery):
    """Which page."""

    name: str | None = Field(default=None, max_length=255, description="Only containers with this name.")


class _FromUploaded(BaseModel):
    model_config = ConfigDict(extra="forbid")

    file_id: str = Field(pattern=ID)


async def _containers(services: ServicesDep) -> Containers:
    if services.containers is None:
        raise InvalidRequest(
            "Code execution is disabled on this gateway; set GATEWAY_SANDBOX to enable it.", code="containers_off"
        )
    return services.containers


Wanted = Annotated[Containers, Depends(_containers)]


@router.post("/v1/containers", summary="Create a container")
async def create_container(body: ContainerCreate, principal: Principal, containers: Wanted) -> ContainerObject:
    """Its id can be used in `tools[].container`."""
    wanted = NewContainer(
        name=body.name,
        file_ids=tuple(body.file_ids),
        memory_limit=body.memory_limit,
        idle_minutes=body.expires_after.minutes if body.expires_after is not None else None,
    )
    return _shown(await containers.create(principal.project_id, wanted))


@router.get("/v1/containers", summary="List the containers")
async def list_containers(
    query: Annotated[ListQuery, Query()], principal: Principal, containers: Wanted
) -> ContainerList:
    """The project's containers that have not expired, newest first."""
    found = [_shown(each) for each in await containers.list(principal.project_id) if query.name in (None, each.name)]
    return ContainerList(**_page(found, query.page))


@router.get("/v1/containers/{container_id}", summary="Get a container")
async def get_container(container_id: ContainerId, principal: Principal, containers: Wanted) -> ContainerObject:
    """404 once it has expired."""
    return _shown(await containers.get(principal.project_id, container_id))


@router.delete("/v1/containers/{container_id}", summary="Delete a container")
async def delete_container(container_id: ContainerId, principal: Principal, containers: Wanted) -> ContainerDeleted:
    """Its variables and files are deleted immediately."""
    await containers.delete(principal.project_id, container_id)
    return ContainerDeleted(id=container_id)


@router.post("/v1/containers/{container_id}/files", summary="Add a file to a container", openapi_extra=_UPLOAD)
async def add_container_file(
    container_id: ContainerId, request: Request, principal: Principal, containers: Wanted
) -> ContainerFileObject:
    """Send the file as `multipart/form-data`, or JSON with the `file_id` of an uploaded file.

    Uploads are streamed to the sandbox.
    """
    try:
        async with aclosing(request.stream()) as body:
            if (request.headers.get("content-type") or "").startswith("application/json"):
                file_id = await _file_id(body)
                return _file(container_id, await containers.add_uploaded(principal.project_id, container_id, file_id))
            return await _receive(
                UploadForm(request.headers.get("content-type"), body), container_id, principal.project_id, containers
            )
    except ClientDisconnect:
        raise cut_off(request.scope) from None


@router.get("/v1/containers/{container_id}/files", summary="List the files of a container")
async def list_container_files(
    container_id: ContainerId, query: Annotated[ListQuery, Query()], principal: Principal, containers: Wanted
) -> ContainerFileList:
    """All files below `/mnt/data` except hidden ones."""
    found = [_file(container_id, entry) for entry in await containers.files(principal.project_id, container_id)]
    return ContainerFileList(**_page(found, query.page))


@router.get("/v1/containers/{container_id}/files/{file_id}", summary="Get a container file's description")
async def get_container_file(
    container_id: ContainerId, file_id: FileId, principal: Principal, containers: Wanted
) -> ContainerFileObject:
    """The file's path, size and source."""
    return _file(container_id, await containers.file(principal.project_id, container_id, file_id))


@router.get(
    "/v1/containers/{container_id}/files/{file_id}/content",
    responses=content("application/octet-stream", *sorted({kind.partition(";")[0] for kind in _TYPES.values()})),
    summary="Get a container file's content",
    response_class=StreamingResponse,
)
async def get_container_file_content(
    container_id: ContainerId, file_id: FileId, principal: Principal, containers: Wanted
) -> StreamingResponse:
    """The file's bytes.

    Browsers display images and download everything else, because the file's content is untrusted.
    """
    entry = await containers.file(principal.project_id, container_id, file_id)
    path = PurePosixPath(entry.path)
    disposition = "inline" if path.suffix.lower() in _SHOWN_INLINE else attachment(path.name)
    headers = {
        "content-disposition": disposition,
        "content-length": str(entry.bytes),
        "content-security-policy": "sandbox",
        "x-content-type-options": "nosniff",
    }
    kind = _TYPES.get(path.suffix.lower(), "application/octet-stream")
    return StreamingResponse(
        _closing(containers.content(principal.project_id, container_id, file_id), entry.bytes),
        media_type=kind,
        headers=headers,
    )


@router.delete("/v1/containers/{container_id}/files/{file_id}", summary="Delete a file of a container")
async def delete_container_file(
    container_id: ContainerId, file_id: FileId, principal: Principal, containers: Wanted
) -> ContainerFileDeleted:
    """It is deleted immediately."""
    await containers.delete_file(principal.project_id, container_id, file_id)
    return ContainerFileDeleted(id=file_id)


async def _closing(chunks: AsyncGenerator[bytes], size: int) -> AsyncGenerator[bytes]:
    """The content up to the announced length, in case the file has grown in the meantime."""
    async with aclosing(chunks):
        async for chunk in chunks:
            yield chunk[:size]
            size -= len(chunk)
            if size <= 0:
                return


async def _receive(form: UploadForm, container_id: str, project_id: str, containers: Containers) -> ContainerFileObject:
    """The name precedes the content in the form, so the first piece is read before anything is written."""
    async with aclosing(form.file()) as pieces:
        first = await anext(pieces, b"")
        name = PurePosixPath((form.filename or "").replace("\\", "/")).name
        entry = await containers.add(project_id, container_id, name, _joined(first, pieces))
    await form.finish()
    return _file(container_id, entry)


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    yield first
    async for piece in rest:
        yield piece


async def _file_id(body: AsyncIterator[bytes]) -> str:
    content = bytearray()
    async for chunk in body:
        content += chunk
        if len(content) > _JSON_BYTES:
            raise PayloadTooLarge(f"The body is larger than {_JSON_BYTES} bytes.", code="request_too_large")
    try:
        return _FromUploaded.model_validate_json(bytes(content)).file_id
    except ValidationError as error:
        raise InvalidRequest(
            "Expected a form with 'file', or JSON with 'file_id'.", code="invalid_value", param="file_id"
        ) from error


def _page(newest_first: Sequence[Entry], page: Page) -> dict[str, Any]:
    entries = newest_first if page.order == "desc" else newest_first[::-1]
    try:
        part, more = window([entry.id for entry in entries], page)
    except UnknownCursor as error:
        raise NotFound(f"No entry with id '{error.cursor}' found.", param=error.param) from error
    return listed(entries[part], more=more)


def _shown(container: Container) -> ContainerObject:
    return ContainerObject(
        id=container.id,
        created_at=container.created_at,
        name=container.name,
        last_active_at=container.last_active_at,
        expires_after=ContainerExpiry(minutes=container.idle_minutes),
        memory_limit=container.memory_limit,
    )


def _file(container_id: str, entry: ContainerEntry) -> ContainerFileObject:
    return ContainerFileObject(
        id=entry.id,
        container_id=container_id,
        created_at=entry.created_at,
        bytes=entry.bytes,
        path=entry.path,
        source=entry.source,
    )
