"""One turn of the model: what is held back, checked, tried again and let go."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
import pytest

from app.engine.conversation.history import History
from app.engine.conversation.sealing import Sealer
from app.engine.model import turn
from app.engine.model.formats import Formats
from app.engine.model.preparation import Preparation, ProjectServices
from app.engine.model.turn import TurnDependencies
from app.engine.model.upstream_traits import UpstreamTraits
from app.engine.upstreams.failures import ModelFailure
from app.engine.upstreams.routing import Route, Started
from app.protocol.deltas import CallArguments, CallOpened, Delta, Reasoning, Refusal, Text, TurnFinished
from app.protocol.recovery.arguments import InvalidArguments
from app.protocol.stream.assembler import Assembler
from app.protocol.wire.items import FunctionCallItem, MessageItem, OutputItem, OutputText, ReasoningItem, RefusalPart
from app.protocol.wire.tokens import TokenUsage
from app.providers.base import Capabilities, JsonSchema, ModelCall, UpstreamError
from app.stores.memory import MemoryResponseStore
from tests.engine.scripted import VALIDATOR, ScriptedProvider, Turn, admitted, no_media
from tests.protocol.assembling import new_assembler
from tests.support.judge import judge

STOP = TurnFinished("stop")
TEXT_ONLY = Capabilities(forced_calls=frozenset(), formats=frozenset(), reasoning_field=True)
ENFORCES = Capabilities(formats_while_thinking=True)
TOOLS = [{"type": "function", "name": "f"}, {"type": "function", "name": "g"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
FORMAT = {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}
JSON_MODE = {"format": {"type": "json_object"}}


def spoken(*deltas: Delta) -> Turn:
    """An answer, one delta a batch."""
    return [[delta] for delta in (*deltas, STOP)]


def called(name: str = "f", arguments: str = "{}") -> Sequence[Delta]:
    return CallOpened(0, "c", name), CallArguments(0, arguments)


class Breaking(ScriptedProvider):
    """A model whose answers break off after what is scripted."""

    async def stream(self, call: ModelCall) -> AsyncGenerator[Sequence[Delta], None]:
        async with aclosing(super().stream(call)) as batches:
            async for batch in batches:
                yield batch
        raise UpstreamError("Cut.", status=502)


class Played:
    """A turn of a scripted model, and what came of it."""

    def __init__(self, *script: Turn, can: Capabilities = TEXT_ONLY) -> None:
        self.provider = ScriptedProvider(*script, can=can)
        self.traits = UpstreamTraits()
        self.formats = Formats()
        self.assembler: Assembler | None = None
        self.shown: list[bytes] = []
        self.sightings: list[str] = []
        """What a client had seen of the answer's text after each step."""

    async def play(self, **fields: Any) -> Sequence[OutputItem]:
        """Run the turn and finish the response; its items."""
        self.shown = []
        request = admitted(**fields)
        history = History(MemoryResponseStore(retention_seconds=1), 0, shared=False)
        preparation = Preparation(
            request, request.items, ProjectServices("p", history, Sealer(bytes(32)), no_media()), None
        )
        prepared = await preparation.prepare(self.provider, "m", 0)
        assembler = new_assembler(quiet=not request.stream, parallel_calls=prepared.call.parallel_tool_calls)
        self.assembler = assembler
        assembler.start()

        async def publish() -> None:
            self._take(assembler)

        around = TurnDependencies(VALIDATOR, self.traits, self._open, publish, self.formats, lambda _, __: None)
        await turn.run(prepared, await self._open(prepared.call), assembler, around)
        assembler.finish(9)
        assert assembler.response is not None
        assembler.emit_end(assembler.response, assembler.body)
        self._take(assembler)
        if request.stream:
            judge(b"".join(self.shown))
        return assembler.response.output

    @property
    def systems(self) -> list[str | None]:
        """The system messages of the requests."""
        return [call.system for call in self.provider.calls]

    def _take(self, assembler: Assembler) -> None:
        self.shown += assembler.take()
        events = [json.loads(frame.split(b"data: ", 1)[1]) for frame in self.shown]
        self.sightings.append("".join(e["delta"] for e in events if e["type"] == "response.output_text.delta"))

    async def _open(self, call: ModelCall) -> Started:
        batches = self.provider.stream(call)
        return Route(self.provider), await anext(batches), batches


def texts(output: Sequence[OutputItem]) -> list[str]:
    return [
        "".join(part.text for part in item.content if isinstance(part, OutputText))
        for item in output
        if isinstance(item, MessageItem)
    ]


def calls(output: Sequence[OutputItem]) -> list[str]:
    return [item.name for item in output if isinstance(item, FunctionCallItem)]


async def test_plain_text_goes_out_as_it_comes() -> None:
    played = Played(spoken(Text("a"), Text("b")))
    assert texts(await played.play(stream=True)) == ["ab"]
    assert played.sightings[:2] == ["a", "ab"]
    assert played.provider.closed == 1


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "f"}])
async def test_a_demanded_call_is_demanded_again_and_the_words_are_not_shown(choice: object) -> None:
    played = Played(spoken(Text("I'd rather talk.")), spoken(*called()))
    output = await played.play(stream=True, tools=TOOLS, tool_choice=choice)
    assert (calls(output), texts(output)) == (["f"], [])
    assert set(played.sightings) == {""}
    first, second = played.systems
    assert first is not None
    assert second is not None
    assert second.startswith(first)
    assert "did not call a function" in second


async def test_a_model_that_does_not_call_when_told_twice_has_failed() -> None:
    played = Played(spoken(Text("no")), spoken(Text("no")))
    with pytest.raises(ModelFailure, match="did not call a function"):
        await played.play(tools=TOOLS, tool_choice="required")


async def test_text_before_a_demanded_call_is_let_go_with_it_in_order() -> None:
    played = Played(spoken(Text("Look: "), *called()))
    output = await played.play(stream=True, tools=TOOLS, tool_choice="required")
    assert [type(item) for item in output] == [MessageItem, FunctionCallItem]
    assert texts(output) == ["Look: "]


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "function", "name": "f"},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}]},
    ],
)
async def test_a_call_of_a_function_that_is_not_allowed_is_not_shown(choice: object) -> None:
    played = Played(spoken(*called("g", '{"secret": 1}')), spoken(*called("f")))
    assert calls(await played.play(stream=True, tools=TOOLS, tool_choice=choice)) == ["f"]
    assert not any(b"secret" in frame for frame in played.shown)


async def test_an_answer_in_the_demanded_format_is_held_until_it_was_checked() -> None:
    played = Played(spoken(Text('{"a"'), Text(": 1}")))
    assert texts(await played.play(stream=True, text=FORMAT)) == ['{"a": 1}']
    assert played.sightings[:3] == ["", "", ""]
    assert len(played.provider.calls) == 1


@pytest.mark.parametrize(
    "said",
    ['```json\n{"a": 1}\n```', 'Here you are: {"a": 1} I hope it helps.', ' \n{"a": 1}\n'],
    ids=["fence", "prose", "space"],
)
async def test_json_is_taken_out_of_what_surrounds_it(said: str) -> None:
    (text,) = texts(await Played(spoken(Text(said))).play(text=FORMAT))
    assert json.loads(text) == {"a": 1}


async def test_json_that_went_into_the_thinking_becomes_the_answer() -> None:
    output = await Played(spoken(Reasoning('So: {"a": 1}'))).play(text=FORMAT)
    assert isinstance(output[0], ReasoningItem)
    assert texts(output) == ['{"a": 1}']


@pytest.mark.parametrize("said", ["no JSON", '{"a": "1"}', "{}", '{"a": 1, "b": 2}', ""])
async def test_a_wrong_answer_is_asked_for_again_with_the_reason(said: str) -> None:
    played = Played(spoken(Text(said), TokenUsage(1, 1, 2)), spoken(Text('{"a": 1}'), TokenUsage(1, 1, 2)))
    assert texts(await played.play(stream=True, text=FORMAT)) == ['{"a": 1}']
    assert played.sightings[-1] == '{"a": 1}'
    assert "does not match 'text.format'" in (played.systems[1] or "")


async def test_a_model_that_answers_wrong_twice_has_failed() -> None:
    with pytest.raises(ModelFailure, match=r"text\.format"):
        await Played(spoken(Text("no")), spoken(Text("no"))).play(text=JSON_MODE)


async def test_a_call_instead_of_an_answer_needs_no_format() -> None:
    assert calls(await Played(spoken(*called())).play(text=FORMAT, tools=TOOLS)) == ["f"]


async def test_text_streams_where_the_upstream_was_seen_to_enforce_the_format_and_is_still_checked() -> None:
    played = Played(
        *[spoken(Text('{"a"'), Text(": 1}"))] * 2,
        spoken(Text(' {"a": "')),
        spoken(Text("no")),
        spoken(Text('{"a": 1}')),
        can=ENFORCES,
    )
    assert texts(await played.play(stream=True, text=FORMAT)) == ['{"a": 1}']
    assert set(played.sightings[:3]) == {""}
    played.sightings.clear()
    assert texts(await played.play(stream=True, text=FORMAT)) == ['{"a": 1}']
    assert played.sightings[0] == '{"a"'
    with pytest.raises(ModelFailure, match=r"text\.format"):
        await played.play(stream=True, text=FORMAT)
    assert len(played.provider.calls) == 3  # what was shown cannot be taken back
    assert texts(await played.play(stream=True, text=FORMAT)) == ['{"a": 1}']
    assert len(played.provider.calls) == 5  # it is not believed any more


@pytest.mark.parametrize("said", ['```json\n{"a": 1}\n```', 'So: {"a": 1}', "no"])
async def test_what_does_not_begin_like_json_is_held_although_the_format_is_enforced(said: str) -> None:
    played = Played(
        spoken(Text('{"a": 1}')), spoken(Text("\n"), *map(Text, said)), spoken(Text('{"a": 1}')), can=ENFORCES
    )
    await played.play(stream=True, text=FORMAT)
    played.sightings.clear()
    assert texts(await played.play(stream=True, text=FORMAT)) == ['{"a": 1}']
    assert set(played.sightings) == {"", '{"a": 1}'}
    assert not played.formats.believed("one", "m", JsonSchema("n", msgspec.Raw(b"{}")))


async def test_a_plain_answer_shows_that_a_format_is_enforced() -> None:
    played = Played(*[spoken(Text('{"a": 1}'))] * 2, can=ENFORCES)
    await played.play(text=FORMAT)
    played.sightings.clear()
    await played.play(stream=True, text=FORMAT)
    assert played.sightings[0] == '{"a": 1}'


@pytest.mark.parametrize(
    "said",
    [
        [Text('```json\n{"a": 1}\n```')],
        [Text('I {think}.\n</think>\n{"a": 1}')],
        [Text("Here: "), Text('{"a": 1}')],
        [Text('{"a": 1}'), Text('\n{"a": 1}')],
        [Reasoning('Is it {"a": "x"}? No: {"a": 1}')],
        [Reasoning("hm"), Text('So {"a": 1}')],
    ],
)
@pytest.mark.parametrize("can", [TEXT_ONLY, ENFORCES], ids=["asked", "promised"])
async def test_a_stream_ends_like_the_plain_answer(said: Sequence[Delta], can: Capabilities) -> None:
    outputs = [await Played(spoken(*said), can=can).play(stream=stream, text=FORMAT) for stream in (False, True)]
    assert [texts(output) for output in outputs] == [['{"a": 1}']] * 2
    assert [type(item) for item in outputs[0]] == [type(item) for item in outputs[1]]


async def test_an_answer_cut_off_tells_nothing_of_the_promise() -> None:
    cut: Turn = [[Text('{"a": ')], [TurnFinished("length")]]
    played = Played(cut, spoken(Text('{"a": 1}')), cut, can=ENFORCES)
    assert texts(await played.play(stream=True, text=FORMAT)) == ['{"a": ']
    await played.play(stream=True, text=FORMAT)
    assert texts(await played.play(stream=True, text=FORMAT)) == ['{"a": ']
    assert played.sightings[-1] == '{"a": '
    assert played.formats.believed("one", "m", JsonSchema("n", msgspec.Raw(b"{}")))


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("demand", [{"text": FORMAT}, {"text": JSON_MODE}, {"tools": TOOLS, "tool_choice": "required"}])
async def test_a_refusal_is_the_answer_whatever_was_demanded(demand: Any, stream: bool) -> None:
    output = await Played(spoken(Text(""), Refusal("I can"), Refusal("not."))).play(stream=stream, **demand)
    assert [
        part.refusal
        for item in output
        if isinstance(item, MessageItem)
        for part in item.content
        if isinstance(part, RefusalPart)
    ] == ["I cannot."]


SPACE = {"type": "namespace", "name": "ns", "description": "", "tools": [{"type": "function", "name": "status"}]}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("written", "meant"), [("ns.status", "status"), ("status", "status"), ("functions.f", "f"), ("F", "f")]
)
async def test_a_call_gets_the_name_of_the_function_that_is_meant(written: str, meant: str, stream: bool) -> None:
    played = Played(spoken(*called(written, '{"x": 1}')))
    assert [name.rpartition("__")[2] for name in calls(await played.play(stream=stream, tools=[*TOOLS, SPACE]))] == [
        meant
    ]
    assert len(played.provider.calls) == 1


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("tools", [TOOLS, []], ids=["tools", "no tools"])
async def test_a_call_of_an_unknown_function_is_not_shown_and_the_model_asked_again(tools: Any, stream: bool) -> None:
    played = Played(spoken(Reasoning("hm"), *called("h", '{"secret": 1}'), Text("more")), spoken(Text("So.")))
    output = await played.play(stream=stream, tools=tools)
    assert (calls(output), texts(output)) == ([], ["So."])
    assert not any(b"secret" in frame for frame in played.shown)
    assert "called the function 'h', which was not offered" in (played.systems[1] or "")
    assert ("The functions are: f, g." if tools else "There are no functions to call.") in (played.systems[1] or "")


async def test_a_name_that_nobody_should_have_to_read_is_cut() -> None:
    played = Played(*[spoken(*called("x\n" * 100))] * 2)
    with pytest.raises(ModelFailure) as raised:
        await played.play(tools=TOOLS)
    assert len(str(raised.value)) < 200
    assert "\n" not in str(raised.value)


async def test_beside_an_unknown_call_a_known_one_waits_and_both_are_made_again() -> None:
    mixed = (*called("h"), CallOpened(1, "d", "f"), CallArguments(1, "{}"), Text("more"))
    for stream in (True, False):
        played = Played(spoken(*mixed), spoken(*called("g")))
        assert calls(await played.play(stream=stream, tools=TOOLS)) == ["g"]
    with pytest.raises(ModelFailure, match="'h'"):
        await Played(spoken(*mixed), spoken(*mixed)).play(stream=True, tools=TOOLS)


async def test_an_unknown_call_behind_a_known_one_fails_a_stream_and_is_made_again_for_a_plain_answer() -> None:
    mixed = (*called("f"), CallOpened(1, "d", "h"), CallArguments(1, "{}"))
    with pytest.raises(ModelFailure, match="'h'"):
        await Played(spoken(*mixed)).play(stream=True, tools=TOOLS)
    assert calls(await Played(spoken(*mixed), spoken(*called("g"))).play(tools=TOOLS)) == ["g"]


async def test_a_call_that_is_left_out_anyway_may_have_any_name() -> None:
    mixed = (*called("f"), CallOpened(1, "d", "h"), CallArguments(1, "{}"))
    output = await Played(spoken(*mixed)).play(stream=True, tools=TOOLS, parallel_tool_calls=False)
    assert calls(output) == ["f"]


async def test_an_unknown_call_in_an_answer_cut_off_is_left_out() -> None:
    cut: Turn = [[Text("Look: ")], list(called("h", '{"x": ')), [TurnFinished("length")]]
    output = await Played(cut).play(stream=True, tools=TOOLS)
    assert (texts(output), calls(output)) == (["Look: "], [])


async def test_a_server_that_repeats_the_name_with_every_fragment_makes_one_call() -> None:
    played = Played(
        spoken(*called("h", "{"), *called("h", "}")),
        spoken(CallOpened(0, "c", "ns.status"), *called("status", "{}")[1:]),
        can=TEXT_ONLY,
    )
    assert len(await played.play(stream=True, tools=[SPACE])) == 1
    assert len(played.provider.calls) == 2


@pytest.mark.parametrize("arguments", ['{"a": ', "[1]x", "nonsense"])
async def test_broken_arguments_get_a_second_try_where_nothing_was_shown(arguments: str) -> None:
    played = Played(spoken(Reasoning("hm"), Text("Look: "), *called("f", arguments)), spoken(*called("f", '{"a": 1}')))
    output = await played.play(tools=TOOLS)
    assert [item.arguments for item in output if isinstance(item, FunctionCallItem)] == ['{"a": 1}']
    assert texts(output) == []
    assert "arguments for 'f'" in (played.systems[1] or "")


async def test_arguments_that_stay_broken_fail_the_response() -> None:
    with pytest.raises(InvalidArguments, match="'f'"):
        await Played(*[spoken(*called("f", "{oops"))] * 2).play(tools=TOOLS)
    with pytest.raises(InvalidArguments, match="'f'"):
        await Played(spoken(*called("f", "{oops"))).play(stream=True, tools=TOOLS)


async def test_a_plain_answer_may_be_asked_for_again_although_it_has_words() -> None:
    choice = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]}
    played = Played(
        spoken(Text("Look: "), *called("g"), TokenUsage(1, 1, 2)), spoken(*called("f"), TokenUsage(1, 1, 2))
    )
    output = await played.play(tools=TOOLS, tool_choice=choice)
    assert (calls(output), texts(output)) == (["f"], [])


@pytest.mark.parametrize("reason", ["length", "content_filter"])
async def test_an_answer_cut_off_is_let_go_as_it_is(reason: Any) -> None:
    played = Played([[Text('{"a": ')], [TurnFinished(reason)]])
    assert texts(await played.play(text=FORMAT)) == ['{"a": ']


async def test_thinking_goes_out_while_text_is_held() -> None:
    played = Played(spoken(Reasoning("hm"), Text('{"a": 1}')))
    await played.play(stream=True, text=FORMAT)
    assert any(b"reasoning_summary_text.delta" in frame for frame in played.shown)


async def test_a_failure_in_the_middle_is_passed_on_and_the_request_closed() -> None:
    played = Played()
    played.provider = Breaking([[Text("a")]])
    with pytest.raises(UpstreamError, match="Cut"):
        await played.play(stream=True)
    assert played.provider.closed == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_thinking_in_front_of_a_format_is_no_part_of_it(*, stream: bool) -> None:
    played = Played(spoken(Text('Is {"a": 2} right?'), Text("\n</think>\n\n"), Text('{"a": 1}')))
    output = await played.play(stream=stream, text=FORMAT)
    assert texts(output) == ['{"a": 1}']
    assert isinstance(output[0], ReasoningItem)
    assert len(played.provider.calls) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_text_that_was_held_is_there_when_the_answer_breaks_off(*, stream: bool) -> None:
    played = Played()
    played.provider = Breaking(
        [[Text("Half an ")], [Text("answer <tool_call>{")]],
        can=msgspec.structs.replace(TEXT_ONLY, reasoning_field=False),
    )
    with pytest.raises(UpstreamError, match="Cut"):
        await played.play(stream=stream, tools=TOOLS)
    assert played.assembler is not None
    assert texts(played.assembler.so_far().output) == ["Half an answer <tool_call>{"]


async def test_what_was_learned_about_an_upstream_is_used_for_the_next_turn() -> None:
    can = msgspec.structs.replace(TEXT_ONLY, reasoning_field=False)
    played = Played(spoken(Reasoning("hm"), Text("so")), spoken(Text("a"), Text("b")), can=can)
    await played.play(stream=True)
    assert texts(await played.play(stream=True)) == ["ab"]
    assert "a" in played.sightings
