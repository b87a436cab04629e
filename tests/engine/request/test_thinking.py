"""Who decides about thinking: `reasoning.effort`, then `enable_thinking`, then the model's default."""

from __future__ import annotations

from typing import Any

import pytest

from app.engine.request.thinking import Decision, decide
from app.protocol.wire.errors import InvalidRequest
from app.providers.base import Capabilities, Thinking
from tests.engine.scripted import admitted

UNKNOWN = Capabilities()
HYBRID = Capabilities(thinks=True, can_think=True)
SHY = Capabilities(thinks=False, can_think=True)
NEVER = Capabilities(thinks=False, can_think=False)
ALWAYS = Capabilities(thinks=True, can_think=True, can_stop_thinking=False)
OFF = Decision(Thinking(enabled=False), "none", enabled=False, explicit=False)


def decision(can: Capabilities, *, excluded: bool = False, **fields: Any) -> Decision:
    return decide(admitted(**fields).request, can, excluded=excluded)


def on(effort: Any = None) -> Decision:
    return Decision(Thinking(enabled=True, effort=effort), effort, enabled=True, explicit=True)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"enable_thinking": True}, on()),
        ({"enable_thinking": False}, OFF),
        ({"reasoning": {"effort": "none"}}, OFF),
        *[
            ({"reasoning": {"effort": effort}}, on(effort))
            for effort in ("minimal", "low", "medium", "high", "xhigh", "max")
        ],
        ({"reasoning": {"effort": "high"}, "enable_thinking": False}, on("high")),
        ({"reasoning": {"effort": "none"}, "enable_thinking": True}, OFF),
        ({"reasoning": {"summary": "auto"}, "enable_thinking": True}, on()),
        ({"reasoning": {"effort": None}, "enable_thinking": False}, OFF),
    ],
)
@pytest.mark.parametrize("can", [UNKNOWN, HYBRID, SHY], ids=["unknown", "hybrid", "shy"])
def test_effort_goes_before_the_switch(fields: dict[str, Any], expected: Decision, can: Capabilities) -> None:
    assert decision(can, **fields) == expected
    assert decision(can, excluded=True, **fields) == expected


@pytest.mark.parametrize(
    ("can", "thinks"), [(UNKNOWN, None), (HYBRID, True), (SHY, False), (NEVER, False), (ALWAYS, True)]
)
@pytest.mark.parametrize(
    "fields", [{}, {"reasoning": {}}, {"reasoning": {"summary": "auto"}}, {"enable_thinking": None}], ids=str
)
def test_asked_for_nothing_the_default_holds_and_nothing_is_told(
    can: Capabilities, *, thinks: bool | None, fields: dict[str, Any]
) -> None:
    assert decision(can, **fields) == Decision(Thinking(), None, thinks, explicit=False)


@pytest.mark.parametrize(
    ("can", "off"), [(UNKNOWN, True), (HYBRID, True), (SHY, False), (NEVER, False), (ALWAYS, False)]
)
def test_where_the_rest_of_the_request_does_not_go_with_it_thinking_is_switched_off(
    can: Capabilities, *, off: bool
) -> None:
    assert decision(can, excluded=True) == (OFF if off else Decision(Thinking(), None, can.thinks, explicit=False))


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"enable_thinking": True}, "enable_thinking"), ({"reasoning": {"effort": "low"}}, "reasoning.effort")],
)
def test_a_model_that_cannot_think_is_not_asked_to(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        decision(NEVER, **fields)
    assert (raised.value.param, raised.value.code) == (param, "unsupported_parameter")


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"enable_thinking": False}, "enable_thinking"), ({"reasoning": {"effort": "none"}}, "reasoning.effort")],
)
def test_a_model_that_cannot_stop_is_not_asked_to(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        decision(ALWAYS, **fields)
    assert (raised.value.param, raised.value.code) == (param, "unsupported_value")


def test_a_model_that_cannot_think_is_not_told_to_stop() -> None:
    assert decision(NEVER, enable_thinking=False) == Decision(Thinking(), "none", enabled=False, explicit=False)
