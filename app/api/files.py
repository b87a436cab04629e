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
from app.api.dependencies import ID, Known, Principal
from app.api.openapi import content, failures
from app.api.uploads import UploadForm, attachment
from app.engine.files import NewFile
from app.knowledge.base import FileRecord, Staged
from app.protocol.errors import InvalidRequest, PayloadTooLarge
from app.protocol.paging import Page

router = APIRouter(tags=["Files"], responses=failures(404, 413, 415), route_class=CheckedRoute)

FileId = Annotated[str, Path(pattern=ID, description="The file's id.")]

_FORM_BYTES = 64 * 1024
"""What a form may have beside the file."""
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
                        "purpose": {"type": "string", "enum": ["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {"type": "integer", "minimum": _LEAST_SECONDS, "maximum": _MOST_SECONDS},
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


class FileList(BaseModel):
    """A page of files."""

    object: Literal["list"] = "list"
    data: Sequence[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(BaseModel):
    """The file is gone."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class ListQuery(BaseModel):
    """Which page of the files."""

    limit: int = Field(default=10_000, ge=1, le=10_000, description="Files a page.")
    order: Literal["asc", "desc"] = Field(default="desc", description="Oldest or newest first.")
    after: str | None = Field(default=None, pattern=ID, description="The file after which the page begins.")
    purpose: str | None = Field(default=None, max_length=64, description="Only files with this purpose.")


@router.post("/v1/files", summary="Upload a file", openapi_extra=_FORM)
async def create_file(request: Request, principal: Principal, library: Known) -> FileObject:
    """Send `multipart/form-data`. The upload is streamed to storage; a file above the size limit is refused and nothing of it is kept."""
    files = library.files
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > files.upload_bytes + _FORM_BYTES:
        raise PayloadTooLarge(f"The file is larger than {files.upload_bytes} bytes.", code="file_too_large", param="file")
    async with aclosing(request.stream()) as body:
        form = UploadForm(request.headers.get("content-type"), body)
        try:
            async with aclosing(form.file()) as content:
                staged = await files.take(content)
            new = await _rest(form, staged, library)
        except ClientDisconnect:
            raise cut_off(request.scope) from None
    return _shown(await files.create(principal.project_id, staged, new))


@router.get("/v1/files", summary="List the files")
async def list_files(query: Annotated[ListQuery, Query()], principal: Principal, library: Known) -> FileList:
    """The project's files, paginated."""
    page = Page(query.limit, query.order, query.after)
    found, more = await library.files.list(principal.project_id, query.purpose, page)
    data = [_shown(record) for record in found]
    return FileList(data=data, first_id=data[0].id if data else None, last_id=data[-1].id if data else None, has_more=more)


@router.get("/v1/files/{file_id}", summary="Get a file's description")
async def get_file(file_id: FileId, principal: Principal, library: Known) -> FileObject:
    """The file's name, size, purpose and times."""
    return _shown(await library.files.get(principal.project_id, file_id))


@router.get(
    "/v1/files/{file_id}/content",
    responses=content("application/octet-stream"),
    summary="Get a file's content",
    response_class=StreamingResponse,
)
async def get_file_content(file_id: FileId, principal: Principal, library: Known) -> StreamingResponse:
    """The bytes as they were uploaded. Browsers download them and never display them, because their content is untrusted."""
    record, pieces = await library.files.content(principal.project_id, file_id)
    headers = {
        "content-disposition": attachment(record.filename),
        "content-length": str(record.size),
        "content-security-policy": "sandbox",
        "x-content-type-options": "nosniff",
    }
    return StreamingResponse(_closing(pieces), media_type="application/octet-stream", headers=headers)


@router.delete("/v1/files/{file_id}", summary="Delete a file")
async def delete_file(file_id: FileId, principal: Principal, library: Known) -> FileDeleted:
    """The file is also removed from every vector store."""
    await library.files.delete(principal.project_id, file_id)
    library.store_files.wake()
    return FileDeleted(id=file_id)


async def _rest(form: UploadForm, staged: Staged, library: Known) -> NewFile:
    """The form's other fields. If one is invalid, the upload is discarded."""
    try:
        await form.finish()
        return _new(form)
    except BaseException:
        await library.files.drop(staged)
        raise


def _new(form: UploadForm) -> NewFile:
    fields = dict(form.fields)
    purpose = fields.pop("purpose", None)
    if purpose is None:
        raise InvalidRequest("Missing required parameter: 'purpose'.", code="missing_required_parameter", param="purpose")
    anchor, seconds = fields.pop("expires_after[anchor]", None), fields.pop("expires_after[seconds]", None)
    if fields:
        name = next(iter(fields))[:64]
        raise InvalidRequest(f"Unknown parameter: '{name}'.", code="unknown_parameter", param=name)
    return NewFile(form.filename or "", purpose, _lives(anchor, seconds))


def _lives(anchor: str | None, seconds: str | None) -> int | None:
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise _invalid("expires_after[anchor]", "it has to be 'created_at'")
    number = int(seconds) if seconds and _NUMBER.fullmatch(seconds) else 0
    if not _LEAST_SECONDS <= number <= _MOST_SECONDS:
        raise _invalid("expires_after[seconds]", f"it has to be a number from {_LEAST_SECONDS} to {_MOST_SECONDS}")
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
