"""Decides whether and how hard the model thinks, and what the response says about it.

Precedence: `reasoning.effort` over `enable_thinking` (the vendor's rule) over the model's default. If thinking is
incompatible with a forced call or a JSON format, and the client did not ask for thinking, it is turned off.
"""

from __future__ import annotations

import msgspec

from app.protocol.wire.errors import InvalidRequest
from app.protocol.wire.requests import CreateResponse
from app.providers.base import Capabilities, Effort, Thinking


class Decision(msgspec.Struct, frozen=True):
    """What the upstream is sent, and what is echoed."""

    thinking: Thinking
    effort: Effort | None
    """`reasoning.effort` of the response."""
    enabled: bool | None
    """Whether the model thinks; None: the upstream's default, which is unknown."""
    explicit: bool
    """The client explicitly asked for thinking."""


def decide(request: CreateResponse, can: Capabilities, *, excluded: bool) -> Decision:
    """Decide whether a model thinks, and how hard. Raises InvalidRequest if the model cannot do what was asked.

    `excluded`: on this upstream the rest of the request cannot be combined with thinking.
    """
    effort = request.reasoning.effort if request.reasoning else None
    wanted = request.enable_thinking if effort is None else effort != "none"
    param = "enable_thinking" if effort is None else "reasoning.effort"
    if wanted and can.can_think is False:
        raise InvalidRequest(
            f"Unsupported parameter: '{param}': the model '{request.model}' cannot think.",
            code="unsupported_parameter",
            param=param,
        )
    if wanted is False and not can.can_stop_thinking:
        raise InvalidRequest(
            f"Unsupported value: '{param}': the model '{request.model}' cannot answer without thinking.",
            code="unsupported_value",
            param=param,
        )
    if wanted is None and excluded and can.thinks is not False and can.can_stop_thinking and can.can_think is not False:
        return Decision(Thinking(enabled=False), "none", enabled=False, explicit=False)
    if wanted is None:
        return Decision(Thinking(), None, can.thinks, explicit=False)
    if not wanted:
        tell = Thinking(enabled=False) if can.can_think is not False else Thinking()
        return Decision(tell, "none", enabled=False, explicit=False)
    return Decision(Thinking(enabled=True, effort=effort), effort, enabled=True, explicit=True)
