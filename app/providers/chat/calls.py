"""Which call a piece of a stream belongs to: from ids, indexes and names as servers really send them, to calls numbered
in order. Sans-io.

By the protocol an index identifies a call, and id and name are sent once. Servers also repeat id and name in every
piece, or begin every call with index 0 with the same id or none, or send no index, a name in pieces, or the tail under
the next index. So a name, or another id, is judged together with the arguments received so far: while they are
incomplete, the call continues.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from app.protocol.deltas import CallArguments, CallOpened, Delta
from app.protocol.messages import FunctionTool
from app.protocol.recovery.arguments import read_object
from app.providers._lenient import encoded
from app.providers.base import UpstreamProtocolError
from app.providers.chat.wire import Call, Function

Arguments = str | dict[str, Any] | None

_PLACEHOLDERS = frozenset({"{}", "null"})
"""Arguments with which some servers begin a call before sending the real ones."""
_MARKS = re.compile(r'[\\"{}\[\]]')


class _Balance:
    """Whether JSON text that arrives in pieces may be complete: all brackets and quotes are closed.

    Each piece is read once.
    """

    __slots__ = ("_depth", "_escaped", "_quoted", "_read")

    def __init__(self) -> None:
        self._read = 0
        self._depth = 0
        self._quoted = False
        self._escaped = False

    def holds(self, pieces: Sequence[str]) -> bool:
        """Whether it may be, after these pieces, which begin with those of the last call."""
        for piece in pieces[self._read :]:
            self._feed(piece)
        self._read = len(pieces)
        return self._depth <= 0 and not self._quoted

    def _feed(self, piece: str) -> None:
        at, self._escaped = int(self._escaped), False
        while mark := _MARKS.search(piece, at):
            at = mark.end()
            if mark[0] == "\\":
                at += 1
                self._escaped = at > len(piece)
            elif mark[0] == '"':
                self._quoted = not self._quoted
            elif not self._quoted:
                self._depth += 1 if mark[0] in "{[" else -1


class _OpenCall:
    """A call in progress.

    Its arguments wait for its name; arguments sent as an object wait for the end, since they may be sent again.
    """

    __slots__ = ("_balance", "again", "id", "name", "number", "opened", "pieces", "values")

    def __init__(self, number: int, identity: str) -> None:
        self.number = number
        self.id = identity
        self.name = ""
        self.opened = False
        self.pieces: list[str] = []
        """The text of the arguments so far."""
        self.values: dict[str, Any] | None = None
        """Arguments that were sent as an object and not passed on yet."""
        self._balance = _Balance()
        self.again = False
        """Its name was repeated after complete arguments: the next piece of arguments begins another call."""

    @property
    def begun(self) -> bool:
        """Part of the arguments has arrived."""
        return bool(self.pieces) or self.values is not None

    def text(self) -> str:
        """The arguments received so far."""
        return "".join(self.pieces) or ("" if self.values is None else encoded(self.values))

    def is_whole(self) -> bool:
        """Whether the arguments are a complete object."""
        if not self.pieces:
            return self.values is not None
        return (
            self._balance.holds(self.pieces)
            and self.text().strip() not in ("", "null")
            and read_object(self.text()) is not None
        )


class CallReader:
    """The calls of one answer."""

    __slots__ = ("_at_index", "_calls", "_legacy", "_names", "_tools")

    def __init__(self, tools: Sequence[FunctionTool] = ()) -> None:
        self._tools = tools
        self._names: frozenset[str] | None = None
        self._calls: list[_OpenCall] = []
        self._legacy = False
        """The calls are in the field that preceded `tool_calls`."""
        self._at_index: dict[int | None, _OpenCall] = {}
        """The last call opened under each of the upstream's indexes; under None, the last one of all."""

    def __bool__(self) -> bool:
        """Whether the model has made a call."""
        return bool(self._calls) and any(call.opened for call in self._calls)

    def receive(self, piece: Call, out: list[Delta]) -> None:
        """A piece of a stream."""
        said = piece.function or piece.custom or piece
        arguments = said.arguments
        call = self._at_index.get(piece.index)
        if call is None or said.name or piece.id or call.again:
            call = self._call_of(piece, said, call, out)
            if call is None:
                return
        if arguments and call.opened and call.pieces and isinstance(arguments, str):
            # Most pieces take this path.
            call.pieces.append(arguments)
            out.append(CallArguments(call.number, arguments))
        elif arguments or isinstance(arguments, dict):
            self._argue(call, arguments, out)
        elif call.begun and call.name and not call.opened:
            self._open(call, out)

    def receive_whole(self, entry: Call, out: list[Delta]) -> None:
        """An entry of a whole message: a separate call, whatever its id and index."""
        said = entry.function or entry.custom or entry
        if not (said.name or said.arguments):
            return
        call = self._begin(entry.id, out)
        call.name = said.name or ""
        if call.name:
            self._open(call, out)
        if said.arguments or isinstance(said.arguments, dict):
            self._argue(call, said.arguments, out)
        if call.name:
            self._settle(call, out)

    def receive_legacy(self, said: Function, out: list[Delta], *, whole: bool) -> None:
        """The contents of `function_call`. If there are `tool_calls`, it repeats them."""
        if not (said.name or said.arguments) or (self._calls and not self._legacy):
            return
        self._legacy = True
        receive = self.receive_whole if whole else self.receive
        receive(Call(said.name, said.arguments), out)

    def close(self, out: list[Delta]) -> None:
        """The turn has ended. Raises UpstreamProtocolError for arguments without a name."""
        for call in self._calls:
            if call.name:
                self._settle(call, out)
            elif call.text().strip():
                raise UpstreamProtocolError("The upstream sent a function call without a name.")

    # --- Which call
    # ----------------------------------------------------------------------------------------------------------

    def _call_of(self, piece: Call, said: Function, here: _OpenCall | None, out: list[Delta]) -> _OpenCall | None:
        """The call that the piece continues, or the one it begins; None if it has nothing to continue with."""
        if not (said.name or piece.id or said.arguments):
            return None
        known = self._known(piece, said, here)
        if known is None or self._begins(known, piece, said):
            name = said.name or (known.name if known is not None and said.arguments else "")
            call = self._begin(piece.id, out)
        else:
            call, name = known, said.name or ""
            if said.name and call.opened and call.is_whole():
                return self._repeated(call, said)
        call.id = call.id or piece.id or ""
        self._at_index[piece.index] = self._at_index[None] = call
        if name and not call.opened:
            self._named(call, name, out)
        return call

    def _known(self, piece: Call, said: Function, here: _OpenCall | None) -> _OpenCall | None:
        """The call that the piece may continue."""
        if piece.id and (here is None or here.id != piece.id) and (not said.name or piece.index is None):
            same = next((call for call in reversed(self._calls) if call.id == piece.id), None)
            if same is not None:
                return same
        last = self._at_index.get(None)
        if here is None and last is not None and not (said.name or piece.id):
            return last if not last.is_whole() or _goes_on(said.arguments) else None  # the tail under the next index
        return here

    def _begins(self, here: _OpenCall, piece: Call, said: Function) -> bool:
        """Whether the piece, although it arrived where this call's pieces do, begins another call."""
        other = bool(piece.id and here.id and piece.id != here.id)
        if not said.name:
            return self._begins_unnamed(here, said.arguments, other=other)
        if not here.name:
            return False
        if not here.opened:
            return other or self._joined(here, said.name, piece.id) is None
        if said.name != here.name:
            return True
        if other:
            return not (here.begun and _goes_on(said.arguments) and not here.is_whole())
        return self._begins_again(here, piece, said)

    def _begins_unnamed(self, here: _OpenCall, arguments: Arguments, *, other: bool) -> bool:
        """Whether a piece without a name, with another id or not, begins another call."""
        if here.again and arguments:
            return not _same(here.text(), arguments)
        if not other:
            return False
        # Some servers generate a new id for every piece.
        return here.is_whole() and not _goes_on(arguments) if here.begun else not arguments

    def _begins_again(self, here: _OpenCall, piece: Call, said: Function) -> bool:
        """Whether a repeated name without another id begins another call."""
        if not said.arguments or not here.is_whole() or _same(here.text(), said.arguments):
            return False
        if not piece.id or here.values is None or isinstance(said.arguments, str):
            return True
        # An object that grows with every piece.
        return not here.values.items() <= said.arguments.items()

    def _repeated(self, call: _OpenCall, said: Function) -> _OpenCall | None:
        """A name after complete arguments: it announces another call, or repeats what is known."""
        if said.arguments is None or said.arguments == "":
            call.again = True
            return None
        return call if isinstance(said.arguments, dict) and not _same(call.text(), said.arguments) else None

    # --- Names
    # ---------------------------------------------------------------------------------------------------------------

    def _offered(self) -> frozenset[str]:
        if self._names is None:
            self._names = frozenset(tool.name for tool in self._tools)
        return self._names

    def _named(self, call: _OpenCall, name: str, out: list[Delta]) -> None:
        """Take the name, or its next piece, and open the call as soon as no further piece can follow."""
        call.name = (self._joined(call, name, call.id) or name) if call.name else name
        names = self._offered()
        complete = call.name in names and not any(
            longer.startswith(call.name) and longer != call.name for longer in names
        )
        if (complete or not names) and not call.begun:
            self._open(call, out)

    def _joined(self, call: _OpenCall, name: str, identity: str | None) -> str | None:
        """The call's name with its next piece; None: `name` belongs to another call."""
        names, so_far = self._offered(), call.name
        if name == so_far:
            return name
        if _begins_one(so_far + name, names):
            return so_far + name
        if so_far in names:
            return None
        if name.startswith(so_far) and _begins_one(name, names):
            return name
        return so_far + name if identity and identity == call.id and name not in names else None

    # --- Output
    # --------------------------------------------------------------------------------------------------------------

    def _begin(self, identity: str | None, out: list[Delta]) -> _OpenCall:
        if self._calls and self._calls[-1].name:
            self._settle(self._calls[-1], out)
        call = _OpenCall(len(self._calls), identity or "")
        self._calls.append(call)
        return call

    def _open(self, call: _OpenCall, out: list[Delta]) -> None:
        call.opened = True
        out.append(CallOpened(call.number, call.id, call.name))
        if call.pieces:
            out.append(CallArguments(call.number, call.text()))

    def _argue(self, call: _OpenCall, arguments: str | dict[str, Any], out: list[Delta]) -> None:
        if not isinstance(arguments, str):
            self._receive_object(call, arguments, out)
        elif not call.pieces and call.values is None and arguments in _PLACEHOLDERS:
            call.values = {}
        elif arguments:
            self._flush(call, out, replaced=not call.values)
            self._write(call, arguments, out)

    def _receive_object(self, call: _OpenCall, values: dict[str, Any], out: list[Delta]) -> None:
        if not call.pieces:
            call.values = (call.values or {}) | values
        elif not _same(call.text(), values):
            self._write(call, encoded(values), out)

    def _settle(self, call: _OpenCall, out: list[Delta]) -> None:
        """The call is complete as far as can be known."""
        if not call.opened:
            self._open(call, out)
        self._flush(call, out, replaced=False)

    def _flush(self, call: _OpenCall, out: list[Delta], *, replaced: bool) -> None:
        """Pass on arguments sent as an object, unless they were replaced."""
        values, call.values = call.values, None
        if values is not None and not replaced:
            self._write(call, encoded(values), out)

    def _write(self, call: _OpenCall, fragment: str, out: list[Delta]) -> None:
        call.pieces.append(fragment)
        if call.opened:
            out.append(CallArguments(call.number, fragment))
        elif call.name:
            self._open(call, out)


def _begins_one(text: str, names: Iterable[str]) -> bool:
    return any(name.startswith(text) for name in names)


def _goes_on(arguments: Arguments) -> bool:
    """Whether this can only be the middle of an object's text."""
    return isinstance(arguments, str) and arguments.strip() != "" and not arguments.lstrip().startswith("{")


def _same(text: str, arguments: str | dict[str, Any]) -> bool:
    """Whether two complete arguments are equal."""
    first = read_object(text)
    second = read_object(arguments) if isinstance(arguments, str) else encoded(arguments)
    return first is not None and second is not None and msgspec.json.decode(first) == msgspec.json.decode(second)
