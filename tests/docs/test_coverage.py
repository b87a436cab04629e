"""docs/coverage.md, held against the installed SDK, the gateway's own types, the test files and a running gateway."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import httpx
import pytest
from openai.resources.containers import Containers
from openai.resources.containers.files import Content
from openai.resources.containers.files import Files as ContainerFiles
from openai.resources.conversations import Conversations
from openai.resources.conversations import Items as ConversationItems
from openai.resources.files import Files
from openai.resources.models import Models
from openai.resources.responses import InputItems, InputTokens, Responses
from openai.resources.vector_stores import FileBatches, VectorStores
from openai.resources.vector_stores import Files as StoreFiles
from openai.types.responses import (
    ResponseIncludable,
    ResponseInputContentParam,
    ResponseInputItemParam,
    ResponseOutputItem,
    ResponseStatus,
    ResponseStreamEvent,
    ToolParam,
)
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming, ToolChoice
from openai.types.responses.response_output_text import Annotation
from pydantic import BaseModel

from app.protocol.recovery.client_tools import CLIENT_TOOLS
from app.protocol.wire import events, items
from app.protocol.wire.requests import CreateResponse
from app.settings import Dialect
from tests.docs.examples import ROOT
from tests.docs.tables import SPELLINGS, TABLES, TOOLS, named, refused, served
from tests.support.gateway import Gateway
from tests.support.script import Json
from tests.support.upstream import ScriptedUpstream

# --- Nothing is missing
# -------------------------------------------------------------------------------------------------------------


def _strings(annotation: Any) -> Iterator[str]:
    """The strings of a Literal, also inside Optional and Required."""
    for argument in get_args(annotation):
        if isinstance(argument, str):
            yield argument
        else:
            yield from _strings(argument)


def _types(union: Any) -> set[str]:
    """The `type` of every member of a union of the SDK: models, typed dictionaries, plain words."""
    if get_origin(union) is Annotated:
        union = get_args(union)[0]
    found: set[str] = set()
    for member in get_args(union):
        if not inspect.isclass(member):
            found.update(get_args(member))
        elif issubclass(member, BaseModel):
            found.update(_strings(member.model_fields["type"].annotation))
        else:
            found.update(_strings(get_type_hints(member)["type"]))
    return found


RESOURCES: Mapping[str, type] = {
    "conversations": Conversations,
    "conversations.items": ConversationItems,
    "responses": Responses,
    "responses.input_items": InputItems,
    "responses.input_tokens": InputTokens,
    "models": Models,
    "files": Files,
    "vector_stores": VectorStores,
    "vector_stores.files": StoreFiles,
    "vector_stores.file_batches": FileBatches,
    "containers": Containers,
    "containers.files": ContainerFiles,
    "containers.files.content": Content,
}


def _methods() -> Iterator[str]:
    for path, resource in RESOURCES.items():
        for name, _ in inspect.getmembers(resource, inspect.isfunction):
            if not name.startswith("_"):
                yield f"{path}.{name}"


def _tags(union: Any) -> set[str]:
    return {str(member.__struct_config__.tag) for member in get_args(union)}


EXPECTED: Mapping[str, Iterable[str]] = {
    "SDK methods": _methods(),
    "Request parameters": get_type_hints(ResponseCreateParamsStreaming).keys() | set(CreateResponse.__struct_fields__),
    "Input items": _types(ResponseInputItemParam),
    "Content parts": _types(ResponseInputContentParam),
    "Output items": _types(ResponseOutputItem) | _tags(items.OutputItem),
    "Annotations": _types(Annotation),
    "Tools": _types(ToolParam) | SPELLINGS,
    "Tool choice": _types(ToolChoice),
    "Streamed events": _types(ResponseStreamEvent),
    "Values of `include`": set(get_args(ResponseIncludable)),
    "Values of `status`": set(get_args(ResponseStatus)),
    "Upstream dialects": set(get_args(Dialect)) - {"auto"},
}


@pytest.mark.parametrize("section", EXPECTED)
def test_every_name_of_the_sdk_has_its_row(section: str) -> None:
    missing = set(EXPECTED[section]) - set(named(section))

    assert not missing, f"{section}: {', '.join(sorted(missing))}"


@pytest.mark.parametrize("section", TABLES)
def test_no_row_stands_twice(section: str) -> None:
    assert len(named(section)) == len(set(named(section)))


async def test_every_endpoint_has_its_row(gateway: Gateway) -> None:
    async with gateway.http() as http:
        paths: dict[str, dict[str, Any]] = (await http.get("/openapi.json")).json()["paths"]

    described = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert described | {"GET /openapi.json", "GET /docs"} == served("Endpoints")


# --- What is said to be shown is shown
# -----------------------------------------------------------------------------------------------


@cache
def _test_names(file: str) -> frozenset[str]:
    path = ROOT / file
    if not path.is_file():
        return frozenset()
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=file)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("section", TABLES)
def test_every_test_named_exists(section: str) -> None:
    named = {test for row in TABLES[section] for test in row.tests}
    gone = [test for test in sorted(named) if test.split("::")[1] not in _test_names(test.split("::")[0])]

    assert not gone, "\n".join(gone)


@pytest.mark.parametrize("section", TABLES)
def test_what_is_served_or_refused_names_a_test(section: str) -> None:
    assert not [row.name for row in TABLES[section] if row.state != "not yet" and not row.tests]


@pytest.mark.parametrize("section", TABLES)
def test_a_refusal_has_its_code(section: str) -> None:
    assert not [row.name for row in TABLES[section] if (row.state == "refused") != bool(row.code)]


# --- What is said to be served can be
# ------------------------------------------------------------------------------------------------


def test_the_events_served_are_those_the_gateway_has() -> None:
    assert served("Streamed events") == _tags(events.Event)


def test_the_output_items_served_are_those_the_gateway_has() -> None:
    assert served("Output items") == _tags(items.OutputItem)


def test_the_annotations_served_are_those_the_gateway_has() -> None:
    assert served("Annotations") == _tags(items.Annotation)


def test_the_tools_served_are_those_the_gateway_has() -> None:
    assert served("Tools") == {"function", "custom", "namespace", *CLIENT_TOOLS} | SPELLINGS


async def test_a_tool_that_has_to_be_set_up_names_its_setting(gateway: Gateway) -> None:
    async with gateway.http() as http:
        listed: list[Json] = (await http.get("/v1/tools")).json()["data"]
    rows = {row.name: row for row in TABLES["Tools"]}
    assert {tool["type"] for tool in listed} == TOOLS.keys()
    assert not [
        tool["type"]
        for tool in listed
        if tool["setting"] is not None and tool["setting"] not in rows[tool["type"]].remark
    ]


_FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object"}}
ACCEPTED: Mapping[str, Any] = {
    "background": True,
    "background_options": {"completion_window": "8h"},
    "client_metadata": {"a": "b"},
    "enable_thinking": False,
    "frequency_penalty": 0.5,
    "include": ["message.output_text.logprobs"],
    "input": [{"role": "user", "content": "Hi"}],
    "instructions": "Be brief.",
    "max_output_tokens": 16,
    "max_tool_calls": 1,
    "metadata": {"a": "b"},
    "min_p": 0.05,
    "model": "qwen3-8b",
    "parallel_tool_calls": False,
    "presence_penalty": 0.5,
    "prompt_cache_key": "k",
    "prompt_cache_retention": "24h",
    "reasoning": {"effort": "none"},
    "repetition_penalty": 1.1,
    "safety_identifier": "u",
    "seed": 1,
    "service_tier": "auto",
    "store": False,
    "stream": True,
    "stream_options": {"include_obfuscation": False},
    "temperature": 0.5,
    "text": {"format": {"type": "text"}},
    "tool_choice": "none",
    "tools": [_FUNCTION],
    "top_k": 20,
    "top_logprobs": 2,
    "top_p": 0.9,
    "truncation": "auto",
    "user": "u",
}
PREREQUISITES: Mapping[str, Json] = {"background_options": {"background": True}}
"""What else a request needs that has the parameter."""


@pytest.mark.usefixtures("upstream")
async def test_parameters_that_are_served_are_accepted(gateway: Gateway) -> None:
    async with gateway.http() as http:
        first = (await http.post("/v1/responses", json={"model": "qwen3-8b", "input": "Hi"})).json()
        conversation = (await http.post("/v1/conversations")).json()
        accepted = {**ACCEPTED, "previous_response_id": first["id"], "conversation": conversation["id"]}
        assert served("Request parameters") == accepted.keys()
        for name, value in accepted.items():
            body = {"model": "qwen3-8b", "input": "Hi", name: value, **PREREQUISITES.get(name, {})}
            answer = await http.post("/v1/responses", json=body)
            assert answer.status_code == 200, f"{name}: {answer.text}"


@pytest.mark.usefixtures("upstream")
async def test_values_of_include_are_accepted(gateway: Gateway) -> None:
    async with gateway.http() as http:
        for name in named("Values of `include`"):
            answer = await http.post("/v1/responses", json={"model": "qwen3-8b", "input": "Hi", "include": [name]})
            assert answer.status_code == 200, f"{name}: {answer.text}"


_REQUESTED = {"type": "mcp_approval_request", "id": "mcpr_1", "server_label": "s", "name": "add", "arguments": "{}"}
_DECLINED = {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": False}
_CALLED = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
_CUSTOM = {"type": "custom_tool_call", "call_id": "c1", "name": "f", "input": "x"}
_LOCAL_SHELL: Json = {
    "type": "local_shell_call",
    "call_id": "c1",
    "action": {"type": "exec", "command": ["ls"], "env": {}},
}
_SHELL: Json = {"type": "shell_call", "call_id": "c1", "action": {"commands": ["ls"]}}
_PATCH: Json = {"type": "apply_patch_call", "call_id": "c1", "operation": {"type": "delete_file", "path": "p"}}
_SEARCH: Json = {"type": "tool_search_call", "call_id": "c1", "execution": "client", "arguments": {}}
ACCEPTED_ITEMS: Mapping[str, list[Json]] = {
    "message": [{"type": "message", "role": "user", "content": "Hi"}],
    "reasoning": [{"type": "reasoning", "id": "rs_1", "summary": []}],
    "function_call": [_CALLED, {"type": "function_call_output", "call_id": "c1", "output": "x"}],
    "custom_tool_call": [_CUSTOM, {"type": "custom_tool_call_output", "call_id": "c1", "output": "x"}],
    "web_search_call": [
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "q"}}
    ],
    "web_extractor_call": [
        {"type": "web_extractor_call", "status": "completed", "urls": ["https://example.com"], "output": "x"}
    ],
    "code_interpreter_call": [
        {"type": "code_interpreter_call", "id": "ci_1", "status": "completed", "container_id": "c", "code": "1"}
    ],
    "file_search_call": [{"type": "file_search_call", "id": "fs_1", "status": "completed", "queries": ["q"]}],
    "web_search_image_call": [
        {"type": "web_search_image_call", "status": "completed", "arguments": "{}", "output": "[]"}
    ],
    "image_search_call": [{"type": "image_search_call", "status": "completed", "arguments": "{}", "output": "[]"}],
    "x_tool_call": [{"type": "x_tool_call", "name": "t", "arguments": "{}", "output": "x"}],
    "mcp_list_tools": [{"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "s", "tools": []}],
    "mcp_call": [
        {"type": "mcp_call", "id": "mcp_1", "server_label": "s", "name": "add", "arguments": "{}", "output": "3"}
    ],
    "mcp_approval_request": [_REQUESTED, _DECLINED],
    "local_shell_call": [_LOCAL_SHELL, {"type": "local_shell_call_output", "id": "c1", "output": "x"}],
    "shell_call": [_SHELL, {"type": "shell_call_output", "call_id": "c1", "output": []}],
    "apply_patch_call": [_PATCH, {"type": "apply_patch_call_output", "call_id": "c1", "status": "completed"}],
    "tool_search_call": [_SEARCH, {"type": "tool_search_output", "call_id": "c1", "tools": [_FUNCTION]}],
    "additional_tools": [{"type": "additional_tools", "role": "developer", "tools": [_FUNCTION]}],
    "image_generation_call": [{"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "aGk="}],
}


@pytest.mark.usefixtures("upstream")
async def test_items_that_are_served_are_accepted(gateway: Gateway) -> None:
    async with gateway.http() as http:
        first = (await http.post("/v1/responses", json={"model": "qwen3-8b", "input": "Hi"})).json()
        accepted = [*ACCEPTED_ITEMS.values(), [{"type": "item_reference", "id": first["output"][0]["id"]}]]
        assert served("Input items") == {item["type"] for sent in accepted for item in sent}
        for sent in accepted:
            body = {"model": "qwen3-8b", "input": [*sent, {"role": "user", "content": "Hi"}]}
            answer = await http.post("/v1/responses", json=body)
            assert answer.status_code == 200, f"{sent}: {answer.text}"


# --- What is said to be refused is, with that code
# -----------------------------------------------------------------------------------

REFUSED: Mapping[str, Any] = {
    "access_programs": [],
    "context_management": [{"type": "compaction"}],
    "image": {},
    "moderation": {"model": "m"},
    "prompt": {"id": "pmpt_1"},
    "prompt_cache_options": {"mode": "auto"},
}

METHODS: Mapping[str, tuple[str, str]] = {
    "models.delete": ("DELETE", "/v1/models/qwen3-8b"),
    "responses.compact": ("POST", "/v1/responses/compact"),
}


async def _refusal(http: httpx.AsyncClient, **fields: Any) -> tuple[str, str]:
    answer = await http.post("/v1/responses", json={"model": "qwen3-8b", "input": "Hi", **fields})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    return error["code"], error["param"]


async def test_parameters_that_are_refused_are_named(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    async with gateway.http() as http:
        for row in refused("Request parameters"):
            assert await _refusal(http, **{row.name: REFUSED[row.name]}) == (row.code, row.name)
    assert not upstream.requests


async def test_tools_that_are_refused_are_named(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    async with gateway.http() as http:
        for row in refused("Tools"):
            assert await _refusal(http, tools=[{"type": row.name}]) == (row.code, "tools[0].type"), row.name
    assert not upstream.requests


async def test_choices_that_are_refused_are_named(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    async with gateway.http() as http:
        for row in refused("Tool choice"):
            assert await _refusal(http, tools=[_FUNCTION], tool_choice={"type": row.name}) == (
                row.code,
                "tool_choice",
            ), row.name
    assert not upstream.requests


async def test_items_that_are_refused_are_named(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    async with gateway.http() as http:
        for row in refused("Input items"):
            assert await _refusal(http, input=[{"type": row.name}]) == (row.code, "input[0].type"), row.name
    assert not upstream.requests


async def test_methods_that_are_refused_answer_in_the_envelope(gateway: Gateway) -> None:
    async with gateway.http() as http:
        for row in refused("SDK methods"):
            method, path = METHODS[row.name]
            answer = await http.request(method, path)
            assert (answer.is_client_error, answer.json()["error"]["code"]) == (True, row.code), row.name
