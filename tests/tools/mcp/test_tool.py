"""The tool `mcp` against a real server over both transports, and both generations of the protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Generator

import mcp_types as types
import msgspec
import pytest
from openai.types.responses import response_output_item as sdk

from app.protocol.wire.hosted import HostedCall, McpApprovalRequest, McpCall, McpExecutionError, McpProtocolError
from tests.support.mcp_server import PIXEL, Address, McpServer, serving_mcp
from tests.tools.mcp_stage import a_call, call, listed, names, session

_PATIENCE = 10.0
_ALL = ["add", "measure", "delete", "slow", "fail", "refuse", "huge", "gallery", "whoami"]


@pytest.fixture(scope="module")
def running() -> Generator[McpServer]:
    with serving_mcp() as server:
        yield server


@pytest.fixture
def server(running: McpServer) -> McpServer:
    running.reset()
    return running


@pytest.fixture(params=["modern", "legacy", "sse"])
def url(request: pytest.FixtureRequest, server: McpServer) -> str:
    address: Address = request.param
    return server.url(address)


async def test_the_tools_are_announced_and_offered(url: str) -> None:
    async with session(url) as opened:
        announced = listed(opened)
        assert announced.error is None
        assert [tool.name for tool in announced.tools] == _ALL
        assert announced.tools[0].annotations == {"readOnlyHint": True}
        assert names(opened) == [f"mcp__shop__{name}" for name in _ALL]
        add = opened.functions[0]
        assert msgspec.json.decode(add.parameters)["required"] == ["a", "b"]
        assert "Adds two numbers." in (add.description or "")
        sdk.McpListTools.model_validate_json(msgspec.json.encode(announced), strict=True)


async def test_a_call_is_made(url: str) -> None:
    async with session(url) as opened:
        begun = opened.item(a_call("add", a=1, b=2))
        assert begun == McpCall("", "in_progress", "add", "shop", '{"a":1,"b":2}')
        outcome, item = await call(opened, "add", a=1, b=2)
        assert outcome.text == "3"
        assert (item.status, item.output, item.error) == ("completed", "3", None)
        sdk.McpCall.model_validate_json(msgspec.json.encode(item), strict=True)


async def test_calls_run_side_by_side(url: str, server: McpServer) -> None:
    async with session(url) as opened, asyncio.TaskGroup() as group:
        slow = group.create_task(opened.run(a_call("slow")))
        await asyncio.to_thread(server.called.wait, _PATIENCE)
        outcomes = await asyncio.gather(*(opened.run(a_call("add", a=n, b=n)) for n in range(5)))
        assert [outcome.text for outcome in outcomes] == ["0", "2", "4", "6", "8"]
        slow.cancel()


async def test_a_call_that_is_given_up_lets_go_of_the_server(url: str, server: McpServer) -> None:
    async with session(url) as opened:
        async with asyncio.TaskGroup() as group:
            made = group.create_task(opened.run(a_call("slow")))
            assert await asyncio.to_thread(server.called.wait, _PATIENCE)
            made.cancel()
        assert made.cancelled()
        assert await asyncio.to_thread(server.idle.wait, _PATIENCE)
        outcome, _ = await call(opened, "add", a=1, b=2)
        assert outcome.text == "3"


async def test_structured_content_stands_in_for_text(url: str) -> None:
    async with session(url) as opened:
        outcome, item = await call(opened, "measure")
        assert outcome.text == item.output == '{"kelvin":293.5}'


async def test_images_go_to_the_model_and_all_else_is_text(url: str) -> None:
    async with session(url) as opened:
        outcome, item = await call(opened, "gallery")
        assert [image.url for image in outcome.images] == [f"data:image/png;base64,{PIXEL}"] * 2
        for shown in (
            "two pictures",
            "[image 1]",
            "[image/png: not shown]",
            "[audio, audio/wav",
            "example.com/manual",
            "remember the milk",
        ):
            assert shown in outcome.text
        assert PIXEL not in (item.output or "")


async def test_a_tool_that_fails_is_a_failed_item(url: str) -> None:
    async with session(url) as opened:
        outcome, item = await call(opened, "fail")
        assert "the shelf is empty" in outcome.text
        assert (item.status, item.output) == ("failed", None)
        assert item.error == McpExecutionError([{"type": "text", "text": "the shelf is empty"}])
        sdk.McpCall.model_validate_json(msgspec.json.encode(item), strict=True)


async def test_an_error_of_the_server_is_a_failed_item(url: str) -> None:
    async with session(url) as opened:
        outcome, item = await call(opened, "refuse")
        assert outcome.text == "The MCP server 'shop' answers with an error: no such city"
        assert item.status == "failed"
        assert item.error == McpProtocolError(types.INVALID_PARAMS, outcome.text)
        sdk.McpCall.model_validate_json(msgspec.json.encode(item), strict=True)


@pytest.mark.parametrize("arguments", ["", "{", "[]", '"a"', "nonsense", "\udc00"])
async def test_any_arguments_have_an_item_and_an_outcome(server: McpServer, arguments: str) -> None:
    async with session(server.url()) as opened:
        made = HostedCall("c", "mcp__shop__delete", arguments)
        assert isinstance(opened.item(made), McpCall)
        outcome = await opened.run(made)
        assert outcome.text == ("gone" if arguments == "" else "The arguments must be a JSON object.")


async def test_an_unknown_function_is_a_failed_item(server: McpServer) -> None:
    async with session(server.url()) as opened:
        assert isinstance(opened.item(a_call("nonsense")), McpCall)
        outcome, item = await call(opened, "nonsense")
        assert (item.status, outcome.text) == ("failed", "The MCP server 'shop' has no such tool.")


@pytest.mark.parametrize("label", ["shop", "my shop", "my.shop", "a__b", "shop_", "s" * 64])
async def test_an_unknown_function_is_shown_by_its_own_name(server: McpServer, label: str) -> None:
    safe = label.replace(" ", "_").replace(".", "_")
    async with session(server.url(), server_label=label) as opened:
        for function, name in (
            (f"mcp__{safe}__nonsense", "nonsense"),
            ("nonsense", "nonsense"),
            (f"mcp__{safe}__", f"mcp__{safe}__"),
        ):
            outcome = await opened.run(HostedCall("c", function, "{}"))
            assert isinstance(outcome.item, McpCall)
            assert (outcome.item.name, outcome.item.status) == (name, "failed")


async def test_long_output_is_cut(url: str) -> None:
    async with session(url) as opened:
        outcome, item = await call(opened, "huge", characters=100_000)
        assert 48_000 < len((item.output or "").encode()) < 50_000
        assert outcome.text == item.output


async def test_output_without_end_is_given_up(url: str) -> None:
    async with session(url) as opened:
        outcome, item = await call(opened, "huge", characters=2_000_000)
        assert outcome.text == "The answer of the MCP server 'shop' is malformed, truncated or too large."
        assert item.status == "failed"


async def test_a_long_list_is_read_page_by_page(url: str, server: McpServer) -> None:
    server.page_size = 4
    async with session(url) as opened:
        assert [tool.name for tool in listed(opened).tools] == _ALL
    assert server.methods.count("tools/list") == 3


async def test_a_stateful_server_sees_one_session(server: McpServer) -> None:
    async with session(server.url("legacy")) as opened:
        for _ in range(3):
            await call(opened, "add", a=1, b=1)
    sessions = [seen.headers["mcp-session-id"] for seen in server.seen if seen.message.get("method") == "tools/call"]
    assert len(sessions) == 3
    assert len(set(sessions)) == 1
    assert server.methods.count("initialize") == 1
    ids = [seen.message["id"] for seen in server.seen if "id" in seen.message]
    assert len(set(ids)) == len(ids)
    assert (server.seen[-1].verb, server.seen[-1].headers["mcp-session-id"]) == ("DELETE", sessions[0])


async def test_a_session_that_the_server_forgot_is_begun_anew(server: McpServer) -> None:
    async with session(server.url("legacy")) as opened:
        server.forgets = True
        outcome, _ = await call(opened, "add", a=1, b=1)
        assert outcome.text == "2"
    assert server.methods.count("initialize") == 2


async def test_calls_side_by_side_begin_one_session(server: McpServer) -> None:
    async with session(server.url("legacy")) as first:
        note = first.note
    server.seen.clear()
    async with session(server.url("legacy"), note=note) as later, asyncio.TaskGroup() as group:
        calls = [group.create_task(call(later, "add", a=n, b=1)) for n in range(4)]
    assert [task.result()[0].text for task in calls] == ["1", "2", "3", "4"]
    assert server.methods.count("initialize") == 1
    sessions = {seen.headers["mcp-session-id"] for seen in server.seen if seen.message.get("method") == "tools/call"}
    assert len(sessions) == 1


async def test_calls_side_by_side_share_that_a_session_cannot_begin(server: McpServer) -> None:
    async with session(server.url()) as first:
        note = first.note
    server.seen.clear()
    async with session(server.url(), note=note) as later:
        server.status = 403
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(call(later, "add", a=n, b=1)) for n in range(4)]
        assert {task.result()[1].status for task in calls} == {"failed"}
        assert len(server.seen) == 1
        server.status = None
        assert (await call(later, "add", a=1, b=1))[0].text == "2"


async def test_calls_side_by_side_outlive_a_session_that_the_server_forgot(server: McpServer) -> None:
    async with session(server.url("legacy")) as opened:
        server.forgets = True
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(call(opened, "add", a=n, b=1)) for n in range(4)]
        assert [task.result()[0].text for task in calls] == ["1", "2", "3", "4"]
        assert (await call(opened, "add", a=1, b=1))[0].text == "2"
    assert server.methods.count("initialize") == 2
    begun = [seen.headers.get("mcp-session-id") for seen in server.seen if seen.message.get("method") == "tools/call"]
    assert begun[-1] == server.seen[-1].headers["mcp-session-id"]
    assert begun[-1] != begun[0]


async def test_the_list_of_an_earlier_turn_is_not_asked_for_again(url: str, server: McpServer) -> None:
    async with session(url) as first:
        note = first.note
    assert note is not None
    server.seen.clear()
    async with session(url, note=note) as later:
        assert later.announcements == ()
        assert later.note is None
        assert names(later) == names(first)
        assert server.seen == []
        outcome, _ = await call(later, "add", a=1, b=2)
        assert outcome.text == "3"
    assert "tools/list" not in server.methods


async def test_arguments_that_a_server_wants_as_headers_are_sent_so(server: McpServer) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string", "x-mcp-header": "City"}}}
    server.add(types.Tool(name="weather", input_schema=schema), "sunny")
    async with session(server.url("modern")) as opened:
        outcome, _ = await call(opened, "weather", city="Rome")
        assert outcome.text == "sunny"
    assert [
        seen.headers.get("mcp-param-city") for seen in server.seen if seen.message.get("method") == "tools/call"
    ] == [None, "Rome"]


@pytest.mark.parametrize("note", ["", "nonsense", "{}", '{"server":1}', "[]"])
async def test_a_note_that_cannot_be_read_is_as_none(server: McpServer, note: str) -> None:
    async with session(server.url(), note=note) as opened:
        assert len(listed(opened).tools) == len(_ALL)


async def test_a_label_with_another_address_is_another_server(server: McpServer) -> None:
    async with session(server.url("modern")) as first:
        note = first.note
    async with session(server.url("legacy"), note=note) as second:
        assert len(listed(second).tools) == len(_ALL)


async def test_the_transport_follows_from_the_address_unless_it_is_named(server: McpServer) -> None:
    async with session(server.url("sse")) as opened:
        assert listed(opened).error is None
    assert server.seen[0].verb == "GET"
    server.seen.clear()
    async with session(server.url("modern").replace("/mcp", "/sse"), server_protocol="streamable_http") as opened:
        assert listed(opened).error is None
    assert server.seen[0].verb == "POST"


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        (["delete", "add", "unknown"], ["add", "delete"]),
        ([], []),
        ({"tool_names": ["delete"]}, ["delete"]),
        ({"read_only": True}, ["add", "measure"]),
        ({"read_only": True, "tool_names": ["delete", "measure"]}, ["measure"]),
        ({"read_only": False, "tool_names": ["add", "fail"]}, ["fail"]),
    ],
)
async def test_only_allowed_tools_are_there(server: McpServer, allowed: object, expected: list[str]) -> None:
    async with session(server.url(), allowed_tools=allowed) as opened:
        assert [tool.name for tool in listed(opened).tools] == expected
        assert names(opened) == [f"mcp__shop__{name}" for name in expected]
        if "delete" not in expected:
            outcome, item = await call(opened, "delete")
            assert (item.status, outcome.text) == ("failed", "The MCP server 'shop' has no such tool.")
    assert "tools/call" not in server.methods


@pytest.mark.parametrize(
    ("rule", "asks"),
    [
        (None, {"add", "delete", "measure"}),
        ("always", {"add", "delete", "measure"}),
        ("never", set[str]()),
        ({"never": {"tool_names": ["add"]}}, {"delete", "measure"}),
        ({"never": {"read_only": True}}, {"delete"}),
        ({"always": {"tool_names": ["delete"]}}, {"delete"}),
        ({"always": {"tool_names": ["delete"]}, "never": {"tool_names": ["add", "delete"]}}, {"delete", "measure"}),
    ],
)
async def test_consent_is_asked_for_as_the_client_wishes(server: McpServer, rule: object, asks: set[str]) -> None:
    async with session(server.url(), require_approval=rule) as opened:
        asked = {
            name for name in ("add", "delete", "measure") if isinstance(opened.item(a_call(name)), McpApprovalRequest)
        }
        assert asked == asks


async def test_a_call_without_consent_is_not_made(server: McpServer) -> None:
    async with session(server.url(), require_approval="always") as opened:
        request = opened.item(a_call("add", a=1, b=2))
        assert request == McpApprovalRequest("", "add", "shop", '{"a":1,"b":2}')
        sdk.McpApprovalRequest.model_validate_json(msgspec.json.encode(request), strict=True)
        outcome, item = await call(opened, "add", a=1, b=2)
        assert item.status == "failed"
        assert "consent" in outcome.text
    assert "tools/call" not in server.methods


@pytest.mark.parametrize("arguments", ["[1]", "{cut", '{"malformed_arguments":"{cut"}'])
async def test_no_consent_is_asked_for_what_cannot_be_called(server: McpServer, arguments: str) -> None:
    async with session(server.url(), require_approval="always") as opened:
        for approved in (None, "mcpr_1"):
            made = HostedCall("call_1", "mcp__shop__delete", arguments, approved)
            assert isinstance(opened.item(made), McpCall)
            outcome = await opened.run(made)
            assert outcome.text == "The arguments must be a JSON object."
    assert "tools/call" not in server.methods


async def test_a_call_with_consent_is_made_in_the_next_turn(url: str) -> None:
    async with session(url, require_approval="always") as first:
        note = first.note
    async with session(url, note=note, require_approval="always") as opened:
        outcome, item = await call(opened, "add", approval="mcpr_1", a=1, b=2)
        assert outcome.text == "3"
        assert item.approval_request_id == "mcpr_1"
