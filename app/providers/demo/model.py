"""The demo model: how a simulated Qwen answers a conversation.

Pure and deterministic; it matches words and understands nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec

from app.protocol.messages import (
    Assistant,
    Call,
    FilePart,
    FunctionTool,
    ImagePart,
    Message,
    TextPart,
    ToolResult,
    User,
)
from app.providers.base import JsonSchema, ModelCall, UpstreamError
from app.providers.demo.schema import instance

LABEL = "This is the demo model: a simulation, no Qwen model is behind it."
"""The beginning of every text answer."""

_SHOWN = 500
"""Characters quoted from the user's message."""
_ENOUGH = 2
"""The score from which a function counts as requested."""
_WORD = re.compile(r"[A-Z]?[a-z]{2,}|[A-Z]{3,}|[\u4e00-\u9fff]+")
"""Splits `getWeather` and `get_weather` alike; Chinese is matched in runs."""
_COMMON = frozenset(
    re.findall(
        r"\w+",
        """all an and any are as at be by call can could do for from function get given how if in into is it me my name
        of on or please return returns set that the this to tool use was what when where which who with would you your
        什么 怎么 一个 你好 可以 请问""",
    )
)
_NAME = re.compile(r"(?:my name is|i am called|call me|我叫|我的名字是)\s*([\w'-]+)", re.IGNORECASE)
_ASKS_NAME = re.compile(r"(?:what(?:'s| is)|do you (?:know|remember)|tell me) my name|我叫什么|我的名字", re.IGNORECASE)
_ASKS_EARLIER = re.compile(
    r"what (?:did|have) i (?:just )?(?:say|said|tell|told|ask|asked|write|written)|do you remember|i said "
    r"(?:before|earlier)|刚才|之前",
    re.IGNORECASE,
)


class Reply(msgspec.Struct, frozen=True):
    """One turn of the demo model, complete."""

    reasoning: str
    text: str
    calls: tuple[Call, ...]


def reply(call: ModelCall, conversation: Sequence[Message]) -> Reply:
    """Answer the conversation: with calls if a function is requested or forced, otherwise in words or in the requested
    format.
    """
    asked = _asked(conversation)
    calls = _calls(call, conversation, asked)
    text = "" if calls else _answer(call, conversation, asked)
    return Reply(_reasoning(call, asked, calls), text, calls)


def _reasoning(call: ModelCall, asked: str, calls: Sequence[Call]) -> str:
    if call.thinking.enabled is False or call.thinking.effort == "none":
        return ""
    plan = f"I will call {', '.join(made.name for made in calls)}." if calls else "I will answer at once."
    return f"(Simulated thinking.) The user says: “{asked[:_SHOWN]}” {plan}"


def _answer(call: ModelCall, conversation: Sequence[Message], asked: str) -> str:
    if isinstance(call.format, JsonSchema):
        return _written(call.format.schema, asked, "text.format.schema", mark="simulated: ")
    words = _words(conversation, asked)
    if call.format is not None:
        return msgspec.json.encode({"model": "demo", "simulated": True, "answer": words}).decode()
    return f"{LABEL} {words}"


def _words(conversation: Sequence[Message], asked: str) -> str:
    if isinstance(conversation[-1] if conversation else None, ToolResult):
        return " ".join(_reported(conversation))
    earlier = [_text(message) for message in conversation if isinstance(message, User)][:-1]
    if _ASKS_NAME.search(asked):
        names = [name for said in earlier for name in _NAME.findall(said)]
        return f"Your name is {names[-1]}." if names else "You have not told me your name."
    if _ASKS_EARLIER.search(asked):
        return f"Before, you said: “{earlier[-1][:_SHOWN]}”" if earlier else "You have said nothing before this."
    return " ".join([f"You said: “{asked[:_SHOWN]}”", *_attachments(conversation)])


def _reported(conversation: Sequence[Message]) -> Iterator[str]:
    """One sentence for each result at the end of the conversation."""
    names = {
        made.call_id: made.name for message in conversation if isinstance(message, Assistant) for made in message.calls
    }
    last = max((at for at, message in enumerate(conversation) if not isinstance(message, ToolResult)), default=-1)
    for message in conversation[last + 1 :]:
        if isinstance(message, ToolResult):
            yield f"{names.get(message.call_id, 'The function')} returned: {message.content}"


def _attachments(conversation: Sequence[Message]) -> Iterator[str]:
    """Attachments of the last user message."""
    last = next((message for message in reversed(conversation) if isinstance(message, User)), None)
    parts = last.content if last and not isinstance(last.content, str) else ()
    for kind, noun in ((ImagePart, "image"), (FilePart, "file")):
        count = sum(isinstance(part, kind) for part in parts)
        if count:
            yield f"You sent {count} {noun}{'s' if count > 1 else ''}."


def _asked(conversation: Sequence[Message]) -> str:
    return next((_text(message) for message in reversed(conversation) if isinstance(message, User)), "")


def _text(message: User) -> str:
    if isinstance(message.content, str):
        return message.content
    return " ".join(part.text for part in message.content if isinstance(part, TextPart))


def _calls(call: ModelCall, conversation: Sequence[Message], asked: str) -> tuple[Call, ...]:
    made = sum(len(message.calls) for message in conversation if isinstance(message, Assistant))
    wanted = enumerate(_wanted(call, conversation, asked), start=made)
    return tuple(
        Call(f"call_demo_{number}", tool.name, _written(tool.parameters, asked, "tools")) for number, tool in wanted
    )


def _wanted(call: ModelCall, conversation: Sequence[Message], asked: str) -> Sequence[FunctionTool]:
    """The functions to call now: the forced one, or those that match the words about equally well.

    After results none, unless forced.
    """
    if call.forced_call is not None and call.forced_call.name is not None:
        return [tool for tool in call.tools if tool.name == call.forced_call.name]
    ranked = [(_points(tool, asked), tool) for tool in call.tools]
    best = max((points for points, _ in ranked), default=0)
    fitting = [tool for points, tool in ranked if 2 * points > best]
    if call.forced_call is not None:
        return fitting[:1] or call.tools[:1]
    if best < _ENOUGH or not isinstance(conversation[-1] if conversation else None, User):
        return ()
    return fitting if call.parallel_tool_calls else fitting[:1]


def _points(tool: FunctionTool, asked: str) -> int:
    """The whole name scores most, then words of the name and pairs of Chinese characters, then words of the
    description.
    """
    said = _vocabulary(asked)
    named = _vocabulary(tool.name)
    described = _vocabulary(tool.description or "") - named
    points = 2 * len(said & named) + sum(1 if word.isascii() else 2 for word in said & described)
    return points + 4 if tool.name.casefold() in asked.casefold() else points


def _vocabulary(text: str) -> set[str]:
    words: set[str] = set()
    for found in _WORD.findall(text):
        words.update([found.casefold()] if found.isascii() else [found[at : at + 2] for at in range(len(found) - 1)])
    return words - _COMMON


def _written(schema: msgspec.Raw, asked: str, param: str, *, mark: str = "") -> str:
    """An instance of a client's schema as JSON. Raises UpstreamError 400 for an unusable one, as a real server does."""
    try:
        return msgspec.json.encode(instance(msgspec.json.decode(schema), asked, mark=mark)).decode()
    except ValueError as error:
        raise UpstreamError(
            f"The demo model cannot follow the schema: {error}.", status=400, code="invalid_json_schema", param=param
        ) from error
