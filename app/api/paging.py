"""Paging through lists, for every endpoint that has one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from pydantic import BaseModel, Field

from app.api.dependencies import ID
from app.protocol.wire.paging import Page


class PageQuery(BaseModel):
    """Which page of a list."""

    limit: int = Field(default=20, ge=1, le=100, description="Objects per page.")
    order: Literal["asc", "desc"] = Field(default="desc", description="Oldest or newest first.")
    after: str | None = Field(default=None, pattern=ID, description="The object after which the page begins.")

    @property
    def page(self) -> Page:
        """The page in the engine's type."""
        return Page(self.limit, self.order, self.after)


class TwoWayPageQuery(PageQuery):
    """Which page of a list that can also be paged backwards."""

    before: str | None = Field(default=None, pattern=ID, description="The object before which the page ends.")

    @property
    def page(self) -> Page:
        """The page in the engine's type."""
        return Page(self.limit, self.order, self.after, self.before)


class ObjectList(BaseModel):
    """A page of a list."""

    object: Literal["list"] = "list"
    data: Sequence[Any]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Identified(Protocol):
    """An object of a list."""

    @property
    def id(self) -> str:
        """The cursor that names it."""
        ...


def listed(data: Sequence[Identified], *, more: bool) -> dict[str, Any]:
    """The fields of an `ObjectList`."""
    return {
        "data": data,
        "first_id": data[0].id if data else None,
        "last_id": data[-1].id if data else None,
        "has_more": more,
    }
