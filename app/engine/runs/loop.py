"""The turns of one response: the model answers, its hosted calls run, and it is called again with their results until
it calls none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import msgspec

from app.engine.conversation.exchanges import APPROVAL
from app.engine.conversation.history import join
from app.engine.conversation.items import Item
from app.engine.hosted.sessions import FinishedCall, Hosted
from app.engine.model import turn
from app.engine.model.output_filter import RefusedCall
from app.engine.model.preparation import Prepared, forced_in_words
from app.engine.model.turn import TurnDependencies, functions_in_words
from app.engine.runs import progress
from app.engine.runs.progress import Note, Progress, Rounds
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

    def start(self, calls: int) -> Rounds:
        """Before the first turn; so many approved calls have already run."""
        left = None if self.calls is None else max(self.calls - calls, 0)
        return Rounds(self.rounds, left, self.tokens, offered=self.rounds > 0)

    def tokens_left(self, assembler: Assembler) -> int | None:
        """Tokens left for the next turn; None: there is no limit."""
        counted = assembler.usage.tokens
        if self.tokens is None or counted is None:
            return self.tokens
        return max(self.tokens - counted.output_tokens, 0)


def continued(prepared: Prepared, rounds: Rounds) -> Prepared:
    """The next call of a run that goes on after these rounds, which were done in another process."""
    if not rounds.said:
        return prepared
    said = rounds.said
    if not prepared.can.images:  # the upstream may be another one now
        said = tuple(message for message in said if not isinstance(message, User))
    return _continued(prepared, said, rounds.tokens_left, _offered(prepared, hosted=rounds.offered))


def approves(items: Sequence[Item]) -> bool:
    """Whether the client answers approval requests, so that calls may run before the model is called."""
    return any(item.fields.type == APPROVAL for item in items)


class Loop:
    """The loop of one response. `begin` or not, then `run`."""

    def __init__(
        self, prepared: Prepared, assembler: Assembler, hosted: Hosted, around: TurnDependencies, note: Note | None
    ) -> None:
        """`note` gets the progress before each further turn, and before calls that must not be made twice."""
        self._prepared = prepared
        self._assembler = assembler
        self._hosted = hosted
        self._around = around
        self._note = note
        self._noted = Progress()

    async def begin(self, rounds: Rounds) -> None:
        """Emit the items that precede the model's output: the tools' announcements, and approved calls, which have
        already run.
        """
        assembler, hosted, resumed = self._assembler, self._hosted, self._prepared.resumed
        for item in hosted.announcements:
            assembler.show_hosted(item, (), running=True, ended=True)
        shown: list[str] = []
        for ran in resumed:
            assembler.begin_hosted(hosted.item(ran.call), hosted.tool(ran.call))
            shown.append(_settle(ran, assembler))
        hosted.keep(resumed, shown, beside_client=False)
        if assembler.output:
            await self._keep(rounds)

    async def run(self, started: Started, rounds: Rounds, bounds: Bounds) -> None:
        """Run the turns and feed them into the assembler; `rounds` is what is left. Raises what a turn raises."""
        following = await self._turn(started, rounds, bounds)
        while following is not None:
            await self._keep(following)
            started = await self._around.reopen(self._prepared.call)
            following = await self._turn(started, following, bounds)

    async def _turn(self, started: Started, rounds: Rounds, bounds: Bounds) -> Rounds | None:
        """One turn and its calls; returns what is left if the model is to be called again, whose call is
        then prepared.
        """
        prepared, assembler = self._prepared, self._assembler
        spoken = len(assembler.output)
        unknown = await turn.run(prepared, started, assembler, self._around, tells=rounds.turns_left > 0)
        calls = assembler.hosted
        if not (calls or unknown):
            return None
        allowed = calls[: rounds.calls_left] if rounds.offered else ()
        ran = await self._run_calls(allowed, spoken)
        output = assembler.output[spoken:]
        if _is_last(rounds, output, unknown):
            return None
        left = rounds.after(len(ran), bounds.tokens_left(assembler))
        if left.tokens_left == 0:
            assembler.finish_reason = "length"
            return None
        tools = _offered(prepared, hosted=left.offered)
        not_run = [*_beyond_limit(calls[len(allowed) :]), *_corrections(unknown, tools, rounds.turns_left)]
        said = _said(output, ran, not_run, images=prepared.can.images)
        self._prepared = _continued(prepared, said, left.tokens_left, tools)
        assembler.begin_turn()
        return msgspec.structs.replace(left, said=(*rounds.said, *said))

    async def _run_calls(self, calls: Sequence[HostedCall], spoken: int) -> Sequence[FinishedCall]:
        """Run the calls in parallel; their items are emitted one after the other, in call order.

        The turn's other calls are skipped.
        """
        assembler, hosted, publish = self._assembler, self._hosted, self._around.publish
        await self._announce(calls)
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

    async def _keep(self, rounds: Rounds) -> None:
        if self._note is not None:
            self._noted = progress.of(self._assembler, rounds, self._hosted.state)
            await self._note(self._noted)

    async def _announce(self, calls: Sequence[HostedCall]) -> None:
        """Before calls that must not be made twice: whoever takes over then knows that they may have been made."""
        if self._note is not None and not all(map(self._hosted.may_repeat, calls)):
            await self._note(msgspec.structs.replace(self._noted, repeatable=False))


def _is_last(rounds: Rounds, output: Sequence[OutputItem], unknown: Sequence[RefusedCall]) -> bool:
    return _is_clients_turn(output, unknown) or rounds.turns_left == 0 or (rounds.told and not unknown)


def _is_clients_turn(output: Sequence[OutputItem], unknown: Sequence[RefusedCall]) -> bool:
    """Whether the client has to act first.

    Raises ModelFailure if there are `unknown` calls, which the model then could not be told of.
    """
    if not any(isinstance(item, _LEFT_UNDONE) for item in output):
        return False
    if unknown:
        raise ModelFailure(unknown[0].complaint)
    return True


def _settle(ran: FinishedCall, assembler: Assembler) -> str:
    """Emit the end of the call; returns its item's id."""
    place = len(assembler.output)
    assembler.settle_hosted(ran.item)
    return assembler.output[place].id


def _said(
    output: Sequence[OutputItem],
    ran: Sequence[FinishedCall],
    not_run: Sequence[tuple[Call, ToolResult]],
    *,
    images: bool,
) -> Sequence[Message]:
    """The turn as the model will read it: its output, its calls and their results.

    `images`: it accepts images from tools.
    """
    exchanges = [*((one.asked, one.result) for one in ran), *not_run]
    text = "".join(
        p.text for item in output if isinstance(item, MessageItem) for p in item.content if isinstance(p, OutputText)
    )
    reasoning = "\n".join(_thought(item) for item in output if isinstance(item, ReasoningItem))
    calls, results = tuple(call for call, _ in exchanges), [result for _, result in exchanges]
    return [
        Assistant(text, reasoning, calls),
        *results,
        *(_shown([image for one in ran for image in one.images]) if images else ()),
    ]


def _beyond_limit(ignored: Sequence[HostedCall]) -> Iterator[tuple[Call, ToolResult]]:
    """Calls beyond the limit, each with a result that says so."""
    for call in ignored:
        yield Call(call.call_id, call.name, sendable(call.arguments)), ToolResult(call.call_id, _NOT_RUN)


def _corrections(
    unknown: Sequence[RefusedCall], offered: Sequence[FunctionTool], turns_left: int
) -> Iterator[tuple[Call, ToolResult]]:
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


def _continued(
    prepared: Prepared, said: Sequence[Message], tokens: int | None, offered: Sequence[FunctionTool]
) -> Prepared:
    """The next turn's call. A forced call has been made by now."""
    call, checks = prepared.call, prepared.checks
    system = call.system
    if checks.forced is not None and system is not None:
        system = system.removesuffix(forced_in_words(checks.forced)).rstrip() or None
    following = msgspec.structs.replace(
        call,
        system=system,
        # each message is encoded once
        prefix=join(call.prefix, prepared.provider.encode_messages(call.messages, reasoning=True)),
        messages=tuple(said),
        tools=offered,
        forced_call=None,
        sampling=msgspec.structs.replace(call.sampling, max_output_tokens=tokens),
    )
    return msgspec.structs.replace(prepared, call=following, checks=msgspec.structs.replace(checks, forced=None))
