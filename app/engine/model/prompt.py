"""What a model reads of a call, as Qwen's chat templates write it: for counting where no server does it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import msgspec

from app.protocol.messages import FunctionTool
from app.providers.base import ModelCall, Provider, TokenFacts

_MESSAGE = 5
"""Tokens around a message: `<|im_start|>`, the role, a line break, `<|im_end|>`, a line break."""
_CALL = 13
"""Around a call's name and arguments."""
_RESULT = 4
"""Around the result of a call."""
_TOOLS = 76
"""The instructions that come with functions, in the system message."""
_ANSWER = 3
"""The beginning of the answer."""
_NO_THINKING = 4
"""An empty thinking, which the template writes if it is off."""
_READ = frozenset({"content", "text", "reasoning", "reasoning_content", "summary", "name", "arguments", "output"})
"""The fields of messages and items whose text the model reads."""
_RESULTS = frozenset({"tool", "function_call_output"})


class Prompt(msgspec.Struct, frozen=True):
    """The texts of a call, and how many tokens the template adds."""

    texts: tuple[str, ...]
    added: int


def prompt_of(call: ModelCall, provider: Provider, facts: TokenFacts | None) -> Prompt:
    """The prompt of a call for this provider, without images."""
    encoded = [part for part in (call.prefix, provider.encode_messages(call.messages, reasoning=True)) if part]
    messages = cast("list[Mapping[str, Any]]", msgspec.json.decode(b"[%b]" % b",".join(encoded)))
    texts = [text for message in messages for text in _texts(message)]
    default = facts.system if facts is not None and call.system is None else 0
    added = _ANSWER + sum(map(_around, messages)) + default
    if call.system is not None:
        texts.append(call.system)
    if call.system is not None or call.tools or default:
        added += _MESSAGE
    if call.tools:
        texts += map(_described, call.tools)
        added += _TOOLS
    if call.thinking.enabled is False:
        added += _NO_THINKING
    return Prompt(tuple(texts), added)


def _around(message: Mapping[str, Any]) -> int:
    calls = cast("Sequence[Any]", message.get("tool_calls") or ())
    made = len(calls) + (message.get("type") == "function_call")
    result = _RESULT if message.get("role") in _RESULTS or message.get("type") in _RESULTS else 0
    return _MESSAGE + _CALL * made + result


def _texts(value: Any) -> Iterator[str]:
    """The texts in the fields that are read, at any depth."""
    if isinstance(value, dict):
        for name, field in cast("Mapping[str, Any]", value).items():
            if isinstance(field, str):
                if name in _READ:
                    yield field
            else:
                yield from _texts(field)
    elif isinstance(value, list):
        for one in cast("Sequence[Any]", value):
            yield from _texts(one)


def _described(tool: FunctionTool) -> str:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return msgspec.json.format(msgspec.json.encode({"type": "function", "function": function}), indent=0).decode()
