"""Writers of the calls that the client runs: function calls and custom tool calls."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

import msgspec

from app.protocol.recovery.arguments import ArgumentsReader, InvalidArguments, read_text
from app.protocol.recovery.client_tools import CallTarget
from app.protocol.stream.client_tool_writer import ClientToolWriter
from app.protocol.stream.hosted_writer import StringMember
from app.protocol.stream.writers import Cut, Emitter, HeldCallWriter
from app.protocol.wire import events as e
from app.protocol.wire.items import CustomToolCallItem, FunctionCallItem, ItemStatus


class CallWriter:
    """Writes a function call. Its arguments are validated when it is closed as completed."""

    def __init__(self, out: Emitter, item: FunctionCallItem, index: int) -> None:
        self._out = out
        self._index = index
        self._item = item
        self._arguments = ArgumentsReader()
        self._at: dict[str, Any] = {"item_id": item.id, "output_index": index}
        out.emit(e.ItemAdded, output_index=index, item=item)
        self._say = out.field(e.ArgumentsDelta, **self._at)

    @property
    def whole(self) -> bool:
        """Whether nothing more can be added to the arguments."""
        return self._arguments.whole

    def write(self, fragment: str) -> None:
        """Add to the arguments, even after it is closed, which `is_right` then takes into account."""
        text = self._arguments.feed(fragment)
        if text:
            self._say(text)

    def is_right(self) -> bool:
        """Whether nothing that came after the call was closed changes it."""
        return self._arguments.end() is not None

    def close(self, status: ItemStatus) -> FunctionCallItem:
        """Emit the item's remaining events and return it. Raises InvalidArguments."""
        rest = self._arguments.end() if status == "completed" else self._arguments.release()
        if rest is None:
            raise InvalidArguments(self._item.name)
        if rest:
            self._out.emit(e.ArgumentsDelta, **self._at, delta=rest)
        arguments = self._arguments.text()
        item = msgspec.structs.replace(self._item, status=status, arguments=arguments)
        self._out.emit(e.ArgumentsDone, **self._at, arguments=arguments)
        self._out.emit(e.ItemDone, output_index=self._index, item=item)
        return item

    def cuts(self) -> Sequence[Sequence[Cut]]:
        """Where the deltas of each of the item's fields were cut."""
        return [[len(piece) for piece in self._arguments.pieces()]]


class CustomCallWriter(HeldCallWriter):
    """Writes a custom tool call.

    The model writes `{"input": "…"}` or a variant of it; the client gets the string, in one delta.
    """

    def __init__(self, out: Emitter, item: CustomToolCallItem, index: int) -> None:
        super().__init__()
        self._out = out
        self._index = index
        self._item = item
        self._at: dict[str, Any] = {"item_id": item.id, "output_index": index}
        out.emit(e.ItemAdded, output_index=index, item=item)

    def is_right(self) -> bool:
        """Whether the arguments are valid and contain the tool's input as text."""
        return self._arguments.is_right() and read_text(self._arguments.text()) is not None

    def close(self, status: ItemStatus) -> CustomToolCallItem:
        """Emit the item's remaining events and return it. Raises InvalidArguments."""
        written = self._arguments.text()
        text = read_text(written)
        if text is None and status == "completed":
            raise InvalidArguments(self._item.name)
        if text is None:  # cut off inside the wrapper
            text = StringMember("input").feed(written)
        if text:
            self._out.emit(e.CustomInputDelta, **self._at, delta=text)
        self._out.emit(e.CustomInputDone, **self._at, input=text)
        item = msgspec.structs.replace(self._item, status=status, input=text)
        self._out.emit(e.ItemDone, output_index=self._index, item=item)
        return item

    def cuts(self) -> Sequence[Sequence[Cut]]:
        """Where the deltas of each of the item's fields were cut."""
        return [[]]


ClientCallWriter = CallWriter | CustomCallWriter | ClientToolWriter


def call_writer(out: Emitter, target: CallTarget, item_id: str, call_id: str, index: int) -> ClientCallWriter:
    """The writer of a call that begins now, as the item at `index` of the output."""
    namespace = target.namespace or msgspec.UNSET
    if target.tool is not None:
        return ClientToolWriter(out, target.tool, (item_id, call_id), index)
    if target.custom:
        return CustomCallWriter(
            out, CustomToolCallItem(item_id, "in_progress", call_id, target.name, namespace=namespace), index
        )
    return CallWriter(out, FunctionCallItem(item_id, "in_progress", call_id, target.name, namespace=namespace), index)


class PendingCall(msgspec.Struct):
    """A call the model opened; its fragments wait here until the earlier calls are written."""

    call_id: str
    name: str
    fragments: list[str] = []
    writer: ClientCallWriter | None = None
    ignored: bool = False
    late: bool = False
    """A fragment for it came after it was closed."""

    def begin(self, writer: ClientCallWriter) -> None:
        """Write it, beginning with the fragments that wait."""
        self.writer = writer
        for fragment in self.fragments:
            writer.write(fragment)

    def write(self, fragment: str) -> None:
        """Write the fragment, or have it wait."""
        if self.writer is None:
            self.fragments.append(fragment)
        else:
            self.writer.write(fragment)


class CallIds:
    """The upstream's call ids, as far as they are unique: many servers restart in each answer, or give all calls the
    same id.
    """

    def __init__(self, known: Container[str] | None) -> None:
        """`known`: the ids of the conversation so far; None: every id is accepted."""
        self._known = known
        self._used: set[str] = set()

    def claim(self, call_id: str) -> str | None:
        """Reserve the id and return it; None if it is empty or another call has it."""
        if self._known is None:
            return call_id
        if not call_id or call_id in self._used or call_id in self._known:
            return None
        self._used.add(call_id)
        return call_id
