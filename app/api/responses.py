"""Reading and deleting stored responses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Path, Query
from sse_starlette import EventSourceResponse
from starlette.responses import Response

from app.api.dependencies import Principal, Wired
from app.api.listing import shown
from app.api.openapi import ERRORS, InputItemList, ResponseDeleted, ResponseObject
from app.engine.responses import PageQuery

router = APIRouter(tags=["Responses"], responses=ERRORS)

ResponseId = Annotated[str, Path(max_length=128, description="The response's id: its UUID, with or without `resp_`.")]
Include = Annotated[list[str] | None, Query(alias="include[]", description="Accepted; nothing it could add is left out.")]


@router.get("/v1/responses/{response_id}", response_model=ResponseObject, summary="Get a stored response, or follow its events")
async def get(  # noqa: PLR0913, PLR0917 - the query parameters of the endpoint
    response_id: ResponseId,
    principal: Principal,
    services: Wired,
    stream: Annotated[bool, Query(description="Answer with the response's events.")] = False,  # noqa: FBT002 - a query parameter
    starting_after: Annotated[int, Query(ge=-1, le=2**31 - 1, description="Leave out events up to this sequence number.")] = -1,
    include: Include = None,
    include_obfuscation: Annotated[bool | None, Query(description="Accepted; padding is never sent.")] = None,
) -> Response:
    """The response as it was answered; with `stream=true` its events, the same frames as when it was made."""
    del include, include_obfuscation
    if not stream:
        return Response(await services.responses.get(principal, response_id), media_type="application/json")
    frames = await services.responses.follow(principal, response_id, starting_after)
    return EventSourceResponse(_raw(frames), sep="\n", headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})


@router.delete("/v1/responses/{response_id}", response_model=ResponseDeleted, summary="Delete a stored response")
async def delete(response_id: ResponseId, principal: Principal, services: Wired) -> ResponseDeleted:
    """Its bytes are erased at once; responses that continue it can no longer be continued themselves."""
    return ResponseDeleted(id=await services.responses.delete(principal, response_id))


@router.get("/v1/responses/{response_id}/input_items", response_model=InputItemList, summary="List what a response was made from")
async def input_items(  # noqa: PLR0913, PLR0917 - the query parameters of the endpoint
    response_id: ResponseId,
    principal: Principal,
    services: Wired,
    limit: Annotated[int, Query(ge=1, le=100, description="Items a page.")] = 20,
    order: Annotated[Literal["asc", "desc"], Query(description="Oldest or newest first.")] = "desc",
    after: Annotated[str | None, Query(max_length=256, description="The item after which the page begins.")] = None,
    before: Annotated[str | None, Query(max_length=256, description="The item before which the page ends.")] = None,
    include: Include = None,
) -> Response:
    """The conversation so far and this turn's input, a page at a time."""
    del include
    page = await services.responses.input_items(principal, response_id, PageQuery(limit, order, after, before))
    items = [shown(raw) for raw in page.items]
    body = {
        "object": "list",
        "data": items,
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
        "has_more": page.has_more,
    }
    return Response(msgspec.json.encode(body), media_type="application/json")


async def _raw(batches: AsyncIterator[Sequence[bytes]]) -> AsyncIterator[bytes]:
    async for frames in batches:
        for frame in frames:
            yield frame
