"""Dependencies of the routes: the services and the caller."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from app.engine.accounts.access import Access
from app.engine.accounts.access import Principal as Caller
from app.engine.conversations import Conversations
from app.engine.counting import Counting
from app.engine.files.store_files import StoreFiles
from app.engine.files.uploads import UploadedFiles
from app.engine.files.vector_stores import VectorStores
from app.engine.hosted.catalog import Catalog
from app.engine.metrics import Metrics
from app.engine.responses import Responses
from app.engine.upstreams.routing import Router
from app.protocol.wire.errors import InvalidRequest
from app.stores.ports.responses import ResponseStore
from app.telemetry.request import current
from app.tools.ports.containers import Containers

ID = r"^[A-Za-z0-9_-]{1,128}$"
"""The form of every id, whoever made it; nothing else becomes part of a path, a query or a URL."""

_scheme = HTTPBearer(auto_error=False, description="An API key: `Authorization: Bearer sk-…`.")


class FileServices(msgspec.Struct, frozen=True):
    """Files and vector stores."""

    files: UploadedFiles
    store_files: StoreFiles
    vector_stores: VectorStores


class Services(msgspec.Struct, frozen=True):
    """The services of the routes; the composition root stores them in `app.state.services`."""

    responses: Responses
    counting: Counting
    conversations: Conversations
    access: Access
    router: Router
    metrics: Metrics
    catalog: Catalog
    store: ResponseStore
    heartbeat_seconds: float
    done_marker: bool
    body_bytes: int
    """Maximum size of a request body; uploads have their own limit."""
    lenient_user_agents: tuple[str, ...]
    files: FileServices | None = None
    """None: files are disabled."""
    containers: Containers | None = None
    """None: code execution is disabled."""


# The routes' dependencies are coroutines, also where nothing is awaited: others would be called in a thread.


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def _files(request: Request) -> FileServices:
    files = (await _services(request)).files
    if files is None:
        raise InvalidRequest(
            "Files are disabled on this gateway; set GATEWAY_FILES_DIR to enable them.", code="files_off"
        )
    return files


async def principal_of(request: Request) -> Caller:
    """The caller, checked before the body is read. Raises Unauthorized."""
    state = request.scope.setdefault("state", {})
    known: Caller | None = state.get("principal")
    if known is None:
        value = request.headers.get("authorization")
        services = await _services(request)
        known = await services.access.principal(value.encode("latin-1") if value is not None else None)
        state["principal"] = known
        summary = current.get()
        summary.project, summary.key = known.project_id, known.key_id
    return known


async def _principal(request: Request, _documented: Annotated[object, Depends(_scheme)]) -> Caller:
    return await principal_of(request)


ServicesDep = Annotated[Services, Depends(_services)]
FilesDep = Annotated[FileServices, Depends(_files)]
Principal = Annotated[Caller, Depends(_principal)]
