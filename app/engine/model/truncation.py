"""`truncation`: what is left out of a call that is too large."""

from __future__ import annotations

import msgspec

from app.engine.conversation.history import join
from app.providers.base import ModelCall, Provider


class _Shape(msgspec.Struct, frozen=True):
    """The members that the messages of all dialects have in common."""

    role: str | None = None
    type: str | None = None
    content: msgspec.Raw = msgspec.Raw()

    @property
    def is_result(self) -> bool:
        return self.role == "tool" or self.type == "function_call_output"

    @property
    def has_parts(self) -> bool:
        return bytes(self.content).startswith(b"[")


def shortened(call: ModelCall, provider: Provider) -> ModelCall | None:
    """The call without the older half of its conversation (`truncation: auto`); None if only the last question is left.

    It is cut before a user message, so that no call loses its result.
    """
    encoded = join(call.prefix, provider.encode_messages(call.messages, reasoning=True))
    messages = msgspec.json.decode(b"[%b]" % encoded, type=list[msgspec.Raw])
    shapes = [msgspec.json.decode(raw, type=_Shape) for raw in messages]
    questions = [i for i in range(1, len(shapes)) if _is_question(shapes[i], shapes[i - 1])]
    if not questions:
        return None
    cut = next((i for i in questions if i >= len(messages) // 2), questions[-1])
    return msgspec.structs.replace(call, prefix=join(*map(bytes, messages[cut:])), messages=())


def _is_question(shape: _Shape, before: _Shape) -> bool:
    """Whether it is a user message.

    Images of a result are also sent as the user's, directly after it, and must not be all that is left.
    """
    return shape.role == "user" and not (before.is_result and shape.has_parts)
