"""Recovers function calls that the model wrote into its text or its thinking, where the upstream's parser missed them.

Three ways of writing are known (they are those of Qwen's chat templates):

    <tool_call>{"name": "f", "arguments": {"city": "Rome"}}</tool_call>
    <tool_call><function=f><parameter=city>Rome</parameter></function></tool_call>
    {"name": "f", "arguments": {"city": "Rome"}}        the whole answer, perhaps in a ```json fence; small models do that

Sans-io: text in, deltas out, and the same deltas in sum however the text was cut. What turns out to be no call of a known function is
given back as it was written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Literal

import msgspec

from app.protocol.deltas import CallArguments, CallOpened, Delta, Text

_OPEN = "<tool_call>"
_CLOSE = "</tool_call>"
_BODIES = ("{", "<function=")
_FENCES = ("", "```", "```json")

_FUNCTION = re.compile(r"\s*<function=([^>]*)>\s*")
_PARAMETER = re.compile(r"<parameter=([^>]*)>\n?(.*?)\n?</parameter>\s*", re.DOTALL)
_FUNCTION_END = re.compile(r"</function>\s*")


_Phase = Literal[
    "start",  # it may still become the bare form, or open with a block
    "bare",  # the bare form so far; the end will tell
    "text",
    "opened",  # at `<tool_call>`, before the first character of its body
    "block",
    "called",  # right behind a call; whitespace is dropped
]


class _Call(msgspec.Struct, frozen=True):
    name: str
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


class CallRecovery:
    """The recovery for one answer.

    `names` are the functions the model may call; `first_index` is the upstream index of the first call found here. Calls carry an
    empty call id.
    """

    __slots__ = ("_held", "_index", "_names", "_parts", "_phase", "_starts")

    def __init__(self, names: Collection[str], *, first_index: int = 0) -> None:
        self._names = names
        self._index = first_index
        self._phase: _Phase = "start"
        self._held = ""
        """The undecided end of the text."""
        self._parts: list[str] = []
        """What a block, or the bare form, has gathered."""
        self._starts = tuple(f'{fence}{{"name":{json.dumps(name)},"arguments":' for name in names for fence in _FENCES)
        """The beginnings of the bare form, without whitespace."""

    def feed(self, text: str) -> Sequence[Delta]:
        """Take the next piece of the answer; the deltas that are certain now."""
        if self._phase == "text" and not self._held and "<" not in text:
            return (Text(text),) if text else ()
        rest, self._held = self._held + text, ""
        out: list[Delta] = []
        while rest:
            rest = self._step(rest, out)
        return out

    def flush(self) -> Sequence[Delta]:
        """The answer is over: what was held back, as calls where it is complete, else as text."""
        gathered, rest = "".join(self._parts), self._held
        self._parts.clear()
        self._held = ""
        phase, self._phase = self._phase, "text"
        calls: Sequence[_Call] = ()
        if phase == "bare":
            calls = self._parse(_unfenced(gathered))
        elif phase == "block":
            calls = self._parse(gathered.lstrip()[len(_OPEN) :])
        return list(self._deltas(calls)) if calls else [Text(gathered + rest)] if gathered or rest else []

    def recover_from_reasoning(self, reasoning: str) -> tuple[str, Sequence[Delta]]:
        """The calls in a finished thinking text, and the text without them. Later calls are numbered after these."""
        recovery = CallRecovery(self._names, first_index=self._index)
        deltas = [*recovery.feed(reasoning), *recovery.flush()]
        calls = [delta for delta in deltas if not isinstance(delta, Text)]
        if not calls:
            return reasoning, ()
        self._index += sum(isinstance(delta, CallOpened) for delta in calls)
        return "".join(delta.text for delta in deltas if isinstance(delta, Text)).rstrip(), calls

    def _step(self, text: str, out: list[Delta]) -> str:
        """Take as much of `text` as the phase can; what is returned is for the phase that follows."""
        match self._phase:
            case "text":
                return self._text(text, out)
            case "block":
                return self._block(text, out)
            case "bare":
                self._parts.append(text)
                return ""
            case "start":
                return self._start(text)
            case "opened":
                return self._opened(text, out)
            case "called":
                self._phase = "text" if (body := text.lstrip()) else "called"
                return body

    def _start(self, text: str) -> str:
        body = text.lstrip()
        squeezed = "".join(body.split())
        if body.startswith(_OPEN):
            self._parts.append(text[: -len(body)])
            self._phase = "opened"
            return body
        if squeezed.startswith(self._starts):
            self._phase = "bare"
        elif _OPEN.startswith(body) or any(start.startswith(squeezed) for start in self._starts):
            self._held = text
            return ""
        else:
            self._phase = "text"
        return text

    def _text(self, text: str, out: list[Delta]) -> str:
        before, tag, rest = text.partition(_OPEN)
        if tag:
            self._phase = "opened"
        else:
            at = _settled(text, _OPEN)
            before, self._held = text[:at], text[at:]
        if before:
            out.append(Text(before))
        return tag + rest

    def _opened(self, text: str, out: list[Delta]) -> str:
        body = text[len(_OPEN) :].lstrip()
        if body.startswith(_BODIES):
            self._phase = "block"
            return text
        if any(start.startswith(body) for start in _BODIES):
            self._held = text
            return ""
        # The tag is only mentioned; a real one may follow, even at once.
        out.append(Text("".join(self._parts) + _OPEN))
        self._parts.clear()
        self._phase = "text"
        return text[len(_OPEN) :]

    def _block(self, text: str, out: list[Delta]) -> str:
        before, tag, rest = text.partition(_CLOSE)
        if not tag:
            at = _settled(text, _CLOSE)
            self._held = text[at:]
            self._parts.append(text[:at])
            return ""
        written = "".join(self._parts) + before
        self._parts.clear()
        calls = self._parse(written.lstrip()[len(_OPEN) :])
        self._phase = "called" if calls else "text"
        out.extend(self._deltas(calls) if calls else (Text(written + _CLOSE),))
        return rest

    def _parse(self, body: str) -> Sequence[_Call]:
        """The calls of a block's body; none when any of it is not a call of a known function."""
        body = body.strip()
        try:
            calls = list(_json_calls(body) if body.startswith("{") else _xml_calls(body))
        except (ValueError, RecursionError):  # not JSON, or nested beyond what can be read
            return ()
        return calls if all(call.name in self._names for call in calls) else ()

    def _deltas(self, calls: Sequence[_Call]) -> Iterator[Delta]:
        for call in calls:
            yield CallOpened(self._index, "", call.name)
            yield CallArguments(self._index, bytes(call.arguments).decode())
            self._index += 1


def _json_calls(body: str) -> Iterator[_Call]:
    """JSON objects one after another, arguments kept as written. Raises ValueError."""
    scanner = json.JSONDecoder()
    while body:
        end = scanner.raw_decode(body)[1]
        call = msgspec.json.decode(body[:end], type=_Call)
        arguments = bytes(call.arguments)
        if arguments.startswith(b'"'):  # JSON inside a JSON string
            arguments = msgspec.json.decode(arguments, type=str).encode()
        msgspec.json.decode(arguments, type=dict[str, msgspec.Raw])
        yield _Call(call.name, msgspec.Raw(arguments))
        body = body[end:].lstrip()


def _xml_calls(body: str) -> Iterator[_Call]:
    """`<function=…>` elements one after another. Raises ValueError."""
    at = 0
    while at < len(body):
        opened = _FUNCTION.match(body, at)
        if opened is None:
            raise ValueError("no <function=…> where one should be")
        at = opened.end()
        arguments: dict[str, msgspec.Raw] = {}
        while parameter := _PARAMETER.match(body, at):
            key, value = parameter.groups()
            arguments[key.strip()] = _json_or_string(value)
            at = parameter.end()
        closed = _FUNCTION_END.match(body, at)
        if closed is None:
            raise ValueError("no </function> where one should be")
        at = closed.end()
        yield _Call(opened[1].strip(), msgspec.Raw(msgspec.json.encode(arguments)))


def _json_or_string(value: str) -> msgspec.Raw:
    """The value itself where it is JSON, else the JSON string of it: the tags carry no types."""
    try:
        return msgspec.json.decode(value, type=msgspec.Raw)
    except (ValueError, RecursionError):  # text, or nested beyond what can be read
        return msgspec.Raw(msgspec.json.encode(value))


def _unfenced(text: str) -> str:
    """Without the Markdown fence around it, if there is one."""
    text = text.strip()
    return text.removeprefix("```").removeprefix("json").removesuffix("```") if text.startswith("```") else text


def _settled(text: str, tag: str) -> int:
    """How much of `text` can no longer become part of `tag`, which starts at its only `<`."""
    last = text.rfind("<", -len(tag))
    return last if last >= 0 and tag.startswith(text[last:]) else len(text)
