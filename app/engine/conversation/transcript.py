"""Converts items to messages, as the model reads a conversation. Pure.

Qwen's templates expect one leading system message, and a call's result directly after the call; clients send items in
any order. So system and developer items are collected, an assistant's thinking, text and calls become one message, and
whatever is between a call and its result is moved after the result.

A result belongs to the oldest open call with its id. What the client sends again is left out only if the chain contains
exactly that call or result; items from before this request (their place is "") are never refused, since they have been
accepted once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Mapping
from sys import getsizeof
from typing import Any, ClassVar

from app.engine.conversation import client_calls, client_history, content
from app.engine.conversation.content import at
from app.engine.conversation.context import Context, last_user, part_weight, unanswered, weight
from app.engine.conversation.exchanges import APPROVAL, HOSTED_TYPES, Approval, Exchange, Said
from app.engine.conversation.items import MoreTools
from app.engine.conversation.known_calls import CallIds, KnownCalls, Repeats
from app.engine.conversation.open_calls import OpenCall, OpenCalls
from app.engine.conversation.thoughts import Thoughts
from app.protocol.messages import Assistant, Call, ImagePart, Message, TextPart, ToolResult, User
from app.protocol.recovery.arguments import is_object, sendable
from app.protocol.recovery.names import sendable_name
from app.protocol.wire.errors import InvalidRequest
from app.protocol.wire.hosted import HostedCall
from app.protocol.wire.requests import InputItem

UpstreamName = Callable[[str, str | None], str]
"""(function name, namespace) -> its upstream name."""

_THINK = re.compile(r"^\s*<think>\n?(?P<thought>.*?)\n?</think>\s*", re.DOTALL)
"""pydantic-ai replays thinking as text in this form."""
_TAG_WITHIN = 64
_MESSAGE = ("message", None)
_SPEAKERS = ("user", "assistant")
_UNFINISHED = ("incomplete", "in_progress")


class Transcript:
    """Collects items into messages, continuing a context, whose fields have the same names here."""

    known: KnownCalls
    """The calls and results of the chain, up to the end of its last response."""
    cut: bool
    """The chain's last response was cut off: its open calls need not get a result."""
    approved: list[HostedCall]
    """Calls the client has approved; each is to be run and `answer`ed."""

    def __init__(self, context: Context, upstream_name: UpstreamName, unseal: Callable[[str], str | None]) -> None:
        self._upstream_name = upstream_name
        self.system = list(context.system)
        self.messages: list[Message] = list(context.tail)
        self.known = context.known
        self.cut = context.cut
        self.awaited = dict(context.awaited)
        self.images = list(context.images)
        self.notes = dict(context.notes)
        self.tools = list(context.tools)
        self.uploads = context.uploads
        # What was found while reading the items.
        self.approved = []
        self._thoughts = Thoughts(unseal)
        self._exchanged: dict[str, Call] = {}
        self._settled = 0
        """Number of messages whose calls are `known`."""
        self._not_sent: list[Call | ToolResult] = []
        """Parts of this turn that clients have seen and upstreams have not: calls left out, and renamed ones as they
        were.
        """
        self._repeats: Repeats | None = None
        # The model's turn being read, until `_flush` converts it to messages.
        self._reasoning: list[str] = []
        self._text: list[str] = []  # pieces: to add thousands of them to one text takes minutes
        self._calls = OpenCalls()
        self._waiting = self._calls.waiting
        self._exchange: Exchange | None = None
        """The last one of the turn; None again once the client has given a result after it."""
        self._deferred: list[Message] = []
        """Messages between the calls and their results, to be placed after the results."""
        if self.messages or self.known:
            self.resume()

    def add(self, items: Iterable[tuple[str, Said]]) -> None:
        """Add items; each comes with its place in the request (`input[3]`, or "" for stored ones).

        Raises InvalidRequest.
        """
        handlers, add_plain = self.handlers, self._add_plain
        for place, item in items:
            if isinstance(item, InputItem):
                if item.type in _MESSAGE and add_plain(item):
                    continue
                handler = handlers.get(item.type)
                if handler is None:
                    raise content.unread(item.type, place)
                handler(self, item, place)
            elif isinstance(item, Exchange):
                self._add_exchange(item, place)
            elif isinstance(item, MoreTools):
                self.tools.append(item)
                if item.result is not None:
                    self.handlers[item.result.type](self, item.result, place)
            else:
                self._add_approval(item, place)

    def answer(self, result: ToolResult) -> None:
        """Give an open call its result."""
        self._calls.answer(result.call_id, result.content)

    def _add_plain(self, item: InputItem) -> bool:
        """Add a plain text message while nothing is pending: most of a long history, at a third of the cost."""
        text, role = item.content, item.role
        if type(text) is not str:
            return False
        if self._calls:
            if self._waiting or role not in _SPEAKERS:
                return False
            self._flush()
        if role == "user":
            if self._text or self._reasoning:
                self._flush()
            self.messages.append(User(text))
            return True
        if role == "assistant" and "<think>" not in text[:_TAG_WITHIN]:
            if self._text:
                self._flush()
            self._text = [text] if text else []
            return True
        return False

    def close(self) -> None:
        """End the request's items. Raises InvalidRequest if a call has no result."""
        if self._waiting and not self._calls.cut:
            raise self._unanswered_call(self._calls.unanswered[0])
        self.close_stored()

    def close_stored(self) -> None:
        """As `close`, for items accepted before: a call without a result is left out, unless it is approved and runs
        next.
        """
        if self._calls:
            self._leave_out_unanswered()
        else:
            self._flush()
        self._repeats = None  # from here on the model's output is new, even if it looks the same

    def end_turn(self, *, cut: bool) -> None:
        """End a response. `cut`: it was not completed."""
        self.cut = cut or self._calls.cut
        self._flush()
        self.known = self.known.extended(self.messages[self._settled :], self._not_sent)
        self._not_sent = []

    def resume(self) -> None:
        """Continue the last response; the items that follow may answer its calls."""
        last, *results = unanswered(self.messages) or (None,)
        if isinstance(last, Assistant):
            del self.messages[-1 - len(results) :]
            self._text, self._reasoning = list(filter(None, [last.text])), list(filter(None, [last.reasoning]))
            self._calls.resume(last.calls, [result for result in results if isinstance(result, ToolResult)])
            self._calls.cut = self.cut
        self._settled = len(self.messages)
        waiting = [one.call for one in self._calls.unanswered]
        self._repeats = Repeats(self.known, waiting) if self.known or waiting else None

    @property
    def dropped_thinking(self) -> bool:
        """Whether a sealed reasoning item could not be opened (another server, tenant or model)."""
        return self._thoughts.dropped

    @property
    def open_calls(self) -> bool:
        """Whether the model's last output was calls, and results are missing."""
        return bool(unanswered(self.messages))

    @property
    def weight(self) -> int:
        """Approximate memory in bytes."""
        beside = (
            sum(map(part_weight, self.images))
            + sum(map(getsizeof, (*self.system, *self.notes.values())))
            + self.known.weight
            + sum(one.weight for one in self.tools)
        )
        return sum(map(weight, self.messages)) + beside

    @property
    def call_ids(self) -> Container[str]:
        """The ids of all calls of the conversation, answered, open or left out; valid once the request is closed."""
        return CallIds(self.known, self.messages, self._not_sent)

    def _add_message(self, item: InputItem, place: str) -> None:
        match item.role:
            case "system" | "developer":
                self.system.append(content.plain(item.content, place))
            case "user":
                self._add_question(item, place)
            case "assistant":
                self._add_answer(content.plain(item.content, place))
            case _:
                known = "'user', 'assistant', 'system' and 'developer'"
                raise InvalidRequest(
                    f"Invalid role: '{item.role}'. Supported values are: {known}.",
                    code="invalid_value",
                    param=at(place, "role"),
                )

    def _add_question(self, item: InputItem, place: str) -> None:
        message = User(
            item.content if isinstance(item.content, str) else content.of_user(item.content, at(place, "content"))
        )
        if type(message.content) is not str:  # a text has no parts: iterating over it would cost 0.2 s per megabyte
            self.images += [part for part in message.content if isinstance(part, ImagePart)]
        if not self._waiting:
            self._flush()
            self.messages.append(message)
        elif self._calls.cut or self.messages[last_user(self.messages) :][:1] != [message]:
            # Semantic Kernel repeats it with its results
            self._deferred.append(message)

    def _add_answer(self, text: str) -> None:
        self._begin_assistant()
        if self._text and not self._calls:
            self._flush()
        thought = _THINK.match(text) if "<think>" in text[:_TAG_WITHIN] else None
        if thought:
            self._think(thought["thought"])
            text = text[thought.end() :]
        if text:
            self._text.append(text)

    def _add_reasoning(self, item: InputItem, place: str) -> None:
        self._begin_assistant()
        thought = self._thoughts.read(item, place)
        if thought is None:
            return
        if self._text and not self._calls:
            self._flush()
        self._think(thought)
        self._thoughts.add(item.id, thought)

    def _think(self, thought: str) -> None:
        if thought:
            self._reasoning.append(thought)

    def _add_call(self, item: InputItem, place: str) -> None:
        row = client_calls.CALLS[item.type]
        name = row.name or item.name
        if not item.call_id or not name:
            raise content.missing(at(place, "name" if item.call_id else "call_id"))
        arguments = row.arguments(item)
        if not is_object(arguments):
            arguments = sendable(arguments)
        call = Call(item.call_id, sendable_name(self._upstream_name(name, item.namespace)), arguments)
        if self._repeats is not None and self._repeats.take_call(call):
            return
        if (self._calls.answered or self._deferred) and not (
            self._exchange is not None and self._exchange.beside_client
        ):
            self._begin_assistant()
        self._calls.add(call, place)
        if item.status in _UNFINISHED:
            self._calls.cut = True

    def _add_result(self, item: InputItem, place: str) -> None:
        call_id = item.call_id
        if not call_id:
            raise content.missing(at(place, "call_id"))
        text, others = client_calls.OUTPUTS[item.type].result(item, place)
        if self._repeats is not None and self._is_repeated(self._repeats, call_id, text, place):
            return
        if not self._calls.answer(call_id, text):
            if not place:
                return
            message = (
                f"No tool call found for function call output with call_id {call_id}. No call before '{place}' waits "
                f"for it."
            )
            raise InvalidRequest(message, param=at(place, "call_id"))
        self._exchange = None  # the model had read this before the server's next tool calls
        if others:
            self._deferred.append(User((TextPart(f"Images of the result of call {call_id}:"), *others)))

    def _is_repeated(self, repeats: Repeats, call_id: str, text: str, place: str) -> bool:
        waits = call_id in self._waiting
        if repeats.take_result(call_id, text, waits=waits):
            return True
        anew = None if waits else repeats.reopened(call_id)
        if anew is not None:
            self._begin_assistant()
            self._calls.add(anew, place)
        return False

    def _add_exchange(self, exchange: Exchange, place: str) -> None:
        call = Call(exchange.call.call_id, exchange.call.name, sendable(exchange.call.arguments))
        if self._ends_approved(call.call_id, exchange.text) or self._is_known(exchange, call):
            return
        if self._exchange is None or exchange.turn != self._exchange.turn or not exchange.turn:
            self._begin_assistant()
        self._exchange = exchange
        self._exchanged[call.call_id] = call
        if exchange.text is None:
            self.awaited[exchange.item_id] = exchange.call
            self._calls.add(call, place)
        else:
            self._calls.add_answered(call, exchange.text)

    def _ends_approved(self, call_id: str, text: str | None) -> bool:
        """Whether the call has run with the client's approval."""
        if text is None or all(call.call_id != call_id for call in self.approved):
            return False
        self.approved = [call for call in self.approved if call.call_id != call_id]
        self._calls.answer(call_id, text)
        return True

    def _is_known(self, exchange: Exchange, call: Call) -> bool:
        """Whether the client sends a built-in call again. An item without an id is always a separate call."""
        return self.known.has(call) or (bool(exchange.item_id) and self._exchanged.get(call.call_id) == call)

    def _add_approval(self, approval: Approval, place: str) -> None:
        call = self.awaited.pop(approval.approval_request_id, None)
        if call is None:
            message = (
                f"No approval request with the id '{approval.approval_request_id}' is waiting in this conversation."
            )
            raise InvalidRequest(message, code="invalid_value", param=at(place, "approval_request_id"))
        if approval.approve:
            self.approved.append(HostedCall(call.call_id, call.name, call.arguments, approval.approval_request_id))
            return
        reason = f" The reason: {approval.reason}" if approval.reason else ""
        self._calls.answer(call.call_id, f"The user did not allow this call.{reason}")

    def _unanswered_call(self, one: OpenCall) -> InvalidRequest:
        awaited = next((item_id for item_id, call in self.awaited.items() if call.call_id == one.call.call_id), None)
        if awaited is not None:
            return InvalidRequest(
                f"No approval response found for the approval request {awaited}.", param=one.place or "input"
            )
        where = f" Nothing answers '{one.place}'." if one.place else ""
        message = f"No tool output found for function call {one.call.call_id}.{where}"
        return InvalidRequest(message, param=at(one.place, "call_id") if one.place else "input")

    def _begin_assistant(self) -> None:
        """Begin an assistant message: what it said before its calls were answered is a separate message."""
        calls = self._calls
        if not calls:
            return
        if not self._waiting:
            self._flush()
        elif calls.cut and (calls.answered or self._deferred):  # the rest was never answered
            self._leave_out_unanswered()

    def _leave_out_unanswered(self) -> None:
        """Drop waiting calls without results, as the conversation continues; approved ones run next."""
        gone = self._calls.leave_out(but=[call.call_id for call in self.approved])
        self._not_sent += gone
        ids = {call.call_id for call in gone}
        self.awaited = {item_id: call for item_id, call in self.awaited.items() if call.call_id not in ids}
        if not self._waiting:
            self._flush()

    def _flush(self) -> None:
        calls, text, reasoning = self._calls, "".join(self._text), "".join(self._reasoning)
        if len(calls) == 1 and calls[0].result is not None:  # the usual case
            self.messages += (Assistant(text, reasoning, (calls[0].call,)), calls[0].result)
            calls.reset()
        elif calls:
            if not self._waiting:
                self._not_sent += calls.rename_twins()
            self.messages.append(Assistant(text, reasoning, tuple([one.call for one in calls])))
            self.messages += [one.result for one in calls if one.result is not None]
            calls.reset()
        elif text or reasoning:
            self.messages.append(Assistant(text, reasoning))
        self._text, self._reasoning = [], []
        self._exchange = self._thoughts.last = None
        if self._deferred:
            self.messages += self._deferred
            self._deferred = []

    handlers: ClassVar[Mapping[str | None, Callable[[Any, InputItem, str], None]]] = {
        **dict.fromkeys(_MESSAGE, _add_message),
        "reasoning": _add_reasoning,
        **dict.fromkeys(client_calls.CALLS, _add_call),
        **dict.fromkeys(client_calls.OUTPUTS, _add_result),
    }
    """The handler for each type of item."""


READ_TYPES = frozenset({*Transcript.handlers, *HOSTED_TYPES, *client_history.ITEM_TYPES, APPROVAL, "item_reference"})
"""Types of items that a conversation may contain."""
