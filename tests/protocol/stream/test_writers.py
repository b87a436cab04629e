"""One item from `added` to `done`."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from app.protocol.recovery.arguments import InvalidArguments
from app.protocol.stream.call_writers import CallIds, CallWriter, CustomCallWriter
from app.protocol.stream.lifecycle import IllegalEvent
from app.protocol.stream.projection import parse_frame
from app.protocol.stream.writers import Emitter, MessageWriter, ReasoningWriter
from app.protocol.wire import events as e
from app.protocol.wire.items import (
    CustomToolCallItem,
    FunctionCallItem,
    MessageItem,
    OutputText,
    ReasoningItem,
    ReasoningText,
    RefusalPart,
    SummaryText,
)
from app.protocol.wire.response import Response, ResponseError, encode
from app.protocol.wire.tokens import TokenLogprob

SEED = Response(id="r", created_at=1, status="in_progress", model="m")
CALL = FunctionCallItem("fc_1", "in_progress", "c", "f")
CUSTOM = CustomToolCallItem("ctc_1", "in_progress", "c", "f")


def started() -> Emitter:
    """An emitter between its opening events and the first item."""
    out = Emitter(quiet=False)
    out.emit(e.Created, response=msgspec.Raw(encode(SEED)))
    out.emit(e.InProgress, response=msgspec.Raw(encode(SEED)))
    out.frames.clear()
    return out


def shown(out: Emitter) -> Sequence[e.Event]:
    """What was emitted since the start."""
    return [event for frame in out.frames if (event := parse_frame(frame))]


def test_a_message_goes_from_text_to_refusal_and_back() -> None:
    out = started()
    writer = MessageWriter(out, "msg_1", 0)
    writer.write("a")
    writer.refuse("n")
    writer.refuse("o")
    writer.write("b")
    item = writer.close("completed")
    assert item == MessageItem("msg_1", "completed", (OutputText("a"), RefusalPart("no"), OutputText("b")))
    assert writer.cuts() == [[1], [1, 1], [1]]
    places = [
        event.content_index
        for event in shown(out)
        if isinstance(event, e.PartAdded | e.PartDone | e.TextDelta | e.RefusalDelta)
    ]
    assert places == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2]


def test_log_probabilities_stay_with_their_pieces() -> None:
    one, two = (TokenLogprob("b", -1.0),), (TokenLogprob("c", -2.0), TokenLogprob("d", -3.0))
    out = started()
    writer = MessageWriter(out, "msg_1", 0)
    writer.write("a")
    writer.write_scored("b", one)
    writer.write_scored("cd", two)
    writer.write("e")
    item = writer.close("completed")
    assert item.content == (OutputText("abcde", logprobs=one + two),)
    assert writer.cuts() == [[(1, 0), (1, 1), (2, 2), (1, 0)]]
    deltas = [event for event in shown(out) if isinstance(event, e.TextDelta)]
    assert [(event.delta, event.logprobs) for event in deltas] == [("a", ()), ("b", one), ("cd", two), ("e", ())]
    assert [event.logprobs for event in shown(out) if isinstance(event, e.TextDone)] == [one + two]


def test_log_probabilities_may_begin_a_part_or_follow_a_refusal() -> None:
    one = (TokenLogprob("a", -1.0),)
    writer = MessageWriter(started(), "msg_1", 0)
    writer.write_scored("a", one)
    writer.refuse("no")
    writer.write_scored("a", one)
    assert writer.close("completed").content == (
        OutputText("a", logprobs=one),
        RefusalPart("no"),
        OutputText("a", logprobs=one),
    )


@pytest.mark.parametrize(
    ("raw", "item"),
    [
        (False, ReasoningItem("rs_1", "completed", (SummaryText("hm"),), encrypted_content="HM")),
        (True, ReasoningItem("rs_1", "completed", content=(ReasoningText("hm"),), encrypted_content="HM")),
    ],
)
def test_thinking_is_a_summary_or_raw_and_may_be_sealed(*, raw: bool, item: ReasoningItem) -> None:
    writer = ReasoningWriter(started(), "rs_1", 0, raw=raw, seal=str.upper)
    writer.write("h")
    writer.write("m")
    assert writer.close("completed") == item
    assert writer.cuts() == [[1, 1]]


def test_arguments_are_shown_as_they_come() -> None:
    out = started()
    writer = CallWriter(out, CALL, 0)
    writer.write('{"a":')
    assert not writer.whole
    writer.write("1}")
    assert writer.whole
    assert writer.close("completed").arguments == '{"a":1}'
    assert [event.delta for event in shown(out) if isinstance(event, e.ArgumentsDelta)] == ['{"a":', "1}"]


@pytest.mark.parametrize("written", [[], [" "]])
def test_a_call_without_arguments_has_an_empty_object_in_a_delta_too(written: Sequence[str]) -> None:
    out = started()
    writer = CallWriter(out, CALL, 0)
    for fragment in written:
        writer.write(fragment)
    item = writer.close("completed")
    assert item.arguments.strip() == "{}"
    assert "".join(event.delta for event in shown(out) if isinstance(event, e.ArgumentsDelta)) == item.arguments


def test_arguments_that_are_no_json_cannot_be_completed_but_cut_off() -> None:
    out = started()
    writer = CallWriter(out, CALL, 0)
    writer.write('{"a')
    with pytest.raises(InvalidArguments, match="'f'"):
        writer.close("completed")
    assert not [event for event in shown(out) if isinstance(event, e.ArgumentsDone)]
    assert writer.close("incomplete").arguments == '{"a'


def test_a_custom_tool_gets_the_string_inside_the_arguments() -> None:
    out = started()
    writer = CustomCallWriter(out, CUSTOM, 0)
    writer.write('{"input": "a')
    assert not writer.whole
    writer.write('\\nb"}')
    assert writer.whole
    assert writer.close("completed").input == "a\nb"
    assert [event.delta for event in shown(out) if isinstance(event, e.CustomInputDelta)] == ["a\nb"]
    assert writer.cuts() == [[]]


@pytest.mark.parametrize(
    ("written", "shown"), [("", ""), ("{}", ""), ('{"inp', ""), ('{"input": "ab\\n', "ab\n"), ('{"input"', "")]
)
def test_a_custom_tool_without_its_input_cannot_be_completed_but_cut_off(written: str, shown: str) -> None:
    writer = CustomCallWriter(started(), CUSTOM, 0)
    writer.write(written)
    with pytest.raises(InvalidArguments):
        writer.close("completed")
    assert writer.close("incomplete").input == shown


@pytest.mark.parametrize("written", ['"{\\"a', "null", "oops"])
def test_what_was_held_back_of_a_call_that_is_cut_off_is_shown_at_its_end(written: str) -> None:
    out = started()
    writer = CallWriter(out, CALL, 0)
    for character in written:
        writer.write(character)
    assert not [event for event in shown(out) if isinstance(event, e.ArgumentsDelta)]
    assert writer.close("incomplete").arguments == written
    assert [event.delta for event in shown(out) if isinstance(event, e.ArgumentsDelta)] == [written]


def test_an_id_is_given_once() -> None:
    ids = CallIds(frozenset({"old"}))
    assert [ids.claim(one) for one in ("a", "b", "a", "", "old")] == ["a", "b", None, None, None]
    assert [CallIds(None).claim("a") for _ in range(2)] == ["a", "a"]


def test_a_quiet_emitter_builds_nothing() -> None:
    out = Emitter(quiet=True)
    writer = MessageWriter(out, "msg_1", 0)
    writer.write("a")
    assert writer.close("completed").content == (OutputText("a"),)
    out.emit_end(SEED, b"{}")
    assert out.frames == []


def test_an_emitter_refuses_what_is_out_of_order() -> None:
    out = started()
    with pytest.raises(IllegalEvent):
        out.emit(e.ItemDone, output_index=0, item=MessageItem("msg_1", "completed"))
    assert out.frames == []


@pytest.mark.parametrize(
    ("code", "category"),
    [
        ("rate_limit_exceeded", "rate_limit_error"),
        ("server_error", "server_error"),
        ("invalid_prompt", "invalid_request_error"),
    ],
)
def test_a_failure_is_told_twice(code: str, category: str) -> None:
    out = started()
    response = msgspec.structs.replace(SEED, status="failed", error=ResponseError(code, "why"))
    out.emit_end(response, encode(response))
    error, failed = shown(out)
    assert isinstance(error, e.ErrorEvent)
    assert (error.code, error.message) == (error.error.code, error.error.message) == (code, "why")
    assert error.error.type == category
    assert isinstance(failed, e.Failed)
