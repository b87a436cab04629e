"""The permitted order of events in a stream.

Two rules:

1. Everything about order is in this file, as far as possible in the table.
2. This file does not know whose stream it is: the same table checks what the gateway emits and what other servers sent.

The order is the one observed in recorded streams of the original API: created, queued (of a background response),
in_progress, then one item at a time, each `added -> parts -> done`, then exactly one terminal event.
"""

from __future__ import annotations

from typing import NoReturn

from app.protocol.stream.phases import SPECS, HostedCallSpec
from app.protocol.wire import events as e
from app.protocol.wire.client_items import ApplyPatchCall, LocalShellCall, ShellCall, ToolSearchCall
from app.protocol.wire.items import CustomToolCallItem, FunctionCallItem, MessageItem, ReasoningItem

TRANSITIONS: dict[str, dict[type, str]] = {
    "start": {e.Created: "created"},
    "created": {e.Queued: "queued", e.InProgress: "between items"},
    "queued": {e.InProgress: "between items"},
    "between items": {
        e.ItemAdded: "item",
        e.Completed: "end",
        e.Incomplete: "end",
        e.Failed: "end",
        e.ErrorEvent: "error",
    },
    "error": {e.Failed: "end"},
    "end": {},
    "message": {e.PartAdded: "part", e.ItemDone: "between items"},
    "output_text": {e.TextDelta: "output_text", e.AnnotationAdded: "output_text", e.TextDone: "part done"},
    "refusal": {e.RefusalDelta: "refusal", e.RefusalDone: "part done"},
    "reasoning": {e.SummaryPartAdded: "summary", e.PartAdded: "part", e.ItemDone: "between items"},
    "summary": {e.SummaryTextDelta: "summary", e.SummaryTextDone: "summary done"},
    "summary done": {e.SummaryPartDone: "reasoning"},
    "reasoning_text": {e.ReasoningTextDelta: "reasoning_text", e.ReasoningTextDone: "part done"},
    "part done": {e.PartDone: "item again"},
    "function_call": {e.ArgumentsDelta: "function_call", e.ArgumentsDone: "call done"},
    "custom_tool_call": {e.CustomInputDelta: "custom_tool_call", e.CustomInputDone: "call done"},
    "shell_call": {e.ShellCommandAdded: "shell command", e.ItemDone: "between items"},
    "shell command": {e.ShellCommandDelta: "shell command", e.ShellCommandDone: "shell_call"},
    "call shown whole": {e.ItemDone: "between items"},
    "call done": {e.ItemDone: "between items"},
}
"""State -> event -> next state; hosted items add theirs below.

`item`, `part` and `item again` stand for the state named by the item's or part's own type."""

_ITEM_STATES: dict[type, str] = {
    MessageItem: "message",
    ReasoningItem: "reasoning",
    FunctionCallItem: "function_call",
    CustomToolCallItem: "custom_tool_call",
    ShellCall: "shell_call",
    **dict.fromkeys((LocalShellCall, ApplyPatchCall, ToolSearchCall), "call shown whole"),
    **{item: str(item.__struct_config__.tag) for item in SPECS},  # type: ignore[attr-defined]  # every item is a struct
}


def _hosted(state: str, spec: HostedCallSpec) -> dict[str, dict[type, str]]:
    """begun, arguments, running, then the end event, which failed or interrupted calls may lack."""
    table: dict[str, dict[type, str]] = {}
    if spec.begun is not None:
        table[state] = {spec.begun: f"{state} begun"}
        state = f"{state} begun"
    if spec.arguments is not None:
        table[state] = {spec.arguments.delta: state, spec.arguments.done: f"{state}, arguments done"}
        state = f"{state}, arguments done"
    if spec.running is not None:
        table[state] = {spec.running: f"{state}, running"}
        state = f"{state}, running"
    ends = {event: "call done" for event in (spec.succeeded, spec.failed) if event is not None}
    table[state] = {**ends, e.ItemDone: "between items"}
    return table


for _item, _spec in SPECS.items():
    TRANSITIONS.update(_hosted(_ITEM_STATES[_item], _spec))


class IllegalEvent(Exception):
    """An event that is not allowed now. The machine accepts nothing after it."""


class Lifecycle:
    """Checks the events of one response one at a time; raises IllegalEvent at the first that breaks the order."""

    def __init__(self) -> None:
        self.state = "start"
        self.sequence_number = -1
        self.output_index = -1
        self._item_state = ""
        self._item_id = ""

    def advance(self, event: e.Event) -> None:
        """Check the next event and change state."""
        if event.sequence_number != self.sequence_number + 1:
            self._refuse(event, f"number {event.sequence_number} after {self.sequence_number}")
        following = TRANSITIONS[self.state].get(type(event))
        if following is None:
            self._refuse(event, f"not allowed in state {self.state!r}")
        self._check_place(event)
        self.sequence_number = event.sequence_number
        self.state = self._resolve(following, event)

    def _resolve(self, following: str, event: e.Event) -> str:
        match event:
            case e.ItemAdded():
                self.output_index += 1
                self._item_id = event.item.id
                self._item_state = _ITEM_STATES[type(event.item)]
                return self._item_state
            case e.PartAdded():
                return str(event.part.__struct_config__.tag)
            case _:
                return self._item_state if following == "item again" else following

    def _check_place(self, event: e.Event) -> None:
        match event:
            case e.ItemAdded():
                if event.output_index != self.output_index + 1:
                    self._refuse(event, f"output_index {event.output_index} after {self.output_index}")
            case e.ItemDone():
                if (event.output_index, event.item.id) != (self.output_index, self._item_id):
                    self._refuse(event, "not the open item")
            case (
                e.Created() | e.Queued() | e.InProgress() | e.Completed() | e.Failed() | e.Incomplete() | e.ErrorEvent()
            ):
                return
            case e.ShellCommandAdded() | e.ShellCommandDelta() | e.ShellCommandDone():
                if event.output_index != self.output_index:
                    self._refuse(event, "not in the open item")
            case _:
                if (event.output_index, event.item_id) != (self.output_index, self._item_id):
                    self._refuse(event, "not in the open item")

    def _refuse(self, event: e.Event, why: str) -> NoReturn:
        self.state = "end"
        raise IllegalEvent(f"{event.__struct_config__.tag}: {why}")
