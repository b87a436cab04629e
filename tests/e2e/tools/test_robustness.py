"""What is behind the tools breaks in every way: the call fails in words, the answer comes, and nothing of the inside is
seen.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.e2e.streams import Frames, final, id_in
from tests.e2e.tools.stage import (
    SEES,
    asking,
    calling,
    code_runs,
    data_uri,
    entries,
    furnish,
    official,
    picture,
    png,
    read_by_model,
)
from tests.sandbox.running import descendants
from tests.support.gateway import Gateway, running_gateway
from tests.support.judge import judge_response
from tests.support.mcp_server import McpServer
from tests.support.script import Json, Reply
from tests.support.site import Answer, Site, Visit, serving_site
from tests.support.upstream import ScriptedUpstream

TOKEN, KEY = "token-of-the-sandbox-5e1d", "key-of-the-embeddings-77aa"
TRACE = 'Traceback (most recent call last):\n  File "/srv/secret.py", line 1\nKeyError: hunter2'
INSIDE = (TOKEN, KEY, "Traceback", "hunter2", "site-packages", "Error(", "Exception")
"""What neither the client nor the model may see."""
MEBIBYTE = 1024 * 1024
COUNTED = {
    "web_search": 2,
    **dict.fromkeys(("web_extractor", "code_interpreter", "file_search", "web_search_image", "image_search", "mcp"), 1),
}

Fault = Callable[[Visit], Answer]


def _kind(visit: Visit) -> str:
    """The content type that a good answer would have."""
    return "text/html" if visit.path.startswith("/page") else "application/json"


def _endless(visit: Visit) -> Answer:
    return Answer(b"[" * 65_536, content_type=_kind(visit), repeat=0.0)


def _garbage(visit: Visit) -> Answer:
    kind = "application/pdf" if "/page" in visit.path else "application/json"
    return Answer(b"%PDF-1.7 \xff\x00", content_type=kind)


FAULTS: dict[str, tuple[Fault, tuple[str, Json]]] = {
    "silent": (lambda _: Answer.never(), ("slow", {})),
    "endless": (_endless, ("huge", {"characters": 3_000_000})),
    "garbage": (_garbage, ("refuse", {})),
    "angry": (lambda _: Answer.text(TRACE, status=500), ("fail", {})),
}
"""How every back end answers, and the MCP tool that is like it."""


@pytest.fixture(scope="module")
def behind() -> Generator[Site]:
    """All back ends in one: search, sandbox, embeddings."""
    with serving_site() as server:
        yield server


@pytest.fixture(scope="module")
def faulty(
    upstream_server: ScriptedUpstream, behind: Site, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("faulty"), upstream_server.url, **_settings(behind.origin)) as running:
        yield running


def _settings(origin: str) -> dict[str, str]:
    return {
        "searxng_url": origin,
        "sandbox": origin,
        "sandbox_token": TOKEN,
        "embeddings_base_url": f"{origin}/v1",
        "embeddings_model": "e",
        "embeddings_api_key": KEY,
        "fetch_allow": '["127.0.0.1"]',
        "fetch_robots": "false",
        "limits__tool_seconds": "3",
    }


@pytest.fixture
def request_of_all(upstream: ScriptedUpstream, mcp: McpServer) -> Callable[..., Any]:
    """Makes the request in which the model calls every tool at once, and scripts it."""

    async def build(gateway: Gateway, page: str, mcp_call: tuple[str, Json] | None, mcp_url: str = "") -> Json:
        async with official(gateway) as client:
            store = await client.vector_stores.create(name="empty")
        tools = entries(store.id, mcp)
        if mcp_url:
            tools[-2] = {**tools[-2], "server_url": mcp_url}
        calls: list[tuple[str, Json]] = [
            ("web_search", {"queries": ["q"]}),
            ("web_search_open", {"url": page}),
            ("web_extractor", {"urls": [page], "goal": "g"}),
            ("code_interpreter", {"code": "1"}),
            ("knowledge_search", {"queries": ["q"]}),
            ("web_search_image", {"queries": ["q"]}),
            ("image_search", {"img_idx": 0, "bbox": [0, 0, 1000, 1000]}),
        ]
        if mcp_call is not None:
            calls.append((f"mcp__shop__{mcp_call[0]}", mcp_call[1]))

        def respond(body: Json) -> Reply:
            if not body.get("tools"):
                return Reply.say("a red square")  # asked by image_search
            return Reply.say("The answer.") if body["messages"][-1]["role"] == "tool" else calling(*calls)

        upstream.respond = respond
        return {"model": SEES, "input": asking("Go.", picture(data_uri(png("red")))), "tools": tools}

    return build


async def _answered(gateway: Gateway, request: Json, *, stream: bool) -> Json:
    """The response, whose stream is legal and whose record is the same."""
    async with gateway.http() as http:
        answer = await http.post("/v1/responses", json={**request, "stream": stream})
        assert answer.status_code == 200, answer.text
        body: Json = final(answer.content) if stream else answer.json()
        judge_response(body)
        assert (await http.get(f"/v1/responses/{body['id']}")).json() == body
    return body


def _failed_in_words(body: Json, upstream: ScriptedUpstream, *, calls: int, inside: tuple[str, ...]) -> None:
    """Every call is a failed item and a sentence, and the answer came."""
    hosted = [item for item in body["output"] if item["type"] not in ("message", "mcp_list_tools")]
    assert [(item["type"], item["status"]) for item in hosted] == [(item["type"], "failed") for item in hosted]
    assert len(hosted) == calls
    assert body["status"] == "completed"
    assert body["output"][-1]["content"][0]["text"] == "The answer."
    told = list(read_by_model(upstream.requests[-1].body["messages"]))
    assert len(told) == calls
    for sentence in told:
        assert sentence.strip().endswith((".", "shelf is empty", "no such city")), sentence
        assert len(sentence) < 400
    seen = json.dumps([body, told], ensure_ascii=False)
    assert not [word for word in (*INSIDE, *inside) if word in seen]


@pytest.mark.parametrize("fault", FAULTS)
async def test_every_back_end_breaks(
    fault: str,
    faulty: Gateway,
    behind: Site,
    site: Site,
    upstream: ScriptedUpstream,
    request_of_all: Callable[..., Any],
) -> None:
    behind.reset()
    behind.pages["*"], mcp_call = FAULTS[fault]
    site.pages["/page"] = FAULTS[fault][0]
    request = await request_of_all(faulty, site.url("/page"), mcp_call)
    before = _peak(faulty)
    body = await _answered(faulty, request, stream=fault != "angry")
    assert _peak(faulty) - before < 192 * MEBIBYTE, "endless answers are cut off"
    _failed_in_words(body, upstream, calls=8, inside=(behind.origin,))
    assert body["usage"]["x_tools"] == {tool: {"count": count} for tool, count in COUNTED.items()}


async def test_nobody_is_there(upstream: ScriptedUpstream, request_of_all: Callable[..., Any], tmp_path: Path) -> None:
    with socket.socket() as one, socket.socket() as another:
        closed, page = _never_listening(one), _never_listening(another)
        with running_gateway(tmp_path, upstream.url, **_settings(closed)) as gateway:
            request = await request_of_all(gateway, f"{page}/page", None, mcp_url=page)
            body = await _answered(gateway, request, stream=True)
            _failed_in_words(body, upstream, calls=7, inside=(closed,))
            listed = body["output"][0]
            assert (listed["type"], listed["tools"], listed["error"]) == (
                "mcp_list_tools",
                [],
                "The MCP server 'shop' cannot be reached.",
            )


def _never_listening(bound: socket.socket) -> str:
    bound.bind(("127.0.0.1", 0))
    return f"http://127.0.0.1:{bound.getsockname()[1]}"


def _peak(gateway: Gateway) -> int:
    """The most memory that the gateway's process has had, in bytes."""
    lines = Path(f"/proc/{gateway.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


async def test_broken_pictures_are_dropped(patient_sqlite: Gateway, upstream: ScriptedUpstream, site: Site) -> None:
    """The search works, and what it finds does not: what is left is shown."""
    furnish(site)
    site.pages["/page.png"] = Answer(b"\x89PNG\r\n\x1a\n" * 9000, content_type="image/png", repeat=0.0)
    site.pages["/red.png"] = Answer(b"\x89PNG\r\n\x1a\nthat is all", content_type="image/png")
    upstream.script(
        calling(("image_search", {"img_idx": 0, "bbox": [0, 0, 1000, 1000]})),
        Reply.say("a red square"),
        Reply.say("The answer."),
    )
    request = {
        "model": SEES,
        "input": asking("Like this?", picture(data_uri(png("red")))),
        "tools": [{"type": "image_search"}],
    }
    body = await _answered(patient_sqlite, request, stream=False)
    assert [item["status"] for item in body["output"]] == ["completed", "completed"]
    assert [image["url"] for image in json.loads(body["output"][0]["output"])] == [site.url("/blue.png")]


CODE: Any = [{"type": "code_interpreter", "container": {"type": "auto"}}]


@pytest.fixture
async def client(patient_sqlite: Gateway, upstream: ScriptedUpstream) -> AsyncGenerator[openai.AsyncOpenAI]:
    del upstream  # it has been reset
    async with official(patient_sqlite) as connected:
        yield connected


async def test_the_sandbox_dies_in_the_middle_of_a_call(
    patient_sqlite: Gateway, client: openai.AsyncOpenAI, upstream: ScriptedUpstream
) -> None:
    if not await code_runs(patient_sqlite):
        return  # which has been refused by name
    code = "open('/mnt/data/begun', 'w').close()\nwhile True: pass"
    upstream.script(calling(("code_interpreter", {"code": code})), Reply.say("It broke."))
    async with (
        patient_sqlite.http() as http,
        http.stream(
            "POST", "/v1/responses", json={"model": SEES, "input": "Run.", "tools": CODE, "stream": True}
        ) as answer,
    ):
        frames = Frames(answer)
        stream = await frames.until("response.code_interpreter_call.interpreting")
        container_id = stream.split(b'"container_id":"')[1].split(b'"')[0].decode()
        async with asyncio.timeout(60):
            while not (await http.get(f"/v1/containers/{container_id}/files")).json().get("data"):  # noqa: ASYNC110 - only asking tells
                await asyncio.sleep(0.05)
        os.kill(_sandbox_of(patient_sqlite), signal.SIGKILL)
        body = final(stream + await frames.rest())
    call, message = body["output"]
    assert (call["type"], call["status"], message["content"][0]["text"]) == (
        "code_interpreter_call",
        "failed",
        "It broke.",
    )
    assert list(read_by_model(upstream.requests[-1].body["messages"])) == [
        "Code cannot be run now. The sandbox service does not answer."
    ]
    assert id_in(stream) == body["id"]
    await _runs_again(client, upstream, body["id"])


async def _runs_again(client: openai.AsyncOpenAI, upstream: ScriptedUpstream, previous: str) -> None:
    upstream.script(calling(("code_interpreter", {"code": "print(6 * 7)"})), Reply.say("42"))
    again = await client.responses.create(model=SEES, input="Again.", tools=CODE, previous_response_id=previous)
    assert [item.status for item in again.output if item.type == "code_interpreter_call"] == ["completed"]
    *_, last = read_by_model(upstream.requests[-1].body["messages"])
    assert last.strip().endswith("42")


async def test_the_sandbox_dies_between_calls(
    patient_sqlite: Gateway, client: openai.AsyncOpenAI, upstream: ScriptedUpstream
) -> None:
    if not await code_runs(patient_sqlite):
        return  # which has been refused by name
    upstream.script(calling(("code_interpreter", {"code": "x = 1"})), Reply.say("Done."))
    first = await client.responses.create(model=SEES, input="Run.", tools=CODE)
    await _kill(_sandbox_of(patient_sqlite))
    await _runs_again(client, upstream, first.id)
    *_, last = read_by_model(upstream.requests[-1].body["messages"])
    assert "its variables and files are gone" in last, "the model is told"


async def _kill(pid: int) -> None:
    """Returns when the process is dead: a busy machine takes a moment for it, in which the service would still be found
    alive.
    """
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        while _is_alive(pid):  # noqa: ASYNC110 - only asking tells
            await asyncio.sleep(0.01)


def _is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def _sandbox_of(gateway: Gateway) -> int:
    """The process of the sandbox service."""
    lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in descendants(gateway.process.pid)}
    return next(pid for pid, line in lines.items() if b"\0sandbox\0--child" in line)


async def test_what_is_not_set_up_is_named(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    needed = {
        "web_search": "GATEWAY_SEARXNG_URL",
        "web_search_image": "GATEWAY_SEARXNG_URL",
        "image_search": "GATEWAY_SEARXNG_URL",
        "code_interpreter": "GATEWAY_SANDBOX",
        "file_search": "GATEWAY_FILES_DIR",
    }
    with running_gateway(tmp_path, upstream.url, sandbox="off", files_dir="off") as gateway:
        async with gateway.http() as http:
            listed = {tool["type"]: tool for tool in (await http.get("/v1/tools")).json()["data"]}
            for tool, setting in needed.items():
                assert (listed[tool]["available"], listed[tool]["setting"]) == (False, setting)
                for stream in (False, True):
                    request = {"model": SEES, "input": "q", "stream": stream, "tools": [{"type": tool}]}
                    answer = await http.post("/v1/responses", json=request)
                    error = answer.json()["error"]
                    assert (answer.status_code, error["code"], error["param"]) == (
                        400,
                        "unsupported_tool",
                        "tools[0].type",
                    )
                    assert setting in error["message"]
            for path, setting in (("files", "FILES_DIR"), ("vector_stores", "FILES_DIR"), ("containers", "SANDBOX")):
                answer = await http.get(f"/v1/{path}")
                assert (answer.status_code, f"GATEWAY_{setting}" in answer.json()["error"]["message"]) == (400, True)
            runs = {tool["type"] for tool in listed.values() if tool["available"]}
            assert runs == {"web_extractor", "mcp"}
    assert upstream.requests == []
