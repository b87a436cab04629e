"""The built-in tools of this installation."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter
from starlette.responses import Response

from app.api.bodies import CheckedRoute
from app.api.dependencies import Principal, ServicesDep
from app.api.openapi import ToolList, failures

router = APIRouter(tags=["Tools"], responses=failures(), route_class=CheckedRoute)


@router.get("/v1/tools", response_model=ToolList, summary="List the built-in tools")
async def list_tools(_principal: Principal, services: ServicesDep) -> Response:
    """For each tool: whether it is available, which setting it lacks, its price, and an example entry for `tools`."""
    listed = {"object": "list", "data": await services.catalog.described()}
    return Response(msgspec.json.encode(listed), media_type="application/json")
