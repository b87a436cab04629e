"""The available models."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from app.api.bodies import CheckedRoute
from app.api.dependencies import Principal, ServicesDep
from app.api.openapi import Model, ModelList, failures
from app.protocol.wire.errors import NotFound
from app.providers.base import UpstreamModel

router = APIRouter(tags=["Models"], responses=failures(404), route_class=CheckedRoute)


@router.get("/v1/models", summary="List the models")
async def list_models(_principal: Principal, services: ServicesDep) -> ModelList:
    """The models that the upstreams list, and the configured aliases."""
    return ModelList(data=[_model(model) for model in services.router.models()])


@router.get("/v1/models/{model:path}", summary="Get a model")
async def get_model(
    model: Annotated[str, Path(max_length=256, pattern=r"^[^\x00]*$")], _principal: Principal, services: ServicesDep
) -> Model:
    """One of the listed models."""
    for listed in services.router.models():
        if listed.id == model:
            return _model(listed)
    raise NotFound(f"The model '{model}' does not exist.", code="model_not_found", param="model")


def _model(model: UpstreamModel) -> Model:
    return Model(id=model.id, created=model.created, owned_by=model.owned_by or "qwen")
