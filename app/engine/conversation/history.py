"""History: resolves `previous_response_id` and `item_reference` to a context.

The contexts of recent chains are kept in a bounded cache, with their messages already encoded for the upstream; so turn
fifty costs the same as turn two, plus the bytes forwarded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from sys import getsizeof
from typing import Protocol, TypeVar

import msgspec

from app.engine.conversation import records
from app.engine.conversation.context import Context, last_user, weight
from app.engine.conversation.function_names import upstream_name
from app.engine.conversation.items import Item, MoreTools
from app.engine.conversation.media import Media
from app.engine.conversation.transcript import Transcript
from app.protocol.messages import Message, TextPart, User
from app.protocol.wire import ids, stored_input
from app.protocol.wire.errors import InvalidRequest
from app.protocol.wire.requests import parse_item
from app.providers.base import Capabilities
from app.stores.ports.responses import AncestorDeleted, Chains, ResponseRecord, Turn
from app.stores.ports.runs import RunStore

_JOIN = b","
_DELETIONS_KEPT = 10_000
_NEWEST = 16
"""How many turns may have been made by other processes since the one whose context is cached here."""
_T = TypeVar("_T")
_ENTRY_BYTES = 3000
"""Memory of a cached context beside its texts: some fifty objects."""
_ID_BYTES = 88
_Key = tuple[str, str, str, tuple[bool, ...]]
"""Project, response, dialect, and the model properties that determine how a context is encoded."""


class MessageEncoder(Protocol):
    """The part of a provider that history needs."""

    dialect: str

    def encode_messages(self, messages: Sequence[Message], *, reasoning: bool) -> bytes:
        """The messages in the upstream's own JSON, comma-separated, without brackets.

        `reasoning` includes the thinking.
        """
        ...


class View(msgspec.Struct, frozen=True):
    """The parameters of a context: project, upstream dialect, and how the model family treats earlier thinking."""

    project_id: str
    encoder: MessageEncoder
    can: Capabilities
    model: str
    """For error messages."""
    unseal: Callable[[str], str | None]
    media: Media

    def key(self, response_id: str) -> _Key:
        """The cache key of the response's context."""
        can = self.can
        return (
            self.project_id,
            response_id,
            self.encoder.dialect,
            (can.preserves_thinking, can.images, can.image_urls, can.files),
        )

    async def load_media(self, transcript: Transcript, items: Sequence[Item] = ()) -> None:
        """Replace references to files and images with their content.

        Without `items`, missing ones become a note for the model.
        """
        messages = transcript.messages
        parts = [
            part
            for message in messages
            if type(message) is User and type(message.content) is tuple
            for part in message.content
        ]
        if parts:
            transcript.uploads = transcript.uploads or any(
                not isinstance(part, TextPart) and part.file_id is not None for part in parts
            )
            transcript.messages = list(
                await self.media.resolve(self.project_id, messages, self.can, model=self.model, items=items)
            )

    def transcript(self, context: Context) -> Transcript:
        """A transcript that continues the context."""
        return Transcript(context, upstream_name, self.unseal)

    def settle(self, transcript: Transcript, turns: frozenset[str], prefix: bytes, expires_at: int = 0) -> Context:
        """The context after the transcript: whatever later turns cannot change is encoded."""
        messages, preserves = transcript.messages, self.can.preserves_thinking
        closed = len(messages) if preserves and not transcript.open_calls else last_user(messages)
        prefix = (
            join(prefix, self.encoder.encode_messages(messages[:closed], reasoning=preserves)) if closed else prefix
        )
        return Context(
            turns=turns,
            system=tuple(transcript.system),
            prefix=prefix,
            tail=tuple(messages[closed:]),
            known=transcript.known,
            cut=transcript.cut,
            expires_at=expires_at,
            awaited=transcript.awaited,
            images=tuple(transcript.images),
            notes=transcript.notes,
            uploads=transcript.uploads,
            tools=tuple(_kept(transcript.tools)) if transcript.tools else (),
        )


def join(*encoded: bytes) -> bytes:
    """Concatenates encoded message lists."""
    return _JOIN.join(part for part in encoded if part)


class Earlier(Protocol):
    """What came before a request."""

    async def context(self, view: View, previous_id: str | None, now: int) -> Context:
        """The conversation that the request continues. `previous_id`: the response that it names. Raises ApiError."""
        ...


class Recent:
    """A response that may be continued soon. Its context is built only then: most responses are never continued."""

    __slots__ = ("_context", "_make", "expires_at", "size", "turns")

    def __init__(self, turns: frozenset[str], expires_at: int, size: int, make: Callable[[], Context]) -> None:
        """`size`: approximate memory of the texts that `make` refers to, in bytes."""
        self.turns = turns
        self.expires_at = expires_at
        self.size = _ENTRY_BYTES + getsizeof(turns) + _ID_BYTES * len(turns) + size
        """Approximate memory of everything, in bytes."""
        self._make: Callable[[], Context] | None = make
        self._context = Context()

    def context(self) -> Context:
        """Everything up to and including the response."""
        if self._make is not None:
            self._context, self._make = self._make(), None
        return self._context


class History:
    """Contexts of stored chains."""

    def __init__(self, store: Chains, cache_bytes: int, *, shared: bool, runs: RunStore | None = None) -> None:
        """`shared`: other processes use the same store, so a cached context is checked against it.

        `runs`: what is not stored yet.
        """
        self._store = store
        self._runs = runs
        self._shared = shared
        self._capacity = cache_bytes
        self._size = 0
        self._recent: OrderedDict[_Key, Recent] = OrderedDict()
        self._deleted: OrderedDict[str, None] = OrderedDict()
        """Recently deleted: a turn in progress must not bring their content back."""

    async def context(self, view: View, previous_id: str | None, now: int) -> Context:
        """Everything up to and including the response `previous_id`. Raises InvalidRequest."""
        if previous_id is None:
            return Context()
        response_id = ids.normalize_response_id(previous_id)
        key = view.key(response_id or "")
        cached = self._recent.get(key)
        if (
            cached is not None
            and cached.expires_at > now
            and (not self._shared or await self._store.continuable(*key[:2], now))
        ):
            if key in self._recent:
                self._recent.move_to_end(key)
            return cached.context()
        before, turns = await self._missing(view, response_id, previous_id, now)
        _check_chain(turns)
        transcript = view.transcript(before)
        for turn in turns:
            records.replay(turn, transcript)
        await view.load_media(transcript)
        context = view.settle(transcript, before.turns.union(turn.id for turn in turns), before.prefix)
        if before.turns and not context.uploads:
            self._put(key, Recent(context.turns, before.expires_at, _size(before, turns), lambda: context))
        return context

    async def _missing(
        self, view: View, response_id: str | None, given: str, now: int
    ) -> tuple[Context, Sequence[Turn]]:
        """The context of one of the newest turns, if it is cached, and the turns after it. Raises InvalidRequest.

        Where the requests of a conversation go from replica to replica, each has the context of an earlier turn. It
        makes room for the one that is made of it.
        """
        project_id = view.project_id
        if self._shared and self._recent:
            lineage = await self._read(
                lambda known: self._store.lineage(project_id, known, now, _NEWEST), project_id, response_id, given
            )
            turns = lineage.newest
            for after in range(len(turns) - 1, 0, -1):
                cached = self._recent.get(view.key(turns[after - 1].id))
                if cached is not None:
                    self._drop([view.key(turns[after - 1].id)])
                    return cached.context(), turns[after:]
            if not lineage.older:
                return Context(), turns
        return Context(), await self._chain(project_id, response_id, given, now)

    async def check(self, project_id: str, previous_id: str, now: int) -> None:
        """Check that a response can be continued. Raises InvalidRequest."""
        response_id = ids.normalize_response_id(previous_id)
        if response_id is None or not await self._store.continuable(project_id, response_id, now):
            await self._chain(project_id, response_id, previous_id, now)

    def remember(self, view: View, response_id: str, recent: Recent, *, after: str | None) -> None:
        """Cache a response that was just stored; its parent is seldom needed again."""
        if after is not None:
            parent = view.key(after)
            self._drop([parent] if parent in self._recent else [])
        self._put(view.key(response_id), recent)

    def _put(self, key: _Key, recent: Recent) -> None:
        if not recent.turns.isdisjoint(self._deleted):
            return
        self._drop([key] if key in self._recent else [])
        self._recent[key] = recent
        self._size += recent.size
        while self._size > self._capacity and self._recent:
            self._size -= self._recent.popitem(last=False)[1].size

    def forget(self, response_id: str) -> None:
        """Drop every context that contains the deleted response."""
        self._deleted[response_id] = None
        if len(self._deleted) > _DELETIONS_KEPT:
            self._deleted.popitem(last=False)
        self._drop(key for key, recent in list(self._recent.items()) if response_id in recent.turns)

    def _drop(self, keys: Iterable[_Key]) -> None:
        for key in keys:
            self._size -= self._recent.pop(key).size

    async def resolve(self, project_id: str, items: Sequence[Item], now: int) -> Sequence[Item]:
        """Replace every `item_reference` with its item. Raises InvalidRequest if an item does not exist."""
        if not any(item.fields.type == "item_reference" for item in items):
            return items
        found: dict[str, dict[str, msgspec.Raw]] = {}
        return [
            await self._resolve_one(project_id, item, found, now) if item.fields.type == "item_reference" else item
            for item in items
        ]

    async def _resolve_one(
        self, project_id: str, item: Item, found: dict[str, dict[str, msgspec.Raw]], now: int
    ) -> Item:
        item_id = item.fields.id or ""
        location = ids.locate(item_id)
        response_id = location.response_id if location else await self._store.locate_item(project_id, item_id, now)
        if response_id is not None and response_id not in found:
            record = await self._store.get(project_id, response_id, now)
            found[response_id] = _by_id(record) if record else {}
        raw = found.get(response_id or "", {}).get(item_id)
        if raw is None:
            raise InvalidRequest(
                f"Item with id '{item_id}' not found. Items are not persisted when `store` is set to false. "
                "Try again with `store` set to true, or remove this item from your input.",
                param="input",
            )
        return Item(raw, parse_item(raw, item.place), item.place)

    async def _chain(self, project_id: str, response_id: str | None, given: str, now: int) -> Sequence[Turn]:
        return await self._read(lambda known: self._store.chain(project_id, known, now), project_id, response_id, given)

    async def _read(
        self, read: Callable[[str], Awaitable[_T | None]], project_id: str, response_id: str | None, given: str
    ) -> _T:
        """What the store has of a chain. Raises InvalidRequest if it cannot be continued."""
        try:
            found = await read(response_id) if response_id else None
        except AncestorDeleted as error:
            raise InvalidRequest(
                f"Previous response with id '{given}' cannot be continued: "
                f"'{error.response_id}', an earlier response of its conversation, was deleted.",
                code="previous_response_not_found",
                param="previous_response_id",
            ) from error
        if found is not None:
            return found
        if response_id and self._runs is not None and await self._runs.get(project_id, response_id) is not None:
            raise InvalidRequest(
                f"Previous response with id '{given}' is still being generated; continue it when it has ended.",
                code="response_in_progress",
                param="previous_response_id",
            )
        raise InvalidRequest(
            f"Previous response with id '{given}' not found.",
            code="previous_response_not_found",
            param="previous_response_id",
        )


def _check_chain(turns: Sequence[Turn]) -> None:
    """Raises InvalidRequest if the chain ends with a response of a conversation, whose items it does not have."""
    belongs_to = records.conversation_of(turns[-1].response) if turns else None
    if belongs_to is not None:
        message = (
            f"The response named by 'previous_response_id' belongs to conversation '{belongs_to}'; continue it with "
            f"'conversation'."
        )
        raise InvalidRequest(message, code="invalid_value", param="previous_response_id")


def _size(before: Context, turns: Sequence[Turn]) -> int:
    """Approximate memory of the context after these turns, in bytes."""
    added = sum(len(turn.input) + len(turn.response) + len(turn.exchanges or b"") for turn in turns)
    return len(before.prefix) + sum(map(weight, before.tail)) + added


def _kept(tools: Sequence[MoreTools]) -> Iterable[MoreTools]:
    """The tools that later turns need.

    Tools that a client sends again in each turn are kept once, at their last position.
    """
    kept: dict[tuple[bytes, bool], MoreTools] = {}
    for one in tools:
        key = b"".join(map(bytes, one.tools)), one.found
        kept.pop(key, None)
        kept[key] = one.kept()
    return kept.values()


def _by_id(record: ResponseRecord) -> dict[str, msgspec.Raw]:
    raws = (*stored_input.identified(record.input, record.id), *records.output_raws(record.response))
    return {fields.id: raw for raw in raws if (fields := parse_item(raw, "")).id}
