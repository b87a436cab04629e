"""What the model reads, for every shape in which clients were seen to write a conversation."""

from __future__ import annotations

import json

import msgspec
import pytest

from app.engine.conversation.context import Context, last_user, weight
from app.engine.conversation.function_names import upstream_name
from app.engine.conversation.known_calls import KnownCalls
from app.engine.conversation.transcript import Transcript
from app.protocol.messages import Assistant, FilePart, ImagePart, TextPart, ToolResult, User
from app.protocol.wire.requests import parse_item
from tests.engine.conversing import (
    IMAGE,
    USER,
    Json,
    after,
    call,
    messages,
    opened,
    output,
    refusal,
    said,
    transcribe,
    unseal,
)


@pytest.mark.parametrize(
    "item",
    [
        {"role": "user", "content": "hi"},
        {"type": "message", "role": "user", "content": "hi", "id": "msg_own", "status": "completed"},
        {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
    ],
)
def test_a_user_message_in_every_spelling(item: Json) -> None:
    assert messages(item) == [User("hi")]


@pytest.mark.parametrize(
    "content",
    [
        "ok",
        [{"type": "output_text", "text": "ok"}],
        [{"type": "output_text", "text": "ok", "annotations": [], "logprobs": []}],
        [{"type": "output_text", "text": "o"}, {"type": "output_text", "text": "k"}],
        [{"type": "refusal", "refusal": "ok"}],
    ],
)
@pytest.mark.parametrize(
    "more", [{}, {"type": "message", "id": "msg_1", "status": "completed"}, {"phase": "final_answer"}]
)
def test_an_assistant_message_in_every_spelling(content: object, more: Json) -> None:
    assert messages(USER, {"role": "assistant", "content": content, **more}, USER) == [
        User("hi"),
        Assistant("ok"),
        User("hi"),
    ]


def test_system_and_developer_messages_are_collected_wherever_they_stand() -> None:
    transcript = transcribe(
        {"role": "developer", "content": "one"},
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "two"}]},
        USER,
        {"role": "system", "content": "three"},
    )
    assert transcript.system == ["one", "two", "three"]
    assert transcript.messages == [User("hi")]


def test_what_the_chain_said_as_system_comes_first() -> None:
    assert transcribe({"role": "system", "content": "new"}, USER, context=Context(system=("old",))).system == [
        "old",
        "new",
    ]


def test_several_parts_keep_their_order() -> None:
    content = [
        {"type": "input_text", "text": "look"},
        {"type": "input_image", "image_url": "https://x/i.png", "detail": "high"},
        {"type": "image_url", "image_url": {"url": IMAGE}},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA"},
        {"type": "input_file", "file_url": "https://x/a.pdf"},
    ]
    assert messages({"role": "user", "content": content}) == [
        User(
            (
                TextPart("look"),
                ImagePart("https://x/i.png", "high"),
                ImagePart(IMAGE),
                FilePart("a.pdf", None, "data:application/pdf;base64,AA"),
                FilePart(None, "https://x/a.pdf"),
            )
        )
    ]


@pytest.mark.parametrize("more", [{}, {"id": "fc_1", "status": "completed"}])
@pytest.mark.parametrize("answer", [output(), output(status="completed"), output(id="fco_1")])
def test_a_call_and_its_result(more: Json, answer: Json) -> None:
    assert messages(USER, call(**more), answer) == [
        User("hi"),
        Assistant("", calls=(opened(),)),
        ToolResult("c1", "42"),
    ]


def test_thinking_text_and_calls_of_one_turn_are_one_message() -> None:
    items = (
        USER,
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
        said("Let me see."),
        call(),
        call("c2"),
    )
    assert messages(*items, output("c2", "two"), output("c1", "one")) == [
        User("hi"),
        Assistant("Let me see.", "hm", (opened(), opened("c2"))),
        ToolResult("c1", "one"),
        ToolResult("c2", "two"),
    ]


def test_the_turn_after_the_results_is_a_message_of_its_own() -> None:
    assert messages(
        USER, call(), output(), said("Done."), USER, call("c2"), output("c2"), call("c3"), output("c3")
    ) == [
        User("hi"),
        Assistant("", calls=(opened(),)),
        ToolResult("c1", "42"),
        Assistant("Done."),
        User("hi"),
        Assistant("", calls=(opened("c2"),)),
        ToolResult("c2", "42"),
        Assistant("", calls=(opened("c3"),)),
        ToolResult("c3", "42"),
    ]


def test_thinking_inside_a_tool_loop_stays_with_its_own_turn() -> None:
    thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "b"}]}
    assert messages(USER, call(), output(), thought, call("c2"), output("c2"))[3] == Assistant("", "b", (opened("c2"),))


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_user_message_between_a_call_and_its_result_moves_behind_it(place: str) -> None:
    more: Json = {"role": "user", "content": "and?"}
    late = (output(), more) if place == "after" else (more, output())
    assert messages(USER, call(), *late) == [
        User("hi"),
        Assistant("", calls=(opened(),)),
        ToolResult("c1", "42"),
        User("and?"),
    ]


def test_the_same_question_after_the_results_is_a_new_one() -> None:
    assert messages(USER, call(), output(), USER)[-1] == User("hi")


def test_the_question_repeated_before_the_result_of_the_chains_call_is_left_out() -> None:
    """Semantic Kernel: `previous_response_id`, the same user message again, then the output."""
    chain = Context(tail=(User("hi"), Assistant("", calls=(opened(),))))
    assert messages(USER, output(), context=chain) == [
        User("hi"),
        Assistant("", calls=(opened(),)),
        ToolResult("c1", "42"),
    ]


def test_the_client_may_repeat_calls_and_results_that_the_chain_holds() -> None:
    chain = Context(tail=(User("hi"), Assistant("", calls=(opened(),))))
    assert messages(call(), output(), output(), context=chain) == [
        User("hi"),
        Assistant("", calls=(opened(),)),
        ToolResult("c1", "42"),
    ]
    answered = Context(known=KnownCalls().extended([Assistant("", calls=(opened(),)), ToolResult("c1", "42")], ()))
    assert messages(call(), output(), USER, context=answered) == [User("hi")]


def test_a_result_with_an_image_is_a_string_and_a_message_behind_all_results() -> None:
    picture = [
        {"type": "input_text", "text": "a"},
        {"type": "input_image", "image_url": IMAGE},
        {"type": "input_text", "text": "b"},
    ]
    assert messages(USER, call(), call("c2"), output("c1", picture), output("c2")) == [
        User("hi"),
        Assistant("", calls=(opened(), opened("c2"))),
        ToolResult("c1", "a\nb"),
        ToolResult("c2", "42"),
        User((TextPart("Images of the result of call c1:"), ImagePart(IMAGE))),
    ]


def test_a_result_that_is_only_an_image_or_nothing_is_still_a_string() -> None:
    answers = messages(USER, call(), output("c1", [{"type": "input_image", "image_url": IMAGE}]))
    assert answers[2] == ToolResult("c1", "(see the attached content)")
    assert messages(USER, call(), output("c1", ""))[2] == ToolResult("c1", "")


@pytest.mark.parametrize(
    "result", [[], "", [{"type": "input_text", "text": ""}], [{"type": "output_text", "text": ""}] * 0]
)
def test_a_result_that_holds_nothing_is_empty(result: object) -> None:
    assert messages(USER, call(), output("c1", result))[2:] == [ToolResult("c1", "")]


def test_names_are_those_the_upstream_knows() -> None:
    calls = messages(USER, call(namespace="ns"), output(), call("c2", name="web_search"), output("c2"))
    assert [c.name for m in calls if isinstance(m, Assistant) for c in m.calls] == ["ns__f", "fn_web_search"]


def test_custom_tools_are_functions_of_one_string() -> None:
    custom = {"type": "custom_tool_call", "call_id": "c1", "name": "edit", "input": 'a"b'}
    result = {"type": "custom_tool_call_output", "call_id": "c1", "output": "ok"}
    assert messages(USER, custom, result)[1:] == [
        Assistant("", calls=(opened("c1", "edit", '{"input":"a\\"b"}'),)),
        ToolResult("c1", "ok"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>\nhm\n</think>\nok", Assistant("ok", "hm")),
        ("<think>\nhm\n</think>", Assistant("", "hm")),
        ("so <think>hm</think> ok", Assistant("so <think>hm</think> ok")),
        ("<think>never closed", Assistant("<think>never closed")),
    ],
)
def test_thinking_replayed_as_text_becomes_thinking(text: str, expected: Assistant) -> None:
    """pydantic-ai."""
    assert messages(USER, said(text), USER)[1] == expected


@pytest.mark.parametrize(
    ("item", "thinking", "dropped"),
    [
        ({"summary": [{"type": "summary_text", "text": "a"}], "content": None}, "a", False),
        ({"summary": [], "content": [{"type": "reasoning_text", "text": "b"}]}, "b", False),
        ({"summary": [], "encrypted_content": "ours:c", "content": None}, "c", False),
        ({"summary": [{"type": "summary_text", "text": "a"}], "encrypted_content": "ours:c"}, "c", False),
        ({"summary": [{"type": "summary_text", "text": "a"}], "encrypted_content": "gAAAA"}, "a", False),
        ({"summary": [], "encrypted_content": "gAAAA"}, "", True),
        ({"summary": []}, "", False),
    ],
)
def test_thinking_comes_from_where_it_is(item: Json, thinking: str, *, dropped: bool) -> None:
    transcript = transcribe(USER, {"type": "reasoning", **item}, said("ok"))
    assert transcript.messages[1] == Assistant("ok", thinking)
    assert transcript.dropped_thinking is dropped


@pytest.mark.parametrize("more", [{}, {"id": "rs_1"}, {"id": "rs_1", "encrypted_content": "ours:a"}])
def test_the_same_thinking_twice_is_read_once(more: Json) -> None:
    """Clients put the reasoning item before each of the calls that followed it."""
    thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "a"}], **more}
    assert messages(USER, thought, thought, said("ok"))[1] == Assistant("ok", "a")
    assert messages(USER, thought, call(), thought, call("c2"), output(), output("c2"))[1] == Assistant(
        "", "a", (opened(), opened("c2"))
    )


def test_sealed_thinking_is_limited_as_a_whole() -> None:
    """A megabyte may be sealed in some kilobytes, and a request may hold thousands of them."""
    blobs = [f"ours:{number % 2}{'a' * 1_000_000}" for number in range(9)]
    sealed: list[Json] = [
        {"type": "reasoning", "id": f"rs_{n}", "summary": [], "encrypted_content": blob} for n, blob in enumerate(blobs)
    ]

    assert _thinking(transcribe(USER, *sealed[:8], said("ok"))) == 8_000_008
    assert _thinking(transcribe(USER, *sealed[:1] * 50, said("ok"))) == 1_000_001
    assert refusal(USER, *sealed).param == "input[9].encrypted_content"

    stored = Transcript(Context(), upstream_name, unseal)
    after(stored, USER, *sealed * 3, said("ok"))
    assert _thinking(stored) < 10_000_000
    assert stored.dropped_thinking


def _thinking(transcript: Transcript) -> int:
    """Its characters."""
    return sum(len(message.reasoning) for message in transcript.messages if isinstance(message, Assistant))


def test_other_thinking_of_the_same_id_and_the_same_thinking_in_another_turn_are_read() -> None:
    one, two = (
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": text}]} for text in "ab"
    )
    assert messages(USER, one, two, said("ok"))[1] == Assistant("ok", "ab")
    again = {"type": "reasoning", "summary": one["summary"]}
    assert [
        m.reasoning for m in messages(USER, again, said("x"), USER, again, said("y")) if isinstance(m, Assistant)
    ] == ["a", "a"]


def test_thinking_between_the_calls_of_a_turn_that_began_with_text_parts_no_call_from_its_result() -> None:
    thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "a"}]}
    assert messages(USER, said("Look:"), call(), thought, call("c2"), output(), output("c2"))[1:] == [
        *(Assistant("Look:", "a", (opened(), opened("c2"))), ToolResult("c1", "42"), ToolResult("c2", "42")),
    ]


@pytest.mark.parametrize("kind", ["computer_call", "computer_call_output", "image_generation_call", "compaction", "x"])
def test_an_item_of_a_type_that_is_not_served_is_refused_at_its_place(kind: str) -> None:
    error = refusal(USER, {"type": kind, "call_id": "c1"}, output())
    assert (error.param, error.code) == ("input[1].type", "unsupported_value")
    assert f"'{kind}'" in error.message


def test_a_result_without_its_call_is_refused_in_the_words_of_the_api() -> None:
    error = refusal(USER, output("c9"))
    assert error.message.startswith("No tool call found for function call output with call_id c9. ")
    assert "'input[1]'" in error.message
    assert (error.status, error.code, error.param) == (400, None, "input[1].call_id")


@pytest.mark.parametrize(
    ("items", "at"), [((USER, call("c9")), 1), ((USER, call(), call("c9"), output()), 2), ((call("c9"), USER), 0)]
)
def test_a_call_without_its_result_is_refused_in_the_words_of_the_api(items: tuple[Json, ...], at: int) -> None:
    error = refusal(*items)
    assert error.message.startswith("No tool output found for function call c9. ")
    assert f"'input[{at}]'" in error.message
    assert (error.status, error.code, error.param) == (400, None, f"input[{at}].call_id")


def test_the_chains_call_without_its_result_is_refused_too() -> None:
    chain = Context(tail=(User("hi"), Assistant("", calls=(opened("c9"),))))
    assert refusal(USER, context=chain).message == "No tool output found for function call c9."


UNREADABLE: list[tuple[Json, str, str]] = [
    ({"role": "user"}, "input[0].content", "missing_required_parameter"),
    ({"role": "wizard", "content": "a"}, "input[0].role", "invalid_value"),
    ({"content": "a"}, "input[0].role", "invalid_value"),
    ({"type": "web_search_call", "id": "ws_1"}, "input[0].type", "unsupported_value"),
    ({"type": "function_call", "name": "f"}, "input[0].call_id", "missing_required_parameter"),
    ({"type": "function_call", "call_id": "c"}, "input[0].name", "missing_required_parameter"),
    ({"type": "function_call_output", "output": "a"}, "input[0].call_id", "missing_required_parameter"),
    ({"role": "user", "content": [{"type": "input_text"}]}, "input[0].content[0].text", "missing_required_parameter"),
    ({"role": "user", "content": [{"type": "input_audio"}]}, "input[0].content[0].type", "unsupported_value"),
    ({"role": "user", "content": [{"type": "input_image"}]}, "input[0].content[0].image_url", "invalid_image_url"),
    (
        {"role": "user", "content": [{"type": "input_image", "image_url": "file:///etc/passwd"}]},
        "input[0].content[0].image_url",
        "invalid_image_url",
    ),
    (
        {"role": "user", "content": [{"type": "input_image", "image_url": {}}]},
        "input[0].content[0].image_url",
        "invalid_image_url",
    ),
    (
        {"role": "user", "content": [{"type": "input_file"}]},
        "input[0].content[0].file_data",
        "missing_required_parameter",
    ),
    ({"role": "system", "content": [{"type": "input_image", "image_url": IMAGE}]}, "input[0].content", "invalid_value"),
]


@pytest.mark.parametrize(("item", "param", "code"), UNREADABLE)
def test_what_cannot_be_read_is_refused_by_name(item: Json, param: str, code: str) -> None:
    error = refusal(item)
    assert (error.param, error.code) == (param, code)


def test_a_result_without_content_is_refused_by_name() -> None:
    assert refusal(USER, call(), {"type": "function_call_output", "call_id": "c1"}).param == "input[2].output"


def test_what_follows_the_last_user_message_is_the_running_loop() -> None:
    loop = messages(USER, said("a"), USER, call(), output())
    assert last_user(loop) == 2
    assert last_user([]) == 0


def test_open_calls_are_resumed() -> None:
    transcript = Transcript(Context(), upstream_name, unseal)
    transcript.add(
        [("", parse_item(msgspec.Raw(json.dumps(item).encode()), "")) for item in (USER, said("Hm."), call())]
    )
    transcript.end_turn(cut=False)
    assert transcript.open_calls
    resumed = transcribe(output(), context=Context(tail=tuple(transcript.messages)))
    assert not resumed.open_calls
    assert resumed.messages == [User("hi"), Assistant("Hm.", calls=(opened(),)), ToolResult("c1", "42")]
    assert "c1" in resumed.call_ids


def test_a_message_is_weighed_by_its_text() -> None:
    tail = (
        User("a" * 1000),
        User((ImagePart("b" * 1000),)),
        Assistant("c" * 1000, "d" * 1000, (opened("c", "f", "e" * 1000),)),
    )
    assert 6000 <= sum(map(weight, (*tail, ToolResult("c", "h" * 1000)))) <= 8000


@pytest.mark.parametrize("text", ["\N{ROCKET}" * 1000, "\N{ROCKET}" + "a" * 999])
def test_a_rare_character_makes_a_message_four_times_as_heavy(text: str) -> None:
    spoken = (User(text), User((TextPart(text),)), Assistant(text), Assistant("", text), ToolResult("c", text))
    assert all(4000 <= weight(message) <= 4500 for message in spoken)


def test_images_and_notes_weigh_too_when_their_messages_are_closed() -> None:
    transcript = Transcript(Context(images=(ImagePart("b" * 1000),), notes={"tool": "n" * 1000}), upstream_name, unseal)
    assert 2000 <= transcript.weight <= 2500


def test_names_that_no_upstream_takes_are_respelled() -> None:
    assert messages(USER, call(name="a b.c/d"), output())[1] == Assistant("", calls=(opened(name="a_b_c_d"),))
