"""Tools and `tool_choice`: what is offered, what is forced, what is refused, and what is echoed."""

from __future__ import annotations

import json

import pytest

from app.engine.conversation.function_names import upstream_name
from app.protocol.recovery.client_tools import CallTarget
from app.protocol.wire.errors import InvalidRequest
from app.providers.base import ForcedCall
from tests.engine.offering import Json, built, names

F: Json = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
G: Json = {"type": "function", "name": "g"}
EDIT: Json = {"type": "custom", "name": "edit", "description": "d"}
SPACE: Json = {"type": "namespace", "name": "ns", "tools": [G, EDIT]}
SEARCH: Json = {"type": "web_search", "external_web_access": True}


def refusal(*tools: Json, choice: object = None, lenient: bool = False) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as raised:
        built(*tools, choice=choice, lenient=lenient)
    return raised.value


def test_functions_custom_tools_and_namespaces_are_functions_upstream() -> None:
    tools = built(F, EDIT, SPACE)
    assert names(tools) == ["f", "edit", "ns__g", "ns__edit"]
    assert tools.targets == {
        "f": CallTarget("f"),
        "edit": CallTarget("edit", custom=True),
        "ns__g": CallTarget("g", "ns"),
        "ns__edit": CallTarget("edit", "ns", custom=True),
    }
    f, edit, *_ = tools.functions
    assert (f.description, bytes(f.parameters), f.strict) == ("d", b'{"type": "object"}', True)
    assert json.loads(bytes(edit.parameters))["required"] == ["input"]


def test_a_grammar_is_told_to_the_model() -> None:
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: /a+/"}
    (edit,) = built({**EDIT, "format": grammar}).functions
    assert edit.description is not None
    assert "start: /a+/" in edit.description
    (plain,) = built({**EDIT, "format": {"type": "text"}}).functions
    assert plain.description == "d"


def test_the_echo_has_every_field_of_a_function_and_other_tools_as_sent() -> None:
    echo = [json.loads(bytes(tool)) for tool in built(F, G, EDIT, SPACE).echo]
    assert echo == [
        F,
        {"type": "function", "name": "g", "description": None, "parameters": None, "strict": None},
        EDIT,
        SPACE,
    ]


@pytest.mark.parametrize("parameters", [None, {}])
def test_a_function_without_parameters_takes_an_empty_object(parameters: object) -> None:
    (function,) = built({**G, "parameters": parameters}).functions
    assert json.loads(bytes(function.parameters)) == {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    ("tool", "param", "code"),
    [
        ({"type": "web_search"}, "tools[0].type", "unsupported_tool"),
        ({"type": "code_interpreter", "container": {"type": "auto"}}, "tools[0].type", "unsupported_tool"),
        ({"type": "function"}, "tools[0].name", "missing_required_parameter"),
        ({"type": "function", "name": ""}, "tools[0].name", "missing_required_parameter"),
        ({"type": "function", "name": "a b"}, "tools[0].name", "invalid_value"),
        ({"type": "function", "name": "a\n"}, "tools[0].name", "invalid_value"),
        ({"type": "function", "name": "a" * 129}, "tools[0].name", "invalid_value"),
        ({"type": "function", "function": {"name": "f"}}, "tools[0].function", "unknown_parameter"),
        ({"type": "function", "name": "f", "parameters": [1]}, "tools[0].parameters", "invalid_type"),
        ({"type": "function", "name": "f", "parameters": "x"}, "tools[0].parameters", "invalid_type"),
        ({"type": "custom"}, "tools[0].name", "missing_required_parameter"),
        ({**EDIT, "format": {"type": "text", "foo": 1}}, "tools[0].format.foo", "unknown_parameter"),
        ({**EDIT, "format": {"type": "text", "syntax": "lark"}}, "tools[0].format.syntax", "unknown_parameter"),
        (
            {**EDIT, "format": {"type": "grammar", "definition": "a", "foo": 1}},
            "tools[0].format.foo",
            "unknown_parameter",
        ),
        ({**EDIT, "format": {"type": "xml"}}, "tools[0].format.type", "invalid_value"),
        (
            {**SPACE, "tools": [{**EDIT, "format": {"type": "text", "foo": 1}}]},
            "tools[0].tools[0].format.foo",
            "unknown_parameter",
        ),
        ({"type": "namespace", "tools": []}, "tools[0].name", "missing_required_parameter"),
        (
            {"type": "namespace", "name": "n", "tools": [{"type": "web_search"}]},
            "tools[0].tools[0].type",
            "invalid_value",
        ),
        (
            {"type": "namespace", "name": "n", "tools": [{"type": "function"}]},
            "tools[0].tools[0].name",
            "missing_required_parameter",
        ),
        ({"name": "f"}, "tools[0]", "invalid_type"),
    ],
)
def test_a_tool_that_cannot_be_offered_is_refused_by_name(tool: Json, param: str, code: str) -> None:
    error = refusal(tool)
    assert (error.param, error.code, error.status) == (param, code, 400)


def test_an_unserved_tool_is_named_in_the_message() -> None:
    assert "'web_search'" in refusal(SEARCH).message


def test_two_tools_of_one_name_are_refused() -> None:
    assert refusal(F, F).param == "tools[1].name"
    assert names(built(G, SPACE)) == ["g", "ns__g", "ns__edit"]


def test_for_a_lenient_client_unserved_tools_are_left_out_and_not_echoed() -> None:
    tools = built(F, SEARCH, lenient=True)
    assert (names(tools), tools.left_out, len(tools.echo)) == (["f"], ("web_search",), 1)


@pytest.mark.parametrize(
    "choice",
    [{"type": "web_search"}, {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "web_search"}]}, "required"],
)
def test_a_choice_that_needs_an_unserved_tool_is_refused_also_for_a_lenient_client(choice: object) -> None:
    assert refusal(SEARCH, choice=choice, lenient=True).param == "tool_choice"


@pytest.mark.parametrize(
    ("choice", "offered", "forced"),
    [
        (None, ["f", "g", "edit"], None),
        ("auto", ["f", "g", "edit"], None),
        ("none", [], None),
        ("required", ["f", "g", "edit"], ForcedCall()),
        ({"type": "function", "name": "g"}, ["g"], ForcedCall("g")),
        ({"type": "custom", "name": "edit"}, ["edit"], ForcedCall("edit")),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "g"}]}, ["g"], None),
        ({"type": "allowed_tools", "tools": [{"type": "function", "name": "g"}]}, ["g"], None),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "custom", "name": "edit"}, {"type": "function", "name": "f"}],
            },
            ["f", "edit"],
            ForcedCall(),
        ),
    ],
)
def test_the_choice_narrows_the_offer(choice: object, offered: list[str], forced: ForcedCall | None) -> None:
    tools = built(F, G, EDIT, choice=choice)
    assert (names(tools), tools.forced) == (offered, forced)
    assert len(tools.echo) == 3


def test_a_choice_may_name_a_tool_inside_a_namespace() -> None:
    assert built(G, SPACE, choice={"type": "function", "name": "g", "namespace": "ns"}).forced == ForcedCall("ns__g")
    assert built(G, SPACE, choice={"type": "function", "name": "g"}).forced == ForcedCall("g")


def test_none_without_tools_is_fine() -> None:
    assert built(choice="none").functions == ()


@pytest.mark.parametrize(
    "choice",
    [
        "sometimes",
        5,
        [],
        {"type": "function", "name": "h"},
        {"type": "allowed_tools", "mode": "required", "tools": []},
        {"type": "allowed_tools", "tools": [{"type": "function", "name": "h"}]},
    ],
)
def test_a_choice_that_cannot_be_met_is_refused(choice: object) -> None:
    error = refusal(F, choice=choice)
    assert (error.param, error.code) == ("tool_choice", "invalid_value")


@pytest.mark.parametrize(
    ("choice", "param", "code", "words"),
    [
        ({}, "tool_choice.type", "missing_required_parameter", "the kind of tool"),
        ({"name": "f"}, "tool_choice.type", "missing_required_parameter", "the kind of tool"),
        ({"type": "function"}, "tool_choice.name", "missing_required_parameter", "of the type 'function'"),
        ({"type": "custom", "name": None}, "tool_choice.name", "missing_required_parameter", "of the type 'custom'"),
        (
            {"type": "function", "function": {"name": "f"}},
            "tool_choice.name",
            "missing_required_parameter",
            "belongs beside 'type'",
        ),
        (
            {"type": "function", "name": "f", "function": {"name": "f"}},
            "tool_choice.function",
            "unknown_parameter",
            "belongs beside",
        ),
        ({"type": "function", "name": "f", "mode": "auto"}, "tool_choice.mode", "unknown_parameter", ""),
        ({"type": "function", "name": "f", "nmespace": "ns"}, "tool_choice.nmespace", "unknown_parameter", ""),
        ({"type": "function", "name": 5}, "tool_choice.name", "invalid_type", ""),
        ({"type": "auto"}, "tool_choice.type", "invalid_value", "as the string 'auto'"),
        ({"type": "any"}, "tool_choice.type", "invalid_value", "as the string 'required'"),
        ({"type": "allowed_tools", "mode": "never", "tools": []}, "tool_choice.mode", "invalid_value", ""),
        ({"type": "allowed_tools", "mode": "auto"}, "tool_choice.tools", "missing_required_parameter", ""),
        (
            {"type": "allowed_tools", "allowed_tools": {"tools": []}},
            "tool_choice.allowed_tools",
            "unknown_parameter",
            "beside 'type'",
        ),
        ({"type": "allowed_tools", "tools": [5]}, "tool_choice.tools[0]", "invalid_type", ""),
        (
            {"type": "allowed_tools", "tools": [{"type": "function"}]},
            "tool_choice.tools[0].name",
            "missing_required_parameter",
            "",
        ),
        (
            {"type": "allowed_tools", "tools": [F, {"type": "function", "function": {"name": "f"}}]},
            "tool_choice.tools[1].name",
            "missing_required_parameter",
            "not in 'tool_choice.tools[1].function'",
        ),
    ],
)
def test_a_choice_that_is_written_wrong_is_refused_with_the_place(
    choice: object, param: str, code: str, words: str
) -> None:
    error = refusal(F, choice=choice)
    assert (error.param, error.code) == (param, code)
    assert f"'{param}'" in error.message
    assert words in error.message


def test_required_without_tools_is_refused() -> None:
    assert refusal(choice="required").param == "tool_choice"


def test_names_that_an_upstream_keeps_for_itself_are_changed_on_the_way() -> None:
    tools = built({"type": "function", "name": "web_search"}, {"type": "function", "name": "fn_web_search"})
    assert len(set(names(tools))) == 2
    assert "web_search" not in names(tools)
    assert [target.name for target in tools.targets.values()] == ["web_search", "fn_web_search"]
    assert names(tools) == [upstream_name("web_search", None), upstream_name("fn_web_search", None)]


def test_long_names_are_cut_to_what_every_upstream_takes_and_stay_apart() -> None:
    one, two = upstream_name("a" * 127 + "1", None), upstream_name("a" * 127 + "2", None)
    assert len(one) == len(two) == 64
    assert one != two
    assert upstream_name("b" * 60, "namespace") == upstream_name("b" * 60, "namespace")
