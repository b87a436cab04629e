"""Decides which parts of a turn may be sent to the client, and checks the turn at its end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from app.engine.model.preparation import Prepared
from app.engine.request.structured import Validator, extract_json, last_object
from app.protocol.deltas import CallArguments, CallOpened, Delta, Reasoning, Refusal, Text, TurnFinished
from app.protocol.recovery.names import resolve
from app.protocol.stream.assembler import Assembler
from app.protocol.wire.tokens import TokenUsage
from app.providers.base import JsonSchema
from app.shortening import printable

_CUT_OFF = ("length", "content_filter")
_JSON_BEGINS = frozenset('{["-0123456789')
"""First characters of a formatted answer; without those of `true`, `false` and `null`, which may also begin prose."""
_THOUGHT_ENDS = "</think>"
_LONGEST_NAME = 64
"""Maximum length of an unknown name in a message."""


class RefusedCall(msgspec.Struct):
    """A call that is not shown to the client, because the function does not exist or `tool_choice` does not
    allow it.
    """

    index: int
    call_id: str
    name: str
    withheld: bool
    fragments: list[str]

    @property
    def arguments(self) -> str:
        """The arguments as the model wrote them."""
        return "".join(self.fragments)

    @property
    def complaint(self) -> str:
        """The reason, for the client and the model."""
        shown = printable(self.name[:_LONGEST_NAME])
        if self.withheld:
            return f"The model called the function '{shown}', although 'tool_choice' does not allow it."
        return f"The model called the function '{shown}', which was not offered to it."


class OutputFilter:
    """Filters one turn of the model before the assembler: `passed` for each batch, `check` at the end.

    Names in calls are corrected to the functions meant; a call of no known function is held back, and everything after
    it, so that the turn can be retried. Text is held until it has been checked if the request has requirements that the
    upstream does not enforce. `believed`: the upstream is known to keep the format, so that text beginning like JSON
    need not be held.
    """

    def __init__(self, prepared: Prepared, validator: Validator, *, believed: bool) -> None:
        checks = prepared.checks
        self._prepared = prepared
        self._checks = checks
        self._validator = validator
        self._holding = checks.forced is not None or checks.format is not None
        self._trusting = believed and prepared.streamed and checks.forced is None
        """Text is passed on as soon as it begins like JSON."""
        self._passes = not self._holding
        """Only calls have to be checked."""
        self._held: list[Delta] = []
        self._said: list[str] = []
        self._thought: list[str] = []
        self._called = False
        self._model_refuses = False
        self._refused_by_index: dict[int, RefusedCall] = {}
        """By index in the turn."""
        self.refused: list[RefusedCall] = []
        """Calls that are not shown to the client."""
        self.kept_format: bool | None = None
        """Whether the answer matched the format without correction; None: unknown."""

    @property
    def holds(self) -> bool:
        """Text is held until it is complete."""
        return self._holding and not self._trusting

    def passed(self, batch: Sequence[Delta]) -> Sequence[Delta]:
        """The deltas that may be passed on now; the per-token path."""
        if self._passes:
            for delta in batch:
                if type(delta) is CallOpened:
                    break
            else:
                return batch
        through: list[Delta] = []
        for delta in batch:
            self._sort(delta, through)
        return through

    def check(self, assembler: Assembler) -> tuple[str | None, Sequence[Delta]]:
        """What is wrong with the turn (None: nothing), and the held deltas that may be passed on now."""
        if assembler.finish_reason in _CUT_OFF:
            return None, self._held
        if self.refused:
            return self.refused[0].complaint, self._held
        if self._model_refuses or assembler.called:
            return None, self._held
        if self._checks.forced is not None:
            return "The model did not call a function, although 'tool_choice' demands it.", self._held
        if self._checks.format is None:
            return None, self._held
        return self._check_format()

    def _sort(self, delta: Delta, through: list[Delta]) -> None:
        if isinstance(delta, TokenUsage | TurnFinished):
            through.append(delta)
        elif isinstance(delta, CallOpened):
            self._open(delta, through)
        elif isinstance(delta, CallArguments) and delta.index in self._refused_by_index:
            self._refused_by_index[delta.index].fragments.append(delta.fragment)
        elif self.refused:
            self._held.append(delta)
        else:
            self._pass_words(delta, through)

    def _pass_words(self, delta: Delta, through: list[Delta]) -> None:
        if isinstance(delta, Reasoning):
            self._thought.append(delta.text)
        elif isinstance(delta, Text):
            self._said.append(delta.text)
            if self._trusting and (begun := delta.text.lstrip()):
                self._trusting = False
                if begun[0] in _JSON_BEGINS:
                    self._release(through)
            if self._holding:
                self._held.append(delta)
                return
        elif isinstance(delta, Refusal) and delta.text:
            self._model_refuses = True
            self._release(through)
        through.append(delta)

    def _open(self, delta: CallOpened, through: list[Delta]) -> None:
        prepared = self._prepared
        earlier = self._refused_by_index.get(delta.index)
        if earlier is not None and (earlier.name, earlier.call_id) == (delta.name, delta.call_id):
            return  # some servers repeat both with every fragment
        found = prepared.function(delta.name)
        beyond = self._called and not prepared.call.parallel_tool_calls  # the assembler drops it, whatever its name
        if found is None and not beyond:
            self._refuse_call(delta)
            return
        self._refused_by_index.pop(delta.index, None)
        if found is not None and found != delta.name:
            delta = msgspec.structs.replace(delta, name=found)
        self._called = True
        if self.refused:
            self._held.append(delta)
        else:
            # If there is a call, the text only precedes it.
            self._release(through)
            through.append(delta)

    def _refuse_call(self, delta: CallOpened) -> None:
        withheld = resolve(delta.name, self._checks.withheld, self._prepared.tools.targets) is not None
        call = RefusedCall(delta.index, delta.call_id, delta.name, withheld, [])
        self._refused_by_index[delta.index] = call
        self.refused.append(call)
        self._passes = False

    def _release(self, through: list[Delta]) -> None:
        self._holding = False
        through.extend(self._held)
        self._held = []

    def _check_format(self) -> tuple[str | None, Sequence[Delta]]:
        schema = bytes(self._checks.format.schema) if isinstance(self._checks.format, JsonSchema) else None
        text = "".join(self._said)
        violation = self._violation(text, schema)
        if text.strip():
            self.kept_format = violation is None
            if violation is None or not self._holding:
                return violation, self._held
        seen = {text.strip()}
        for candidate in _candidates_in_text(text) if text.strip() else _candidates_in_thinking("".join(self._thought)):
            if candidate is None or candidate in seen:
                continue
            if self._violation(candidate, schema) is None:
                return None, [Text(candidate)]
            seen.add(candidate)
        return violation, ()

    def _violation(self, text: str, schema: bytes | None) -> str | None:
        violation = self._validator.violation(text, schema)
        return f"The model's answer does not match 'text.format': {violation}" if violation else None


def _candidates_in_text(text: str) -> Iterator[str | None]:
    """Possible answers within a text: models often wrap them."""
    yield extract_json(text)
    _, tag, behind = text.rpartition(_THOUGHT_ENDS)
    if tag:
        yield extract_json(behind)


def _candidates_in_thinking(thought: str) -> Iterator[str | None]:
    """Possible answers within the thinking, where some servers put them."""
    yield extract_json(thought)
    yield last_object(thought)
