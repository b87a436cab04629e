"""Items to messages: what the model reads of a conversation. Pure.

Qwen's templates take one leading system message, and a call's result right after the call; clients put items in any order.
So system and developer items are collected, an assistant's thinking, text and calls become one message, and what stands between
a call and its result is moved behind the result.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from app.engine.exchanges import Approval, Exchange, Said
from app.protocol.errors import InvalidRequest
from app.protocol.hosted import HostedCall
from app.protocol.messages import Assistant, Call, FilePart, ImagePart, Message, Part, TextPart, ToolResult, User
from app.protocol.requests import InputItem
from app.protocol.requests import Part as ItemPart

UpstreamName = Callable[[str, str | None], str]
"""(function name, namespace) -> the name the upstream knows it by."""

_THINK = re.compile(r"^\s*<think>\n?(?P<thought>.*?)\n?</think>\s*", re.DOTALL)
"""pydantic-ai replays thinking as text in this form."""
_TAG_WITHIN = 64
_MESSAGE = ("message", None)


class Context(msgspec.Struct, frozen=True):
    """Everything said so far, ready to be continued. `prefix` is encoded for one upstream dialect."""

    turns: frozenset[str] = frozenset()
    """Ids of the responses in it."""
    system: tuple[str, ...] = ()
    prefix: bytes = b""
    tail: tuple[Message, ...] = ()
    """Messages not in `prefix` yet: since the last thing the user said."""
    answered: frozenset[str] = frozenset()
    """Ids of calls that have their result."""
    awaited: Mapping[str, Call] = {}
    """Calls that wait for the client's consent, by the id of the request's item."""
    images: tuple[ImagePart, ...] = ()
    """What tools may be pointed to, oldest first."""
    notes: Mapping[str, str] = {}
    """What tools noted last."""
    uploads: bool = False
    """Uploaded files are in it, whose owner may delete them."""
    expires_at: int = 0
    """When the tip expires, Unix seconds."""


def weight(message: Message) -> int:
    """About how many bytes of memory it takes."""
    if type(message) is User:
        content = message.content
        return 200 + (len(content) if isinstance(content, str) else sum(len(msgspec.json.encode(part)) for part in content))
    if type(message) is Assistant:
        return 200 + len(message.text) + len(message.reasoning) + sum(len(call.arguments) + 100 for call in message.calls)
    return 200 + len(message.content)


class Transcript:
    """Collects items into messages, continuing a context."""

    def __init__(self, context: Context, upstream_name: UpstreamName, unseal: Callable[[str], str | None]) -> None:
        self.system = list(context.system)
        self.messages: list[Message] = list(context.tail)
        self.answered = set(context.answered)
        self.dropped_thinking = False
        """A sealed reasoning item was not ours to open (another server, tenant or model)."""
        self._upstream_name = upstream_name
        self._unseal = unseal
        self._reasoning = ""
        self._text = ""
        self._calls: dict[str, Call] = {}
        self._results: dict[str, ToolResult] = {}
        self._deferred: list[Message] = []
        self._turn: int | None = None
        """Of the exchange before."""
        self._beside = False
        self.awaited = dict(context.awaited)
        self.images = list(context.images)
        self.notes = dict(context.notes)
        self.uploads = context.uploads
        self.approved: list[HostedCall] = []
        """Calls the client has consented to; each is to be run and `answer`ed."""
        if self.messages:
            self._resume_open_calls()

    def add(self, items: Iterable[tuple[str, Said]]) -> None:
        """Add items; each comes with its place in the request (`input[3]`, or "" for stored ones). Raises InvalidRequest."""
        for place, item in items:
            if isinstance(item, InputItem):
                if not self._add_plain(item):
                    self._add(item, place)
            elif isinstance(item, Exchange):
                self._add_exchange(item)
            else:
                self._add_approval(item, place)

    def answer(self, result: ToolResult) -> None:
        """The result of a call that is open."""
        self._results[result.call_id] = result

    def _add_plain(self, item: InputItem) -> bool:
        """Take a message of plain text while nothing is pending: nearly all of a long history, at a third of the cost."""
        content = item.content
        if type(content) is not str or self._calls or item.type not in _MESSAGE:
            return False
        if item.role == "user":
            if self._text or self._reasoning:
                self._flush()
            self.messages.append(User(content))
            return True
        if item.role == "assistant" and "<think>" not in content[:_TAG_WITHIN]:
            if self._text:
                self._flush()
            self._text = content
            return True
        return False

    def close(self) -> None:
        """Everything has been said. Raises InvalidRequest when a call has no result."""
        for call_id in self._calls:
            if call_id in self._results:
                continue
            awaited = next((item_id for item_id, call in self.awaited.items() if call.call_id == call_id), None)
            if awaited is not None:
                raise InvalidRequest(f"No approval response found for the approval request {awaited}.", param="input")
            raise InvalidRequest(f"No tool output found for function call {call_id}.", param="input")
        self._flush()

    def flush_open(self) -> None:
        """As `close`, but calls may stay unanswered: the result is expected in the next turn."""
        self._flush()

    @property
    def open_calls(self) -> bool:
        """The last thing the model did was to call, and the results are not there yet."""
        return bool(_unanswered(self.messages))

    def _resume_open_calls(self) -> None:
        last, *results = _unanswered(self.messages) or (None,)
        if isinstance(last, Assistant):
            del self.messages[-1 - len(results) :]
            self._text, self._reasoning = last.text, last.reasoning
            self._calls = {call.call_id: call for call in last.calls}
            self._results = {result.call_id: result for result in results if isinstance(result, ToolResult)}

    def _add(self, item: InputItem, place: str) -> None:
        match item.type:
            case "message" | None:
                self._add_message(item, place)
            case "reasoning":
                self._begin_assistant()
                if self._text:
                    self._flush()
                self._reasoning += self._thinking(item)
            case "function_call":
                self._add_call(item, item.arguments, place)
            case "custom_tool_call":
                self._add_call(item, msgspec.json.encode({"input": item.input or ""}).decode(), place)
            case "function_call_output" | "custom_tool_call_output":
                self._add_result(item, place)
            case other:
                raise InvalidRequest(
                    f"Input items of type '{other}' are not supported by this gateway.", code="unsupported_value", param=_at(place, "type")
                )

    def _add_message(self, item: InputItem, place: str) -> None:
        match item.role:
            case "system" | "developer":
                self.system.append(_plain(item.content, place))
            case "user":
                message = User(item.content if isinstance(item.content, str) else _user_content(item.content, _at(place, "content")))
                if type(message.content) is not str:  # a text is no list of parts: looked through, it costs 0.2 s a megabyte
                    self.images += [part for part in message.content if isinstance(part, ImagePart)]
                if len(self._results) == len(self._calls):
                    self._flush()
                    self.messages.append(message)
                elif self.messages[last_user(self.messages) :][:1] != [message]:  # Semantic Kernel repeats the question with its results
                    self._deferred.append(message)
            case "assistant":
                self._begin_assistant()
                if self._text and not self._calls:
                    self._flush()
                text = _plain(item.content, place)
                thought = _THINK.match(text) if "<think>" in text[:_TAG_WITHIN] else None
                if thought:
                    self._reasoning += thought["thought"]
                    text = text[thought.end() :]
                self._text += text
            case _:
                known = "'user', 'assistant', 'system' and 'developer'"
                raise InvalidRequest(
                    f"Invalid role: '{item.role}'. Supported values are: {known}.", code="invalid_value", param=_at(place, "role")
                )

    def _thinking(self, item: InputItem) -> str:
        if item.encrypted_content:
            opened = self._unseal(item.encrypted_content)
            if opened is not None:
                return opened
        shown = [part.text or "" for part in (*(item.summary or ()), *(item.content if isinstance(item.content, tuple) else ()))]
        if item.encrypted_content and not any(shown):
            self.dropped_thinking = True
        return "\n".join(shown)

    def _add_call(self, item: InputItem, arguments: str | None, place: str) -> None:
        if not item.call_id or not item.name:
            missing = "name" if item.call_id else "call_id"
            raise InvalidRequest(
                f"Missing required parameter: '{_at(place, missing)}'.", code="missing_required_parameter", param=_at(place, missing)
            )
        if item.call_id in self._calls or item.call_id in self.answered:
            return  # the client repeats what the chain holds already
        if self._results and not self._beside:
            self._begin_assistant()
        self._calls[item.call_id] = Call(item.call_id, self._upstream_name(item.name, item.namespace), arguments or "{}")

    def _add_result(self, item: InputItem, place: str) -> None:
        if not item.call_id:
            raise InvalidRequest(
                f"Missing required parameter: '{_at(place, 'call_id')}'.", code="missing_required_parameter", param=_at(place, "call_id")
            )
        if item.call_id in self.answered or item.call_id in self._results:
            return  # repeated, as above
        if item.call_id not in self._calls:
            raise InvalidRequest(f"No tool call found for function call output with call_id {item.call_id}.", param="input")
        text, images = _result_content(item.output, _at(place, "output"))
        self._results[item.call_id] = ToolResult(item.call_id, text)
        self._turn, self._beside = None, False  # whatever the server's tools did next, the model had read this
        if images:
            self._deferred.append(User((TextPart(f"Images of the result of call {item.call_id}:"), *images)))

    def _add_exchange(self, exchange: Exchange) -> None:
        call = exchange.call
        if call.call_id in self._calls or call.call_id in self.answered:
            self._add_approved(exchange)
            return
        if exchange.turn != self._turn or not exchange.turn:
            self._begin_assistant()
        self._turn, self._beside = exchange.turn, exchange.beside_client
        self._calls[call.call_id] = call
        if exchange.text is None:
            self.awaited[exchange.item_id] = call
        else:
            self._results[call.call_id] = ToolResult(call.call_id, exchange.text)

    def _add_approved(self, exchange: Exchange) -> None:
        """The call is known: it has run with the client's consent, or the client repeats what the chain holds already."""
        call_id = exchange.call.call_id
        if exchange.text is not None and any(call.call_id == call_id for call in self.approved):
            self.approved = [call for call in self.approved if call.call_id != call_id]
            self._results[call_id] = ToolResult(call_id, exchange.text)

    def _add_approval(self, approval: Approval, place: str) -> None:
        call = self.awaited.pop(approval.approval_request_id, None)
        if call is None:
            message = f"No approval request with the id '{approval.approval_request_id}' is waiting in this conversation."
            raise InvalidRequest(message, code="invalid_value", param=_at(place, "approval_request_id"))
        if approval.approve:
            self.approved.append(HostedCall(call.call_id, call.name, call.arguments, approval.approval_request_id))
            return
        reason = f" The reason: {approval.reason}" if approval.reason else ""
        self._results[call.call_id] = ToolResult(call.call_id, f"The user did not allow this call.{reason}")

    def _begin_assistant(self) -> None:
        """The assistant speaks (again): what it said before its calls were answered is one message of its own."""
        if self._calls and len(self._results) == len(self._calls):
            self._flush()

    def _flush(self) -> None:
        if self._calls:
            self.messages.append(Assistant(self._text, self._reasoning, tuple(self._calls.values())))
            self.messages.extend(self._results[call_id] for call_id in self._calls if call_id in self._results)
            self.messages.extend(self._deferred)
            self.answered.update(self._results)
            self._calls, self._results, self._deferred = {}, {}, []
        elif self._text or self._reasoning:
            self.messages.append(Assistant(self._text, self._reasoning))
        self._text = self._reasoning = ""
        self._turn, self._beside = None, False


def last_user(messages: Sequence[Message]) -> int:
    """Index of the last user message; 0 when there is none. What follows it is the running tool loop."""
    for i in range(len(messages) - 1, -1, -1):
        if type(messages[i]) is User:
            return i
    return 0


def _unanswered(messages: Sequence[Message]) -> Sequence[Message]:
    """The model's last turn with the results it has so far, when one is missing: hosted calls are answered before the client's are."""
    start = len(messages) - 1
    while start >= 0 and isinstance(messages[start], ToolResult):
        start -= 1
    last = messages[start] if start >= 0 else None
    results = messages[start + 1 :]
    return messages[start:] if isinstance(last, Assistant) and len(last.calls) > len(results) else ()


def _at(place: str, field: str) -> str:
    return f"{place}.{field}" if place else field


def _plain(content: str | tuple[ItemPart, ...] | None, place: str) -> str:
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    texts: list[str] = []
    for part in content:
        match part.type:
            case "input_text" | "output_text" | "text" | "summary_text" | "reasoning_text":
                texts.append(part.text or "")
            case "refusal":
                texts.append(part.refusal or "")
            case _:
                message = f"Invalid content type '{part.type}': this role takes text only."
                raise InvalidRequest(message, code="invalid_value", param=_at(place, "content"))
    return "".join(texts)


def _user_content(content: str | tuple[ItemPart, ...] | None, place: str) -> str | tuple[Part, ...]:
    if content is None:
        raise InvalidRequest(f"Missing required parameter: '{place}'.", code="missing_required_parameter", param=place)
    if isinstance(content, str):
        return content
    parts = tuple(_part(part, f"{place}[{i}]") for i, part in enumerate(content))
    if len(parts) == 1 and isinstance(parts[0], TextPart):
        return parts[0].text
    return parts


def _part(part: ItemPart, place: str) -> Part:
    match part.type:
        case "input_text" | "text" | "output_text":
            if part.text is None:
                raise InvalidRequest(
                    f"Missing required parameter: '{place}.text'.", code="missing_required_parameter", param=f"{place}.text"
                )
            return TextPart(part.text)
        case "input_image" | "image_url":
            return _image(part, place)
        case "input_file":
            return _file(part, place)
        case other:
            raise InvalidRequest(f"Content parts of type '{other}' are not supported.", code="unsupported_value", param=f"{place}.type")


def _image(part: ItemPart, place: str) -> ImagePart:
    url = part.image_url.get("url") if isinstance(part.image_url, dict) else part.image_url
    if part.file_id:
        return ImagePart("", part.detail or "auto", part.file_id)
    if not isinstance(url, str) or not url.startswith(("http://", "https://", "data:image/")):
        message = "Expected 'image_url' to be an http(s) URL or a base64 data URI of an image."
        raise InvalidRequest(f"Invalid '{place}.image_url'. {message}", code="invalid_image_url", param=f"{place}.image_url")
    return ImagePart(url, part.detail or "auto")


def _file(part: ItemPart, place: str) -> FilePart:
    if not (part.file_url or part.file_data or part.file_id):
        raise InvalidRequest(
            f"'{place}' needs 'file_id', 'file_data' or 'file_url'.", code="missing_required_parameter", param=f"{place}.file_data"
        )
    return FilePart(part.filename, part.file_url, part.file_data, part.file_id)


def _result_content(output: str | tuple[ItemPart, ...] | None, place: str) -> tuple[str, Sequence[Part]]:
    if output is None:
        raise InvalidRequest(f"Missing required parameter: '{place}'.", code="missing_required_parameter", param=place)
    if isinstance(output, str):
        return output, []
    parts = [_part(part, f"{place}[{i}]") for i, part in enumerate(output)]
    text = "\n".join(part.text for part in parts if isinstance(part, TextPart))
    others = [part for part in parts if not isinstance(part, TextPart)]
    return text or "(see the attached content)", others
