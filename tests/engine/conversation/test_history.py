"""What came before: from the store or from the cache, byte for byte the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from app.engine.conversation import records
from app.engine.conversation.context import Context, weight
from app.engine.conversation.exchanges import Exchanges
from app.engine.conversation.history import History, Recent, View, join
from app.engine.conversation.items import Item
from app.protocol.wire import ids
from app.protocol.wire.errors import InvalidRequest
from app.protocol.wire.requests import parse_item
from app.providers.base import Capabilities
from app.stores.memory import MemoryResponseStore
from app.stores.ports.responses import ResponseRecord
from tests.engine.scripted import ScriptedProvider, no_media

Json = dict[str, Any]
NOW = 1000
EXPIRY = 2000


def rid(number: int) -> str:
    return ids.response_id(number, bytes(9) + bytes([number]))


def item(value: Json, place: str = "input[0]") -> Item:
    raw = msgspec.Raw(json.dumps(value).encode())
    return Item(raw, parse_item(raw, place), place)


def user(text: str) -> Json:
    return {"role": "user", "content": text}


def answer(text: str, thought: str = "hm") -> list[Json]:
    return [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": thought}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text, "annotations": []}]},
    ]


CALL: list[Json] = [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}]
RESULT: Json = {"type": "function_call_output", "call_id": "c", "output": "42"}


class Chat:
    """Conversations in a store, with a history before it."""

    def __init__(self, *, cache: int = 1_000_000, shared: bool = False, preserves: bool = False) -> None:
        self.store = MemoryResponseStore(retention_seconds=100)
        self.provider = ScriptedProvider()
        self.history = History(self.store, cache, shared=shared)
        self.view = self.view_of("p", preserves=preserves)

    def view_of(self, project: str, *, preserves: bool = False) -> View:
        return View(project, self.provider, Capabilities(preserves_thinking=preserves), "m", lambda _: None, no_media())

    async def turn(
        self, number: int, previous: int | None, said: Sequence[Json], output: list[Json], *, remember: bool = True
    ) -> None:
        """One turn, as the engine makes it."""
        before = rid(previous) if previous is not None else None
        context = await self.history.context(self.view, before, NOW)
        transcript = self.view.transcript(context)
        items = [item(value) for value in said]
        transcript.add((one.place, one.fields) for one in items)
        transcript.close()
        named = [
            {"id": ids.item_id(ids.item_prefix(o["type"]), rid(number), i, output=True), **o}
            for i, o in enumerate(output)
        ]
        body = json.dumps({"output": named}).encode()
        stored, foreign = records.input_array(items)
        record = ResponseRecord(
            id=rid(number),
            project_id="p",
            previous_id=before,
            created_at=NOW,
            expires_at=EXPIRY,
            status="completed",
            model="m",
            response=body,
            input=stored,
            foreign_item_ids=foreign,
        )
        await self.store.save(record)
        if remember:
            records.continue_with(body, Exchanges(), transcript)
            turns = context.turns | {rid(number)}
            after = self.view.settle(transcript, turns, context.prefix, EXPIRY)
            recent = Recent(turns, EXPIRY, sum(map(weight, after.tail)) + len(after.prefix), lambda: after)
            self.history.remember(self.view, rid(number), recent, after=before)

    async def context(self, number: int, *, view: View | None = None, now: int = NOW) -> Context:
        return await self.history.context(view or self.view, rid(number), now)

    async def is_cached(self, number: int) -> bool:
        """Whether the context is kept ready: a kept one is the same object each time."""
        return await self.context(number) is await self.context(number)


TURNS: list[tuple[list[Json], list[Json]]] = [
    ([{"role": "developer", "content": "be kind"}, user("one")], answer("1")),
    ([user("two")], CALL),
    ([RESULT], [*answer("2"), *[{**CALL[0], "call_id": "d"}]]),
    ([user("two"), {**RESULT, "call_id": "d"}], answer("3")),
    ([{"role": "system", "content": "be brief"}, user("four")], answer("4")),
    ([*CALL, RESULT, user("five")], [{**CALL[0], "arguments": "{"}, CALL[0]]),
    (
        [{**RESULT, "output": "43"}, {**RESULT, "output": "44"}],
        [*answer("5"), {**CALL[0], "call_id": "e", "status": "incomplete"}],
    ),
    ([user("six")], answer("6")),
]


@pytest.mark.parametrize("preserves", [True, False])
@pytest.mark.parametrize("length", range(1, len(TURNS) + 1))
async def test_a_cached_context_is_the_one_the_store_gives(length: int, *, preserves: bool) -> None:
    chat = Chat(preserves=preserves)
    for number, (said, output) in enumerate(TURNS[:length]):
        await chat.turn(number, number - 1 if number else None, said, output)
    hit = await chat.context(length - 1)
    encoded = chat.provider.encoded
    assert await chat.context(length - 1) is hit
    assert chat.provider.encoded == encoded
    miss = await History(chat.store, 0, shared=False).context(chat.view, rid(length - 1), NOW)
    assert msgspec.structs.replace(hit, expires_at=0) == miss
    assert hit.turns == {rid(number) for number in range(length)}
    assert [hit.known.has_id(call_id) for call_id in "cde"] == [length > 1, length > 2, length > 6]


@pytest.mark.parametrize("preserves", [True, False])
@pytest.mark.parametrize("length", range(2, len(TURNS) + 1))
async def test_turns_that_another_process_has_made_are_added_to_a_cached_context(
    length: int, *, preserves: bool
) -> None:
    for made in range(1, length):
        here, there = Chat(shared=True, preserves=preserves), Chat(preserves=preserves)
        there.store = here.store
        there.history = History(here.store, 1_000_000, shared=True)
        for number, (said, output) in enumerate(TURNS[:length]):
            chat = here if number < made else there
            await chat.turn(number, number - 1 if number else None, said, output)
        found = await here.context(length - 1)
        whole = await History(here.store, 0, shared=True).context(here.view, rid(length - 1), NOW)
        assert msgspec.structs.replace(found, expires_at=0) == whole
        assert await here.is_cached(length - 1)


async def test_a_turn_costs_the_same_wherever_the_earlier_ones_were_made() -> None:
    """Three replicas that take turns encode each turn once each, not the conversation for each turn."""
    chats = [Chat(shared=True) for _ in range(3)]
    for chat in chats:
        chat.store = chats[0].store
        chat.history = History(chat.store, 1_000_000, shared=True)
    for number in range(60):
        previous = number - 1 if number else None
        await chats[number % 3].turn(number, previous, [user(f"q{number}")], answer(f"a{number}"))
    assert all(100 <= chat.provider.encoded <= 130 for chat in chats)


async def test_without_a_previous_response_there_is_nothing() -> None:
    assert await Chat().history.context(Chat().view, None, NOW) == Context()


async def test_every_turn_is_encoded_once() -> None:
    """Fifty turns cost what two cost, fifty times: no turn encodes the conversation again."""
    chat = Chat()
    for number in range(50):
        await chat.turn(number, number - 1 if number else None, [user(f"q{number}")], answer(f"a{number}"))
    assert 90 <= chat.provider.encoded <= 100


async def test_two_children_of_one_parent_do_not_see_each_other() -> None:
    chat = Chat()
    await chat.turn(0, None, [user("root")], answer("r"))
    await chat.turn(1, 0, [user("left")], answer("l"))
    await chat.turn(2, 0, [user("right")], answer("r"))
    left, right = [
        msgspec.json.encode((c.prefix.decode(), c.tail)) for c in (await chat.context(1), await chat.context(2))
    ]
    assert b"left" in left
    assert b"right" not in left
    assert b"right" in right
    assert b"left" not in right


async def test_a_spelling_of_the_id_does_not_matter() -> None:
    chat = Chat()
    await chat.turn(0, None, [user("root")], answer("r"))
    cached = await chat.context(0)
    assert await chat.history.context(chat.view, f"resp_{rid(0).replace('-', '')}", NOW) is cached


@pytest.mark.parametrize("remember", [True, False])
@pytest.mark.parametrize("given", ["nonsense", "", rid(9), f"resp_{rid(9)}"])
async def test_an_unknown_id_is_refused_in_the_words_of_the_api(given: str, *, remember: bool) -> None:
    chat = Chat()
    await chat.turn(0, None, [user("root")], answer("r"), remember=remember)
    with pytest.raises(InvalidRequest) as raised:
        await chat.history.context(chat.view, given, NOW)
    error = raised.value
    assert error.message == f"Previous response with id '{given}' not found."
    assert (error.status, error.code, error.param) == (400, "previous_response_not_found", "previous_response_id")


@pytest.mark.parametrize("remember", [True, False])
async def test_a_foreign_and_an_expired_id_are_unknown_ids(*, remember: bool) -> None:
    chat = Chat()
    await chat.turn(0, None, [user("root")], answer("r"), remember=remember)
    for asked in (chat.context(0, view=chat.view_of("other")), chat.context(0, now=EXPIRY)):
        with pytest.raises(InvalidRequest, match="not found"):
            await asked


async def test_a_deleted_turn_above_a_cached_context_breaks_the_chain() -> None:
    here, there = Chat(shared=True), Chat()
    there.store = here.store
    there.history = History(here.store, 1_000_000, shared=True)
    await here.turn(0, None, [user("root")], answer("r"))
    await here.turn(1, 0, [user("here")], answer("h"))
    await there.turn(2, 1, [user("there")], answer("t"))
    assert await here.store.delete("p", rid(0), NOW)
    with pytest.raises(InvalidRequest, match=f"'{rid(0)}', an earlier response"):
        await here.context(2)


@pytest.mark.parametrize("shared", [True, False])
async def test_a_deleted_ancestor_breaks_the_chain_and_is_named(*, shared: bool) -> None:
    chat = Chat(shared=shared)
    await chat.turn(0, None, [user("root")], answer("r"))
    await chat.turn(1, 0, [user("next")], answer("n"))
    assert await chat.store.delete("p", rid(0), NOW)
    if not shared:
        chat.history.forget(rid(0))
    with pytest.raises(InvalidRequest, match=f"'{rid(0)}', an earlier response") as raised:
        await chat.context(1)
    assert raised.value.code == "previous_response_not_found"


async def test_the_cache_is_bounded_and_keeps_what_was_used_last() -> None:
    chat = Chat(cache=10_000)
    for number in range(3):
        await chat.turn(number, None, [user("x" * 600)], answer("y"))
        await chat.context(0)
    assert [await chat.is_cached(number) for number in range(3)] == [True, False, True]


async def test_a_context_larger_than_the_cache_is_not_kept_and_leaves_no_trace() -> None:
    chat = Chat(cache=6000)
    await chat.turn(0, None, [user("x" * 5000)], answer("y"))
    await chat.turn(1, None, [user("x")], answer("y"))
    assert [await chat.is_cached(number) for number in range(2)] == [False, True]


async def test_the_parents_context_makes_room_for_the_childs() -> None:
    chat = Chat()
    await chat.turn(0, None, [user("a")], answer("b"))
    await chat.turn(1, 0, [user("c")], answer("d"))
    assert [await chat.is_cached(number) for number in range(2)] == [False, True]


@pytest.mark.parametrize("place", ["output", "input", "own"])
async def test_a_reference_is_replaced_by_its_item_in_its_place(place: str) -> None:
    chat = Chat()
    await chat.turn(0, None, [user("a"), {**user("b"), "id": "msg_own"}], answer("c"))
    wanted = {
        "output": ids.item_id("msg", rid(0), 1, output=True),
        "input": ids.item_id("msg", rid(0), 0, output=False),
        "own": "msg_own",
    }[place]
    given = [item(user("x")), item({"type": "item_reference", "id": wanted}, "input[1]"), item(user("y"))]
    first, found, last = await chat.history.resolve("p", given, NOW)
    assert (first, last) == (given[0], given[2])
    assert found.place == "input[1]"
    assert found.fields.id == wanted
    expected = {"output": '"c"', "input": '"a"', "own": '"b"'}[place]
    assert expected.encode() in bytes(found.raw)


async def test_without_references_nothing_is_looked_up() -> None:
    given = [item(user("x"))]
    assert await Chat().history.resolve("p", given, NOW) is given


@pytest.mark.parametrize(
    "wanted",
    ["msg_unknown", "", ids.item_id("msg", rid(0), 7, output=True), ids.item_id("msg", rid(8), 0, output=True)],
)
@pytest.mark.parametrize(("project", "now"), [("p", NOW), ("other", NOW), ("p", EXPIRY)])
async def test_a_reference_to_nothing_is_an_error(wanted: str, project: str, now: int) -> None:
    chat = Chat()
    await chat.turn(0, None, [user("a")], answer("c"))
    wanted = ids.item_id("msg", rid(0), 1, output=True) if (project, now) != ("p", NOW) else wanted
    with pytest.raises(InvalidRequest) as raised:
        await chat.history.resolve(project, [item({"type": "item_reference", "id": wanted})], now)
    assert raised.value.message.startswith(
        f"Item with id '{wanted}' not found. Items are not persisted when `store` is set to false."
    )
    assert (raised.value.param, raised.value.code) == ("input", None)


def test_joined_messages_have_one_comma_between_them() -> None:
    assert join(b"", b"{}", b"", b"[]") == b"{},[]"
    assert join() == b""
