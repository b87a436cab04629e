"""Assembles responses from scripted or random deltas, for the tests of the protocol core."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import msgspec
from hypothesis import strategies as st

from app.protocol import deltas as d
from app.protocol.recovery.arguments import InvalidArguments
from app.protocol.recovery.client_tools import CLIENT_TOOLS, CallTarget
from app.protocol.stream.assembler import Assembler
from app.protocol.stream.options import Options
from app.protocol.stream.replay import replay
from app.protocol.stream.writers import Cut
from app.protocol.wire import hosted as h
from app.protocol.wire import ids
from app.protocol.wire.items import Annotation, UrlCitation
from app.protocol.wire.response import Response, ResponseError
from app.protocol.wire.tokens import Logprob, TokenLogprob

RESPONSE_ID = "0190b6d2-7c1a-7abc-8def-0123456789ab"
TARGETS = {
    "f": CallTarget("f"),
    "tools__g": CallTarget("g", "tools"),
    "edit": CallTarget("edit", custom=True),
    "tools__patch": CallTarget("patch", "tools", custom=True),
    **{name: CallTarget(name, tool=kind) for name, kind in CLIENT_TOOLS.items()},
}
End = Literal["finish", "fail", "cancel"]
Outcome = Literal["completed", "failed"]


class _Code(msgspec.Struct, frozen=True):
    code: str = ""


def code_call(call: h.HostedCall) -> h.HostedItem:
    """Python code, in JSON or bare, as the real tool reads it."""
    try:
        code = msgspec.json.decode(call.arguments, type=_Code).code
    except msgspec.DecodeError:
        code = call.arguments
    return h.CodeInterpreterCall("", "in_progress", "cntr_1", code)


HOSTED: dict[str, Callable[[h.HostedCall], h.HostedItem]] = {
    "web_search": lambda call: h.WebSearchCall("", "in_progress", h.SearchAction(call.arguments, (call.arguments,))),
    "web_extractor": lambda call: h.WebExtractorCall("", "in_progress", ("https://a.example",), goal=call.arguments),
    "code_interpreter": code_call,
    "mcp__s__t": lambda call: h.McpCall("", "in_progress", "t", "s", call.arguments),
    "mcp__s__ask": lambda call: h.McpApprovalRequest("", "ask", "s", call.arguments),
}
"""Openers of the server's own tools, one of each kind of item: with phases, without, with streamed arguments, one that
ends at once.
"""


def ended(item: h.HostedItem, outcome: Outcome) -> h.HostedItem:
    """The item as its tool leaves it."""
    match item:
        case h.McpApprovalRequest() | h.McpListTools():
            return item
        case h.CodeInterpreterCall():
            return msgspec.structs.replace(item, status=outcome, outputs=(h.Logs("1\n"),))
        case h.McpCall() if outcome == "failed":
            return msgspec.structs.replace(item, status=outcome, error=h.McpProtocolError(-1, "no"))
        case h.McpCall() | h.WebExtractorCall():
            return msgspec.structs.replace(item, status=outcome, output="found")
        case h.WebSearchCall(action=h.SearchAction() as action):
            sources = (h.UrlSource("https://a.example"),)
            return msgspec.structs.replace(
                item, status=outcome, action=msgspec.structs.replace(action, sources=sources)
            )
        case _:
            return msgspec.structs.replace(item, status=outcome)


def cite(text: str) -> Sequence[Annotation]:
    """Every `a` has a source."""
    return [UrlCitation("https://a.example", "A", at, at + 1) for at, character in enumerate(text) if character == "a"]


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
    outcomes: tuple[Outcome, ...] = ()
    """How hosted calls end; beyond these, well."""
    steps: int | None = None
    """So many hosted calls begin or end before the response does; None: all."""
    most: int = 1000
    """Hosted calls that may run."""


def new_assembler(*, background: bool = False, **options: Any) -> Assembler:
    """An assembler whose ids say where items are, as the engine's do."""
    seed = Response(id=RESPONSE_ID, created_at=1_700_000_000, status="in_progress", background=background, model="qwen")
    return Assembler(seed, new_id, new_options(**options))


def new_options(*, background: bool = False, **options: Any) -> Options:
    """With the tools that scripts call."""
    del background
    options.setdefault("targets", TARGETS)
    options.setdefault("hosted", HOSTED)
    return Options(**options)


def assemble(script: Script | Sequence[d.Delta], **options: Any) -> Assembled:
    """Run the script to its end, as the engine does."""
    script = script if isinstance(script, Script) else Script(tuple(script))
    return run(script, new_assembler(**options))


def run(script: Script, assembler: Assembler, watch: Callable[[], None] = lambda: None) -> Assembled:
    """The same with an assembler of the test's own; `watch` is called after every step."""
    assembler.start()
    watch()
    return run_on(script, assembler, watch)


def run_on(script: Script, assembler: Assembler, watch: Callable[[], None] = lambda: None) -> Assembled:
    """The same with one that has begun."""
    try:
        if script.retried:
            assembler.receive(script.deltas[: script.retried])
            assembler.abandon_turn()
        for delta in script.deltas[script.retried :]:
            assembler.receive([delta])
            watch()
        if script.end == "finish" or script.steps is not None:
            assembler.end_turn()
            watch()
            _run_calls(script, assembler, watch)
        if script.end == "finish":
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


def _run_calls(script: Script, assembler: Assembler, watch: Callable[[], None]) -> None:
    steps = 1000 if script.steps is None else script.steps
    calls = assembler.hosted
    for number, call in enumerate(calls[: script.most]):
        item = HOSTED[call.name](call)
        outcome = script.outcomes[number] if number < len(script.outcomes) else "completed"
        for step in (
            partial(assembler.begin_hosted, item, "tool"),
            partial(assembler.settle_hosted, ended(item, outcome)),
        ):
            if steps == 0:
                return
            steps -= 1
            step()
            watch()
    for _ in calls[script.most :]:
        if steps == 0:
            return
        steps -= 1
        assembler.skip_hosted()
        watch()


def new_id(prefix: str, position: int) -> str:
    if prefix == "call":
        return ids.call_id(RESPONSE_ID, position)
    return ids.item_id(prefix, RESPONSE_ID, position, output=True)


_PIECES = st.sampled_from(["a", "Paris", "答案", "🙂", " ", "\n\n", " b ", "<x>", '"', "\\", "\x00", ""])
_LOGPROBS = st.lists(
    st.builds(
        TokenLogprob,
        st.sampled_from(["a", "答"]),
        st.floats(-20, 0),
        st.just((97,)),
        st.lists(st.builds(Logprob, st.just("b"), st.floats(-20, 0)), max_size=2).map(tuple),
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
_THOUGHT: st.SearchStrategy[d.Delta] = st.one_of(
    st.builds(d.Reasoning, _PIECES), st.builds(d.TokenUsage, *[st.integers(0, 9)] * 6)
)
"""What a turn may have shown that is given up for another try."""
_ARGUMENTS = st.sampled_from(
    [
        *("{}", '{"a": 1}', '{"input": "x\\ny"}', '{"input": ""}', "", " ", '{"a', "nonsense", "[1,2]"),
        *(
            '{"a": "x\n\ty"}',
            "null",
            '"{\\"a\\": 1}"',
            '{"a": 1}{"a": 1}',
            '{"a": 1}}',
            '{"a": [1',
            '{"a": "\\\\"}',
            '{"patch": "x"}',
        ),
    ]
)
_CLIENT_ARGUMENTS = st.sampled_from(
    [
        '{"commands": ["ls", "a\\nb"], "timeout_ms": 5}',
        '{"command": ["bash", "-lc", "ls"], "env": {"A": "1"}}',
        '{"type": "update_file", "path": "a", "diff": "@@ -1 +1 @@\\n-x\\n+\\ud83d\\ude00"}',
        '{"type": "create_file", "path": "a", "content": "x"}',
        '{"type": "delete_file", "path": "a"}',
        '{"paths": ["a"],\n "limit": 1.0}',
        "{}",
        "nonsense",
        '{"commands": ["l',
    ]
)
_HOSTED_ARGUMENTS = st.sampled_from(
    [
        "",
        "{}",
        '{"code": "print(1)\\n\\ud83d\\ude00 \\u4e2d \\\\ud83d"}',
        'print("bare")',
        ' {"code":"x',
        '{"a": {"code": "n"}, "code": "m"}',
    ]
)


@st.composite
def _calls(draw: st.DrawFn, first: int) -> list[d.Delta]:
    """Some calls whose fragments, and perhaps words, come in any order that keeps each call's own."""
    queues: list[list[d.Delta]] = []
    for index in range(first, first + draw(st.integers(1, 3))):
        name = draw(st.sampled_from([*TARGETS, "unknown", *HOSTED]))
        written = draw(
            _HOSTED_ARGUMENTS if name in HOSTED else _CLIENT_ARGUMENTS if name in CLIENT_TOOLS else _ARGUMENTS
        )
        cut = draw(st.integers(0, len(written)))
        opened = d.CallOpened(index, draw(st.sampled_from(["", f"call_{index}"])), name)
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
        deltas += draw(st.lists(_THOUGHT, max_size=4))
        retried = len(deltas)
    for round_ in range(draw(st.integers(0, 2))):
        deltas += draw(st.lists(_SPOKEN, max_size=6))
        deltas += draw(_calls(10 * round_))
    deltas += draw(st.lists(_SPOKEN, max_size=6))
    deltas.append(d.TurnFinished(draw(st.sampled_from(["stop", "length", "tool_calls", "content_filter"]))))
    end: End = draw(st.sampled_from(["finish", "fail", "cancel"]))
    steps = draw(st.none() | st.integers(0, 5)) if end != "finish" else None
    if end != "finish" and steps is None:
        deltas = deltas[: draw(st.integers(retried, len(deltas)))]
    outcomes: list[Outcome] = draw(st.lists(st.sampled_from(["completed", "failed"]), max_size=4))
    return Script(tuple(deltas), end, retried, tuple(outcomes), steps, draw(st.sampled_from([1000, 1000, 0, 1, 2])))


def options() -> st.SearchStrategy[dict[str, Any]]:
    """How the response is shown; sealed text is in capitals."""
    return st.fixed_dictionaries(
        {
            "raw_reasoning": st.booleans(),
            "parallel_calls": st.sampled_from([True, True, False]),
            "seal": st.sampled_from([None, str.upper]),
            "annotate": st.sampled_from([None, cite]),
            "background": st.booleans(),
        }
    )


def replayed(body: bytes, cuts: bytes | None) -> list[bytes]:
    """All frames of a stored response."""
    return [frame for frames in replay(body, cuts) for frame in frames]
