"""Items of hosted calls, from their first event to the last, and the code that is shown while it is written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.protocol.stream.hosted_writer import HostedWriter, StringMember
from app.protocol.stream.writers import Emitter
from app.protocol.wire import events as e
from app.protocol.wire import hosted as h

CODE = h.CodeInterpreterCall("", "in_progress", "cntr")


class Stage:
    """A writer of the first item of a stream."""

    def __init__(self, item: h.HostedItem) -> None:
        out = self._out = Emitter(quiet=False)
        snapshot = msgspec.Raw(b"{}")
        out.emit(e.Created, response=snapshot)
        out.emit(e.InProgress, response=snapshot)
        self.writer = HostedWriter(out, item, "ci_1", 0)

    @property
    def events(self) -> Sequence[dict[str, Any]]:
        return [json.loads(frame.split(b"data: ")[1]) for frame in self._out.frames[2:]]

    @property
    def types(self) -> list[str]:
        return [event["type"].removeprefix("response.") for event in self.events]


def decoded(fragments: Sequence[str]) -> str:
    member = StringMember("code")
    return "".join(member.feed(fragment) for fragment in fragments)


@given(
    st.text(),
    st.integers(0, 1),
    st.lists(st.integers(0, 200), max_size=6),
    st.sampled_from(["", "}", ', "x": "y"}', "\n"]),
)
@example('\U0001f600中\n\t"\\\\', 1, [12, 14, 20, 22], "}")
@example("\\ud83d", 1, [11, 12, 13], "}")
def test_a_string_is_decoded_wherever_it_is_cut(text: str, escaped: int, cuts: list[int], rest: str) -> None:
    written = '{ "code" :\n' + json.dumps(text, ensure_ascii=bool(escaped)) + rest
    places = [0, *sorted(min(cut, len(written)) for cut in cuts), len(written)]
    assert decoded([written[a:b] for a, b in pairwise(places)]) == text


@given(st.text(st.sampled_from('\\u"dD8cC0nx{}: 😀中'), max_size=30))
def test_whatever_is_written_is_the_same_in_one_piece_and_in_characters_and_can_be_sent(inside: str) -> None:
    written = f'{{"code":"{inside}'
    whole = decoded([written])
    assert decoded(list(written)) == whole
    whole.encode()


@pytest.mark.parametrize(
    ("inside", "text"),
    [
        ("a\nb", "a\nb"),  # a raw line break, which JSON forbids
        (r"re.match('\d')", r"re.match('\d')"),
        (r"C:\users", r"C:\users"),
        (r"\ud83d!", "\ufffd!"),
        (r"\ude00!", "\ufffd!"),
        (r"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
    ],
)
def test_what_is_no_good_json_is_taken_for_what_it_looks_like(inside: str, text: str) -> None:
    assert decoded(list(f'{{"code": "{inside}"}}')) == text


@pytest.mark.parametrize(
    "written",
    ['print({"code": "x"})', '{"a": {"code": "x"}}', '["code": "x"', " " * 300 + '{"code": "x"}', '"code": "x"'],
)
def test_only_the_first_member_of_an_object_is_looked_at(written: str) -> None:
    assert decoded(list(written)) == decoded([written]) == ""


def test_code_is_shown_while_it_is_written() -> None:
    stage = Stage(CODE)
    for fragment in ('{"co', 'de": "a = 1', "\\", 'nb"', "}"):
        stage.writer.write(fragment)
    assert [event["delta"] for event in stage.events if event["type"].endswith(".delta")] == ["a = 1", "\nb"]
    whole = msgspec.structs.replace(CODE, code="a = 1\nb")
    stage.writer.run(whole)
    stage.writer.settle(msgspec.structs.replace(whole, status="completed", outputs=(h.Logs("1"),)))
    item = stage.writer.close("completed")
    assert stage.types == [
        "output_item.added",
        "code_interpreter_call.in_progress",
        "code_interpreter_call_code.delta",
        "code_interpreter_call_code.delta",
        "code_interpreter_call_code.done",
        "code_interpreter_call.interpreting",
        "code_interpreter_call.completed",
        "output_item.done",
    ]
    assert item == h.CodeInterpreterCall("ci_1", "completed", "cntr", "a = 1\nb", (h.Logs("1"),))
    assert stage.writer.cuts() == [[5, 2]]


def test_bare_code_is_shown_in_one_piece_when_it_is_whole() -> None:
    stage = Stage(CODE)
    stage.writer.write("print(")
    stage.writer.write("1)")
    stage.writer.run(msgspec.structs.replace(CODE, code="print(1)"))
    assert [event["delta"] for event in stage.events if event["type"].endswith(".delta")] == ["print(1)"]


def test_what_was_shown_stays_also_where_the_tool_reads_it_otherwise() -> None:
    stage = Stage(CODE)
    stage.writer.write('{"code": "```python\\n1\\n```"}')
    read = msgspec.structs.replace(CODE, code="1")
    stage.writer.run(read)
    stage.writer.settle(msgspec.structs.replace(read, status="completed"))
    item = stage.writer.close("completed")
    done = next(event for event in stage.events if event["type"].endswith("code.done"))
    assert isinstance(item, h.CodeInterpreterCall)
    assert item.code == done["code"] == "```python\n1\n```"


def test_a_call_that_is_not_run_is_incomplete_with_what_was_shown() -> None:
    stage = Stage(CODE)
    stage.writer.write('{"code": "a = ')
    item = stage.writer.close("completed")
    assert item == h.CodeInterpreterCall("ci_1", "incomplete", "cntr", "a = ")
    assert stage.types[-1] == "output_item.done"
    assert "code_interpreter_call.completed" not in stage.types


def test_a_call_that_is_stopped_while_it_runs_is_incomplete_with_all_its_arguments() -> None:
    stage = Stage(h.McpCall("", "in_progress", "t", "s", ""))
    stage.writer.write('{"a"')
    stage.writer.run(h.McpCall("", "in_progress", "t", "s", '{"a": 1}'))
    assert stage.writer.running
    assert stage.writer.close("completed") == h.McpCall("ci_1", "incomplete", "t", "s", '{"a": 1}')
    assert stage.types[-2:] == ["mcp_call_arguments.done", "output_item.done"]


@pytest.mark.parametrize(
    ("item", "last"),
    [
        (h.McpCall("", "failed", "t", "s", "{}", error=h.McpExecutionError("no")), "mcp_call.failed"),
        (h.McpCall("", "completed", "t", "s", "{}", "yes"), "mcp_call.completed"),
        (h.McpListTools("", "s", (), "gone"), "mcp_list_tools.failed"),
        (h.McpListTools("", "s", ()), "mcp_list_tools.completed"),
        (h.WebSearchCall("", "completed", h.SearchAction("q")), "web_search_call.completed"),
        # it has no event for a failure
        (h.WebSearchCall("", "failed", h.SearchAction("q")), "web_search_call.searching"),
        (h.WebExtractorCall("", "failed", ()), "output_item.added"),
        (h.McpApprovalRequest("", "t", "s", "{}"), "output_item.added"),
    ],
)
def test_the_end_is_told_by_the_event_that_fits(item: h.HostedItem, last: str) -> None:
    stage = Stage(item)
    stage.writer.settle(item)
    stage.writer.close("completed")
    assert stage.types[-2:] == [last, "output_item.done"]
