"""Conversations and their items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Body, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from app.api.bodies import CheckedRoute
from app.api.dependencies import ID, Principal, ServicesDep
from app.api.items import shown
from app.api.metadata import Metadata
from app.api.openapi import InputItemList, failures
from app.api.paging import PageQuery
from app.protocol.wire.errors import InvalidRequest
from app.stores.ports.conversations import Conversation

router = APIRouter(
    prefix="/v1/conversations", tags=["Conversations"], responses=failures(404, 409, 413, 415), route_class=CheckedRoute
)

_MOST_ITEMS = 20
ConversationId = Annotated[str, Path(pattern=ID, description="The conversation's id.")]
ItemId = Annotated[str, Path(pattern=ID, description="The item's id.")]
Items = Annotated[list[dict[str, Any]], Field(max_length=_MOST_ITEMS)]


class _Sent(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewConversation(_Sent):
    """A conversation to create."""

    items: Items | None = Field(default=None, description="Its first items, as in `input` of a response.")
    metadata: Metadata | None = None


class ConversationChange(_Sent):
    """Metadata that is added to what there is; null removes all of it."""

    metadata: Metadata | None


class NewItems(_Sent):
    """Items to add."""

    items: Annotated[Items, Field(min_length=1)]


class ConversationObject(BaseModel):
    """A conversation."""

    id: str
    object: Literal["conversation"] = "conversation"
    created_at: int
    metadata: dict[str, str]


class ConversationDeleted(BaseModel):
    """Confirms that the conversation was deleted."""

    id: str
    object: Literal["conversation.deleted"] = "conversation.deleted"
    deleted: Literal[True] = True


class Include(BaseModel):
    """What to show of items."""

    include: list[str] = Field(
        default=[], alias="include[]", description="Accepted without effect: stored fields are always included."
    )


class ItemsQuery(PageQuery):
    """Which page of the items."""

    after: str | None = Field(default=None, max_length=256, description="The item after which the page begins.")
    include: list[str] = Field(
        default=[], alias="include[]", description="Accepted without effect: stored fields are always included."
    )


@router.post("", summary="Create a conversation")
async def create_conversation(
    principal: Principal, services: ServicesDep, body: Annotated[NewConversation, Body(default_factory=NewConversation)]
) -> ConversationObject:
    """Creates an empty conversation, or one with items."""
    return _shown(await services.conversations.create(principal, _raws(body.items or ()), body.metadata or {}))


@router.get("/{conversation_id}", summary="Get a conversation")
async def get_conversation(
    conversation_id: ConversationId, principal: Principal, services: ServicesDep
) -> ConversationObject:
    """The conversation without its items."""
    return _shown(await services.conversations.get(principal, conversation_id))


@router.post("/{conversation_id}", summary="Change a conversation's metadata")
async def update_conversation(
    conversation_id: ConversationId, body: ConversationChange, principal: Principal, services: ServicesDep
) -> ConversationObject:
    """Adds the metadata to what there is; keys that are not sent stay."""
    return _shown(await services.conversations.update(principal, conversation_id, body.metadata))


@router.delete("/{conversation_id}", summary="Delete a conversation")
async def delete_conversation(
    conversation_id: ConversationId, principal: Principal, services: ServicesDep
) -> ConversationDeleted:
    """The items are deleted, too; the responses stay."""
    await services.conversations.delete(principal, conversation_id)
    return ConversationDeleted(id=conversation_id)


@router.post("/{conversation_id}/items", response_model=InputItemList, summary="Add items to a conversation")
async def create_conversation_items(
    conversation_id: ConversationId,
    body: NewItems,
    _query: Annotated[Include, Query()],
    principal: Principal,
    services: ServicesDep,
) -> Response:
    """Adds items at the end, all or none, and returns them."""
    return _listed(await services.conversations.add(principal, conversation_id, _raws(body.items)), more=False)


@router.get("/{conversation_id}/items", response_model=InputItemList, summary="List the items of a conversation")
async def list_conversation_items(
    conversation_id: ConversationId, query: Annotated[ItemsQuery, Query()], principal: Principal, services: ServicesDep
) -> Response:
    """The items of the conversation, paginated."""
    page = await services.conversations.page(principal, conversation_id, query.page)
    return _listed(page.items, more=page.has_more)


@router.get(
    "/{conversation_id}/items/{item_id}", response_model=dict[str, Any], summary="Get an item of a conversation"
)
async def get_conversation_item(
    conversation_id: ConversationId,
    item_id: ItemId,
    _query: Annotated[Include, Query()],
    principal: Principal,
    services: ServicesDep,
) -> Response:
    """One item."""
    found = await services.conversations.item(principal, conversation_id, item_id)
    return Response(msgspec.json.encode(shown(found)), media_type="application/json")


@router.delete("/{conversation_id}/items/{item_id}", summary="Delete an item of a conversation")
async def delete_conversation_item(
    conversation_id: ConversationId, item_id: ItemId, principal: Principal, services: ServicesDep
) -> ConversationObject:
    """Removes the item, and returns the conversation."""
    return _shown(await services.conversations.remove(principal, conversation_id, item_id))


def _raws(items: Sequence[dict[str, Any]]) -> Sequence[msgspec.Raw]:
    try:
        return [msgspec.Raw(msgspec.json.encode(one)) for one in items]
    except RecursionError:
        raise InvalidRequest("The items are nested too deeply.", code="json_parse_error", param="items") from None


def _shown(conversation: Conversation) -> ConversationObject:
    return ConversationObject(
        id=conversation.id,
        created_at=conversation.created_at,
        metadata=msgspec.json.decode(conversation.metadata),
    )


def _listed(raws: Sequence[msgspec.Raw], *, more: bool) -> Response:
    items = [shown(raw) for raw in raws]
    body = {
        "object": "list",
        "data": items,
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
        "has_more": more,
    }
    return Response(msgspec.json.encode(body), media_type="application/json")
