"""The order of things while hosted calls wait for the end of a turn."""

from __future__ import annotations

from collections.abc import Sequence

from app.protocol import deltas as d
from app.protocol.stream.deferral import Deferral, PendingHosted
from app.protocol.wire import hosted as h
from app.protocol.wire.items import (
    CustomToolCallItem,
    FunctionCallItem,
    MessageItem,
    OutputItem,
    OutputText,
    ReasoningItem,
)
from tests.protocol.assembling import Assembled, Script, assemble, new_assembler

STOP = d.TurnFinished("tool_calls")


def search(index: int, *, written: str = "q") -> list[d.Delta]:
    return [d.CallOpened(index, "", "web_search"), d.CallArguments(index, written)]


def shown(made: Assembled) -> list[str]:
    """Each item in a word."""
    return [_word(item) for item in made.response.output]


def _word(item: OutputItem) -> str:
    word = type(item).__name__
    match item:
        case MessageItem():
            word = "".join(part.text for part in item.content if isinstance(part, OutputText))
        case ReasoningItem():
            word = f"({item.summary[0].text})"
        case FunctionCallItem():
            word = f"{item.name}{item.arguments}"
        case h.WebSearchCall(action=h.SearchAction() as action):
            word = f"search {action.query}"
        case h.CodeInterpreterCall():
            word = f"code {item.code}"
        case CustomToolCallItem():
            word = f"{item.name} {item.input}"
        case _:
            pass
    return word


def test_nothing_waits_before_the_first_hosted_call() -> None:
    assert not Deferral()
    assert Deferral().calls == []
    assert Deferral().writer is None


def test_what_is_said_after_a_call_comes_after_it() -> None:
    deltas = [
        d.Reasoning("hm"),
        d.Text("One."),
        *search(0),
        d.Text("Two."),
        *search(1),
        d.Reasoning("so"),
        d.Text("Three."),
        STOP,
    ]
    assert shown(assemble(deltas)) == ["(hm)", "One.", "search q", "Two.", "search q", "(so)", "Three."]


def test_calls_of_the_client_keep_their_place_between_hosted_ones() -> None:
    deltas: Sequence[d.Delta] = [
        *(d.CallOpened(0, "a", "f"), d.CallArguments(0, '{"a": ')),
        *search(1, written="x"),
        d.CallArguments(0, "1}"),
        d.CallOpened(2, "b", "tools__g"),
        d.CallOpened(3, "", "code_interpreter"),
        d.CallArguments(2, '{"b"'),
        d.CallArguments(3, '{"code":'),
        d.CallArguments(2, ": 2}"),
        d.CallOpened(4, "c", "edit"),
        d.CallArguments(3, '"1"}'),
        d.CallArguments(4, '{"input": "y"}'),
        STOP,
    ]
    made = assemble(deltas)
    assert shown(made) == ['f{"a": 1}', "search x", 'g{"b": 2}', "code 1", "edit y"]
    assert made.response.status == "completed"


def test_a_fragment_without_its_call_waits_at_the_end() -> None:
    queue = Deferral()
    queue.add(PendingHosted(0, "c", "web_search"))
    queue.write(d.CallArguments(7, "{}"))
    assert queue.advance() == [d.CallArguments(7, "{}")]
    assert not queue


def test_the_first_calls_code_is_shown_at_once_the_second_waits() -> None:
    assembler = new_assembler()
    assembler.start()
    assembler.take()
    assembler.receive([d.CallOpened(0, "", "code_interpreter"), d.CallArguments(0, '{"code": "a')])
    assert any(b"code.delta" in frame for frame in assembler.take())
    assembler.receive([d.CallOpened(1, "", "code_interpreter"), d.CallArguments(1, '{"code": "b')])
    assert assembler.take() == []


def test_an_unfinished_call_of_the_client_is_not_overtaken() -> None:
    """The code would be shown at once if it were the first."""
    deltas = [
        d.CallOpened(0, "a", "f"),
        d.CallOpened(1, "", "code_interpreter"),
        d.CallArguments(1, "x"),
        d.CallArguments(0, "{}"),
        STOP,
    ]
    assert shown(assemble(deltas)) == ["f{}", "code x"]


def test_ids_of_hosted_calls_are_the_gateways_own_whatever_the_upstream_says() -> None:
    assembler = new_assembler(quiet=True)
    found: list[str] = []
    for _ in range(2):
        assembler.receive([d.CallOpened(0, "call_0", "web_search"), d.CallOpened(1, "call_0", "web_search"), STOP])
        assembler.end_turn()
        for call in assembler.hosted:
            found.append(call.call_id)
            assembler.begin_hosted(h.WebExtractorCall("", "in_progress", ()), None)
            assembler.settle_hosted(h.WebExtractorCall("", "completed", ()))
        assembler.begin_turn()
    assert len(set(found)) == 4
    assert "call_0" not in found


def test_only_the_first_call_counts_when_parallel_calls_are_off() -> None:
    deltas = [*search(0, written="x"), *search(1, written="y"), d.CallOpened(2, "c", "f"), d.Text("Done."), STOP]
    assert shown(assemble(deltas, parallel_calls=False)) == ["search x", "Done."]
    assert shown(assemble([d.CallOpened(0, "c", "f"), *search(1), STOP], parallel_calls=False)) == ["f{}"]


def test_a_turn_that_was_cut_off_runs_nothing() -> None:
    made = assemble(
        [
            d.CallOpened(0, "", "code_interpreter"),
            d.CallArguments(0, '{"code": "a'),
            *search(1),
            d.TurnFinished("length"),
        ]
    )
    assert shown(made) == ["code a"]
    assert [getattr(item, "status", None) for item in made.response.output] == ["incomplete"]
    assert made.response.incomplete_details is not None
    assert made.response.incomplete_details.reason == "max_output_tokens"


def test_calls_that_are_skipped_are_not_shown_and_what_was_said_after_them_is() -> None:
    deltas = [
        *search(0, written="x"),
        *search(1, written="y"),
        d.Text("So."),
        d.CallOpened(2, "c", "f"),
        d.CallArguments(2, "{}"),
        STOP,
    ]
    made = assemble(Script(tuple(deltas), most=1))
    assert shown(made) == ["search x", "So.", "f{}"]
    assert (made.response.status, made.response.incomplete_details) == ("completed", None)
    assert made.response.usage is None or made.response.usage.x_tools == {"tool": {"count": 1}}


def test_what_was_shown_of_a_call_that_is_skipped_stays_incomplete() -> None:
    deltas = [d.CallOpened(0, "", "code_interpreter"), d.CallArguments(0, '{"code": "a"}'), d.Text("So."), STOP]
    made = assemble(Script(tuple(deltas), most=0))
    assert shown(made) == ["code a", "So."]
    assert [getattr(item, "status", None) for item in made.response.output] == ["incomplete", "completed"]


def test_every_call_that_ran_counts_in_the_usage_by_its_tool() -> None:
    usage = assemble([*search(0), *search(1), d.TokenUsage(1, 1, 2), STOP]).response.usage
    assert usage is not None
    assert usage.x_tools == {"tool": {"count": 2}}


def test_an_item_of_the_upstreams_own_tool_waits_like_everything_else() -> None:
    native = h.WebSearchCall("ws_up", "in_progress", h.SearchAction("up"))
    deltas = [
        *(d.CallOpened(0, "", "code_interpreter"), d.CallArguments(0, '{"code": "1"}')),
        d.NativeItem(native, done=False),
        d.NativeItem(h.WebSearchCall("ws_up", "completed", h.SearchAction("up")), done=True),
        d.Text("So."),
        STOP,
    ]
    assert shown(assemble(deltas)) == ["code 1", "search up", "So."]
