"""Tools that do what a test says, and a gateway's engine that runs them: everything but HTTP and the database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry

from app.engine.accounts.access import Principal
from app.engine.conversation.history import History
from app.engine.conversation.locks import ConversationLocks
from app.engine.conversation.sealing import Sealer
from app.engine.hosted.catalog import Catalog
from app.engine.metrics import Metrics
from app.engine.model.formats import Formats
from app.engine.model.upstream_traits import UpstreamTraits
from app.engine.runs.ports import Policy, Ports
from app.engine.runs.run import Run
from app.engine.runs.supervisor import Runs
from app.engine.upstreams.routing import Route, Router
from app.protocol.deltas import CallArguments, CallOpened, Delta, Text, TurnFinished
from app.protocol.messages import FunctionTool
from app.protocol.wire.hosted import HostedCall, HostedItem, McpApprovalRequest, McpCall, ToolCall
from app.protocol.wire.tokens import TokenUsage
from app.providers.base import Capabilities, ModelCall
from app.settings import Limits, ToolSettings
from app.stores.memory import MemoryResponseStore
from app.tools.ports.mcp_names import mcp_function
from app.tools.ports.tool import Missing, Tool, ToolContext, ToolOutcome, ToolRequest, ToolSpec
from tests.engine.foreground import NO_CONVERSATIONS, NoLog, NoRuns, foreground
from tests.engine.scripted import VALIDATOR, ScriptedProvider, Turn, no_media
from tests.support.judge import Judged, judge

Json = dict[str, Any]
Do = Callable[[HostedCall, ToolContext], Awaitable[ToolOutcome | str]]
OWNER = Principal("p", "k")
NOW = 1_700_000_000.0
USAGE = TokenUsage(10, 5, 15)
_PATIENCE = 10.0
"""For calls that never meet, so that a failure is no hang."""


async def _echo(call: HostedCall, _context: ToolContext) -> str:
    return f"echo of {call.arguments}"


def _tool_call(call: HostedCall) -> HostedItem:
    return ToolCall("", "in_progress", call.name, call.arguments)


class ScriptedTool:
    """A tool and its sessions in one: `do` is its work, `opener` makes its items. Its entries may carry a `label`."""

    def __init__(
        self,
        kind: str = "x_echo",
        *functions: str,
        do: Do = _echo,
        opener: Callable[[HostedCall], HostedItem] | None = None,
    ) -> None:
        self.kind = kind
        self.functions: Sequence[FunctionTool] = [
            FunctionTool(name) for name in functions or (kind.removeprefix("x_"),)
        ]
        self.announcements: Sequence[HostedItem] = ()
        self.note: str | None = None
        """Of every session that is opened."""
        self.native: msgspec.Raw | None = None
        self.aliases: tuple[str, ...] = ()
        self.do = do
        self.opener = opener or _tool_call
        self.repeatable = True
        self.calls: list[HostedCall] = []
        self.contexts: list[ToolContext] = []
        self.closed = 0

    @property
    def spec(self) -> ToolSpec:
        """As the catalogue takes it."""
        example = msgspec.Raw(json.dumps({"type": self.kind}).encode())
        return ToolSpec(
            type=self.kind,
            aliases=self.aliases,
            build=lambda _: self,
            example=example,
            description=f"Does {self.kind}.",
        )

    def configure(self, raw: msgspec.Raw, place: str) -> ToolRequest:
        """See `Tool`."""
        del place
        label = json.loads(bytes(raw)).get("label", "")
        return ToolRequest(self._open, raw, tuple(function.name for function in self.functions), label, self.native)

    async def aclose(self) -> None:
        """Both of the tool and of a session."""
        self.closed += 1

    async def _open(self, context: ToolContext) -> ScriptedTool:
        self.contexts.append(context)
        return self

    def item(self, call: HostedCall) -> HostedItem:
        """See `ToolSession`."""
        return self.opener(call)

    def may_repeat(self, call: HostedCall) -> bool:
        """See `ToolSession`."""
        del call
        return self.repeatable

    async def run(self, call: HostedCall) -> ToolOutcome:
        """See `ToolSession`."""
        self.calls.append(call)
        outcome = await self.do(call, self.contexts[-1])
        if isinstance(outcome, ToolOutcome):
            return outcome
        return ToolOutcome(
            text=outcome, item=msgspec.structs.replace(self.item(call), status="completed", output=outcome)
        )


def asking_tool(do: Do = _echo) -> ScriptedTool:
    """A remote tool whose calls need the client's consent."""

    def opener(call: HostedCall) -> HostedItem:
        if call.approval_request_id is None:
            return McpApprovalRequest("", "drop", "db", call.arguments)
        return McpCall("", "in_progress", "drop", "db", call.arguments, approval_request_id=call.approval_request_id)

    return ScriptedTool("mcp", mcp_function("db", "drop"), do=do, opener=opener)


def catalog(*tools: ScriptedTool, modes: Mapping[str, Any] | None = None, missing: Missing | None = None) -> Catalog:
    """These tools; with `missing` none of them can run here."""
    built: dict[str, Tool | Missing] = {tool.kind: missing or tool for tool in tools}
    settings = {kind: ToolSettings.model_validate(value) for kind, value in (modes or {}).items()}
    return Catalog([tool.spec for tool in tools], built, settings)


def calls(*wanted: str | tuple[str, Json | str], text: str = "") -> list[Sequence[Delta]]:
    """A turn in which the model calls, side by side."""
    deltas: list[Delta] = [Text(text)] if text else []
    for index, one in enumerate(wanted):
        name, arguments = (one, {}) if isinstance(one, str) else one
        written = arguments if isinstance(arguments, str) else json.dumps(arguments)
        deltas += [
            CallOpened(index, f"call_{index}", name),
            CallArguments(index, written[:3]),
            CallArguments(index, written[3:]),
        ]
    return [[*deltas, USAGE, TurnFinished("tool_calls")]]


def say(*texts: str) -> list[Sequence[Delta]]:
    """A turn in which the model answers."""
    return [*([Text(text)] for text in texts), [USAGE, TurnFinished("stop")]]


def read(call: ModelCall) -> list[Json]:
    """The messages of a call, as the upstream would read them."""
    encoded = msgspec.json.encode(list(call.messages))[1:-1]
    return json.loads(b"[" + b",".join(part for part in (call.prefix, encoded) if part) + b"]")


def results(call: ModelCall) -> list[str]:
    """The texts of the tool results in a call."""
    return [message["content"] for message in read(call) if message["type"] == "tool"]


class Engine:
    """The engine around scripted tools and a scripted model."""

    def __init__(
        self,
        *turns: Turn,
        tools: Sequence[ScriptedTool] = (),
        can: Capabilities | None = None,
        limits: Json | None = None,
        offered: Catalog | None = None,
    ) -> None:
        self.provider = ScriptedProvider(*turns, can=can)
        self.now = NOW
        self.metrics = Metrics()
        self.store = MemoryResponseStore(retention_seconds=1000)
        self.runs = Runs(10)
        self._limits = Limits(**{"context_cache_bytes": 1 << 20, **(limits or {})})
        self._catalog = offered or catalog(*tools)
        self.restart()

    def stay(self) -> None:
        """Nothing happens to it."""

    def restart(self) -> None:
        """Forget what is kept in memory: the next turn finds only what is stored."""
        ports = Ports(
            store=self.store,
            runs=NoRuns(),
            conversations=NO_CONVERSATIONS,
            locks=ConversationLocks(NO_CONVERSATIONS),
            log=NoLog(),
            history=History(self.store, self._limits.context_cache_bytes, shared=False),
            media=no_media(),
            router=Router([Route(self.provider)], {}, lambda _, __: None),
            sealer=Sealer(b"s" * 32),
            validator=VALIDATOR,
            traits=UpstreamTraits(),
            formats=Formats(),
            metrics=self.metrics,
            clock=lambda: self.now,
            catalog=self._catalog,
            policy=Policy(limits=self._limits, retention_seconds=100),
        )
        self.responses = foreground(ports, self.runs)

    @asynccontextmanager
    async def running(self, *, lenient: bool = False, **fields: Any) -> AsyncGenerator[Run]:
        """A run that is open, and closed in the end as the API does it."""
        body = json.dumps({"model": "m", "input": "hi", **fields}).encode()
        run = await self.responses.create(OWNER, body, lenient=lenient)
        self.runs.add(run)
        try:
            await run.open()
            yield run
        finally:
            self.runs.discard(run)
            await run.aclose()
        run.remember()

    async def stream(self, *, lenient: bool = False, **fields: Any) -> Judged:
        """The whole stream, held against the judge and, when it is stored, against its replay."""
        sent: list[bytes] = []

        async def send(frames: list[bytes]) -> None:
            sent.extend(frames)

        async with self.running(stream=True, lenient=lenient, **fields) as run:
            await run.stream(send)
        if fields.get("store", True):
            again = [frame async for batch in await self.responses.follow(OWNER, run.id, -1) for frame in batch]
            assert again == sent
        return judge(b"".join(sent))

    async def plain(self, *, lenient: bool = False, **fields: Any) -> Json:
        """The plain answer."""
        async with self.running(lenient=lenient, **fields) as run:
            return json.loads(await run.whole())

    async def output(self, **fields: Any) -> list[Json]:
        """The items of a stream."""
        items: list[Json] = (await self.stream(**fields)).events[-1]["response"]["output"]
        return items

    def counted(self, tool: str, status: str) -> float:
        """Calls of the tool that ended so, by the metrics."""
        scrape = CollectorRegistry()
        scrape.register(self.metrics.registry)
        return scrape.get_sample_value("gateway_tool_calls_total", {"tool": tool, "status": status}) or 0


def texts(items: Sequence[Json]) -> list[str]:
    """Each item in a word: a message's text, a call's arguments, else its type."""
    return [
        item["content"][0]["text"]
        if item["type"] == "message"
        else item["arguments"]
        if item["type"] == "x_tool_call"
        else item["type"]
        for item in items
    ]


class Side:
    """Calls that have to meet: each waits until all of them run."""

    def __init__(self, parties: int) -> None:
        self._barrier = asyncio.Barrier(parties)

    async def do(self, call: HostedCall, _context: ToolContext) -> str:
        """A tool's work."""
        async with asyncio.timeout(_PATIENCE):
            await self._barrier.wait()
        return f"met {call.arguments}"
