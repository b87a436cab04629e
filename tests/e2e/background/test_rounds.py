"""A tool loop whose owner dies goes on behind its last finished round, and what must not be done twice is not."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import mcp_types as types
import pytest

from tests.e2e.background.pairs import Replicas, database, started
from tests.e2e.background.test_background import BACKGROUND, until
from tests.e2e.streams import Frames, Json, final, id_in, replay, split
from tests.support.gateway import Gateway
from tests.support.mcp_server import Context, McpServer, serving_mcp
from tests.support.script import Call, Gate, Piece, Reply, Text, Thought
from tests.support.services import Postgres, Valkey
from tests.support.upstream import ScriptedUpstream

_ADD = Call("mcp__sums__add", ['{"a": 2, "b": 3}'])
_HANG = Call("mcp__sums__hang")
_LOOK = Call("mcp__sums__look")
_NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}}


@pytest.fixture
def mcp() -> Generator[McpServer]:
    """A server of the test's own, whose calls are cut off when their caller dies."""
    with serving_mcp() as server:
        server.tools["hang"] = (types.Tool(name="hang", input_schema=_NO_ARGUMENTS), _hang)
        harmless = types.ToolAnnotations(read_only_hint=True)
        server.tools["look"] = (types.Tool(name="look", input_schema=_NO_ARGUMENTS, annotations=harmless), _hang)
        yield server


async def _hang(_: Context, __: Mapping[str, Any]) -> types.CallToolResult:
    await anyio.sleep_forever()
    raise AssertionError("it never wakes")


@pytest.fixture(params=["redis", "postgresql"])
def replicas(
    request: pytest.FixtureRequest,
    postgres: Postgres,
    valkey: Valkey,
    upstream_server: ScriptedUpstream,
    tmp_path: Path,
) -> Generator[Replicas]:
    """Two gateways that may call servers of this machine."""
    shared = {"redis_url": valkey.url} if request.param == "redis" else {}
    settings = {"fetch_allow": '["127.0.0.1"]', "drain_seconds": "20", **shared}
    with ExitStack() as stack:
        yield started(stack, tmp_path, upstream_server, database_url=database(postgres), **settings)


def _request(mcp: McpServer, *, stream: bool, **more: Any) -> Json:
    server = {"type": "mcp", "server_label": "sums", "server_url": mcp.url(), "require_approval": "never"}
    return {**BACKGROUND, "stream": stream, "tools": [server], **more}


def _calls(mcp: McpServer, name: str) -> int:
    """How often the server was asked for it."""
    return sum(
        seen.message.get("params", {}).get("name") == name
        for seen in mcp.seen
        if seen.message.get("method") == "tools/call"
    )


class _Stage:
    """Starts runs in one gateway, and stops each at a certain point."""

    def __init__(
        self, stack: AsyncExitStack, http: httpx.AsyncClient, upstream: ScriptedUpstream, mcp: McpServer
    ) -> None:
        self._stack = stack
        self._http = http
        self._upstream = upstream
        self._mcp = mcp

    async def plain(self, *turns: list[Piece], calls: str = "", times: int = 1) -> str:
        """Start one that is not streamed; it stops at its gate, or when the tool has been called so often.

        Returns its id.
        """
        gates = self._script(turns)
        made = (await self._http.post("/v1/responses", json=_request(self._mcp, stream=False))).json()["id"]
        await self._stopped(gates, calls, times)
        return str(made)

    async def streamed(self, *turns: list[Piece], last: str, calls: str = "", times: int = 1) -> bytes:
        """Start one that is streamed; it stops as a plain one does. Returns what was seen, up to the `last` event."""
        gates = self._script(turns)
        answer = await self._stack.enter_async_context(
            self._http.stream("POST", "/v1/responses", json=_request(self._mcp, stream=True))
        )
        seen = await Frames(answer).until(last)
        await self._stopped(gates, calls, times)
        return seen

    def _script(self, turns: tuple[list[Piece], ...]) -> list[Gate]:
        self._upstream.script(*(Reply(pieces=turn) for turn in turns))
        return [piece for turn in turns for piece in turn if isinstance(piece, Gate)]

    async def _stopped(self, gates: list[Gate], calls: str, times: int) -> None:
        for gate in gates:
            await gate.reached()
        async with asyncio.timeout(20):
            while calls and _calls(self._mcp, calls) < times:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.02)


@asynccontextmanager
async def _stage(here: Gateway, upstream: ScriptedUpstream, mcp: McpServer) -> AsyncGenerator[_Stage]:
    async with here.http() as http, AsyncExitStack() as stack:
        yield _Stage(stack, http, upstream, mcp)


def _kinds(body: Json) -> list[str]:
    return [f"{item['type']} {item.get('status', '')}".strip() for item in body["output"]]


async def test_a_loop_goes_on_where_it_is_safe(replicas: Replicas, upstream: ScriptedUpstream, mcp: McpServer) -> None:
    here, there = replicas
    async with _stage(here, upstream, mcp) as stage, there.http() as second:
        thinking = await stage.streamed([Thought("Let me"), Gate()], last="response.reasoning_summary_text.delta")
        added = await stage.streamed(
            [Thought("Hm."), _ADD], [Thought("So it"), Gate()], last="response.mcp_call.completed"
        )
        spoken = await stage.streamed(
            [Thought("Hm."), _ADD], [Thought("So."), Text("It is"), Gate()], last="response.output_text.delta"
        )
        unseen = await stage.plain([Thought("Hm."), _ADD], [Gate()])
        changing = await stage.streamed([Thought("Hm."), _HANG], last="response.mcp_call.in_progress", calls="hang")
        hidden = await stage.plain([Thought("Hm."), _HANG], calls="hang", times=2)
        looking = await stage.plain([Thought("Hm."), _LOOK], calls="look")
        upstream.script(*(Reply.say("Five.") for _ in range(4)))
        here.process.kill()

        async with asyncio.timeout(30):
            rests = [
                await replay(second, id_in(seen), starting_after=len(split(seen)) - 1)
                for seen in (thinking, added, spoken, changing)
            ]
            plain = [await until(second, made, "completed", "failed") for made in (unseen, hidden, looking)]
        replays = [await replay(second, id_in(seen)) for seen in (thinking, added, spoken, changing)]

    assert [seen + rest for seen, rest in zip((thinking, added, spoken, changing), rests, strict=True)] == replays
    bodies = [*map(final, replays), *plain]
    assert [body["status"] for body in bodies] == [
        "completed",
        "completed",
        "failed",
        "failed",
        "completed",
        "failed",
        "completed",
    ]
    assert [_calls(mcp, name) for name in ("add", "hang", "look")] == [3, 2, 1]
    assert _kinds(bodies[0])[:2] == ["mcp_list_tools", "reasoning incomplete"]
    assert _kinds(bodies[1])[1:] == [
        "reasoning completed",
        "mcp_call completed",
        "reasoning incomplete",
        "message completed",
    ]
    assert bodies[4]["output"][2]["output"] == "5"


async def test_the_model_reads_what_it_had_found(
    replicas: Replicas, upstream: ScriptedUpstream, mcp: McpServer
) -> None:
    here, there = replicas
    async with _stage(here, upstream, mcp) as stage, there.http() as second:
        made = await stage.plain([Thought("Hm."), _ADD], [Gate()])
        upstream.script(Reply.say("Five."), Reply.say("I added."))
        here.process.kill()
        body = await until(second, made, "completed")
        asked = upstream.requests[-1].body["messages"]
        request = _request(mcp, stream=False, previous_response_id=made, input="How?")
        later = (await second.post("/v1/responses", json={**request, "background": False})).json()
    assert body["usage"]["total_tokens"] == 26
    assert body["usage"]["x_tools"] == {"mcp": {"count": 1}}
    assert [message["role"] for message in asked] == ["user", "assistant", "tool"]
    assert "5" in asked[-1]["content"]
    assert later["output"][-1]["content"][0]["text"] == "I added."
    assert upstream.requests[-1].body["messages"][2] == asked[2]


async def test_what_the_client_has_approved_runs_once(
    replicas: Replicas, upstream: ScriptedUpstream, mcp: McpServer
) -> None:
    here, there = replicas
    server = {"type": "mcp", "server_label": "sums", "server_url": mcp.url()}
    async with here.http() as http, there.http() as second:
        upstream.script(Reply(pieces=[Call("mcp__sums__delete")]))
        first = (await http.post("/v1/responses", json={**BACKGROUND, "background": False, "tools": [server]})).json()
        answer = {"type": "mcp_approval_response", "approve": True, "approval_request_id": first["output"][-1]["id"]}
        gate = Gate()
        upstream.script(Reply(pieces=[gate]))
        request = {**BACKGROUND, "tools": [server], "input": [answer], "previous_response_id": first["id"]}
        made = (await http.post("/v1/responses", json=request)).json()["id"]
        await gate.reached()
        upstream.script(Reply.say("Gone."))
        here.process.kill()
        body = await until(second, made, "completed")
    assert _calls(mcp, "delete") == 1
    assert _kinds(body) == ["mcp_call completed", "message completed"]
    assert upstream.requests[-1].body["messages"][-1]["role"] == "tool"


async def test_a_process_that_stops_hands_over_finished_rounds_only(
    replicas: Replicas, upstream: ScriptedUpstream, mcp: McpServer
) -> None:
    here, there = replicas
    async with _stage(here, upstream, mcp) as stage, there.http() as second:
        made = await stage.plain([Thought("Hm."), _ADD], [Gate()])
        running = await stage.plain([Thought("Hm."), _HANG], calls="hang")
        upstream.script(Reply.say("Five."))
        here.process.send_signal(signal.SIGTERM)
        body = await until(second, made, "completed")
        assert (await second.get(f"/v1/responses/{running}")).json()["status"] == "in_progress"
        cancelled = (await second.post(f"/v1/responses/{running}/cancel")).json()
    assert await asyncio.to_thread(here.process.wait, 20) == 0
    assert [_calls(mcp, name) for name in ("add", "hang")] == [1, 1]
    assert body["output"][2]["output"] == "5"
    assert _kinds(cancelled)[-1] == "mcp_call incomplete"


async def test_a_cancelled_run_keeps_its_finished_rounds(
    replicas: Replicas, upstream: ScriptedUpstream, mcp: McpServer
) -> None:
    here, there = replicas
    async with _stage(here, upstream, mcp) as stage, there.http() as second:
        made = await stage.plain([Thought("Hm."), _ADD], [Gate()])
        here.process.send_signal(signal.SIGSTOP)
        try:
            cancelled = (await second.post(f"/v1/responses/{made}/cancel")).json()
        finally:
            here.process.send_signal(signal.SIGCONT)
    assert cancelled["status"] == "cancelled"
    assert _kinds(cancelled) == ["mcp_list_tools", "reasoning completed", "mcp_call completed"]
