"""One model turn: the call, cleaning and checking its answer, and a retry if that is still possible."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing, suppress

import msgspec

from app.engine.model.formats import Formats
from app.engine.model.output_filter import OutputFilter, RefusedCall
from app.engine.model.preparation import Prepared, forced_in_words
from app.engine.model.upstream_traits import UpstreamTraits
from app.engine.request.structured import Validator
from app.engine.upstreams.failures import ModelFailure
from app.engine.upstreams.routing import Route, Started
from app.protocol.messages import FunctionTool
from app.protocol.recovery.arguments import InvalidArguments
from app.protocol.stream.assembler import Assembler
from app.providers.base import ModelCall, UpstreamError

Reopen = Callable[[ModelCall], Awaitable[Started]]


class TurnDependencies(msgspec.Struct, frozen=True):
    """The dependencies of a turn besides its call."""

    validator: Validator
    traits: UpstreamTraits
    reopen: Reopen
    publish: Callable[[], Awaitable[None]]
    """Called whenever the assembler may have frames to send."""
    formats: Formats
    note_failure: Callable[[Route, UpstreamError], None]
    """Called with the route and the error when an answer breaks off."""


async def run(
    prepared: Prepared, started: Started, assembler: Assembler, around: TurnDependencies, *, tells: bool = False
) -> Sequence[RefusedCall]:
    """Feed the turn into the assembler. Raises UpstreamError, ModelFailure and InvalidArguments.

    `tells`: the model can be called again, and then told about calls of unknown functions, which are returned.
    """
    tried = False
    while True:
        output_filter = _output_filter(prepared, started, around)
        try:
            await _read(prepared, started, output_filter, assembler, around)
            problem, released = output_filter.check(assembler)
            if prepared.checks.enforced:
                _note_format(prepared, started, output_filter, around)
            if problem is None:
                assembler.receive(released)
                assembler.end_turn()
                return ()
            failure: ModelFailure | InvalidArguments = ModelFailure(problem)
        except InvalidArguments as error:
            failure, released = error, ()
        if not tried and assembler.may_abandon:
            tried = True
            assembler.abandon_turn()
            started = await around.reopen(_again(prepared, output_filter, str(failure)))
        elif (
            tells
            and isinstance(failure, ModelFailure)
            and output_filter.refused
            and not any(call.withheld for call in output_filter.refused)
        ):
            assembler.receive(released)
            assembler.end_turn()
            return output_filter.refused
        else:
            raise failure


def functions_in_words(offered: Sequence[FunctionTool]) -> str:
    """The available functions, for a model that called another."""
    names = [tool.name for tool in offered]
    return f"The functions are: {', '.join(names)}." if names else "There are no functions to call."


def _output_filter(prepared: Prepared, started: Started, around: TurnDependencies) -> OutputFilter:
    wanted, upstream = prepared.checks.format, started[0].provider.name
    believed = (
        wanted is not None
        and prepared.checks.enforced
        and around.formats.believed(upstream, prepared.call.model, wanted)
    )
    return OutputFilter(prepared, around.validator, believed=believed)


def _note_format(prepared: Prepared, started: Started, output_filter: OutputFilter, around: TurnDependencies) -> None:
    wanted, kept = prepared.checks.format, output_filter.kept_format
    if wanted is not None and kept is not None:
        around.formats.note(started[0].provider.name, prepared.call.model, wanted, kept=kept)


async def _read(
    prepared: Prepared, started: Started, output_filter: OutputFilter, assembler: Assembler, around: TurnDependencies
) -> None:
    """Read one answer of the upstream; the per-token path."""
    route, batch, rest = started
    upstream, enabled = route.provider.name, prepared.decision.enabled
    reader = prepared.reader(around.traits.thoughts(upstream, prepared.call, enabled=enabled), held=output_filter.holds)
    try:
        async with aclosing(rest):
            assembler.receive(output_filter.passed(reader.read(batch)))
            await around.publish()
            async for batch in rest:
                assembler.receive(output_filter.passed(reader.read(batch)))
                await around.publish()
    except BaseException as error:
        if isinstance(error, UpstreamError):
            around.note_failure(route, error)
        # Held text belongs to the answer even if it breaks off, but it must not close an open call.
        with suppress(InvalidArguments):
            assembler.receive(output_filter.passed(reader.flush()))
        raise
    assembler.receive(output_filter.passed(reader.flush()))
    around.traits.note(upstream, prepared.call, reader, enabled=enabled)


def _again(prepared: Prepared, output_filter: OutputFilter, complaint: str) -> ModelCall:
    call, forced = prepared.call, prepared.checks.forced
    demand = f" {forced_in_words(forced)}" if forced else ""
    known = f" {functions_in_words(call.tools)}" if output_filter.refused else ""
    reminder = f"Your last answer was refused: {complaint}{known} Answer again, and keep to it.{demand}"
    return msgspec.structs.replace(call, system=f"{call.system}\n\n{reminder}" if call.system else reminder)
