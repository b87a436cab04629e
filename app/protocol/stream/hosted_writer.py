"""Writes the items of hosted calls, from `added` to `done`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from app.protocol.stream.phases import SPECS, opening, status
from app.protocol.stream.writers import Cut, Emitter
from app.protocol.wire import events as e
from app.protocol.wire.hosted import HostedItem
from app.protocol.wire.items import ItemStatus

_HIGH = r"\\u[dD][89abAB][0-9a-fA-F]{2}"
_LOW = r"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_LOW_BEGUN = r"(?:\\(?:u(?:[dD](?:[c-fC-F][0-9a-fA-F]?)?)?)?)?\Z"
_DECIDED = re.compile(
    rf'(?:[^"\\]+|\\[^u]|{_HIGH}{_LOW}|{_HIGH}(?!{_LOW_BEGUN})|\\u(?![dD][89abAB])[0-9a-fA-F]{{4}}'
    r"|\\u(?![0-9a-fA-F]{4})(?![0-9a-fA-F]{0,3}\Z))*"
)
"""The content of a JSON string, as far as no further character can change its meaning."""
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|([^u]))")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", '"': '"', "\\": "\\", "/": "/"}
_SPACE = r"\s{0,20}"
_OPENING = 200
"""Maximum characters before the string that `StringMember` finds."""


class StringMember:
    """Incrementally decodes the first member, a string, of a JSON object that is still being written.

    Models write raw line breaks and unknown escapes (`\\d`) into strings: they are kept literally.
    """

    def __init__(self, key: str) -> None:
        self._begins = re.compile(rf'{_SPACE}\{{{_SPACE}"{re.escape(key)}"{_SPACE}:{_SPACE}"')
        self._raw = ""
        self._inside = False
        self._ended = False

    def feed(self, fragment: str) -> str:
        """The additional text decoded from this fragment."""
        if self._ended:
            return ""
        self._raw += fragment
        if not self._inside:
            start = self._begins.match(self._raw)
            self._ended = start is None and len(self._raw) > _OPENING
            if start is None:
                return ""
            self._inside = True
            self._raw = self._raw[start.end() :]
        decided = _DECIDED.match(self._raw)
        whole = decided[0] if decided else ""
        self._raw = self._raw[len(whole) :]
        self._ended = self._raw.startswith('"')
        text = _ESCAPE.sub(_unescaped, whole)
        # Surrogate pairs are joined; an unpaired surrogate is not a character.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _unescaped(match: re.Match[str]) -> str:
    return chr(int(match[1], 16)) if match[1] else _ESCAPES.get(match[2], match[0])


class HostedWriter:
    """Writes one hosted item. Call `run` when its arguments are complete, `settle` when it has ended, then `close`."""

    def __init__(self, out: Emitter, item: HostedItem, item_id: str, index: int) -> None:
        self.origin = item.id
        """The upstream's id, if the upstream runs the tool itself."""
        self.running = False
        self._out = out
        self._index = index
        self._spec = spec = SPECS[type(item)]
        self._item = opening(item, item_id)
        self._fixed: dict[str, Any] = {"id": item_id}
        """Fields that the tool cannot change later: what was streamed cannot be retracted."""
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
        """Add a fragment of the arguments, and show what is streamed of them."""
        self.show(self._member.feed(fragment) if self._member else fragment)

    def show(self, text: str) -> None:
        """Emit a piece of the streamed field."""
        if self._say is not None and text:
            self._fragments.append(text)
            self._say(text)

    def run(self, item: HostedItem) -> None:
        """The arguments are complete: `item` has them."""
        stream, self.running = self._spec.arguments, True
        if stream is not None:
            whole: str = getattr(item, stream.field)
            shown = "".join(self._fragments)
            self.show(whole[len(shown) :] if whole.startswith(shown) else "")
            self._fixed[stream.field] = "".join(self._fragments)
            self._out.emit(stream.done, **self._at, **{stream.field: self._fixed[stream.field]})
        self._item = msgspec.structs.replace(item, **self._fixed)
        if self._spec.running is not None:
            self._out.emit(self._spec.running, **self._at)

    def settle(self, item: HostedItem) -> None:
        """The call has ended; `item` is the result."""
        if not self.running:
            self.run(item)
        self._item = msgspec.structs.replace(item, **self._fixed)
        self._settled = True

    def close(self, _status: ItemStatus) -> HostedItem:
        """Emit the item's remaining events and return it.

        A call that was not settled is incomplete, whatever the response's status.
        """
        if not self._settled:
            stream = self._spec.arguments
            shown = {stream.field: "".join(self._fragments)} if stream and not self.running else {}
            incomplete = {"status": "incomplete"} if "status" in self._item.__struct_fields__ else {}
            self.settle(msgspec.structs.replace(self._item, **shown, **incomplete))
        event = {"completed": self._spec.succeeded, "failed": self._spec.failed}.get(status(self._item))
        if event is not None:
            self._out.emit(event, **self._at)
        self._out.emit(e.ItemDone, output_index=self._index, item=self._item)
        return self._item

    def cuts(self) -> Sequence[Sequence[Cut]]:
        """Where the deltas of each of the item's fields were cut."""
        return [[len(fragment) for fragment in self._fragments]] if self._spec.arguments else []
