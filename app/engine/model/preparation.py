"""Prepares a request for one upstream: context, thinking, and what the gateway must enforce itself there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import msgspec

from app.engine.conversation.context import Context, last_user
from app.engine.conversation.exchanges import LISTING, listings, said
from app.engine.conversation.history import Earlier, View, join
from app.engine.conversation.items import Item
from app.engine.conversation.media import Media
from app.engine.conversation.sealing import Sealer
from app.engine.conversation.transcript import Transcript
from app.engine.hosted.catalog import Entry
from app.engine.hosted.native import UpstreamConditions
from app.engine.hosted.sessions import FinishedCall, Hosted, OfferedTools, missing_server
from app.engine.model.reading import Reader, ReadingOptions
from app.engine.model.sampling import check_sampling
from app.engine.model.upstream_traits import Thoughts
from app.engine.request import thinking
from app.engine.request.admission import Admitted
from app.engine.request.thinking import Decision
from app.engine.request.toolset import Toolset
from app.protocol.messages import FunctionTool, ToolResult
from app.protocol.recovery.names import resolve
from app.protocol.recovery.thinking import Unopened
from app.protocol.wire import ids
from app.protocol.wire.errors import InvalidRequest
from app.providers.base import Capabilities, ForcedCall, JsonObject, JsonSchema, ModelCall, Provider

_VERBOSITY = {"low": "Keep the answer short.", "medium": "", "high": "Answer in detail."}
"""`text.verbosity` as an instruction, since Qwen has no parameter for it."""
_NO_TOOLS = OfferedTools()

Host = Callable[[Sequence[Entry]], Hosted]
"""Creates the run's built-in tools from entries."""


class GatewayChecks(msgspec.Struct, frozen=True):
    """What the upstream does not enforce, so the gateway checks it."""

    forced: ForcedCall | None = None
    """A forced call that the model is only instructed to make."""
    format: JsonSchema | JsonObject | None = None
    """The answer's format; always checked, even if it is enforced elsewhere."""
    withheld: frozenset[str] = frozenset()
    """The client's functions that `tool_choice` does not allow, by their upstream names."""
    enforced: bool = False
    """The upstream has promised to enforce the whole format."""


class Prepared(msgspec.Struct, frozen=True):
    """Everything about the request that depends on the upstream."""

    provider: Provider
    tools: Toolset
    """Including those that the conversation adds."""
    call: ModelCall
    decision: Decision
    checks: GatewayChecks
    view: View
    context: Context
    items: Sequence[Item]
    """The request's items, without those already in the context."""
    transcript: Transcript
    can: Capabilities
    warnings: tuple[str, ...]
    streamed: bool
    """The client reads the answer as it comes.

    A background run asks its upstream for a stream in any case: if it is cancelled, what there is of the answer is
    kept.
    """
    hosted: frozenset[str] = frozenset()
    """Names of the functions that are run here."""
    resumed: Sequence[FinishedCall] = ()
    """Approved calls, which have already run."""

    def function(self, written: str) -> str | None:
        """The offered function that the model means; None: there is none.

        Functions run here stay known when they are no longer offered.
        """
        if written in self.hosted or any(tool.name == written for tool in self.call.tools):
            return written
        return resolve(written, {*self.hosted, *(tool.name for tool in self.call.tools)}, self.tools.targets)

    def reader(self, thoughts: Thoughts | None, *, held: bool) -> Reader:
        """The reader for one turn of this call.

        `thoughts`: how thinking was seen in answers of this upstream and model; `held`: the text is not passed on
        before it is complete.
        """
        functions = {tool.name: tool.parameters for tool in self.call.tools}
        free = self.checks.format is None  # JSON in the requested format is extracted where the format is checked
        off = free and self.decision.enabled is False
        return Reader(
            ReadingOptions(self._unopened(thoughts, held=held), off, functions, bare_calls=free, resolve=self.function)
        )

    def _unopened(self, thoughts: Thoughts | None, *, held: bool) -> Unopened:
        """Whether the answer may begin inside the thinking.

        Answers that are not streamed are held in any case, and so is text that has to be checked: there thinking is
        always looked for, whatever the upstream promises. A streamed answer is held until upstream and model have been
        seen to begin with the answer, separately for thinking on and off; requested thinking is looked for until it has
        come in a field of its own. If nothing is known of the model and nothing was requested, streams are held once a
        leak was seen. If a stream leaks nevertheless, only the tag is removed, since its text has been sent; from then
        on streams are held again.
        """
        enabled = self.decision.enabled
        if self.can.can_think is False:
            return "unlikely"
        # Separate thinking although it is off shows that the upstream ignores the switch, not where the next thinking
        # will be.
        separates = self.can.reasoning_field or (thoughts == "apart" and enabled is not False)
        harmless = enabled is None if thoughts is None else thoughts == "none" and not self.decision.explicit
        flows = self.streamed and not held
        if flows and (separates or harmless) and thoughts != "unopened":
            return "unlikely"
        return "likely" if enabled is True and not separates else "possible"


class ProjectServices(msgspec.Struct, frozen=True):
    """The project of the request, and its services."""

    project_id: str
    history: Earlier
    sealer: Sealer
    media: Media


class _Setting(msgspec.Struct, frozen=True):
    """The chosen upstream and model, with what depends on them."""

    provider: Provider
    model: str
    can: Capabilities
    decision: Decision
    context: Context
    offer: OfferedTools


class Preparation:
    """Prepares one admitted request, for each upstream that is tried."""

    def __init__(
        self, admitted: Admitted, items: Sequence[Item], tenant: ProjectServices, hosted: Hosted | None
    ) -> None:
        self._admitted = admitted
        self._items = items
        self._project_id = tenant.project_id
        self._history = tenant.history
        self._sealer = tenant.sealer
        self._media = tenant.media
        self._requested = admitted
        self.hosted = hosted
        """Built-in tools, if there are any."""

    def check(self, provider: Provider, model: str) -> Decision:
        """What can be decided without the conversation and the tools. Raises InvalidRequest."""
        can = provider.capabilities(model)
        check_sampling(self._requested.sampling, can, provider.dialect)
        return thinking.decide(self._requested.request, can, excluded=_excludes_thinking(self._requested, can))

    async def prepare(
        self, provider: Provider, model: str, now: int, host: Host | None = None, *, runs_approved: bool = True
    ) -> Prepared:
        """The request for `provider`, which knows the model as `model`. Raises InvalidRequest.

        `host` provides built-in tools that the conversation adds. `runs_approved`: calls that the client has approved
        are run first, since the model reads their results; otherwise those are empty.
        """
        can, requested = provider.capabilities(model), self._requested
        check_sampling(requested.sampling, can, provider.dialect)
        view = self._view(provider, can)
        context, items, transcript = await self._conversation(view, now)
        admitted = self._admitted = self._with_tools(transcript, host)
        decision = thinking.decide(admitted.request, can, excluded=_excludes_thinking(admitted, can))
        offer = await self._offer(transcript, can, thinks=decision.enabled is True)
        resumed = await self._resume(transcript, run=runs_approved)
        transcript.close()
        await view.load_media(transcript, items)
        if requested.large:
            await _yield_to_others()
        call, checks = self._call(transcript, _Setting(provider, model, can, decision, context, offer))
        if requested.large:
            await _yield_to_others()
        return Prepared(
            provider,
            admitted.tools,
            call,
            decision,
            checks,
            view,
            context,
            items,
            transcript,
            can,
            self._warnings(transcript),
            requested.stream,
            frozenset([function.name for function in offer.functions]),
            resumed,
        )

    def _view(self, provider: Provider, can: Capabilities) -> View:
        model = self._requested.model
        # The view outlives the request, so it must not refer to this object.
        unseal = partial(self._sealer.open, project_id=self._project_id, model=model)
        return View(self._project_id, provider, can, model, unseal, self._media)

    async def _conversation(self, view: View, now: int) -> tuple[Context, Sequence[Item], Transcript]:
        """The context, the request's items without those already in it, and the whole conversation."""
        context = await self._history.context(view, self._requested.request.previous_response_id, now)
        if self._requested.large:
            await _yield_to_others()
        return context, *self._read(view, context)

    def _read(self, view: View, context: Context) -> tuple[Sequence[Item], Transcript]:
        """The request's items, without those already in the context, and the conversation with them."""
        continued = context.turns or context.item_ids
        items = tuple(item for item in self._items if not _repeated(item, context)) if continued else self._items
        transcript = view.transcript(context)
        transcript.add(
            [(item.place, one) for item in items if (one := said(item.raw, item.fields, item.place)) is not None]
        )
        sent = [(item.raw, item.fields) for item in items if item.fields.type == LISTING]
        if sent:
            transcript.notes.update(listings(sent))
        return items, transcript

    def _with_tools(self, transcript: Transcript, host: Host | None) -> Admitted:
        admitted = self._requested
        if transcript.tools:
            admitted = msgspec.structs.replace(admitted, tools=admitted.tools_with(transcript.tools))
        elif admitted.tools.unmet is not None:
            raise admitted.tools.unmet
        entries = admitted.tools.hosted
        if self.hosted is not None:
            self.hosted.entries = entries
        elif entries and host is not None:
            self.hosted = host(entries)
        return admitted

    def _call(self, transcript: Transcript, setting: _Setting) -> tuple[ModelCall, GatewayChecks]:
        admitted, request, can, messages = self._admitted, self._admitted.request, setting.can, transcript.messages
        thinks = setting.decision.enabled is True
        closed = last_user(messages)
        earlier = (
            setting.provider.encode_messages(messages[:closed], reasoning=can.preserves_thinking) if closed else b""
        )
        enforced = self._enforced_format(can, thinks=thinks)
        tools = (*admitted.tools.functions, *setting.offer.functions)
        forced, checks = self._checks(can, enforced, tools, thinks=thinks)
        in_words = admitted.format is not None and enforced != "whole"
        call = ModelCall(
            model=setting.model,
            system=self._system(transcript, None if forced else checks.forced, in_words=in_words),
            prefix=join(setting.context.prefix, earlier),
            messages=messages[closed:],
            tools=tools,
            native_tools=setting.offer.native,
            forced_call=forced,
            parallel_tool_calls=request.parallel_tool_calls is not False,
            format=admitted.format if enforced else None,
            sampling=admitted.sampling,
            thinking=setting.decision.thinking,
            stream=admitted.stream or admitted.background,
            user=request.user or request.safety_identifier,
            prompt_cache_key=request.prompt_cache_key,
        )
        return call, checks

    async def _offer(self, transcript: Transcript, can: Capabilities, *, thinks: bool) -> OfferedTools:
        """What the built-in tools offer."""
        if self.hosted is None:
            return _NO_TOOLS
        limited = self._admitted.request.max_tool_calls is not None
        where = UpstreamConditions(can, thinks, self._admitted.tools.forced is not None, limited)
        transcript.images = await self._media.images(self._project_id, transcript.images)
        return await self.hosted.offer(where, transcript.notes, transcript.images)

    async def _resume(self, transcript: Transcript, *, run: bool) -> Sequence[FinishedCall]:
        """Run the calls that the client has approved, or give them empty results."""
        if not run:
            for call in transcript.approved:
                transcript.answer(ToolResult(call.call_id, ""))
        if not (run and transcript.approved):
            return ()
        if self.hosted is None:
            raise missing_server()
        ran = await self.hosted.resume(transcript.approved)
        for one in ran:
            transcript.answer(one.result)
        return ran

    def _enforced_format(self, can: Capabilities, *, thinks: bool) -> Literal["whole", "json", None]:
        """How much of the format the upstream's decoder enforces: all of it, only that it is JSON, or nothing."""
        if self._admitted.format is None or (thinks and not can.formats_while_thinking):
            return None
        kind = "json_schema" if isinstance(self._admitted.format, JsonSchema) else "json_object"
        if kind in can.formats:
            return "whole"
        return "json" if "json_object" in can.formats else None

    def _checks(
        self, can: Capabilities, enforced: str | None, tools: Sequence[FunctionTool], *, thinks: bool
    ) -> tuple[ForcedCall | None, GatewayChecks]:
        wanted, answer = _demanded(self._admitted.tools.forced, tools), self._admitted.format
        checks = GatewayChecks(wanted, answer, self._admitted.tools.withheld, enforced == "whole")
        if wanted is None or (thinks and not can.forced_calls_while_thinking):
            return None, checks
        kind = "named" if wanted.name else "required"
        if kind not in can.forced_calls and len(tools) == 1:
            # If only one function is offered, forcing it and forcing any are the same.
            wanted, kind = (ForcedCall(), "required") if wanted.name else (ForcedCall(tools[0].name), "named")
        return wanted if kind in can.forced_calls else None, checks

    def _system(self, transcript: Transcript, forced: ForcedCall | None, *, in_words: bool) -> str | None:
        parts = [self._admitted.request.instructions or "", *transcript.system]
        text = self._admitted.request.text
        if text is not None and text.verbosity is not None:
            parts.append(_VERBOSITY[text.verbosity])
        if in_words:
            parts.append(_format_in_words(self._admitted.format))
        if forced is not None:
            parts.append(forced_in_words(forced))
        return "\n\n".join(part for part in parts if part) or None

    def _warnings(self, transcript: Transcript) -> tuple[str, ...]:
        warnings = left_out_of(self._admitted)
        if transcript.dropped_thinking:
            warnings += ("encrypted reasoning of another server or model was left out",)
        return warnings


def left_out_of(admitted: Admitted) -> tuple[str, ...]:
    """A warning for each tool of the request that is not served."""
    return tuple(f"tool '{kind}' is not served and was left out" for kind in admitted.tools.left_out)


async def _yield_to_others() -> None:
    """Let other requests' tokens be sent between two steps of a large one.

    No state that they could change is used across it.
    """
    await asyncio.sleep(0)


def _excludes_thinking(admitted: Admitted, can: Capabilities) -> bool:
    forced = admitted.tools.forced is not None and not can.forced_calls_while_thinking
    return forced or (admitted.format is not None and not can.formats_while_thinking)


def _demanded(forced: ForcedCall | None, tools: Sequence[FunctionTool]) -> ForcedCall | None:
    """The forced call, if it can be made: what an MCP server offers is known only now. Raises InvalidRequest."""
    if forced is None or not tools:
        return None
    if forced.name is not None and all(tool.name != forced.name for tool in tools):
        message = "'tool_choice' demands a tool that its MCP server does not offer, or that 'allowed_tools' leaves out."
        raise InvalidRequest(message, code="invalid_value", param="tool_choice")
    return forced


def forced_in_words(forced: ForcedCall) -> str:
    """The instruction to make the call, for the model."""
    if forced.name:
        return f"You must call the function '{forced.name}'."
    return "You must call at least one of the functions."


def _format_in_words(wanted: JsonSchema | JsonObject | None) -> str:
    if isinstance(wanted, JsonSchema):
        description = f" ({wanted.description})" if wanted.description else ""
        return (
            f"Answer with one JSON value and nothing else. It must match this JSON "
            f"Schema{description}:\n{bytes(wanted.schema).decode()}"
        )
    return "Answer with one JSON object and nothing else."


def _repeated(item: Item, context: Context) -> bool:
    """Whether the client sends an item again that the chain or conversation already contains."""
    location = ids.locate(item.fields.id) if item.fields.id else None
    return location is not None and (location.response_id in context.turns or item.fields.id in context.item_ids)


def estimated_size(call: ModelCall) -> int:
    """Approximate size of the model's input, in bytes of JSON."""
    return len(call.prefix) + len(msgspec.json.encode((call.system, call.messages)))
