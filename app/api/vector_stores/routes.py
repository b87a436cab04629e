"""Vector stores, the files in them, and batches of files."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Path, Query, Response

from app.api.bodies import CheckedRoute
from app.api.dependencies import ID, FilesDep, Principal
from app.api.openapi import failures
from app.api.paging import TwoWayPageQuery, listed
from app.api.vector_stores import shapes
from app.api.vector_stores.shapes import chunking, shown_batch, shown_file, shown_hit, shown_store
from app.engine.files.vector_stores import NewStore, StoreChange
from app.protocol.wire.errors import InvalidRequest
from app.tools.ports.files import FileQuery

_ERRORS = failures(404, 413, 415, 502, 504)
router = APIRouter(prefix="/v1/vector_stores", tags=["Vector stores"], responses=_ERRORS, route_class=CheckedRoute)

StoreId = Annotated[str, Path(pattern=ID, description="The vector store's id.")]
FileId = Annotated[str, Path(pattern=ID, description="The file's id.")]
BatchId = Annotated[str, Path(pattern=ID, description="The batch's id.")]
PageQuery = Annotated[TwoWayPageQuery, Query()]
FilesQuery = Annotated[shapes.FilesQuery, Query()]

_POLL = {"openai-poll-after-ms": "200"}
"""Interval at which the SDK's polling helpers poll."""


@router.post("", summary="Create a vector store")
async def create_vector_store(
    body: shapes.NewStoreBody, principal: Principal, services: FilesDep
) -> shapes.StoreObject:
    """Creates an empty store, or one with files, which are indexed in the background."""
    new = NewStore(
        name=body.name or "",
        description=body.description,
        metadata=body.metadata or {},
        expires_days=shapes.days(body.expires_after),
        file_ids=body.file_ids,
        chunking=chunking(body.chunking_strategy),
    )
    return shown_store(await services.vector_stores.create(principal.project_id, new))


@router.get("", summary="List the vector stores")
async def list_vector_stores(query: PageQuery, principal: Principal, services: FilesDep) -> shapes.StoreList:
    """The project's vector stores, paginated."""
    found, more = await services.vector_stores.list(principal.project_id, query.page)
    return shapes.StoreList(**listed([shown_store(store) for store in found], more=more))


@router.get("/{vector_store_id}", summary="Get a vector store")
async def get_vector_store(vector_store_id: StoreId, principal: Principal, services: FilesDep) -> shapes.StoreObject:
    """The vector store and the status of its files."""
    return shown_store(await services.vector_stores.get(principal.project_id, vector_store_id))


@router.post("/{vector_store_id}", summary="Change a vector store")
async def update_vector_store(
    vector_store_id: StoreId, body: shapes.StoreChangeBody, principal: Principal, services: FilesDep
) -> shapes.StoreObject:
    """Changes name, metadata or expiry. Omitted fields stay unchanged, as does a name that is null."""
    sent = body.model_fields_set
    change = StoreChange(
        name=msgspec.UNSET if body.name is None else body.name,
        metadata=body.metadata or {} if "metadata" in sent else msgspec.UNSET,
        expires_days=shapes.days(body.expires_after) if "expires_after" in sent else msgspec.UNSET,
    )
    return shown_store(await services.vector_stores.update(principal.project_id, vector_store_id, change))


@router.delete("/{vector_store_id}", summary="Delete a vector store")
async def delete_vector_store(
    vector_store_id: StoreId, principal: Principal, services: FilesDep
) -> shapes.StoreDeleted:
    """The files themselves are not deleted."""
    await services.vector_stores.delete(principal.project_id, vector_store_id)
    return shapes.StoreDeleted(id=vector_store_id)


@router.post("/{vector_store_id}/search", summary="Search a vector store")
async def search_vector_store(
    vector_store_id: StoreId, body: shapes.SearchBody, principal: Principal, services: FilesDep
) -> shapes.SearchResults:
    """The best matching passages. `rewrite_query` is refused, because no model takes part in a search."""
    if body.rewrite_query:
        raise InvalidRequest(
            "'rewrite_query' is not served: send the query as it is.",
            code="unsupported_parameter",
            param="rewrite_query",
        )
    query = FileQuery(
        vector_store_ids=(vector_store_id,),
        queries=body.queries,
        limit=body.max_num_results,
        filters=None if body.filters is None else msgspec.Raw(msgspec.json.encode(body.filters)),
        score_threshold=body.ranking_options.score_threshold,
        ranker=body.ranking_options.ranker,
    )
    hits = await services.vector_stores.search(principal.project_id, query)
    return shapes.SearchResults(search_query=list(body.queries), data=[shown_hit(hit) for hit in hits])


@router.post("/{vector_store_id}/files", summary="Add a file to a vector store")
async def add_vector_store_file(
    vector_store_id: StoreId, body: shapes.NewFileBody, principal: Principal, services: FilesDep
) -> shapes.StoreFileObject:
    """The file is indexed in the background; a file that is already in the store is indexed again."""
    return shown_file(await services.store_files.add(principal.project_id, vector_store_id, body.new()))


@router.get("/{vector_store_id}/files", summary="List the files of a vector store")
async def list_vector_store_files(
    vector_store_id: StoreId, query: FilesQuery, principal: Principal, services: FilesDep
) -> shapes.StoreFileList:
    """The files of the vector store, paginated."""
    await services.vector_stores.get(principal.project_id, vector_store_id)
    return await _files(services, principal, vector_store_id, query, None)


@router.get("/{vector_store_id}/files/{file_id}", summary="Get a file of a vector store")
async def get_vector_store_file(
    vector_store_id: StoreId, file_id: FileId, principal: Principal, services: FilesDep, response: Response
) -> shapes.StoreFileObject:
    """The file and its indexing status."""
    response.headers.update(_POLL)
    return shown_file(await services.store_files.get(principal.project_id, vector_store_id, file_id))


@router.post("/{vector_store_id}/files/{file_id}", summary="Change a file's attributes")
async def update_vector_store_file(
    vector_store_id: StoreId, file_id: FileId, body: shapes.FileChangeBody, principal: Principal, services: FilesDep
) -> shapes.StoreFileObject:
    """Changes the file's attributes in this vector store only."""
    attributes = dict(body.attributes or {})
    return shown_file(await services.store_files.describe(principal.project_id, vector_store_id, file_id, attributes))


@router.delete("/{vector_store_id}/files/{file_id}", summary="Remove a file from a vector store")
async def remove_vector_store_file(
    vector_store_id: StoreId, file_id: FileId, principal: Principal, services: FilesDep
) -> shapes.FileRemoved:
    """The file itself is not deleted."""
    await services.store_files.remove(principal.project_id, vector_store_id, file_id)
    return shapes.FileRemoved(id=file_id)


@router.get("/{vector_store_id}/files/{file_id}/content", summary="Get the text of a file of a vector store")
async def get_vector_store_file_content(
    vector_store_id: StoreId, file_id: FileId, principal: Principal, services: FilesDep
) -> shapes.FileTexts:
    """The text that is searched, passage by passage."""
    passages = await services.store_files.passages(principal.project_id, vector_store_id, file_id)
    return shapes.FileTexts(data=[shapes.TextContent(text=passage.text) for passage in passages])


@router.post("/{vector_store_id}/file_batches", summary="Add files to a vector store")
async def create_file_batch(
    vector_store_id: StoreId, body: shapes.NewBatchBody, principal: Principal, services: FilesDep
) -> shapes.BatchObject:
    """The files are indexed in the background. Either all are added or none."""
    return shown_batch(await services.store_files.add_batch(principal.project_id, vector_store_id, body.new()))


@router.get("/{vector_store_id}/file_batches/{batch_id}", summary="Get a batch of files")
async def get_file_batch(
    vector_store_id: StoreId, batch_id: BatchId, principal: Principal, services: FilesDep, response: Response
) -> shapes.BatchObject:
    """The batch and the status of its files."""
    response.headers.update(_POLL)
    return shown_batch(await services.store_files.batch(principal.project_id, vector_store_id, batch_id))


@router.post("/{vector_store_id}/file_batches/{batch_id}/cancel", summary="Cancel a batch of files")
async def cancel_file_batch(
    vector_store_id: StoreId, batch_id: BatchId, principal: Principal, services: FilesDep
) -> shapes.BatchObject:
    """Files that are not indexed yet will not be."""
    return shown_batch(await services.store_files.cancel(principal.project_id, vector_store_id, batch_id))


@router.get("/{vector_store_id}/file_batches/{batch_id}/files", summary="List the files of a batch")
async def list_file_batch_files(
    vector_store_id: StoreId, batch_id: BatchId, query: FilesQuery, principal: Principal, services: FilesDep
) -> shapes.StoreFileList:
    """The files of the batch, paginated."""
    await services.store_files.batch(principal.project_id, vector_store_id, batch_id)
    return await _files(services, principal, vector_store_id, query, batch_id)


async def _files(
    services: FilesDep, principal: Principal, store_id: str, query: shapes.FilesQuery, batch_id: str | None
) -> shapes.StoreFileList:
    found, more = await services.store_files.list(
        principal.project_id, store_id, query.page, status=query.filter, batch_id=batch_id
    )
    return shapes.StoreFileList(**listed([shown_file(file) for file in found], more=more))
