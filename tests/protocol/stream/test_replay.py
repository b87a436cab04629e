"""Stored responses come back as their events; that they do so byte for byte, whatever was said, is shown in
test_assembler.
"""

from __future__ import annotations

import msgspec
import pytest

from app.protocol import deltas as d
from app.protocol.stream.assembler import Assembler
from app.protocol.stream.options import Options
from app.protocol.stream.replay import catch_up, encode_cuts
from app.protocol.wire.items import FunctionCallItem
from app.protocol.wire.response import Response, encode
from app.protocol.wire.tokens import TokenLogprob
from tests.protocol.assembling import Script, assemble, replayed
from tests.support.judge import judge

STOP = d.TurnFinished("stop")


def test_a_plain_answer_replays_with_one_delta_a_field() -> None:
    logprobs = (TokenLogprob("a", -1.0), TokenLogprob("b", -1.0))
    made = assemble(
        [
            d.Reasoning("a"),
            d.Reasoning("b"),
            d.Text("a", logprobs[:1]),
            d.Text("b", logprobs[1:]),
            d.Refusal("n"),
            d.Refusal("o"),
            d.CallOpened(0, "c", "f"),
            d.CallArguments(0, "{"),
            d.CallArguments(0, "}"),
            d.CallOpened(1, "e", "edit"),
            d.CallArguments(1, '{"input": "x"}'),
            STOP,
        ],
        quiet=True,
    )
    judged = judge(b"".join(replayed(made.body, None)))
    assert judged.response == made.response
    assert [event["delta"] for event in judged.events if event["type"].endswith(".delta")] == [
        "ab",
        "ab",
        "no",
        "{}",
        "x",
    ]


@pytest.mark.parametrize(
    "cuts", [b"", b"\xc1", b"\x93", encode_cuts([[1]]), encode_cuts([[1, 99]]), encode_cuts([[-1, 4]])]
)
def test_cuts_of_something_else_are_ignored(cuts: bytes) -> None:
    made = assemble([d.Text("a"), d.Text("bc"), STOP])
    judged = judge(b"".join(replayed(made.body, cuts)))
    assert judged.response == made.response
    assert [event["delta"] for event in judged.events if event["type"].endswith(".delta")] == ["abc"]


def test_log_probabilities_of_an_empty_text_replay() -> None:
    made = assemble([d.Refusal("n"), d.Text("", (TokenLogprob("a", -1.0),)), STOP], quiet=True)
    assert judge(b"".join(replayed(made.body, None))).response == made.response


def test_a_call_cut_off_before_its_first_argument_replays_without_a_delta() -> None:
    made = assemble([d.CallOpened(0, "c", "f"), d.TurnFinished("length")])
    assert replayed(made.body, encode_cuts(made.cuts)) == replayed(made.body, None) == made.frames


def test_calls_of_one_id_keep_their_names() -> None:
    """An upstream that gives every call the same id is wrong, but what it said is still what is shown again."""
    made = assemble([d.CallOpened(0, "c", "f"), d.CallOpened(1, "c", "tools__g"), d.TurnFinished("tool_calls")])
    calls = [item for item in made.response.output if isinstance(item, FunctionCallItem)]
    assert [call.name for call in calls] == ["f", "g"]
    assert replayed(made.body, encode_cuts(made.cuts)) == made.frames


@pytest.mark.parametrize("script", [Script((d.Text("a"), STOP)), Script((d.Text("a"),), "fail"), Script((), "cancel")])
def test_a_background_response_replays_from_the_queue(script: Script) -> None:
    made = assemble(script, background=True)
    judged = judge(b"".join(made.frames))
    assert judged.types[:3] == ["response.created", "response.queued", "response.in_progress"]
    assert [event["response"]["status"] for event in judged.events[:3]] == ["queued", "queued", "in_progress"]
    assert replayed(made.body, encode_cuts(made.cuts)) == replayed(made.body, None) == made.frames


@pytest.mark.parametrize("status", ["completed", "failed", "incomplete", "cancelled"])
def test_the_end_is_the_stored_body(status: str) -> None:
    script = {
        "completed": assemble([d.Text("a"), STOP]),
        "incomplete": assemble([d.Text("a"), d.TurnFinished("length")]),
        "failed": assemble([d.CallOpened(0, "c", "f"), d.CallArguments(0, "{"), STOP]),
        "cancelled": None,
    }[status]
    if script is None:
        assembled = assemble([d.Text("a"), STOP])
        body = encode(msgspec.structs.replace(assembled.response, status="cancelled", completed_at=None))
    else:
        body = script.body
    frames = replayed(body, None)
    assert body in frames[-1]
    assert judge(b"".join(frames)).response.status == status


def test_the_cuts_of_a_stream_cost_about_a_byte_each() -> None:
    made = assemble([*[d.Text("word ")] * 1000, STOP])
    assert len(encode_cuts(made.cuts)) < 1100


def test_a_reader_who_comes_late_gets_the_frames_so_far() -> None:
    script: list[d.Delta] = [
        d.Reasoning("a"),
        d.Reasoning("b"),
        d.Text("\n"),
        d.Text("c"),
        d.Text("d", (TokenLogprob("d", -1.0),)),
        d.Refusal("e"),
        d.CallOpened(0, "c0", "f"),
        d.CallArguments(0, '{"a":'),
        d.CallOpened(1, "c1", "g"),
        d.CallArguments(1, "{}"),
        d.CallArguments(0, "1}"),
        d.Text("f"),
    ]
    response = Response(id="r", created_at=1, status="in_progress", model="m")
    assembler = Assembler(response, lambda prefix, position: f"{prefix}_{position}", Options())
    assembler.start()
    frames = assembler.take()
    assert catch_up(assembler) == frames
    for delta in script:
        assembler.receive([delta])
        frames += assembler.take()
        assert catch_up(assembler) == frames, delta
    assembler.end_turn()
    assert catch_up(assembler) == frames, "what is not taken has not been sent to anybody"
    frames += assembler.take()
    assert catch_up(assembler) == frames
