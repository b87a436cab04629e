"""The turns of one response: the model answers, its hosted calls run, and it is called again with their results until it calls none."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence

import msgspec

from app.engine.conversation.history import join
from app.engine.hosted.sessions import FinishedCall, Hosted
from app.engine.model import turn
from app.engine.model.output_filter import RefusedCall
from app.engine.model.preparation import Prepared, forced_in_words
from app.engine.model.turn import TurnDependencies, functions_in_words
from app.engine.upstreams.failures import ModelFailure
from app.engine.upstreams.routing import Started
from app.protocol.messages import Assistant, Call, FunctionTool, ImagePart, Message, TextPart, ToolResult, User
from app.protocol.recovery.arguments import sendable
from app.protocol.recovery.names import sendable_name
from app.protocol.stream.assembler import Assembler
from app.protocol.wire.hosted import HostedCall, McpApprovalRequest
from app.protocol.wire.items import ClientCall, MessageItem, OutputItem, OutputText, ReasoningItem

_LEFT_UNDONE = ClientCall | McpApprovalRequest
"""Items that the client has to handle before the model can continue."""

_NOT_RUN = "This call was not made: no more tool calls are allowed for this answer. Answer with what you have."


class Bounds(msgspec.Struct, frozen=True):
    """The limits of a response."""

    rounds: int
    calls: int | None
    """`max_tool_calls`."""
    tokens: int | None = None
    """`max_output_tokens`, for all turns together, as far as the upstream reports usage."""


def begin(prepared: Prepared, assembler: Assembler, hosted: Hosted) -> None:
    """Emit the items that precede the model's output: the tools' announcements, and approved calls, which have already run."""
    for item in hosted.announcements:
        assembler.show_hosted(item, (), running=True, ended=True)
    shown: list[str] = []
    for ran in prepared.resumed:
        assembler.begin_hosted(hosted.item(ran.call), hosted.tool(ran.call))
        shown.append(_settle(ran, assembler))
    hosted.keep(prepared.resumed, shown, beside_client=False)


async def run(prepared: Prepared, started: Started, assembler: Assembler, hosted: Hosted, around: TurnDependencies, bounds: Bounds) -> None:
    """Run the turns and feed them into the assembler. Raises what a turn raises."""
    left = None if bounds.calls is None else max(bounds.calls - len(prepared.resumed), 0)
    offered, told = bounds.rounds > 0, False
    for turns_left in range(bounds.rounds, -1, -1):
        spoken = len(assembler.output)
        unknown = await turn.run(prepared, started, assembler, around, tells=turns_left > 0)
        calls = assembler.hosted
        if not (calls or unknown):
            return
        allowed = calls[:left] if offered else ()
        ran = await _run_calls(allowed, assembler, hosted, around.publish, spoken)
        output = assembler.output[spoken:]
        if _is_clients_turn(output, unknown) or turns_left == 0 or (told and not unknown):
            return
        told = not offered  # if the model calls a tool that is no longer offered, it is told once
        left = None if left is None else left - len(ran)
        tokens = _tokens_left(bounds, assembler)
        if tokens == 0:
            assembler.finish_reason = "length"
            return
        offered = turns_left > 1 and left != 0
        tools = _offered(prepared, hosted=offered)
        not_run = [*_beyond_limit(calls[len(allowed) :]), *_corrections(unknown, tools, turns_left)]
        prepared = _continued(prepared, _said(output, ran, not_run, images=prepared.can.images), tokens, tools)
        assembler.begin_turn()
        started = await around.reopen(prepared.call)


def _tokens_left(bounds: Bounds, assembler: Assembler) -> int | None:
    """Tokens left of `max_output_tokens`; None: there is no limit."""
    if bounds.tokens is None:
        return None
    counted = assembler.usage.tokens
    return bounds.tokens if counted is None else max(bounds.tokens - counted.output_tokens, 0)


def _is_clients_turn(output: Sequence[OutputItem], unknown: Sequence[RefusedCall]) -> bool:
    """Whether the client has to act first. Raises ModelFailure if there are `unknown` calls, which the model then could not be told of."""
    if not any(isinstance(item, _LEFT_UNDONE) for item in output):
        return False
    if unknown:
        raise ModelFailure(unknown[0].complaint)
    return True


async def _run_calls(
    calls: Sequence[HostedCall], assembler: Assembler, hosted: Hosted, publish: Callable[[], Awaitable[None]], spoken: int
) -> Sequence[FinishedCall]:
    """Run the calls in parallel; their items are emitted one after the other, in call order. The turn's remaining calls are skipped."""
    ran: list[FinishedCall] = []
    shown: list[str] = []
    failure: Exception | None = None
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(hosted.run(call)) for call in calls]
        try:
            for call, task in zip(calls, tasks, strict=True):
                item = hosted.item(call)
                assembler.begin_hosted(item, None if isinstance(item, McpApprovalRequest) else hosted.tool(call))
                await publish()
                ran.append(await task)
                shown.append(_settle(ran[-1], assembler))
                await publish()
        except Exception as error:  # noqa: BLE001 - raised below, where the group cannot wrap it
            failure = error
            for task in tasks:
                task.cancel()
    if failure is not None:
        raise failure
    for _ in assembler.hosted:
        assembler.skip_hosted()
    await publish()
    hosted.keep(ran, shown, beside_client=any(isinstance(item, ClientCall) for item in assembler.output[spoken:]))
    return ran


def _settle(ran: FinishedCall, assembler: Assembler) -> str:
    """Emit the end of the call; returns its item's id."""
    place = len(assembler.output)
    assembler.settle_hosted(ran.item)
    return assembler.output[place].id


def _said(
    output: Sequence[OutputItem], ran: Sequence[FinishedCall], not_run: Sequence[tuple[Call, ToolResult]], *, images: bool
) -> Sequence[Message]:
    """The turn as the model will read it: its output, its calls and their results. `images`: it accepts images from tools."""
    exchanges = [*((one.asked, one.result) for one in ran), *not_run]
    text = "".join(p.text for item in output if isinstance(item, MessageItem) for p in item.content if isinstance(p, OutputText))
    reasoning = "\n".join(_thought(item) for item in output if isinstance(item, ReasoningItem))
    calls, results = tuple(call for call, _ in exchanges), [result for _, result in exchanges]
    return [Assistant(text, reasoning, calls), *results, *(_shown([image for one in ran for image in one.images]) if images else ())]


def _beyond_limit(ignored: Sequence[HostedCall]) -> Iterator[tuple[Call, ToolResult]]:
    """Calls beyond the limit, each with a result that says so."""
    for call in ignored:
        yield Call(call.call_id, call.name, sendable(call.arguments)), ToolResult(call.call_id, _NOT_RUN)


def _corrections(unknown: Sequence[RefusedCall], offered: Sequence[FunctionTool], turns_left: int) -> Iterator[tuple[Call, ToolResult]]:
    """Calls of functions that do not exist, each with a result that says so."""
    for place, refused in enumerate(unknown):
        call = Call(f"call_unknown_{turns_left}_{place}", sendable_name(refused.name), sendable(refused.arguments))
        yield call, ToolResult(call.call_id, f"{refused.complaint} {functions_in_words(offered)}")


def _thought(item: ReasoningItem) -> str:
    return item.content[0].text if item.content else "".join(part.text for part in item.summary)


def _shown(images: Sequence[ImagePart]) -> Sequence[Message]:
    return [User((TextPart("Images that the tools returned:"), *images))] if images else []


def _offered(prepared: Prepared, *, hosted: bool) -> Sequence[FunctionTool]:
    """The next turn's functions: hosted ones are no longer offered in the last turn."""
    tools = prepared.call.tools
    return tools if hosted else [tool for tool in tools if tool.name not in prepared.hosted]


def _continued(prepared: Prepared, said: Sequence[Message], tokens: int | None, offered: Sequence[FunctionTool]) -> Prepared:
    """The next turn's call. A forced call has been made by now."""
    call, checks = prepared.call, prepared.checks
    system = call.system
    if checks.forced is not None and system is not None:
        system = system.removesuffix(forced_in_words(checks.forced)).rstrip() or None
    following = msgspec.structs.replace(
        call,
        system=system,
        prefix=join(call.prefix, prepared.provider.encode_messages(call.messages, reasoning=True)),  # each message is encoded once
        messages=tuple(said),
        tools=offered,
        forced_call=None,
        sampling=msgspec.structs.replace(call.sampling, max_output_tokens=tokens),
    )
    return msgspec.structs.replace(prepared, call=following, checks=msgspec.structs.replace(checks, forced=None))
