"""The loop: the model calls, tools run side by side, their items are shown in order, the model is asked again, until it
answers.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from app.protocol.deltas import CallArguments, CallOpened, Reasoning, Text, TurnFinished
from app.protocol.messages import ImagePart
from app.protocol.recovery.arguments import read_object
from app.protocol.wire.errors import InvalidRequest, NotFound, Unavailable
from app.protocol.wire.hosted import CodeInterpreterCall, HostedCall, Logs
from app.providers.base import Capabilities, ForcedCall, UpstreamError
from app.tools.ports.tool import ToolContext, ToolFailure, ToolOutcome
from tests.engine.hosting import OWNER, USAGE, Engine, ScriptedTool, Side, calls, read, results, say, texts
from tests.engine.scripted import Turn

Json = dict[str, Any]

ECHO: Json = {"type": "x_echo"}
F: Json = {"type": "function", "name": "f", "parameters": {"type": "object"}}
DOWN = UpstreamError("The upstream is down.", status=503)


async def test_calls_of_one_turn_run_side_by_side_and_are_shown_one_after_the_other() -> None:
    engine = Engine(
        calls(*(("echo", {"n": n}) for n in range(3))), say("All met."), tools=[ScriptedTool(do=Side(3).do)]
    )
    output = await engine.output(tools=[ECHO])
    assert texts(output) == ['{"n": 0}', '{"n": 1}', '{"n": 2}', "All met."]
    assert [item["output"] for item in output[:3]] == [f'met {{"n": {n}}}' for n in range(3)]
    assert [m["type"] for m in read(engine.provider.calls[1])] == ["user", "assistant", "tool", "tool", "tool"]


async def test_a_call_that_ends_early_waits_for_its_turn() -> None:
    over = asyncio.Event()

    async def do(call: HostedCall, _context: ToolContext) -> str:
        if "first" in call.arguments:
            await asyncio.wait_for(over.wait(), 10)  # if they ran one by one
        over.set()
        return "done"

    engine = Engine(calls(("echo", "first"), ("echo", "second")), say("So."), tools=[ScriptedTool(do=do)])
    output = await engine.output(tools=[ECHO])
    assert texts(output) == ["first", "second", "So."]
    assert output[0]["status"] == "completed"


async def test_no_more_calls_run_at_once_than_the_limit_says() -> None:
    running, most = 0, 0

    async def do(_call: HostedCall, _context: ToolContext) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(5):
            await asyncio.sleep(0)
        running -= 1
        return ""

    engine = Engine(calls(*["echo"] * 6), say("So."), tools=[ScriptedTool(do=do)], limits={"tool_calls_at_once": 2})
    await engine.output(tools=[ECHO])
    assert most == 2


async def test_words_thoughts_and_the_clients_calls_keep_their_place() -> None:
    turn = [
        [Reasoning("hm"), Text("Before."), CallOpened(0, "", "echo"), CallArguments(0, "one")],
        [Text("Between."), CallOpened(1, "c1", "f"), CallArguments(1, "{}"), Reasoning("and")],
        [CallOpened(2, "", "echo"), CallArguments(2, "two"), Text("After."), USAGE, TurnFinished("tool_calls")],
    ]
    expected = ["reasoning", "Before.", "one", "Between.", "function_call", "reasoning", "two", "After."]
    streamed, plain = Engine(turn, tools=[ScriptedTool()]), Engine(turn, tools=[ScriptedTool()])
    assert texts(await streamed.output(tools=[ECHO, F])) == expected
    assert texts((await plain.plain(tools=[ECHO, F]))["output"]) == expected


async def test_several_rounds_and_the_model_reads_each() -> None:
    tool = ScriptedTool()
    engine = Engine(calls(("echo", "one"), text="First:"), calls(("echo", "two")), say("Done."), tools=[tool])
    body = await engine.plain(tools=[ECHO])
    assert texts(body["output"]) == ["First:", "one", "two", "Done."]
    assert [m["type"] for m in read(engine.provider.calls[2])] == ["user", "assistant", "tool", "assistant", "tool"]
    assert read(engine.provider.calls[2])[1]["text"] == "First:"
    assert "echo of one" in results(engine.provider.calls[2])[0]
    assert body["usage"]["total_tokens"] == 3 * USAGE.total_tokens
    assert body["usage"]["x_tools"] == {"x_echo": {"count": 2}}
    assert engine.counted("x_echo", "completed") == 2
    assert tool.closed == 1


async def test_the_thinking_of_a_round_is_given_back_to_the_model() -> None:
    turn = [[Reasoning("I need it."), CallOpened(0, "", "echo"), CallArguments(0, "{}"), TurnFinished("tool_calls")]]
    engine = Engine(turn, say("So."), tools=[ScriptedTool()])
    await engine.output(tools=[ECHO])
    assert read(engine.provider.calls[1])[1]["reasoning"] == "I need it."


async def test_code_streams_while_the_model_writes() -> None:
    reached, written = asyncio.Event(), asyncio.Event()

    def opener(call: HostedCall) -> CodeInterpreterCall:
        return CodeInterpreterCall(
            "", "in_progress", "cntr", json.loads(call.arguments)["code"] if call.arguments else ""
        )

    async def do(call: HostedCall, _context: ToolContext) -> ToolOutcome:
        code = json.loads(call.arguments)["code"]
        return ToolOutcome(text="1", item=CodeInterpreterCall("", "completed", "cntr", code, (Logs("1"),)))

    class Slow(list[Any]):
        """Stops before its second batch."""

    first = [CallOpened(0, "", "code"), CallArguments(0, '{"code": "a = 1\\')]
    rest = [CallArguments(0, 'n\\u4e2d"}'), USAGE, TurnFinished("tool_calls")]
    engine = Engine(Slow([first, rest]), say("So."), tools=[ScriptedTool("x_code", do=do, opener=opener)])
    sent: list[bytes] = []

    async def send(frames: list[bytes]) -> None:
        sent.extend(frames)
        if b'"a = 1"' in b"".join(frames) and not reached.is_set():
            reached.set()
            await written.wait()

    async with engine.running(stream=True, tools=[{"type": "x_code"}]) as run, asyncio.TaskGroup() as group:
        group.create_task(run.stream(send))
        await reached.wait()
        assert b"code_interpreter_call_code.done" not in b"".join(sent)
        written.set()
    assert '"delta":"\\n中"'.encode() in b"".join(sent)


async def test_after_the_last_round_the_tools_are_withheld_and_the_model_answers() -> None:
    turns = [calls("echo"), calls("echo"), say("Enough.")]
    engine = Engine(*turns, tools=[ScriptedTool()], limits={"tool_rounds": 2})
    assert texts(await engine.output(tools=[ECHO, F])) == ["{}", "{}", "Enough."]
    assert [[tool.name for tool in call.tools] for call in engine.provider.calls] == [
        ["f", "echo"],
        ["f", "echo"],
        ["f"],
    ]


async def test_a_model_that_calls_without_being_offered_the_tool_is_not_obeyed() -> None:
    tool = ScriptedTool()
    engine = Engine(calls("echo"), calls("echo", text="Well."), tools=[tool], limits={"tool_rounds": 1})
    judged = await engine.stream(tools=[ECHO])
    assert texts(judged.events[-1]["response"]["output"]) == ["{}", "Well."]
    assert judged.response.status == "completed"
    assert len(tool.calls) == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_calls_beyond_the_limit_are_ignored_and_the_model_answers(stream: bool) -> None:
    tool = ScriptedTool()
    engine = Engine(calls(("echo", "one")), calls(("echo", "two"), ("echo", '{"three')), say("So."), tools=[tool])
    wanted: Json = {"tools": [ECHO, F], "max_tool_calls": 2}
    body = (await engine.stream(**wanted)).events[-1]["response"] if stream else await engine.plain(**wanted)
    assert texts(body["output"]) == ["one", "two", "So."]
    assert (body["status"], body["incomplete_details"]) == ("completed", None)
    assert [call.arguments for call in tool.calls] == ["one", "two"]
    assert body["usage"]["x_tools"] == {"x_echo": {"count": 2}}
    last = engine.provider.calls[-1]
    assert [tool.name for tool in last.tools] == ["f"]
    assert [json.loads(call["arguments"]) for call in read(last)[-3]["calls"]] == [
        {"malformed_arguments": "two"},
        {"malformed_arguments": '{"three'},
    ]
    assert "echo of two" in results(last)[1]
    assert (
        results(last)[2]
        == "This call was not made: no more tool calls are allowed for this answer. Answer with what you have."
    )


async def test_at_the_limit_the_tools_are_withheld_and_the_model_answers() -> None:
    engine = Engine(calls("echo"), say("So."), tools=[ScriptedTool()])
    assert (await engine.plain(tools=[ECHO, F], max_tool_calls=1))["status"] == "completed"
    assert [[tool.name for tool in call.tools] for call in engine.provider.calls] == [["f", "echo"], ["f"]]


@pytest.mark.parametrize(("last", "said"), [(say("So."), "So."), (calls("echo", text="I insist."), "I insist.")])
async def test_a_model_that_calls_beyond_the_limit_without_being_offered_the_tool_is_told_once(
    last: Turn, said: str
) -> None:
    tool = ScriptedTool()
    engine = Engine(calls("echo"), calls("echo", text="Well."), last, tools=[tool])
    body = await engine.plain(tools=[ECHO], max_tool_calls=1)
    assert (body["status"], texts(body["output"]), len(tool.calls)) == ("completed", ["{}", "Well.", said], 1)
    assert "not made" in results(engine.provider.calls[2])[-1]


@pytest.mark.parametrize("stream", [True, False])
async def test_the_clients_calls_beside_those_beyond_the_limit_are_made(stream: bool) -> None:
    wanted: Json = {"tools": [ECHO, F], "max_tool_calls": 1}
    engine = Engine(calls(("echo", "one"), ("echo", "two"), ("f", {})), say("So."), tools=[ScriptedTool()])
    body = (await engine.stream(**wanted)).events[-1]["response"] if stream else await engine.plain(**wanted)
    assert texts(body["output"]) == ["one", "function_call"]
    assert (body["status"], len(engine.provider.calls)) == ("completed", 1)
    answer = [{"type": "function_call_output", "call_id": body["output"][1]["call_id"], "output": "fine"}]
    assert texts(await engine.output(**wanted, previous_response_id=body["id"], input=answer)) == ["So."]
    assert len(results(engine.provider.calls[1])) == 2


async def test_what_the_model_says_after_a_call_beyond_the_limit_is_kept() -> None:
    turn = [
        [CallOpened(0, "", "echo"), CallArguments(0, "one"), CallOpened(1, "", "echo"), CallArguments(1, "two")],
        [Text("Both."), USAGE, TurnFinished("tool_calls")],
    ]
    engine = Engine(turn, say("So."), tools=[ScriptedTool()])
    assert texts(await engine.output(tools=[ECHO], max_tool_calls=1)) == ["one", "Both.", "So."]
    assert read(engine.provider.calls[1])[1]["text"] == "Both."


async def test_arguments_that_are_no_object_go_up_again_as_one() -> None:
    engine = Engine(
        calls(("echo", "print(1)"), ("echo", "{}}"), ("echo", "")), say("So."), say("Yes."), tools=[ScriptedTool()]
    )
    body = await engine.plain(tools=[ECHO])
    await engine.plain(tools=[ECHO], previous_response_id=body["id"])
    for call in engine.provider.calls[1:]:
        made = [json.loads(call["arguments"]) for call in read(call)[1]["calls"]]
        assert made == [{"malformed_arguments": "print(1)"}, {}, {}]


@pytest.mark.parametrize("written", ['{"n": 1}}', '"{\\"n\\": 1}"', '{"n": 1}{"n": 1}'])
async def test_a_tool_gets_the_arguments_that_are_meant(written: str) -> None:
    tool = ScriptedTool()
    engine = Engine(calls(("echo", written)), say("So."), tools=[tool])
    await engine.plain(tools=[ECHO])
    assert [json.loads(call.arguments) for call in tool.calls] == [{"n": 1}]


async def test_the_limit_of_tokens_holds_for_all_rounds_together() -> None:
    engine = Engine(calls("echo"), say("So."), tools=[ScriptedTool()])
    await engine.plain(tools=[ECHO], max_output_tokens=20)
    assert [call.sampling.max_output_tokens for call in engine.provider.calls] == [20, 20 - USAGE.output_tokens]


async def test_when_the_tokens_are_used_up_the_model_is_not_asked_again() -> None:
    engine = Engine(*[calls("echo")] * 4, tools=[ScriptedTool()])
    body = await engine.plain(tools=[ECHO], max_output_tokens=4 * USAGE.output_tokens)
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert texts(body["output"]) == ["{}"] * 4


async def test_a_call_that_takes_too_long_is_stopped_and_the_answer_still_comes() -> None:
    stopped = asyncio.Event()

    async def do(_call: HostedCall, _context: ToolContext) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return ""

    engine = Engine(calls("echo"), say("Too bad."), tools=[ScriptedTool(do=do)], limits={"tool_seconds": 0.01})
    output = await engine.output(tools=[ECHO])
    assert (output[0]["status"], texts(output)[1]) == ("failed", "Too bad.")
    assert stopped.is_set()
    assert "longer than 0.01 seconds" in results(engine.provider.calls[1])[0]


async def test_a_huge_output_is_cut_in_its_middle() -> None:
    async def do(_call: HostedCall, _context: ToolContext) -> str:
        return "begin " + "中" * 100_000 + " end"

    engine = Engine(calls("echo"), say("So."), tools=[ScriptedTool(do=do)], limits={"tool_output_bytes": 1024})
    await engine.output(tools=[ECHO])
    (text,) = results(engine.provider.calls[1])
    assert "begin 中" in text
    assert "中 end" in text
    assert "bytes are left out" in text
    assert len(text.encode()) < 1400


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ToolFailure("There is no such page."), "There is no such page."),
        (NotFound("No such store."), "No such store."),
        (Unavailable("It is down."), "It is down."),
        (RuntimeError("/srv/secret.key"), "The tool failed unexpectedly."),
        (TimeoutError("connect"), "was stopped"),
    ],
)
async def test_a_call_that_fails_is_a_failed_item_and_a_sentence(
    error: Exception, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def do(_call: HostedCall, _context: ToolContext) -> str:
        raise error

    engine = Engine(calls("echo"), say("Sorry."), tools=[ScriptedTool(do=do)])
    with caplog.at_level(logging.ERROR):
        judged = await engine.stream(tools=[ECHO])
    item, message = judged.events[-1]["response"]["output"]
    assert item["status"] == "failed"
    assert sentence in item["output"]
    assert message["content"][0]["text"] == "Sorry."
    assert sentence in results(engine.provider.calls[1])[0]
    assert "secret" not in json.dumps(judged.events) + json.dumps(read(engine.provider.calls[1]))
    assert ("secret" in caplog.text) == isinstance(error, RuntimeError)
    assert engine.counted("x_echo", "failed") == 1


async def test_one_failure_does_not_disturb_the_calls_beside_it() -> None:
    async def do(call: HostedCall, _context: ToolContext) -> str:
        if call.arguments == "bad":
            raise ToolFailure("no")
        return "yes"

    engine = Engine(calls(("echo", "good"), ("echo", "bad"), ("echo", "fine")), say("So."), tools=[ScriptedTool(do=do)])
    assert [item["status"] for item in (await engine.output(tools=[ECHO]))[:3]] == ["completed", "failed", "completed"]


async def test_a_cancelled_response_cancels_its_calls_and_keeps_what_was_done() -> None:
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def do(call: HostedCall, _context: ToolContext) -> str:
        if call.arguments == "first":
            return "done"
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return ""

    engine = Engine(calls(("echo", "first"), ("echo", "second")), tools=[ScriptedTool(do=do)])
    shown = asyncio.Event()

    async def send(frames: list[bytes]) -> None:
        if any(b'"output_index":1' in frame for frame in frames):
            shown.set()

    async with engine.running(stream=True, tools=[ECHO]) as run:
        streaming = asyncio.ensure_future(run.stream(send))  # noqa: TID251 - the client hangs up
        await begun.wait()
        await shown.wait()
        streaming.cancel()
        with pytest.raises(asyncio.CancelledError):
            await streaming
    assert stopped.is_set()
    stored: Json = json.loads(await engine.responses.get(OWNER, run.id))
    assert stored["status"] == "cancelled"
    assert [item["status"] for item in stored["output"]] == ["completed", "incomplete"]
    frames = [frame async for batch in await engine.responses.follow(OWNER, run.id, -1) for frame in batch]
    assert b"response.incomplete" in frames[-1]


async def test_a_mistake_of_the_model_between_two_calls_stops_the_one_that_runs() -> None:
    stopped = asyncio.Event()

    async def do(call: HostedCall, _context: ToolContext) -> str:
        if call.arguments == "second":
            try:
                await asyncio.wait_for(asyncio.Event().wait(), 10)
            finally:
                stopped.set()
        return "done"

    engine = Engine(calls(("echo", "first"), ("f", "{oops"), ("echo", "second")), tools=[ScriptedTool(do=do)])
    judged = await engine.stream(tools=[ECHO, F])
    assert judged.response.status == "failed"
    assert [item["type"] for item in judged.events[-1]["response"]["output"]] == ["x_tool_call", "function_call"]
    assert stopped.is_set()
    assert engine.counted("x_echo", "failed") == 0  # it was stopped, it did not run out of time


async def test_an_upstream_that_fails_in_a_later_round_ends_the_stream_with_what_was_done() -> None:
    engine = Engine(calls("echo"), DOWN, tools=[ScriptedTool()])
    judged = await engine.stream(tools=[ECHO])
    assert judged.types[-2:] == ["error", "response.failed"]
    assert [item["status"] for item in judged.events[-1]["response"]["output"]] == ["completed"]
    plain = Engine(calls("echo"), DOWN, tools=[ScriptedTool()])
    with pytest.raises(Unavailable, match="upstream is down"):
        await plain.plain(tools=[ECHO])


async def test_a_demanded_call_is_demanded_once() -> None:
    engine = Engine(calls("echo"), say("So."), tools=[ScriptedTool()])
    await engine.output(tools=[ECHO, F], tool_choice={"type": "x_echo"})
    assert [call.forced_call for call in engine.provider.calls] == [ForcedCall("echo"), None]
    assert [tool.name for tool in engine.provider.calls[0].tools] == ["echo"]


async def test_a_call_demanded_in_words_is_demanded_once_and_checked() -> None:
    can = Capabilities(forced_calls=frozenset())
    engine = Engine(say("No."), calls("echo"), say("So."), tools=[ScriptedTool()], can=can)
    output = await engine.output(tools=[ECHO], tool_choice="required", instructions="Be kind.")
    assert texts(output) == ["{}", "So."]
    first, again, last = (call.system or "" for call in engine.provider.calls)
    assert "You must call" in first
    assert "You must call" in again
    assert last == "Be kind."


async def test_without_parallel_calls_only_the_first_is_made() -> None:
    tool = ScriptedTool()
    engine = Engine(calls(("echo", "one"), ("echo", "two")), say("So."), tools=[tool])
    assert texts(await engine.output(tools=[ECHO], parallel_tool_calls=False)) == ["one", "So."]
    assert len(tool.calls) == 1


async def test_the_format_is_asked_of_the_answer_not_of_the_turns_that_call() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    form = {"format": {"type": "json_schema", "name": "n", "schema": schema}}
    engine = Engine(
        calls("echo", text="Let me see."),
        say("nonsense"),
        say('{"a": 1}'),
        tools=[ScriptedTool()],
        can=Capabilities(formats=frozenset()),
    )
    body = await engine.plain(tools=[ECHO], text=form)
    assert texts(body["output"]) == ["Let me see.", "{}", '{"a": 1}']


async def test_a_call_of_a_function_that_may_not_be_called_is_refused_in_later_rounds_too() -> None:
    choice = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "x_echo"}]}
    engine = Engine(calls("echo"), calls("f"), say("So."), tools=[ScriptedTool()])
    assert texts(await engine.output(tools=[ECHO, F], tool_choice=choice)) == ["{}", "So."]


@pytest.mark.parametrize("images", [True, False])
async def test_images_a_tool_returns_are_shown_to_a_model_that_takes_them(images: bool) -> None:
    async def do(call: HostedCall, _context: ToolContext) -> ToolOutcome:
        return ToolOutcome(text="look", item=ScriptedTool().item(call), images=[ImagePart("data:image/png;base64,AA")])

    engine = Engine(calls("echo"), say("So."), tools=[ScriptedTool(do=do)], can=Capabilities(images=images))
    await engine.plain(tools=[ECHO])
    assert [m["type"] for m in read(engine.provider.calls[1])] == [
        "user",
        "assistant",
        "tool",
        *(["user"] if images else []),
    ]


async def test_a_response_can_be_seen_and_followed_while_a_tool_runs() -> None:
    begun, let = asyncio.Event(), asyncio.Event()

    async def do(_call: HostedCall, _context: ToolContext) -> str:
        begun.set()
        await let.wait()
        return "done"

    engine = Engine(calls("echo", text="Look:"), say("So."), tools=[ScriptedTool(do=do)])
    sent: list[bytes] = []

    async def send(frames: list[bytes]) -> None:
        sent.extend(frames)

    async with engine.running(stream=True, tools=[ECHO]) as run, asyncio.TaskGroup() as group:
        group.create_task(run.stream(send))
        await begun.wait()
        seen: Json = json.loads(await engine.responses.get(OWNER, run.id))
        assert (seen["status"], texts(seen["output"])) == ("in_progress", ["Look:"])
        following = await engine.responses.follow(OWNER, run.id, -1)
        followed = list(await anext(following))
        assert b"x_tool_call" in followed[-1]
        let.set()
        async for batch in following:
            followed += batch
    assert followed == sent


async def test_a_tools_sessions_are_closed_even_if_one_cannot_be(caplog: pytest.LogCaptureFixture) -> None:
    class Stuck(ScriptedTool):
        async def aclose(self) -> None:
            raise RuntimeError("stuck")

    tool = ScriptedTool("x_b")
    engine = Engine(say("So."), tools=[Stuck("x_a"), tool])
    assert texts(await engine.output(tools=[{"type": "x_a"}, {"type": "x_b"}])) == ["So."]
    assert tool.closed == 1
    assert "x_a could not be closed" in caplog.text


async def test_what_opening_refuses_is_the_clients_mistake() -> None:
    class Picky(ScriptedTool):
        async def _open(self, context: ToolContext) -> ScriptedTool:
            raise InvalidRequest("No such store.", param="tools[0].vector_store_ids")

    with pytest.raises(InvalidRequest, match="No such store"):
        await Engine(tools=[Picky()]).stream(tools=[ECHO])


UNKNOWN: list[Any] = [calls("ehco"), calls("ehco")]
"""Also when told again."""


@pytest.mark.parametrize("stream", [True, False])
async def test_a_model_that_calls_an_unknown_function_is_told_which_there_are(stream: bool) -> None:
    engine = Engine(*UNKNOWN, calls(("echo", "one")), say("So."), tools=[ScriptedTool()])
    wanted: Json = {"tools": [ECHO, F]}
    body = (await engine.stream(**wanted)).events[-1]["response"] if stream else await engine.plain(**wanted)
    assert (texts(body["output"]), body["status"]) == (["one", "So."], "completed")
    (told,) = results(engine.provider.calls[2])
    assert told == "The model called the function 'ehco', which was not offered to it. The functions are: f, echo."
    assistant, result = read(engine.provider.calls[2])[1:]
    assert [call["call_id"] for call in assistant["calls"]] == [result["call_id"]]
    assert assistant["calls"][0]["name"] == "ehco"


async def test_words_that_were_shown_before_an_unknown_call_stay_and_the_model_is_told() -> None:
    engine = Engine(calls(("e h c o", "{oops"), text="Look:"), say("So."), tools=[ScriptedTool()])
    assert texts(await engine.output(tools=[ECHO])) == ["Look:", "So."]
    assistant = read(engine.provider.calls[1])[1]
    assert assistant["text"] == "Look:"
    assert [(call["name"], call["arguments"]) for call in assistant["calls"]] == [
        ("e_h_c_o", '{"malformed_arguments":"{oops"}')
    ]


async def test_a_call_that_runs_beside_an_unknown_one_is_run_and_both_are_answered() -> None:
    mixed = calls(("echo", "one"), ("ehco", "two"), ("echo", "three"))
    tool = ScriptedTool()
    engine = Engine(mixed, mixed, say("So."), tools=[tool])
    assert texts(await engine.output(tools=[ECHO])) == ["one", "three", "So."]
    assert [call.arguments for call in tool.calls] == ["one", "three"]
    first, second, third = results(engine.provider.calls[2])
    assert ("echo of one" in first, "echo of three" in second, "'ehco'" in third) == (True, True, True)


async def test_after_the_last_round_an_unknown_call_fails_the_response() -> None:
    engine = Engine(calls("echo"), *UNKNOWN, tools=[ScriptedTool()], limits={"tool_rounds": 1})
    judged = await engine.stream(tools=[ECHO])
    assert judged.response.status == "failed"
    assert "'ehco'" in judged.events[-1]["response"]["error"]["message"]


async def test_a_model_that_never_learns_comes_to_an_end() -> None:
    engine = Engine(*UNKNOWN * 3, tools=[ScriptedTool()], limits={"tool_rounds": 2})
    assert (await engine.stream(tools=[ECHO])).response.status == "failed"
    assert len(engine.provider.calls) == 6


async def test_a_clients_call_before_an_unknown_one_fails_the_response_since_the_client_is_asked_first() -> None:
    engine = Engine(calls("f", "ehco"), tools=[ScriptedTool()])
    judged = await engine.stream(tools=[ECHO, F])
    assert judged.response.status == "failed"
    assert "'ehco'" in judged.events[-1]["response"]["error"]["message"]
    plain = Engine(calls("f", "ehco"), calls("f"), tools=[ScriptedTool()])
    assert [item["type"] for item in (await plain.plain(tools=[ECHO, F]))["output"]] == ["function_call"]


@pytest.mark.parametrize("written", ["Echo", "functions.echo", "echo:1"])
async def test_a_tool_whose_name_was_respelt_is_run(written: str) -> None:
    engine = Engine(calls((written, "one")), say("So."), tools=[ScriptedTool()])
    assert texts(await engine.output(tools=[ECHO])) == ["one", "So."]
    assert read(engine.provider.calls[1])[1]["calls"][0]["name"] == "echo"


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("print(6*7)", '{"malformed_arguments":"print(6*7)"}'),
        ('{"code":"print(', '{"malformed_arguments":"{\\"code\\":\\"print("}'),
        ("[1]", '{"malformed_arguments":"[1]"}'),
        ("", "{}"),
        ("null", "{}"),
        ('{"a": 1}', '{"a": 1}'),
    ],
)
async def test_what_goes_up_again_is_an_object_whatever_the_tool_was_called_with(written: str, sent: str) -> None:
    tool = ScriptedTool()
    engine = Engine(calls(("echo", written)), say("So."), tools=[tool])
    await engine.output(tools=[ECHO])
    assert tool.calls[0].arguments == ((written and read_object(written)) or written)
    assert read(engine.provider.calls[1])[1]["calls"][0]["arguments"] == sent


@pytest.mark.parametrize("stream", [True, False])
async def test_json_in_the_thinking_of_a_later_round_is_the_answer(stream: bool) -> None:
    """What was said in an earlier round is not judged again."""
    thought = [[Reasoning('{"a": 1}'), USAGE, TurnFinished("stop")]]
    engine = Engine(say('{"a": 0}'), calls("echo", text="Let me see."), thought, tools=[ScriptedTool()])
    wanted: Json = {"tools": [ECHO], "text": {"format": {"type": "json_object"}}}
    await engine.output(**wanted)
    body = (await engine.stream(**wanted)).events[-1]["response"] if stream else await engine.plain(**wanted)
    assert texts(body["output"]) == ["Let me see.", "{}", "reasoning", '{"a": 1}']


async def test_the_answer_after_a_call_is_held_until_the_format_is_believed() -> None:
    fenced = say("```json\n", '{"a": 1}', "\n```")
    engine = Engine(calls("echo"), fenced, tools=[ScriptedTool()])
    assert texts(await engine.output(tools=[ECHO], text={"format": {"type": "json_object"}})) == ["{}", '{"a": 1}']
