"""One turn of the model: the call, its answer cleaned and checked, and a second try where that is still possible."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing, suppress

import msgspec

from app.engine.preparation import Prepared, forced_in_words
from app.engine.routing import Started
from app.engine.structured import Validator, extract_json
from app.engine.upstream_traits import UpstreamTraits
from app.protocol.arguments import InvalidArguments
from app.protocol.assembler import Assembler
from app.protocol.deltas import CallArguments, CallOpened, Delta, Refusal, Text
from app.protocol.items import MessageItem, OutputText, ReasoningItem
from app.providers.base import JsonSchema, ModelCall

Reopen = Callable[[ModelCall], Awaitable[Started]]


class ModelFailure(Exception):
    """The model did not do what the request demands, also when told again."""


class Gate:
    """Holds text back until it has been checked, where a second try must stay possible."""

    def __init__(self, prepared: Prepared, validator: Validator) -> None:
        self._duties = prepared.duties
        self._validator = validator
        self._holding = prepared.duties.holds_text
        self._idle = not (self._holding or prepared.duties.format or prepared.duties.withheld)
        self._held: list[Delta] = []
        self._withheld: dict[int, str] = {}
        """Calls that `tool_choice` does not allow, by their number."""
        self._shown = False

    def let(self, batch: Sequence[Delta]) -> Sequence[Delta]:
        """What may go on now."""
        if self._idle:
            return batch
        through: list[Delta] = []
        for delta in batch:
            if isinstance(delta, CallOpened) and delta.name in self._duties.withheld:
                self._withheld[delta.index] = delta.name
            elif isinstance(delta, CallArguments) and delta.index in self._withheld:
                continue
            elif isinstance(delta, Text) and self._holding:
                self._held.append(delta)
            else:
                self._pass(delta, through)
        return through

    def verdict(self, assembler: Assembler) -> tuple[str | None, Sequence[Delta]]:
        """What is wrong with the turn (None: nothing), and the held text to let go on."""
        for name in self._withheld.values():
            return f"The model called the function '{name}', although 'tool_choice' does not allow it.", ()
        if assembler.finish_reason in ("length", "content_filter"):
            return None, self._held
        if self._duties.forced is not None:
            return (None if assembler.called else "The model did not call a function, although 'tool_choice' demands it."), self._held
        if self._duties.format is None or assembler.called:
            return None, self._held
        return self._check_format(assembler)

    @property
    def may_retry(self) -> bool:
        """Nothing but thinking has gone out."""
        return not self._shown

    def _pass(self, delta: Delta, through: list[Delta]) -> None:
        if isinstance(delta, CallOpened):
            # With a call the text is only what goes before it.
            self._holding = False
            through.extend(self._held)
            self._held = []
        self._shown = self._shown or isinstance(delta, Text | CallOpened | Refusal)
        through.append(delta)

    def _check_format(self, assembler: Assembler) -> tuple[str | None, Sequence[Delta]]:
        schema = bytes(self._duties.format.schema) if isinstance(self._duties.format, JsonSchema) else None
        text = "".join(delta.text for delta in self._held if isinstance(delta, Text)) if self._holding else _said(assembler)
        if text.strip() and not self._holding:
            return self._violation(text, schema), ()
        # Some servers put the JSON into the thinking, and models like to wrap it.
        candidates = (text, extract_json(text), None if text.strip() else extract_json(_thought(assembler)))
        for candidate in candidates:
            if candidate is not None and self._violation(candidate, schema) is None:
                return None, (self._held if candidate == text else [Text(candidate)])
        return self._violation(text, schema), ()

    def _violation(self, text: str, schema: bytes | None) -> str | None:
        violation = self._validator.violation(text, schema)
        return f"The model's answer does not match 'text.format': {violation}" if violation else None


class Surroundings(msgspec.Struct, frozen=True):
    """What a turn works with besides its call."""

    validator: Validator
    traits: UpstreamTraits
    reopen: Reopen
    publish: Callable[[], Awaitable[None]]
    """Called whenever the assembler may have something to send."""


async def run(prepared: Prepared, started: Started, assembler: Assembler, around: Surroundings) -> None:
    """Feed the turn into the assembler. Raises UpstreamError, ModelFailure and InvalidArguments."""
    complaint: str | None = None
    while True:
        gate = Gate(prepared, around.validator)
        await _read(prepared, started, gate, assembler, around)
        problem, released = gate.verdict(assembler)
        if problem is None:
            assembler.receive(released)
            assembler.end_turn()
            return
        if complaint is not None or not gate.may_retry:
            raise ModelFailure(problem)
        complaint = problem
        assembler.abandon_turn()
        started = await around.reopen(_again(prepared, complaint))


async def _read(prepared: Prepared, started: Started, gate: Gate, assembler: Assembler, around: Surroundings) -> None:
    """One answer of the upstream; the per-token path."""
    route, batch, rest = started
    upstream, enabled = route.provider.name, prepared.decision.enabled
    reader = prepared.reader(around.traits.thoughts(upstream, prepared.call, enabled=enabled))
    try:
        async with aclosing(rest):
            assembler.receive(gate.let(reader.read(batch)))
            await around.publish()
            async for batch in rest:
                assembler.receive(gate.let(reader.read(batch)))
                await around.publish()
    except BaseException:
        # What was held is the answer's also where it breaks off, but an open call cannot be ended by it.
        with suppress(InvalidArguments):
            assembler.receive(gate.let(reader.flush()))
        raise
    assembler.receive(gate.let(reader.flush()))
    around.traits.note(upstream, prepared.call, reader, enabled=enabled)


def _again(prepared: Prepared, complaint: str) -> ModelCall:
    call, forced = prepared.call, prepared.duties.forced
    demand = f" {forced_in_words(forced)}" if forced else ""
    reminder = f"Your last answer was refused: {complaint} Answer again, and keep to it.{demand}"
    return msgspec.structs.replace(call, system=f"{call.system}\n\n{reminder}" if call.system else reminder)


def _said(assembler: Assembler) -> str:
    assembler.close_item("completed")
    message = next((item for item in reversed(assembler.output) if isinstance(item, MessageItem)), None)
    return "".join(part.text for part in message.content if isinstance(part, OutputText)) if message else ""


def _thought(assembler: Assembler) -> str:
    assembler.close_item("completed")
    item = next((item for item in reversed(assembler.output) if isinstance(item, ReasoningItem)), None)
    if item is None:
        return ""
    return item.content[0].text if item.content else "".join(part.text for part in item.summary)
