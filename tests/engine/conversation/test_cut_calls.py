"""Calls that were cut, or written as no JSON object: a conversation goes on with them, and what goes up again can be
sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from app.engine.conversation import records
from app.engine.conversation.context import Context
from app.engine.conversation.exchanges import Approval, Exchange
from app.engine.conversation.function_names import upstream_name
from app.engine.conversation.open_calls import MALFORMED_NOTE, result_of
from app.engine.conversation.transcript import Transcript
from app.protocol.deltas import CallArguments, CallOpened, Reasoning, Text, TurnFinished
from app.protocol.messages import Assistant, Call, Message, ToolResult, User
from app.protocol.wire.errors import InvalidRequest
from app.stores.ports.responses import Turn
from tests.engine.conversing import USER, Json, after, call, messages, opened, output, refusal, said, transcribe, unseal
from tests.engine.hosting import USAGE, Engine, calls, read, say
from tests.engine.scripted import Turn as Script

CUT = call("b", arguments='{"city": "Ro', status="incomplete")
WRAPPED = '{"malformed_arguments":"{\\"city\\": \\"Ro"}'
THOUGHT: Json = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}
F: Json = {"type": "function", "name": "f", "parameters": {"type": "object"}}
G: Json = {"type": "custom", "name": "g"}
RESTARTS = [pytest.param(Engine.stay, id="cached"), pytest.param(Engine.restart, id="restarted")]
NEXT: Json = {"role": "user", "content": "go on"}


def the_chain(*items: Json, cut: bool) -> Context:
    return after(transcribe(USER), *items, cut=cut)


@pytest.mark.parametrize(
    "cut", [CUT, {**CUT, "status": "in_progress"}, {**CUT, "type": "custom_tool_call", "input": "abc"}]
)
def test_a_cut_call_that_nothing_answers_is_left_out(cut: Json) -> None:
    before = [User("hi"), Assistant("Look:", "hm")]
    assert messages(USER, THOUGHT, said("Look:"), cut, NEXT) == [*before, User("go on")]
    assert messages(NEXT, context=the_chain(THOUGHT, said("Look:"), cut, cut=True)) == [*before, User("go on")]
    assert messages(USER, cut) == [User("hi")]


def test_what_came_after_a_cut_call_stays_in_its_order() -> None:
    assert messages(USER, CUT, NEXT, said("So."), NEXT, CUT, NEXT, call(), output()) == [
        *(User("hi"), User("go on"), Assistant("So."), User("go on"), User("go on")),
        *(Assistant("", calls=(opened(),)), ToolResult("c1", "42")),
    ]


def test_a_whole_call_beside_a_cut_one_may_be_answered_or_not() -> None:
    one, two = Assistant("", calls=(opened(),)), Assistant("", calls=(opened(), Call("b", "f", WRAPPED)))
    for items, context in (([USER, call(), CUT], Context()), ([], the_chain(call(), CUT, cut=True))):
        assert messages(*items, NEXT, context=context) == [User("hi"), User("go on")]
        assert messages(*items, NEXT, output(), context=context) == [
            User("hi"),
            one,
            ToolResult("c1", "42"),
            User("go on"),
        ]
        assert messages(*items, output(), NEXT, context=context) == [
            User("hi"),
            one,
            ToolResult("c1", "42"),
            User("go on"),
        ]
        both = messages(*items, output("b", "cut"), output(), context=context)
        assert both == [User("hi"), two, ToolResult("c1", "42"), ToolResult("b", MALFORMED_NOTE + "cut")]
    assert messages(USER, call(), CUT, output(), said("So."), NEXT)[1:] == [
        one,
        ToolResult("c1", "42"),
        Assistant("So."),
        User("go on"),
    ]


def test_a_whole_call_of_a_response_that_failed_later_may_stay_unanswered() -> None:
    assert messages(NEXT, context=the_chain(said("Look:"), call(), cut=True)) == [
        User("hi"),
        Assistant("Look:"),
        User("go on"),
    ]
    assert (
        refusal(NEXT, context=the_chain(said("Look:"), call(), cut=False)).message
        == "No tool output found for function call c1."
    )


def test_a_question_repeated_after_a_cut_call_is_asked() -> None:
    assert messages(USER, context=the_chain(CUT, cut=True)) == [User("hi"), User("hi")]


def test_a_cut_call_that_was_left_out_may_be_sent_again() -> None:
    chain = after(transcribe(NEXT, context=the_chain(CUT, cut=True)), said("So."))
    assert messages(CUT, NEXT, context=chain) == [*messages(context=chain), User("go on")]
    assert "b" in transcribe(context=chain).call_ids
    written = transcribe(USER, CUT, NEXT)
    assert "b" in written.call_ids
    assert "b" in transcribe(context=after(written)).call_ids


@pytest.mark.parametrize(
    ("written", "sent", "noted"),
    [
        ('{"a": 1}', '{"a": 1}', False),
        ("", "{}", False),
        ("null", "{}", False),
        ('"{\\"a\\": 1}"', '{"a": 1}', False),
        ('{"a": "x\ny"}', '{"a": "x\\ny"}', False),
        ('{"a": ', '{"malformed_arguments":"{\\"a\\": "}', True),
        ("print(6*7)", '{"malformed_arguments":"print(6*7)"}', True),
        ("[1]", '{"malformed_arguments":"[1]"}', True),
        ("\N{SNOWMAN}", '{"malformed_arguments":"\N{SNOWMAN}"}', True),
    ],
)
def test_arguments_go_up_as_an_object(written: str, sent: str, *, noted: bool) -> None:
    result = f"{MALFORMED_NOTE if noted else ''}42"
    expected: list[Message] = [Assistant("", calls=(Call("c1", "f", sent),)), ToolResult("c1", result)]
    assert messages(USER, call(arguments=written), output())[1:] == expected
    assert messages(output(), context=the_chain(call(arguments=written), cut=False))[1:] == expected
    hosted = Transcript(Context(), upstream_name, unseal)
    hosted.add([("", Exchange("ci_1", Call("c1", "f", written), "42"))])
    hosted.close()
    assert hosted.messages == expected


def test_the_note_is_put_before_a_result_once() -> None:
    broken = Call("c1", "f", '{"malformed_arguments":"x"}')
    assert result_of(broken, result_of(broken, "a").content).content == MALFORMED_NOTE + "a"


def test_a_repeated_call_and_result_are_known_however_they_were_written() -> None:
    chain = after(transcribe(output("b", "late"), context=the_chain(CUT, cut=True)))
    assert messages(CUT, output("b", "late"), NEXT, context=chain) == [*messages(context=chain), User("go on")]


def test_the_input_of_a_custom_tool_may_be_anything() -> None:
    item = {"type": "custom_tool_call", "call_id": "c1", "name": "edit", "input": '{"cut'}
    (said_,) = [message for message in messages(USER, item, output()) if isinstance(message, Assistant)]
    assert json.loads(said_.calls[0].arguments) == {"input": '{"cut'}


def cut_short(*, reason: Any = "length", custom: bool = False, before: int = 0) -> Script:
    """A turn that ends inside a call, after some whole ones."""
    whole = [one for i in range(before) for one in (CallOpened(i, f"w{i}", "f"), CallArguments(i, "{}"))]
    name, arguments = ("g", '{"input": "a') if custom else ("f", '{"city": "Ro')
    return [
        [Reasoning("hm"), Text("Let me see."), *whole, CallOpened(9, "cut", name), CallArguments(9, arguments)],
        [USAGE, TurnFinished(reason)],
    ]


@pytest.mark.parametrize("between", RESTARTS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize("custom", [False, True])
async def test_a_chain_goes_on_after_a_cut_response(
    between: Callable[[Engine], None], *, stream: bool, before: int, custom: bool
) -> None:
    engine = Engine(cut_short(custom=custom, before=before), say("Fine."), say("Yes."), say("Used."))
    first = await _response(engine, stream=stream, tools=[F, G])
    assert first["status"] == "incomplete"
    between(engine)
    second = await engine.plain(input="go on", previous_response_id=first["id"], tools=[F, G])
    between(engine)
    await engine.plain(input="And?", previous_response_id=second["id"], tools=[F, G])
    assert [
        (one["type"], one["content"] if one["type"] == "user" else one["text"])
        for one in read(engine.provider.calls[2])
    ] == [
        *(("user", "hi"), ("assistant", "Let me see."), ("user", "go on"), ("assistant", "Fine."), ("user", "And?")),
    ]
    last = first["output"][-1]
    answer = {"type": f"{last['type']}_output", "call_id": last["call_id"], "output": "it was cut"}
    await engine.plain(input=[answer], previous_response_id=first["id"], tools=[F, G])
    _, assistant, result = read(engine.provider.calls[3])
    assert [json.loads(one["arguments"]).keys() for one in assistant["calls"]] == [
        {"input"} if custom else {"malformed_arguments"}
    ]
    assert result["content"].endswith("it was cut")


async def _response(engine: Engine, *, stream: bool, **fields: Any) -> Json:
    if stream:
        response: Json = (await engine.stream(**fields)).events[-1]["response"]
        return response
    return await engine.plain(**fields)


async def test_a_failed_response_can_be_continued() -> None:
    broken: Script = [
        [
            Text("Look:"),
            CallOpened(0, "w", "f"),
            CallArguments(0, "{}"),
            CallOpened(1, "x", "f"),
            CallArguments(1, '{"'),
        ]
    ]
    engine = Engine(broken, say("Fine."), say("Yes."))
    first = (await engine.stream(tools=[F])).events[-1]["response"]
    assert first["status"] == "failed"
    assert [item["type"] for item in first["output"]] == ["message", "function_call", "function_call"]
    await engine.plain(input="go on", previous_response_id=first["id"], tools=[F])
    assert [one["type"] for one in read(engine.provider.calls[-1])] == ["user", "assistant", "user"]


async def test_a_completed_response_still_needs_its_outputs() -> None:
    engine = Engine(calls("f"))
    first = await engine.plain(tools=[F])
    with pytest.raises(InvalidRequest, match="No tool output found for function call"):
        await engine.plain(input="go on", previous_response_id=first["id"], tools=[F])


async def test_a_cut_turn_lives_on_in_its_children_when_it_is_purged() -> None:
    engine = Engine(cut_short(before=1), say("Fine."), calls("f"), say("Sure."))
    first = await engine.plain(tools=[F])
    engine.now += 60
    second = await engine.plain(input="go on", previous_response_id=first["id"], tools=[F])
    third = await engine.plain(input="And?", previous_response_id=second["id"], tools=[F])
    engine.now += 60
    assert await engine.store.purge(int(engine.now), 10) == 1
    engine.restart()
    answer = {"type": "function_call_output", "call_id": third["output"][-1]["call_id"], "output": "42"}
    await engine.plain(input=[answer], previous_response_id=third["id"], tools=[F])
    assert [(one["type"], one.get("text") or one.get("content")) for one in read(engine.provider.calls[3])] == [
        *(("user", "hi"), ("assistant", "Let me see."), ("user", "go on"), ("assistant", "Fine.")),
        *(("user", "And?"), ("assistant", None), ("tool", "42")),
    ]


async def test_what_a_client_repeated_is_not_read_twice_when_the_turns_are_purged() -> None:
    engine = Engine(calls(("f", {"n": 1})), say("Fine."), *[say("Yes.")] * 4)
    first = await engine.plain(tools=[F])
    wanted = {name: first["output"][0][name] for name in ("type", "call_id", "name", "arguments")}
    answer = {"type": "function_call_output", "call_id": wanted["call_id"], "output": "42"}
    second = await engine.plain(input=[answer], previous_response_id=first["id"], tools=[F])
    engine.now += 60
    third = await engine.plain(input=[wanted, answer, NEXT], previous_response_id=second["id"], tools=[F])
    whole = read(engine.provider.calls[2])
    assert [one["type"] for one in whole] == ["user", "assistant", "tool", "assistant", "user"]
    engine.now += 60
    fourth = await engine.plain(input="?", previous_response_id=third["id"], tools=[F])
    for ends in (0, 50):
        engine.now += ends
        assert await engine.store.purge(int(engine.now), 10) == (1 if ends else 2)
        engine.restart()
        await engine.plain(input="!", previous_response_id=fourth["id"], tools=[F])
        assert read(engine.provider.calls[-1])[: len(whole)] == whole


def test_a_stored_turn_is_replayed_as_it_was_read() -> None:
    """The response failed after its call was whole, and the client went on without it."""
    transcript = Transcript(Context(), upstream_name, unseal)
    whole: Json = call(status="completed")
    for said_, answered in (
        (USER, {"status": "failed", "output": [said("Look:"), whole]}),
        (NEXT, {"output": [said("Fine.")]}),
    ):
        records.replay(Turn("r", json.dumps([said_]).encode(), json.dumps(answered).encode(), None), transcript)
    assert transcript.messages == [User("hi"), Assistant("Look:"), User("go on"), Assistant("Fine.")]
    assert "c1" in transcript.call_ids


def test_what_was_accepted_once_is_not_refused_later() -> None:
    """The rules were others when it was stored."""
    transcript = Transcript(Context(), upstream_name, unseal)
    items = [USER, call(), call(arguments="{}"), output(), output("c9", "lost"), NEXT]
    records.replay(
        Turn("r", json.dumps(items).encode(), json.dumps({"output": [said("Fine.")]}).encode(), None), transcript
    )
    assert transcript.messages == [
        *(User("hi"), Assistant("", calls=(opened(),)), ToolResult("c1", "42"), User("go on"), Assistant("Fine.")),
    ]


def test_a_request_for_approval_in_a_cut_response_may_be_passed_over() -> None:
    transcript = transcribe(USER)
    transcript.add([("", Exchange("mcpr_1", Call("c1", "mcp__db__drop", '{"cut'), None))])
    context = msgspec.structs.replace(after(transcript, cut=True), awaited=transcript.awaited)
    assert messages(NEXT, context=context) == [User("hi"), User("go on")]
    passed_over = transcribe(NEXT, context=context)
    assert not passed_over.awaited
    approving = Transcript(context, upstream_name, unseal)
    approving.add([("input[0]", Approval("mcpr_1", approve=True))])
    assert [one.arguments for one in approving.approved] == ['{"cut']
    approving.answer(ToolResult("c1", "No JSON."))
    approving.close()
    assert approving.messages[1:] == [
        Assistant("", calls=(Call("c1", "mcp__db__drop", '{"malformed_arguments":"{\\"cut"}'),)),
        ToolResult("c1", MALFORMED_NOTE + "No JSON."),
    ]
