"""The OpenAPI schema: models of the cold routes, and the entry of the hot endpoint, which is not a route of the
framework.

The request's schema is generated from the type that validates it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import msgspec
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field

from app.api.openapi_examples import examples
from app.api.paging import ObjectList
from app.protocol.wire.requests import CreateResponse

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
    """Confirms that the response was deleted."""

    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


class InputTokenCount(BaseModel):
    """How many tokens the model would read."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int
    x_estimated: Literal[True] | None = Field(
        default=None, description="No tokenizer of the model has counted all of it."
    )


class InputItemList(ObjectList):
    """A page of items."""

    data: Sequence[dict[str, Any]]


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


class ToolList(BaseModel):
    """The built-in tools."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]


class Health(BaseModel):
    """The state of the process."""

    status: Literal["ok", "ready"]


REQUEST: dict[str, Any] = {"requestBody": {"required": True, "content": _json("CreateResponse")}}
"""The body of `POST /v1/responses`, for routes that parse it themselves."""

# By reference: a model would be processed again for every error of every route, a tenth of the startup time.
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": _json("Error")}
    for status, text in {
        400: "The request is invalid; `param` names the parameter.",
        401: "The API key is missing or invalid.",
        404: "Not found, or it belongs to another project.",
        409: "Not possible in the current state.",
        413: "The body is too large.",
        415: "The body's `Content-Encoding` is not supported.",
        429: "Too many requests; see `retry-after`.",
        500: "Internal error of the gateway.",
        502: "The upstream failed.",
        503: "The gateway, its database or the upstream is overloaded or unavailable.",
        504: "The upstream timed out.",
    }.items()
}
EVENTS: dict[str, Any] = {
    "description": "The response, or its events.",
    "content": {"text/event-stream": {}},
}
"""The event stream, an alternative to the JSON of a successful response."""
_ALWAYS = (400, 401, 429, 500, 503)
_CREATE_ERRORS = (*_ALWAYS, 404, 413, 415, 502, 504)
_OF_BODIES = ("413", "415")
_NEVER = "422"
"""The framework's status for invalid parameters, which get 400 here."""
_FRAMEWORKS = ("HTTPValidationError", "ValidationError")
"""The schemas of that response."""


UNREADY: dict[int | str, dict[str, Any]] = {503: _ERRORS[503]}


def failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a router's routes: these, and those common to all routes."""
    return {status: _ERRORS[status] for status in sorted((*_ALWAYS, *statuses))}


def content(*media_types: str) -> dict[int | str, dict[str, Any]]:
    """A successful response of bytes."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {200: {"description": "The content.", "content": dict.fromkeys(media_types, binary)}}


def operation_id(route: APIRoute) -> str:
    """The name of the route's function, which generated clients use."""
    return route.name


def install(app: FastAPI, model: Callable[[], str]) -> None:
    """Add the hot endpoint to the application's schema; examples use `model`."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = generate()
            _add_create(schema)
            for unused in _FRAMEWORKS:
                schema["components"]["schemas"].pop(unused, None)
            for operations in schema["paths"].values():
                for operation in operations.values():
                    _finish(operation, model())
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the schema


def _finish(operation: dict[str, Any], model: str) -> None:
    responses: dict[str, Any] = operation["responses"]
    responses.pop(_NEVER, None)
    if "requestBody" not in operation:
        for status in _OF_BODIES:
            responses.pop(status, None)
        return
    example = examples(model).get(operation["operationId"])
    if example is not None:
        operation["requestBody"]["content"]["application/json"]["example"] = example


def _add_create(schema: dict[str, Any]) -> None:
    schemas = schema["components"]["schemas"]
    (reference,), components = msgspec.json.schema_components((CreateResponse,), ref_template=f"{_SCHEMAS}{{name}}")
    schemas.update({name: _one_spelling(component) for name, component in components.items() if name not in schemas})
    error = Error.model_json_schema(ref_template=f"{_SCHEMAS}{{model}}")
    schemas.update({**error.pop("$defs"), "Error": error})
    schema["paths"].setdefault("/v1/responses", {})["post"] = {
        "tags": ["Responses"],
        "summary": "Create a response",
        "description": (
            "Generates a response to `input`; with `stream: true` as Server-Sent Events that end with "
            "`response.completed`."
        ),
        "operationId": "create_response",
        "security": [{"HTTPBearer": []}],
        "requestBody": {"required": True, "content": {"application/json": {"schema": reference}}},
        "responses": {
            "200": {**EVENTS, "content": {**_json("ResponseObject"), **EVENTS["content"]}},
            **{str(status): _ERRORS[status] for status in sorted(_CREATE_ERRORS)},
        },
    }


def _one_spelling(component: dict[str, Any]) -> dict[str, Any]:
    """Without the second of two values that differ only in `-` and `_`: both are accepted, but generated clients can
    name only one.
    """

    def cleaned(value: Any) -> Any:
        if isinstance(value, list):
            return [cleaned(each) for each in cast("list[Any]", value)]
        if not isinstance(value, dict):
            return value
        fields = cast("dict[str, Any]", value)
        return {key: _distinct(each) if key == "enum" else cleaned(each) for key, each in fields.items()}

    return cleaned(component)


def _distinct(values: list[Any]) -> list[Any]:
    return list({str(value).replace("-", "_"): value for value in values}.values())
