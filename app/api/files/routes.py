"""Uploaded files."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse

from app.api.bodies import CheckedRoute, cut_off
from app.api.dependencies import ID, FilesDep, Principal
from app.api.openapi import content, failures
from app.api.paging import ObjectList, PageQuery, listed
from app.api.uploads import UploadForm, attachment
from app.engine.files.uploads import NewFile
from app.knowledge.ports.blobs import Staged
from app.knowledge.ports.files import FileRecord
from app.protocol.wire.errors import InvalidRequest, PayloadTooLarge

router = APIRouter(tags=["Files"], responses=failures(404, 413, 415), route_class=CheckedRoute)

FileId = Annotated[str, Path(pattern=ID, description="The file's id.")]

_FORM_BYTES = 64 * 1024
"""Allowance for the parts of a form other than the file."""
_LEAST_SECONDS = 3600
_MOST_SECONDS = 30 * 86_400
_NUMBER = re.compile("[0-9]{1,9}")
_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {
                            "type": "string",
                            "enum": ["assistants", "batch", "fine-tune", "vision", "user_data", "evals"],
                        },
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {
                            "type": "integer",
                            "minimum": _LEAST_SECONDS,
                            "maximum": _MOST_SECONDS,
                        },
                    },
                }
            }
        },
    }
}


class FileObject(BaseModel):
    """An uploaded file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    status_details: None = None


class FileList(ObjectList):
    """A page of files."""

    data: Sequence[FileObject]


class FileDeleted(BaseModel):
    """Confirms that the file was deleted."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class ListQuery(PageQuery):
    """Which page of the files."""

    limit: int = Field(default=10_000, ge=1, le=10_000, description="Files per page.")
    purpose: str | None = Field(default=None, max_length=64, description="Only files with this purpose.")


@router.post("/v1/files", summary="Upload a file", openapi_extra=_FORM)
async def create_file(request: Request, principal: Principal, services: FilesDep) -> FileObject:
    """Send `multipart/form-data`.

    The upload is streamed to storage; a file above the size limit is refused and discarded.
    """
    files = services.files
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > files.upload_bytes + _FORM_BYTES:
        raise PayloadTooLarge(
            f"The file is larger than {files.upload_bytes} bytes.", code="file_too_large", param="file"
        )
    async with aclosing(request.stream()) as body:
        form = UploadForm(request.headers.get("content-type"), body)
        try:
            async with aclosing(form.file()) as content:
                staged = await files.take(content)
            new = await _rest(form, staged, services)
        except ClientDisconnect:
            raise cut_off(request.scope) from None
    return _shown(await files.create(principal.project_id, staged, new))


@router.get("/v1/files", summary="List the files")
async def list_files(query: Annotated[ListQuery, Query()], principal: Principal, services: FilesDep) -> FileList:
    """The project's files, paginated."""
    found, more = await services.files.list(principal.project_id, query.purpose, query.page)
    return FileList(**listed([_shown(record) for record in found], more=more))


@router.get("/v1/files/{file_id}", summary="Get a file's description")
async def get_file(file_id: FileId, principal: Principal, services: FilesDep) -> FileObject:
    """The file's name, size, purpose and times."""
    return _shown(await services.files.get(principal.project_id, file_id))


@router.get(
    "/v1/files/{file_id}/content",
    responses=content("application/octet-stream"),
    summary="Get a file's content",
    response_class=StreamingResponse,
)
async def get_file_content(file_id: FileId, principal: Principal, services: FilesDep) -> StreamingResponse:
    """The bytes as they were uploaded.

    Browsers download them and never display them, because their content is untrusted.
    """
    record, pieces = await services.files.content(principal.project_id, file_id)
    headers = {
        "content-disposition": attachment(record.filename),
        "content-length": str(record.size),
        "content-security-policy": "sandbox",
        "x-content-type-options": "nosniff",
    }
    return StreamingResponse(_closing(pieces), media_type="application/octet-stream", headers=headers)


@router.delete("/v1/files/{file_id}", summary="Delete a file")
async def delete_file(file_id: FileId, principal: Principal, services: FilesDep) -> FileDeleted:
    """The file is also removed from every vector store."""
    await services.files.delete(principal.project_id, file_id)
    services.store_files.wake()
    return FileDeleted(id=file_id)


async def _rest(form: UploadForm, staged: Staged, services: FilesDep) -> NewFile:
    """The form's other fields. If one is invalid, the upload is discarded."""
    try:
        await form.finish()
        return _new(form)
    except BaseException:
        await services.files.drop(staged)
        raise


def _new(form: UploadForm) -> NewFile:
    fields = dict(form.fields)
    purpose = fields.pop("purpose", None)
    if purpose is None:
        raise InvalidRequest(
            "Missing required parameter: 'purpose'.", code="missing_required_parameter", param="purpose"
        )
    anchor, seconds = fields.pop("expires_after[anchor]", None), fields.pop("expires_after[seconds]", None)
    if fields:
        name = next(iter(fields))[:64]
        raise InvalidRequest(f"Unknown parameter: '{name}'.", code="unknown_parameter", param=name)
    return NewFile(form.filename or "", purpose, _lives(anchor, seconds))


def _lives(anchor: str | None, seconds: str | None) -> int | None:
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise _invalid("expires_after[anchor]", "it must be 'created_at'")
    number = int(seconds) if seconds and _NUMBER.fullmatch(seconds) else 0
    if not _LEAST_SECONDS <= number <= _MOST_SECONDS:
        raise _invalid("expires_after[seconds]", f"it must be a number from {_LEAST_SECONDS} to {_MOST_SECONDS}")
    return number


def _invalid(name: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid '{name}': {reason}.", code="invalid_value", param=name)


def _shown(record: FileRecord) -> FileObject:
    return FileObject(
        id=record.id,
        bytes=record.size,
        created_at=record.created_at,
        expires_at=record.expires_at,
        filename=record.filename,
        purpose=record.purpose,
    )


async def _closing(pieces: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    async with aclosing(pieces):
        async for piece in pieces:
            yield piece
