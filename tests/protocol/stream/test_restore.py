"""A response whose process died is ended by another one, which has only the frames that were shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings

from app.protocol import deltas as d
from app.protocol.stream.assembler import Assembler
from app.protocol.stream.phases import SPECS
from app.protocol.stream.projection import fold, parse_frame
from app.protocol.stream.replay import encode_cuts
from app.protocol.stream.restore import NotRestorable, restore
from app.protocol.stream.usage import UsageCounter
from app.protocol.wire import hosted as h
from app.protocol.wire.items import (
    CustomToolCallItem,
    FunctionCallItem,
    MessageItem,
    OutputItem,
    OutputText,
    ReasoningItem,
    RefusalPart,
)
from app.protocol.wire.response import ResponseError
from app.protocol.wire.sse import DONE, HEARTBEAT
from app.protocol.wire.tokens import Logprob, TokenLogprob
from tests.protocol.assembling import (
    Script,
    assemble,
    cite,
    ended,
    new_assembler,
    new_id,
    new_options,
    options,
    replayed,
    run,
    run_on,
    scripts,
)
from tests.support.judge import judge

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.sse"))
ENDS: dict[str, Callable[[Assembler], None]] = {
    "failed": lambda assembler: assembler.fail(
        ResponseError("server_error", "The server that ran the response is gone.")
    ),
    "cancelled": lambda assembler: assembler.cancel(),
}
SCORED = (TokenLogprob("a", -0.25, (97,), (Logprob("b", -1.5),)), TokenLogprob("b", -0.5))
HOSTED = [
    h.WebSearchCall("", "in_progress", h.SearchAction("q", ("q",))),
    h.WebSearchCall("", "in_progress", h.OpenPageAction("https://a.example")),
    h.FileSearchCall("", "in_progress", ("q",)),
    h.CodeInterpreterCall("", "in_progress", "cntr_1", "a\n= '答案'"),
    h.WebExtractorCall("", "in_progress", ("https://a.example",)),
    h.WebSearchImageCall("", "in_progress"),
    h.ImageSearchCall("", "in_progress"),
    h.ToolCall("", "in_progress", "n"),
    h.McpCall("", "in_progress", "t", "s", '{"a": 1}'),
    h.McpListTools("", "s", ()),
    h.McpApprovalRequest("", "ask", "s", "{}"),
]


def told(assembler: Assembler, how: str) -> list[bytes]:
    """Ends the response; returns the frames that say so."""
    ENDS[how](assembler)
    assert assembler.response is not None
    assembler.emit_end(assembler.response, assembler.body)
    return assembler.take()


def end(frames: Sequence[bytes], how: str) -> tuple[list[bytes], Sequence[OutputItem]]:
    """Restores and ends the response; returns the new frames, and the output, all views of which agree."""
    assembler, _ = restore(frames)
    new = told(assembler, how)
    whole = [*frames, *new]
    judged = judge(b"".join(whole))
    assert assembler.response is not None
    assert judged.response == assembler.response
    assert judged.response.status == how
    assert fold(event for frame in whole if (event := parse_frame(frame))) == assembler.response
    assert replayed(assembler.body, encode_cuts(assembler.cuts)) == whole
    before = fold(event for frame in frames if (event := parse_frame(frame)))
    assert before is not None
    assert assembler.response.output[: len(before.output)] == before.output
    return new, assembler.output


def batches(script: Script, how: dict[str, Any]) -> list[list[bytes]]:
    """All that was shown, at the end of every batch."""
    assembler = new_assembler(**how)
    ends: list[list[bytes]] = [[]]
    run(script, assembler, lambda: ends.append([*ends[-1], *assembler.take()]))
    return ends[1:]


@settings(max_examples=50)
@given(scripts(), options())
def test_at_the_end_of_every_batch_a_response_is_ended_with_what_was_shown(script: Script, how: dict[str, Any]) -> None:
    for frames in batches(script, how):
        assert restore(frames)[0].take() == []
        for outcome in ENDS:
            end(frames, outcome)


@settings(max_examples=50)
@given(scripts(), options())
def test_elsewhere_it_is_refused_or_ended_as_well(script: Script, how: dict[str, Any]) -> None:
    frames = assemble(script, **how).frames
    for count in range(len(frames)):
        try:
            restore(frames[:count])
        except NotRestorable:
            continue
        end(frames[:count], "failed")


@settings(max_examples=50)
@given(scripts(), options(), scripts())
def test_it_goes_on_with_another_turn(script: Script, how: dict[str, Any], again: Script) -> None:
    """Where thinking and calls were shown, but no answer."""
    for frames in batches(script, how):
        assembler, items = restore(frames)
        if not all(isinstance(item, ReasoningItem | h.HostedItem) for item in items):
            break
        assembler.close_item("incomplete")
        seen = [*frames, *assembler.take()]
        assembler.go_on(new_id, new_options(**how), UsageCounter(), len(items))
        rest = run_on(again, assembler)
        whole = [*seen, *rest.frames]
        assert judge(b"".join(whole)).response == rest.response
        assert replayed(rest.body, encode_cuts(rest.cuts)) == whole
        assert [item.id for item in rest.response.output[: len(items)]] == [item.id for item in items]


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_recorded_streams(file: Path) -> None:
    frames = [frame + b"\n\n" for frame in file.read_bytes().split(b"\n\n")[:-1]]
    cuts = [count for count in range(1, len(frames)) if _is_state(frames[:count])]
    assert cuts
    for count in cuts:
        for outcome in ENDS:
            end(frames[:count], outcome)


def _is_state(frames: Sequence[bytes]) -> bool:
    """Whether a batch may end here: not between the parts of an item's beginning or end."""
    last = json.loads(frames[-1].split(b"data: ")[1])
    kind = last["type"]
    call = kind == "response.output_item.added" and last["item"]["type"] in ("function_call", "custom_tool_call")
    opening = kind in ("response.created", "response.queued", "response.in_progress")
    input_ = kind == "response.custom_tool_call_input.delta"
    return opening or call or kind.endswith("output_item.done") or (kind.endswith(".delta") and not input_)


TEXT = [
    [d.Reasoning("a"), d.Reasoning("答\u2028\x85🙂")],
    [d.Reasoning("a"), d.Text("\n"), d.Text("b"), d.Text(" c\n")],
    [d.Text("a", SCORED[:1]), d.Text("b"), d.Text("c", SCORED)],
    [d.Text("a"), d.Text("b", SCORED)],
    [d.Text("a b"), d.Refusal("no"), d.Refusal(" way")],
    [d.Text("a", SCORED), d.Refusal("no"), d.Text("", SCORED)],
    [d.Refusal("no"), d.Text(" "), d.Text("a")],
    [d.Text("Look. "), d.CallOpened(0, "c", "f")],
    [d.CallOpened(0, "c", "tools__g"), d.CallArguments(0, '{"a\n": '), d.CallArguments(0, '"答"')],
    [d.CallOpened(0, "c", "f"), d.CallArguments(0, "{}"), d.Text("Done."), d.CallOpened(1, "d", "f")],
    [d.CallOpened(0, "c", "shell"), d.CallArguments(0, '{"commands": ["ls", "pwd"]}'), d.Text("a")],
    [d.CallOpened(0, "c", "edit"), d.CallArguments(0, '{"input": "x"}'), d.CallOpened(1, "d", "edit")],
    [d.CallOpened(0, "", "code_interpreter"), d.CallArguments(0, '{"code": "a\\n'), d.CallArguments(0, "b")],
    [d.CallOpened(0, "", "mcp__s__t"), d.CallArguments(0, '{"a": '), d.CallArguments(0, "1")],
    [d.Text("a"), d.CallOpened(0, "", "web_search"), d.CallArguments(0, "q")],
]


@pytest.mark.parametrize("outcome", ENDS)
@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("deltas", TEXT, ids=lambda deltas: "-".join(type(delta).__name__ for delta in deltas))
def test_the_end_is_the_one_that_the_first_process_would_have_told(
    deltas: list[d.Delta], outcome: str, *, background: bool
) -> None:
    first = new_assembler(background=background)
    first.start()
    first.receive(deltas)
    frames = first.take()
    assert end(frames, outcome) == (told(first, outcome), first.output)


@pytest.mark.parametrize("outcome", ENDS)
@pytest.mark.parametrize("state", ["begun", "running", "ended"])
@pytest.mark.parametrize("item", HOSTED, ids=lambda item: type(item).__name__)
def test_hosted_calls(item: h.HostedItem, state: str, outcome: str) -> None:
    stream = SPECS[type(item)].arguments
    written: str = getattr(item, stream.field) if stream else ""
    pieces = [written[:3], written[3:]] if state != "begun" else [written[:3]]
    first = new_assembler(background=True)
    first.start()
    first.receive([d.Text("Look.")])
    shown = ended(item, "completed") if state == "ended" else item
    first.show_hosted(shown, pieces, running=state == "running", ended=state == "ended")
    frames = first.take()
    assert end(frames, outcome) == (told(first, outcome), first.output)


@given(scripts(), options())
def test_the_second_process_may_die_too(script: Script, how: dict[str, Any]) -> None:
    """With the items closed, and no end told."""
    frames = batches(script, how)[-1]
    second, _ = restore(frames)
    second.fail(ResponseError("server_error", "Gone."))
    frames += second.take()
    assert end(frames, "failed")[1] == second.output


@pytest.mark.parametrize("background", [True, False])
def test_before_the_first_item(*, background: bool) -> None:
    assembler = new_assembler(background=background)
    assembler.start()
    opening = assembler.take()
    for count in range(1, len(opening) + 1):
        assert restore(opening[:count])[0].take() == opening[count:]
        end(opening[:count], "failed")
        end(opening[:count], "cancelled")


def test_an_open_custom_call_is_incomplete_and_has_no_input() -> None:
    """Also one whose input had been received: nobody has seen it."""
    frames = batches(Script((d.CallOpened(0, "c", "edit"), d.CallArguments(0, '{"input": "x"}')), "fail"), {})[-1]
    (item,) = end(frames, "failed")[1]
    assert isinstance(item, CustomToolCallItem)
    assert (item.status, item.input) == ("incomplete", "")


def test_an_open_call_keeps_the_arguments_that_were_shown() -> None:
    frames = batches(Script((d.CallOpened(0, "c", "f"), d.CallArguments(0, '{"a": "b')), "fail"), {})[-1]
    (item,) = end(frames, "failed")[1]
    assert isinstance(item, FunctionCallItem)
    assert (item.status, item.arguments) == ("incomplete", '{"a": "b')


def test_sources_of_a_part_that_is_done_are_kept() -> None:
    frames = batches(Script((d.Text("a cat"), d.Refusal("no")), "fail"), {"annotate": cite})[-1]
    (item,) = end(frames, "cancelled")[1]
    assert isinstance(item, MessageItem)
    text, refusal = item.content
    assert isinstance(text, OutputText)
    assert text.annotations == tuple(cite("a cat"))
    assert refusal == RefusalPart("no")


def test_thinking_that_was_sealed_stays_sealed_and_open_thinking_has_no_seal() -> None:
    script = Script((d.Reasoning("a"), d.Text("b"), d.Reasoning("c")), "fail")
    first, _, last = end(batches(script, {"seal": str.upper})[-1], "failed")[1]
    assert isinstance(first, ReasoningItem)
    assert isinstance(last, ReasoningItem)
    assert (first.encrypted_content, last.encrypted_content) == ("A", msgspec.UNSET)
    assert (first.status, last.status) == ("completed", "incomplete")


ANSWER = assemble([d.Text("Hel"), d.Text("lo"), d.TurnFinished("stop")], background=True).frames
OPENING = ANSWER[:3]
BROKEN: dict[str, Sequence[bytes]] = {
    "nothing": [],
    "not from the first": ANSWER[1:5],
    "one is missing": [*ANSWER[:5], *ANSWER[6:7]],
    "an item without its part": ANSWER[:4],
    "a part without its text": ANSWER[:5],
    "a text without the end of its part": ANSWER[:8],
    "a part without the end of its item": ANSWER[:9],
    "ended": ANSWER,
    "an error without its failure": assemble(Script((), "fail")).frames[:-1],
    "a heartbeat": [*OPENING, HEARTBEAT],
    "the mark of the end": [*OPENING, DONE],
    "half a frame": [*OPENING, ANSWER[3][:40]],
    "an unknown event": [*OPENING, b'event: x\ndata: {"type":"x","sequence_number":3}\n\n'],
    "a field of another version": [frame.replace(b'"model":"qwen"', b'"model":"qwen","x":1') for frame in OPENING],
    "arguments that are no JSON": [
        frame.replace(b"{}", b"{]")
        for frame in assemble([d.CallOpened(0, "c", "f"), d.CallArguments(0, "{}"), d.Text("a")]).frames[:-4]
    ],
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_state_of_an_assembler_is_refused(case: str) -> None:
    with pytest.raises(NotRestorable):
        restore(BROKEN[case])


def test_line_separators_in_the_request() -> None:
    first = new_assembler(background=True)
    first.seed = msgspec.structs.replace(
        first.seed,
        instructions="a\u2028b\x85c",
        tools=(
            msgspec.Raw(
                '{"type":"function","name":"f","description":"\u2029 é","parameters":null,"strict":null}'.encode()
            ),
        ),
        metadata={"\u2029": "\x85"},
    )
    first.start()
    first.receive([d.Text("a")])
    second, _ = restore(first.take())
    assert told(second, "failed") == told(first, "failed")
