"""The items of a conversation, as they are stored and as the model reads them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import msgspec

from app.engine.conversation import client_calls, records
from app.engine.conversation.context import Context
from app.engine.conversation.exchanges import REQUEST, Approval, Exchange, Exchanges, decode, encode, said
from app.engine.conversation.function_names import upstream_name
from app.engine.conversation.history import View
from app.engine.conversation.items import Item, MoreTools
from app.engine.conversation.transcript import Transcript
from app.protocol.recovery.client_tools import CALLS
from app.protocol.wire import stored_input
from app.protocol.wire.errors import InvalidRequest, Locked, NotFound
from app.protocol.wire.requests import InputItem
from app.stores.ports.conversations import ConversationItem
from app.stores.ports.responses import ResponseRecord

_ASKING = frozenset({*client_calls.CALLS, *CALLS, REQUEST})
"""Items that the client has to answer."""
_LOCKED_SECONDS = 2.0
ADDRESSABLE = re.compile(r"[A-Za-z0-9_-]{1,128}")
"""An id that can stand in a URL."""


class _Head(msgspec.Struct, frozen=True):
    id: str
    type: str | None = None
    status: Any = None
    """Items of other servers may have any value here."""


_head = msgspec.json.Decoder(_Head).decode


async def context_of(view: View, items: Sequence[ConversationItem]) -> Context:
    """The conversation for a model, as it goes on with a request's items."""
    exchanges = Exchanges({}, {})
    for one in items:
        read = decode(one.exchange)
        exchanges.calls.update(read.calls)
        exchanges.notes.update(read.notes)
    transcript = view.transcript(Context())
    records.replay_items([msgspec.Raw(one.item) for one in items], exchanges, transcript)
    await view.load_media(transcript)
    context = view.settle(transcript, frozenset(), b"")
    return msgspec.structs.replace(context, item_ids=frozenset(one.id for one in items))


def stored(raws: Sequence[msgspec.Raw], batch_id: str) -> Sequence[ConversationItem]:
    """Items as they are stored; those without an id get one, made of `batch_id` (a UUID) and their position."""
    return _identified(stored_input.identified(stored_input.join(raws), batch_id))


def turn_of(record: ResponseRecord, exchanges: Exchanges, taken: Collection[str]) -> Sequence[ConversationItem]:
    """What a response adds: its input and its output; of one that failed or was cancelled, what has ended of it and
    needs no answer of a client that has not seen it.

    Input items whose ids the conversation has (`taken`), or cannot have, get new ones.
    """
    seen = set(taken)

    def keeps(item_id: str) -> bool:
        is_new = item_id not in seen and ADDRESSABLE.fullmatch(item_id) is not None
        seen.add(item_id)
        return is_new

    output = records.output_raws(record.response)
    if record.status not in ("completed", "incomplete"):
        output = tuple(raw for raw in output if _stands_alone(_head(raw)))
    items = _identified((*stored_input.identified(record.input, record.id, keeps), *output))
    read = [exchanges.calls.get(item.id) for item in items]
    return [
        ConversationItem(item.id, item.item, _exchange(item.id, call, exchanges if item is items[-1] else None))
        for item, call in zip(items, read, strict=True)
    ]


def _identified(raws: Sequence[msgspec.Raw]) -> list[ConversationItem]:
    return [ConversationItem(_head(raw).id, bytes(raw)) for raw in raws]


def _stands_alone(item: _Head) -> bool:
    return item.status in ("completed", None) and item.type not in _ASKING


def _exchange(item_id: str, call: Exchange | None, last: Exchanges | None) -> bytes | None:
    """What is stored beside an item; the `last` one of a turn has the notes of the tools."""
    return encode(Exchanges({} if call is None else {item_id: call}, {} if last is None else last.notes))


def check(items: Sequence[Item]) -> None:
    """Check items that are added to a conversation, each by itself. Raises InvalidRequest.

    What is wrong is said now: a turn that reads the item later could not.
    """
    for item in items:
        one = said(item.raw, item.fields, item.place)
        if one is None or isinstance(one, Approval):  # what it answers may be in the conversation
            continue
        transcript = Transcript(Context(), upstream_name, _sealed)
        transcript.add([*_asked(one), (item.place, one)])


def _asked(one: object) -> Iterator[tuple[str, InputItem]]:
    """The call that an item answers."""
    answer = one.result if isinstance(one, MoreTools) else one
    if isinstance(answer, InputItem) and answer.type in client_calls.OUTPUTS and answer.call_id:
        yield "", InputItem(type="function_call", call_id=answer.call_id, name="function", arguments="{}")


def _sealed(_content: str) -> None:
    """Whether thinking can be opened depends on the model that will read it."""


def not_found(conversation_id: str, param: str) -> NotFound:
    """The same error for unknown, expired, deleted and other projects' ids."""
    return NotFound(f"Conversation with id '{conversation_id}' not found.", code="conversation_not_found", param=param)


def locked(conversation_id: str) -> Locked:
    """Another response is being generated in the conversation."""
    message = (
        f"Another response is being generated in conversation '{conversation_id}'. Try again in a few seconds, when it "
        f"has ended."
    )
    return Locked(message, code="conversation_locked", param="conversation", retry_after=_LOCKED_SECONDS)


def full(conversation_id: str, param: str) -> InvalidRequest:
    """The conversation takes no more items."""
    message = f"Conversation '{conversation_id}' has as many items as it may have. Begin a new one."
    return InvalidRequest(message, code="conversation_full", param=param)
