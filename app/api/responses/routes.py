"""Reading and deleting stored responses."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Annotated

import msgspec
from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field
from sse_starlette import EventSourceResponse
from sse_starlette.sse import AppStatus
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.api.bodies import CheckedRoute
from app.api.dependencies import ID, Principal, ServicesDep
from app.api.items import shown
from app.api.openapi import (
    EVENTS,
    REQUEST,
    InputItemList,
    InputTokenCount,
    ResponseDeleted,
    ResponseObject,
    failures,
)
from app.api.paging import TwoWayPageQuery
from app.api.responses.lenience import is_lenient
from app.engine.runs.readers import ReaderMustLeave
from app.protocol.wire.errors import InvalidRequest
from app.protocol.wire.sse import DONE

# a stopping server lets streams end by themselves, or ends them with a terminal event
AppStatus.disable_automatic_graceful_drain()
router = APIRouter(tags=["Responses"], responses=failures(404, 409, 413, 415), route_class=CheckedRoute)

ResponseId = Annotated[str, Path(pattern=ID, description="The response's id: its UUID, with or without `resp_`.")]


class _Events(EventSourceResponse):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A stream that has to be resumed elsewhere is cut off: clients take one that just ends for a whole one.
        with suppress(ReaderMustLeave):
            await super().__call__(scope, receive, send)


class GetQuery(BaseModel):
    """How to read a response."""

    stream: bool = Field(default=False, description="Return the response's events.")
    starting_after: int = Field(
        default=-1, ge=-1, le=2**31 - 1, description="With `stream`: skip events up to this number."
    )
    include: list[str] = Field(
        default=[], alias="include[]", description="Accepted without effect: stored fields are always included."
    )
    include_obfuscation: bool | None = Field(default=None, description="Accepted; padding is never sent.")


class ItemsQuery(TwoWayPageQuery):
    """Which page of the items."""

    after: str | None = Field(default=None, max_length=256, description="The item after which the page begins.")
    before: str | None = Field(default=None, max_length=256, description="The item before which the page ends.")
    include: list[str] = Field(
        default=[], alias="include[]", description="Accepted without effect: stored fields are always included."
    )


@router.get(
    "/v1/responses/{response_id}",
    response_model=ResponseObject,
    responses={200: EVENTS},
    summary="Get a stored response, or follow its events",
)
async def get_response(
    response_id: ResponseId, query: Annotated[GetQuery, Query()], principal: Principal, services: ServicesDep
) -> Response:
    """The response as it was returned; with `stream=true` its events, identical to those of the original stream."""
    if not query.stream:
        return Response(await services.responses.get(principal, response_id), media_type="application/json")
    frames = await services.responses.follow(principal, response_id, query.starting_after)
    return _Events(
        _whole(frames, marked=services.done_marker),
        ping=services.heartbeat_seconds,
        sep="\n",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


@router.post(
    "/v1/responses/input_tokens",
    response_model=InputTokenCount,
    summary="Count input tokens",
    openapi_extra=REQUEST,
)
async def count_input_tokens(request: Request, principal: Principal, services: ServicesDep) -> Response:
    """How many tokens the model would read of this request: a body of `POST /v1/responses`, which may lack `input`."""
    lenient = is_lenient(request.headers.get("user-agent", "").encode("latin-1"), services.lenient_user_agents)
    counted = await services.counting.count(principal, await request.body(), lenient=lenient)
    return Response(msgspec.json.encode(counted), media_type="application/json")


@router.post("/v1/responses/compact", include_in_schema=False)
async def refuse(request: Request, _principal: Principal) -> Response:
    """A method of the SDK that this gateway does not support; always a 400."""
    raise InvalidRequest(f"POST {request.url.path} is not served by this gateway.", code="unsupported_endpoint")


@router.post(
    "/v1/responses/{response_id}/cancel", response_model=ResponseObject, summary="Cancel a background response"
)
async def cancel_response(response_id: ResponseId, principal: Principal, services: ServicesDep) -> Response:
    """The response as it has ended: cancelled with what there was of the answer, or as it was if it had ended
    before.
    """
    return Response(await services.responses.cancel(principal, response_id), media_type="application/json")


@router.delete("/v1/responses/{response_id}", response_model=ResponseDeleted, summary="Delete a stored response")
async def delete_response(response_id: ResponseId, principal: Principal, services: ServicesDep) -> ResponseDeleted:
    """The content is erased immediately. Responses that continue it can no longer be continued."""
    return ResponseDeleted(id=await services.responses.delete(principal, response_id))


@router.get(
    "/v1/responses/{response_id}/input_items",
    response_model=InputItemList,
    summary="List the input items of a response",
)
async def list_input_items(
    response_id: ResponseId, query: Annotated[ItemsQuery, Query()], principal: Principal, services: ServicesDep
) -> Response:
    """The conversation before this response and its own input, paginated."""
    page = await services.responses.input_items(principal, response_id, query.page)
    items = [shown(raw) for raw in page.items]
    body = {
        "object": "list",
        "data": items,
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
        "has_more": page.has_more,
    }
    return Response(msgspec.json.encode(body), media_type="application/json")


async def _whole(batches: AsyncGenerator[Sequence[bytes]], *, marked: bool) -> AsyncGenerator[bytes, None]:
    """One event per write, as this kind of response requires; a replay is not a hot path."""
    async with aclosing(batches):  # a client that leaves frees what it was reading
        async for frames in batches:
            for frame in frames:
                yield frame
    if marked:
        yield DONE
