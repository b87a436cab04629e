"""Tools that are not served: refused by name; left out for clients that always send them, and said so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.e2e_dialects import error_of, function, refused, sent
from tests.support.gateway import Gateway, running_gateway
from tests.support.judge import judge
from tests.support.script import Reply
from tests.support.upstream import ScriptedUpstream

Json = dict[str, Any]
UNSERVED = ["web_search", "web_search_preview", "web_search_image", "image_search", "computer_use_preview"]
"""Without a setting nobody searches; the last is not served at all."""
CODEX = {"user-agent": "codex_cli_rs/0.169.0 (Linux; x86_64)"}
TOOLS = [function("shell"), {"type": "web_search", "external_web_access": True}]


async def send(gateway: Gateway, headers: dict[str, str], **request: Any) -> httpx.Response:
    async with gateway.http() as http:
        return await http.post("/v1/responses", json={"model": "vllm/other", "input": "Hi", **request}, headers=headers)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", [*UNSERVED, "bogus", ""])
async def test_an_unserved_tool_is_refused_by_name(
    dialects: Gateway, upstream: ScriptedUpstream, kind: str, *, stream: bool
) -> None:
    error = await refused(dialects, 400, stream=stream, tools=[function("shell"), {"type": kind}])

    assert (error["type"], error["code"], error["param"]) == (
        "invalid_request_error",
        "unsupported_tool",
        "tools[1].type",
    )
    assert f"'{kind}'" in error["message"]
    assert not upstream.requests


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("agent", ["codex_cli_rs/0.169.0", "Codex/1.0", "my codex_vscode/2"])
async def test_codex_is_served_without_them(
    dialects: Gateway, upstream: ScriptedUpstream, agent: str, *, stream: bool
) -> None:
    answer = await send(dialects, {"user-agent": agent}, stream=stream, tools=TOOLS)

    assert answer.status_code == 200, answer.text
    response = judge(answer.content).events[-1]["response"] if stream else answer.json()
    assert [tool["name"] for tool in response["tools"]] == ["shell"]
    assert answer.headers["warning"].startswith('299 - "')
    assert "web_search" in answer.headers["warning"]
    assert [tool["function"]["name"] for tool in sent(upstream)["tools"]] == ["shell"]


async def test_what_was_left_out_is_logged(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    before = len(dialects.log_file.read_bytes())

    assert (await send(dialects, CODEX, tools=TOOLS)).status_code == 200
    assert "web_search" in dialects.log(before)
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "choice",
    [{"type": "web_search"}, {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "web_search"}]}],
)
async def test_not_when_the_choice_needs_them(dialects: Gateway, upstream: ScriptedUpstream, choice: Json) -> None:
    error = error_of(await send(dialects, CODEX, tools=TOOLS, tool_choice=choice), 400)

    assert (error["code"], error["param"]) == ("unsupported_tool", "tool_choice")
    assert "web_search" in error["message"]
    assert not upstream.requests


async def test_not_when_nothing_is_left_to_require(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    error = error_of(await send(dialects, CODEX, tools=TOOLS[1:], tool_choice="required"), 400)

    assert error["param"] == "tool_choice"
    assert not upstream.requests


async def test_with_nothing_left_the_model_just_answers(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    answer = await send(dialects, CODEX, tools=TOOLS[1:], tool_choice="auto")

    assert answer.json()["tools"] == []
    assert "tools" not in sent(upstream)


async def test_without_such_tools_there_is_no_warning(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    assert "warning" not in (await send(dialects, CODEX, tools=TOOLS[:1])).headers
    assert len(upstream.requests) == 1


async def test_a_type_that_is_no_name_is_refused_all_the_same(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    answer = await send(dialects, CODEX, tools=[{"type": "web\r\nx-injected: yes"}])

    assert error_of(answer, 400)["code"] == "unsupported_tool"
    assert "x-injected" not in answer.headers
    assert not upstream.requests


async def test_which_clients_is_a_setting(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    upstream.script(Reply.say("Yes."))
    with running_gateway(tmp_path, upstream.url, lenient_user_agents='["my-agent*"]') as gateway:
        mine = await send(gateway, {"user-agent": "my-agent/1"}, model="qwen3-8b", tools=TOOLS)
        codex = await send(gateway, CODEX, model="qwen3-8b", tools=TOOLS)

    assert mine.status_code == 200
    assert error_of(codex, 400)["code"] == "unsupported_tool"


async def test_what_codex_sends_is_served(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    request: Json = {
        "input": [
            {
                "type": "message",
                "id": "msg_0b0e",
                "role": "developer",
                "content": [{"type": "input_text", "text": "You are Codex."}],
            },
            {
                "type": "message",
                "id": "msg_0b0f",
                "role": "developer",
                "content": [{"type": "input_text", "text": "Be safe."}],
            },
            {"type": "message", "id": "msg_0b10", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
        ],
        "tools": [
            {**function("shell"), "strict": False},
            {"type": "namespace", "name": "multi_agent_v1", "description": "Agents.", "tools": [function("spawn")]},
            {"type": "web_search", "external_web_access": True},
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "reasoning": {"summary": "auto"},
        "prompt_cache_key": "0b1f",
        "client_metadata": {"x-codex-installation-id": "1"},
    }

    answer = await send(dialects, CODEX, **request)

    assert answer.status_code == 200, answer.text
    assert judge(answer.content).text == "Hello there."
    assert sent(upstream)["messages"] == [
        {"role": "system", "content": "You are Codex.\n\nBe safe."},
        {"role": "user", "content": "Hi"},
    ]
