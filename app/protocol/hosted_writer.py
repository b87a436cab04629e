"""Writes the items of hosted calls, from `added` to `done`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from app.protocol import events as e
from app.protocol.hosted import HostedItem
from app.protocol.items import ItemStatus
from app.protocol.phases import SPECS, opening, status
from app.protocol.writers import Cut, Emitter

_ESCAPED = re.compile(r'(?:[^"\\]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*')
_HALF_PAIR = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}$")


class StringMember:
    """One string member of a JSON object that is still being written, decoded as far as it goes."""

    def __init__(self, key: str) -> None:
        self._begins = re.compile(rf'(?<!\\)"{re.escape(key)}"\s*:\s*"')
        self._raw = ""
        self._inside = False
        self._ended = False

    def feed(self, fragment: str) -> str:
        """The further text that this fragment brings."""
        if self._ended:
            return ""
        self._raw += fragment
        if not self._inside:
            start = self._begins.search(self._raw)
            if start is None:
                return ""
            self._inside = True
            self._raw = self._raw[start.end() :]
        match = _ESCAPED.match(self._raw)
        whole = match.group() if match else ""
        self._ended = self._raw[len(whole) : len(whole) + 1] == '"'
        half = None if self._ended else _HALF_PAIR.search(whole)
        whole = whole[: half.start()] if half else whole
        self._raw = self._raw[len(whole) :]
        text: str = json.loads(f'"{whole}"', strict=False)  # models write raw line breaks into strings
        return text


class HostedWriter:
    """Writes one hosted item. `run` when its arguments are whole, `settle` when it has ended, then `close`."""

    def __init__(self, out: Emitter, item: HostedItem, item_id: str, index: int) -> None:
        self.origin = item.id
        """The id an upstream gave it, where the upstream runs the tool itself."""
        self.running = False
        self._out = out
        self._index = index
        self._spec = spec = SPECS[type(item)]
        self._item = opening(item, item_id)
        self._fragments: list[str] = []
        self._settled = False
        self._at: dict[str, Any] = {"item_id": item_id, "output_index": index}
        out.emit(e.ItemAdded, output_index=index, item=self._item)
        if spec.begun is not None:
            out.emit(spec.begun, **self._at)
        stream = spec.arguments
        self._say = out.field(stream.delta, **self._at) if stream else None
        self._member = StringMember(stream.key) if stream and stream.key else None

    def write(self, fragment: str) -> None:
        """Show a fragment of the arguments, as far as they are shown at all."""
        self.show(self._member.feed(fragment) if self._member else fragment)

    def show(self, text: str) -> None:
        """Show a piece of the field that is streamed."""
        if self._say is not None and text:
            self._fragments.append(text)
            self._say(text)

    def run(self, item: HostedItem) -> None:
        """The arguments are whole: `item` has them."""
        self._item = self._named(item)
        stream, self.running = self._spec.arguments, True
        if stream is not None:
            whole: str = getattr(item, stream.field)
            shown = "".join(self._fragments)
            self.show(whole[len(shown) :] if whole.startswith(shown) else "")
            self._out.emit(stream.done, **self._at, **{stream.field: whole})
        if self._spec.running is not None:
            self._out.emit(self._spec.running, **self._at)

    def settle(self, item: HostedItem) -> None:
        """It has ended like this."""
        if not self.running:
            self.run(item)
        self._item = self._named(item)
        self._settled = True

    def close(self, _status: ItemStatus) -> HostedItem:
        """See ItemWriter. What was not settled is incomplete, whatever the rest of the response is."""
        if not self._settled:
            stream = self._spec.arguments
            shown = {stream.field: "".join(self._fragments)} if stream and not self.running else {}
            incomplete = {"status": "incomplete"} if "status" in self._item.__struct_fields__ else {}
            self.settle(msgspec.structs.replace(self._item, **shown, **incomplete))
        ended = status(self._item)
        event = self._spec.succeeded if ended == "completed" else self._spec.failed if ended == "failed" else None
        if event is not None:
            self._out.emit(event, **self._at)
        self._out.emit(e.ItemDone, output_index=self._index, item=self._item)
        return self._item

    def cuts(self) -> Sequence[Sequence[Cut]]:
        """See ItemWriter."""
        return [[len(fragment) for fragment in self._fragments]] if self._spec.arguments else []

    def _named(self, item: HostedItem) -> HostedItem:
        return msgspec.structs.replace(item, id=self._at["item_id"])
