"""Writes the call of a tool that the client runs. The model's arguments are shown once they are complete."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from app.protocol.recovery.arguments import InvalidArguments, escape_controls, read_object
from app.protocol.recovery.client_tools import ClientTool
from app.protocol.stream.writers import Cut, Emitter, HeldCallWriter
from app.protocol.wire import events as e
from app.protocol.wire.client_items import ClientItem, Payload, ShellAction
from app.protocol.wire.items import ItemStatus


class ClientToolWriter(HeldCallWriter):
    """Nothing is emitted before `close`: the item's first event has fields that depend on the arguments."""

    def __init__(self, out: Emitter, tool: ClientTool, ids: tuple[str, str], index: int) -> None:
        """`ids`: the item's and the call's."""
        super().__init__()
        self._out = out
        self._tool = tool
        self._item_id, self._call_id = ids
        self._index = index

    def is_right(self) -> bool:
        """Whether the arguments are valid for an item of this tool."""
        return self._arguments.is_right() and self._payload() is not None

    def close(self, status: ItemStatus) -> ClientItem:
        """Emit the item's remaining events and return it."""
        payload = self._payload()
        if payload is None:
            if status == "completed":
                raise InvalidArguments(self._tool.type, "do not say what to do")
            payload = self._tool.nothing
        begun = self._item("in_progress", self._tool.begun(payload))
        self._out.emit(e.ItemAdded, output_index=self._index, item=begun)
        if isinstance(payload, ShellAction):
            self._show_commands(payload.commands)
        item = self._item(status if status == "completed" else self._tool.cut, payload)
        self._out.emit(e.ItemDone, output_index=self._index, item=item)
        return item

    def cuts(self) -> Sequence[Sequence[Cut]]:
        """Where the deltas of each of the item's fields were cut."""
        return [[]]

    def _payload(self) -> Payload | None:
        written = self._arguments.text()
        found = read_object(written)
        if found is not None:
            return self._tool.read(msgspec.json.decode(found))
        value = self._short(written) if self._tool.short_form else None
        return None if value is None else self._tool.read({self._tool.short_form: value})

    def _short(self, written: str) -> list[object] | str | None:
        """The arguments if written as something other than an object: a list, a string, or bare text that the tool
        accepts.
        """
        if self._tool.bare and written.lstrip().startswith(self._tool.bare):
            return written
        try:
            return msgspec.json.decode(escape_controls(written), type=list[object] | str)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            return None

    def _item(self, status: str, payload: Payload) -> ClientItem:
        return self._tool.item(self._item_id, status, self._call_id, payload)

    def _show_commands(self, commands: Sequence[str]) -> None:
        for number, command in enumerate(commands):
            place = {"output_index": self._index, "command_index": number}
            self._out.emit(e.ShellCommandAdded, **place, command="")
            self._out.emit(e.ShellCommandDelta, **place, delta=command)
            self._out.emit(e.ShellCommandDone, **place, command=command)
