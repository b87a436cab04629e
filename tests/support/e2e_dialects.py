"""One gateway in front of the scripted upstream with every dialect, as a pytest plugin, and helpers to query it.

A model's name selects the dialect: `dashscope/qwen3.7-plus`. The part after the slash is used to look up the facts.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import httpx
import pytest

from tests.support.gateway import Gateway, running_gateway
from tests.support.judge import Judged, judge, judge_response
from tests.support.script import Reply, sse
from tests.support.upstream import ScriptedUpstream

Json = dict[str, Any]

DIALECTS = ("dashscope", "dashscope-responses", "vllm", "sglang", "ollama", "llamacpp", "openai")
CHAT_DIALECTS = tuple(dialect for dialect in DIALECTS if dialect != "dashscope-responses")
_MODELS = (
    "qwen3.7-plus",
    "qwen3.6-plus",
    "qwen-plus",
    "qwen3.8-max",
    "qwen3-coder-plus",
    "qwen3-235b-thinking",
    "qwen3-8b",
    "tagging",
    "other",
)
_SHORT = "{connect = 2.0, first_token = 0.5, idle = 0.5, total = 5.0}"


@pytest.fixture(scope="session")
def dialects(upstream_server: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Generator[Gateway]:
    """The gateway, on SQLite.

    Besides the dialects there are two upstreams with short time limits and a single attempt: `hasty` (vLLM) and
    `hasty-dashscope`; and `nowhere`, where nothing listens.
    """
    directory = tmp_path_factory.mktemp("dialects")
    tables = [_upstream(dialect, dialect, upstream_server.url) for dialect in DIALECTS]
    for name, dialect in (("hasty", "vllm"), ("hasty-dashscope", "dashscope")):
        tables.append(_upstream(name, dialect, upstream_server.url) + f"attempts = 1\ntimeouts = {_SHORT}\n")
    tables.append(_upstream("nowhere", "vllm", "http://127.0.0.1:9/v1") + "attempts = 1\n")
    (directory / "gateway.toml").write_text("\n".join(tables), encoding="utf-8")
    with running_gateway(directory, upstream_server.url) as running:
        yield running


def _upstream(name: str, dialect: str, base_url: str) -> str:
    models = json.dumps([f"{name}/{model}" for model in _MODELS])
    return f'[[upstreams]]\nname = "{name}"\ndialect = "{dialect}"\nbase_url = "{base_url}"\nmodels = {models}\n'


async def post(gateway: Gateway, **request: Any) -> httpx.Response:
    """Send a request as it is; `model` and `input` have defaults."""
    async with gateway.http() as http:
        return await http.post("/v1/responses", json={"model": "vllm/other", "input": "Hi", **request})


async def send(gateway: Gateway, body: bytes, **headers: str) -> httpx.Response:
    """Send a body unchanged."""
    async with gateway.http() as http:
        return await http.post("/v1/responses", content=body, headers={"content-type": "application/json", **headers})


def with_field(name: str, raw: bytes) -> bytes:
    """The body of a valid request except for one field, which comes last and therefore counts."""
    return b'{"model":"vllm/other","input":"Hi","%b":%b}' % (name.encode(), raw)


async def streamed(gateway: Gateway, **request: Any) -> Judged:
    """The stream, which must be correct in every respect."""
    answer = await post(gateway, stream=True, **request)
    assert answer.status_code == 200, answer.text
    return judge(answer.content)


async def ask(gateway: Gateway, *, stream: bool = False, **request: Any) -> Json:
    """The finished response, from the body or from the terminal event."""
    if stream:
        return (await streamed(gateway, **request)).events[-1]["response"]
    answer = await post(gateway, **request)
    assert answer.status_code == 200, answer.text
    judge_response(answer.json())
    return answer.json()


async def refused(gateway: Gateway, status: int, **request: Any) -> Json:
    """The error of a request that gets `status`: in the envelope, with every field, and with the request's id in the
    header.
    """
    return error_of(await post(gateway, **request), status)


def error_of(answer: httpx.Response, status: int) -> Json:
    """The error in the envelope."""
    assert answer.status_code == status, answer.text
    assert answer.headers["x-request-id"]
    body = answer.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    return body["error"]


def sent(upstream: ScriptedUpstream, at: int = -1) -> Json:
    """The body of an upstream request."""
    return upstream.requests[at].body


def text_of(response: Mapping[str, Any]) -> str:
    """The visible answer."""
    return "".join(
        part.get("text", "") for item in response["output"] if item["type"] == "message" for part in item["content"]
    )


def thought_of(response: Mapping[str, Any]) -> str:
    """The thinking as shown."""
    return "".join(
        part["text"]
        for item in response["output"]
        if item["type"] == "reasoning"
        for part in (*item["summary"], *item.get("content", ()))
    )


def calls_of(response: Mapping[str, Any]) -> Sequence[tuple[str, Any]]:
    """Name and arguments of every function call."""
    return [
        (item["name"], json.loads(item["arguments"])) for item in response["output"] if item["type"] == "function_call"
    ]


def function(name: str, **fields: Any) -> Json:
    """A function tool."""
    return {
        "type": "function",
        "name": name,
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        **fields,
    }


def vendor_says(*texts: str) -> Reply:
    """An answer of the vendor's Responses API."""
    return _vendor([{"type": "response.output_text.delta", "item_id": "msg_1", "delta": text, **_AT} for text in texts])


def vendor_calls(name: str, arguments: str) -> Reply:
    """A function call of the vendor's Responses API."""
    item = {
        "type": "function_call",
        "id": "msg_1",
        "call_id": "call_1",
        "name": name,
        "arguments": arguments,
        "status": "completed",
    }
    return _vendor(
        [
            {"type": "response.output_item.added", **_AT, "item": item},
            {"type": "response.output_item.done", **_AT, "item": item},
        ]
    )


_AT: Json = {"output_index": 0, "content_index": 0}


def _vendor(events: Sequence[Json]) -> Reply:
    usage = {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13}
    begun: Json = {"type": "response.created", "response": {"status": "in_progress", "output": []}}
    ended: Json = {"type": "response.completed", "response": {"status": "completed", "output": [], "usage": usage}}
    return Reply(pieces=[sse(begun, *events, ended)])
