"""The OpenAPI description: models of the cold routes, and the entry of the hot endpoint, which is no route of the framework.

The request's schema is generated from the very type that validates it.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from app.protocol.requests import CreateResponse

_SCHEMAS = "#/components/schemas/"


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class Error(BaseModel):
    """The body of every failed request."""

    error: ErrorDetail


class ResponseObject(BaseModel):
    """A response; its full shape is the OpenAI SDK's `Response`."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["in_progress", "completed", "failed", "cancelled", "incomplete", "queued"]
    model: str
    output: list[dict[str, Any]]


class ResponseDeleted(BaseModel):
    """The response is gone."""

    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


class InputItemList(BaseModel):
    """A page of items."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Model(BaseModel):
    """A model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(BaseModel):
    """All models."""

    object: Literal["list"] = "list"
    data: list[Model] = Field(default_factory=list[Model])


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"{_SCHEMAS}{name}"}}}


# By reference: a model here would be prepared again for every error of every route, a tenth of the time to start.
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": _json("Error")}
    for status, text in {
        400: "The request is wrong; `param` names the place.",
        401: "No key, or a wrong one.",
        404: "No such thing, or not yours.",
        409: "Not in this state.",
        413: "The body is too large.",
        422: "Never sent: wrong parameters get 400.",
        429: "Too many requests; see `retry-after`.",
        500: "A mistake of the gateway.",
        502: "The upstream failed.",
        503: "The gateway, its database or the upstream is overloaded or away.",
        504: "The upstream took too long.",
    }.items()
}
EVENTS: dict[str, Any] = {
    "description": "The response, or its events.",
    "content": {"text/event-stream": {}},
}
"""Beside the JSON of a successful answer, what `stream` makes of it."""
_CREATE_ERRORS = (400, 401, 404, 413, 429, 500, 502, 503, 504)


def install(app: FastAPI) -> None:
    """Add the hot endpoint to the application's description."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = generate()
            _add_create(schema)
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the schema


def _add_create(schema: dict[str, Any]) -> None:
    schemas = schema["components"]["schemas"]
    (reference,), components = msgspec.json.schema_components((CreateResponse,), ref_template=f"{_SCHEMAS}{{name}}")
    schemas.update({name: component for name, component in components.items() if name not in schemas})
    error = Error.model_json_schema(ref_template=f"{_SCHEMAS}{{model}}")
    schemas.update({**error.pop("$defs"), "Error": error})
    schema["paths"].setdefault("/v1/responses", {})["post"] = {
        "tags": ["Responses"],
        "summary": "Create a response",
        "description": "The model's answer to `input`; with `stream: true` as Server-Sent Events that end with `response.completed`.",
        "operationId": "create_response",
        "security": [{"HTTPBearer": []}],
        "requestBody": {"required": True, "content": {"application/json": {"schema": reference}}},
        "responses": {
            "200": {**EVENTS, "content": {**_json("ResponseObject"), **EVENTS["content"]}},
            **{str(status): ERRORS[status] for status in _CREATE_ERRORS},
        },
    }
