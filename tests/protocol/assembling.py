"""Assembles responses from scripted or random deltas, for the tests of the protocol core."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from hypothesis import strategies as st

from app.protocol import deltas as d
from app.protocol import ids
from app.protocol.assembler import Assembler
from app.protocol.options import Options
from app.protocol.response import Response, ResponseError
from app.protocol.writers import CallTarget, Cut, InvalidArguments

RESPONSE_ID = "0190b6d2-7c1a-7abc-8def-0123456789ab"
TARGETS = {
    "f": CallTarget("f"),
    "tools__g": CallTarget("g", "tools"),
    "edit": CallTarget("edit", custom=True),
    "tools__patch": CallTarget("patch", "tools", custom=True),
}
End = Literal["finish", "fail", "cancel"]


class Assembled(msgspec.Struct, frozen=True):
    """A finished response with everything that was made on the way."""

    response: Response
    body: bytes
    frames: list[bytes]
    cuts: Sequence[Sequence[Cut]]


class Script(msgspec.Struct, frozen=True):
    """What the upstream says, and how it ends."""

    deltas: tuple[d.Delta, ...]
    end: End = "finish"
    retried: int = 0
    """The first so many deltas are a turn that is abandoned."""


def new_assembler(**options: Any) -> Assembler:
    """An assembler whose ids say where items are, as the engine's do."""
    seed = Response(id=RESPONSE_ID, created_at=1_700_000_000, status="in_progress", model="qwen")
    options.setdefault("targets", TARGETS)
    return Assembler(seed, _new_id, Options(**options))


def assemble(script: Script | Sequence[d.Delta], **options: Any) -> Assembled:
    """Run the script to its end, as the engine does."""
    script = script if isinstance(script, Script) else Script(tuple(script))
    assembler = new_assembler(**options)
    assembler.start()
    try:
        if script.retried:
            assembler.receive(script.deltas[: script.retried])
            assembler.abandon_turn()
        assembler.receive(script.deltas[script.retried :])
        if script.end == "finish":
            assembler.end_turn()
            assembler.finish(1_700_000_009)
    except InvalidArguments as error:
        assembler.fail(ResponseError("server_error", str(error)))
    if script.end == "fail":
        assembler.fail(ResponseError("rate_limit_exceeded", "Slow down."))
    elif script.end == "cancel":
        assembler.cancel()
    assert assembler.response is not None
    assembler.emit_end(assembler.response, assembler.body)
    return Assembled(assembler.response, assembler.body, assembler.take(), assembler.cuts)


def _new_id(prefix: str, position: int) -> str:
    if prefix == "call":
        return ids.call_id(RESPONSE_ID, position)
    return ids.item_id(prefix, RESPONSE_ID, position, output=True)


_PIECES = st.sampled_from(["a", "Paris", "答案", "🙂", " ", "\n\n", " b ", "<x>", '"', "\\", "\x00", ""])
_LOGPROBS = st.lists(
    st.builds(
        d.TokenLogprob,
        st.sampled_from(["a", "答"]),
        st.floats(-20, 0),
        st.just((97,)),
        st.lists(st.builds(d.Logprob, st.just("b"), st.floats(-20, 0)), max_size=2).map(tuple),
    ),
    max_size=2,
).map(tuple)
_SPOKEN: st.SearchStrategy[d.Delta] = st.one_of(
    st.builds(d.Text, _PIECES),
    st.builds(d.Text, _PIECES, _LOGPROBS),
    st.builds(d.Reasoning, _PIECES),
    st.builds(d.Refusal, _PIECES),
    st.builds(d.TokenUsage, *[st.integers(0, 9)] * 6),
)
_ARGUMENTS = st.sampled_from(["{}", '{"a": 1}', '{"input": "x\\ny"}', '{"input": ""}', "", " ", '{"a', "nonsense", "[1,2]"])


@st.composite
def _calls(draw: st.DrawFn, first: int) -> list[d.Delta]:
    """Some calls whose fragments, and perhaps words, come in any order that keeps each call's own."""
    queues: list[list[d.Delta]] = []
    for index in range(first, first + draw(st.integers(1, 3))):
        written = draw(_ARGUMENTS)
        cut = draw(st.integers(0, len(written)))
        opened = d.CallOpened(index, draw(st.sampled_from(["", f"call_{index}"])), draw(st.sampled_from([*TARGETS, "unknown"])))
        queues.append([opened, *(d.CallArguments(index, piece) for piece in (written[:cut], written[cut:]))])
    if draw(st.booleans()):
        queues.append(draw(st.lists(_SPOKEN, max_size=2)))
    mixed: list[d.Delta] = []
    while queues := [queue for queue in queues if queue]:
        mixed.append(draw(st.sampled_from(queues)).pop(0))
    return mixed


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    """Anything an upstream may say, ending in any way at any point."""
    deltas: list[d.Delta] = []
    retried = 0
    if draw(st.booleans()):
        deltas += draw(st.lists(_SPOKEN, max_size=4))
        retried = len(deltas)
    for round_ in range(draw(st.integers(0, 2))):
        deltas += draw(st.lists(_SPOKEN, max_size=6))
        deltas += draw(_calls(10 * round_))
    deltas += draw(st.lists(_SPOKEN, max_size=6))
    deltas.append(d.TurnFinished(draw(st.sampled_from(["stop", "length", "tool_calls", "content_filter"]))))
    end: End = draw(st.sampled_from(["finish", "fail", "cancel"]))
    if end != "finish":
        deltas = deltas[: draw(st.integers(retried, len(deltas)))]
    return Script(tuple(deltas), end, retried)


def options() -> st.SearchStrategy[dict[str, Any]]:
    """How the response is shown; sealed text is in capitals."""
    return st.fixed_dictionaries(
        {"raw_reasoning": st.booleans(), "parallel_calls": st.booleans(), "seal": st.sampled_from([None, str.upper])}
    )
