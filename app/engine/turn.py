"""One turn of the model: the call, its answer cleaned and checked, and a second try where that is still possible."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing

import msgspec

from app.engine.preparation import Prepared
from app.engine.routing import Started
from app.engine.structured import Validator, extract_json
from app.protocol.assembler import Assembler
from app.protocol.deltas import CallOpened, Delta, Text
from app.protocol.items import MessageItem, OutputText, ReasoningItem
from app.providers.base import JsonSchema, ModelCall

Reopen = Callable[[ModelCall], Awaitable[Started]]


class ModelFailure(Exception):
    """The model did not do what the request demands, also when told again."""


class Parsers:
    """Which upstreams were seen to separate thinking from the answer, by upstream and model."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, str]] = set()

    def known(self, upstream: str, model: str) -> bool:
        """Whether this one does."""
        return (upstream, model) in self._seen

    def note(self, upstream: str, model: str) -> None:
        """It does."""
        self._seen.add((upstream, model))


class Gate:
    """Holds text back until it has been checked, where a second try must stay possible."""

    def __init__(self, prepared: Prepared, validator: Validator) -> None:
        self._duties = prepared.duties
        self._validator = validator
        self._holding = prepared.duties.holds_text
        self._held: list[Delta] = []

    def let(self, batch: Sequence[Delta]) -> Sequence[Delta]:
        """What may go on now."""
        if not self._holding:
            return batch
        through: list[Delta] = []
        for delta in batch:
            if isinstance(delta, CallOpened):
                # With a call the text is only what goes before it.
                self._holding = False
                through.extend(self._held)
                self._held = []
            (self._held if self._holding and isinstance(delta, Text) else through).append(delta)
        return through

    def verdict(self, assembler: Assembler) -> tuple[str | None, Sequence[Delta]]:
        """What is wrong with the turn (None: nothing), and the held text to let go on."""
        if assembler.finish_reason in ("length", "content_filter"):
            return None, self._held
        if self._duties.forced is not None:
            return (None if assembler.called else "The model did not call a function, although 'tool_choice' demands it."), self._held
        if self._duties.format is None or assembler.called:
            return None, self._held
        return self._check_format(assembler)

    @property
    def may_retry(self) -> bool:
        """No text of this turn has gone out."""
        return self._holding

    def _check_format(self, assembler: Assembler) -> tuple[str | None, Sequence[Delta]]:
        schema = bytes(self._duties.format.schema) if isinstance(self._duties.format, JsonSchema) else None
        if not self._holding:
            assembler.close_item("completed")
            return self._violation(_said(assembler), schema), ()
        text = "".join(delta.text for delta in self._held if isinstance(delta, Text))
        # Some servers put the JSON into the thinking, and models like to wrap it.
        candidates = (text, extract_json(text), None if text.strip() else extract_json(_thought(assembler)))
        for candidate in candidates:
            if candidate is not None and self._violation(candidate, schema) is None:
                return None, (self._held if candidate == text else [Text(candidate)])
        return self._violation(text, schema), ()

    def _violation(self, text: str, schema: bytes | None) -> str | None:
        violation = self._validator.violation(text, schema)
        return f"The model's answer does not match 'text.format': {violation}" if violation else None


async def run(
    prepared: Prepared, started: Started, assembler: Assembler, validator: Validator, tools: tuple[Parsers, Reopen]
) -> AsyncGenerator[None, None]:
    """Feed the turn into the assembler; yields whenever there may be something to send.

    Raises UpstreamError, ModelFailure and InvalidArguments.
    """
    parsers, reopen = tools
    complaint: str | None = None
    while True:
        gate = Gate(prepared, validator)
        async with aclosing(_read(prepared, started, parsers)) as batches:
            async for batch in batches:
                assembler.receive(gate.let(batch))
                yield
        problem, released = gate.verdict(assembler)
        if problem is None:
            assembler.receive(released)
            assembler.end_turn()
            yield
            return
        if complaint is not None or not gate.may_retry:
            raise ModelFailure(problem)
        complaint = problem
        assembler.abandon_turn()
        yield
        started = await reopen(_again(prepared.call, complaint))


async def _read(prepared: Prepared, started: Started, parsers: Parsers) -> AsyncGenerator[Sequence[Delta], None]:
    route, batch, rest = started
    upstream, model = route.provider.name, prepared.call.model
    reader = prepared.reader(parses_thinking=parsers.known(upstream, model))
    async with aclosing(rest):
        yield reader.read(batch)
        async for batch in rest:
            yield reader.read(batch)
    yield reader.flush()
    if reader.reasoned:
        parsers.note(upstream, model)


def _again(call: ModelCall, complaint: str) -> ModelCall:
    reminder = f"Your last answer was refused: {complaint} Answer again, and keep to it."
    return msgspec.structs.replace(call, system=f"{call.system}\n\n{reminder}" if call.system else reminder)


def _said(assembler: Assembler) -> str:
    message = next((item for item in reversed(assembler.output) if isinstance(item, MessageItem)), None)
    return "".join(part.text for part in message.content if isinstance(part, OutputText)) if message else ""


def _thought(assembler: Assembler) -> str:
    assembler.close_item("completed")
    item = next((item for item in reversed(assembler.output) if isinstance(item, ReasoningItem)), None)
    if item is None:
        return ""
    return item.content[0].text if item.content else "".join(part.text for part in item.summary)
