"""`code_interpreter`:

Python code, run in a sandbox that keeps variables and files across the turns of a conversation.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal, cast

import msgspec

from app.protocol.messages import FunctionTool
from app.protocol.stream.hosted_writer import StringMember
from app.protocol.wire.errors import ApiError, InvalidRequest, NotFound, Unavailable
from app.protocol.wire.hosted import CodeInterpreterCall, HostedCall, HostedItem, Logs, PlotImage
from app.protocol.wire.requests import parse_entry
from app.shortening import without_middle
from app.tools._once import Once
from app.tools.ports.containers import Containers, NewContainer
from app.tools.ports.tool import (
    ContainerFile,
    Missing,
    Price,
    Tool,
    ToolContext,
    ToolFailure,
    ToolOutcome,
    ToolRequest,
    ToolServices,
    ToolSession,
    ToolSpec,
)
from app.tools.sandbox.client import NotThere, Sandbox, SandboxRefused, SandboxUnavailable
from app.tools.sandbox.containers import MEMORY_LIMITS, SandboxContainers, new_container_id
from app.tools.sandbox.setting import confinement_in, sandbox_of
from sandbox.protocol import BASIC_PACKAGES, Confinement, FileInfo, RunResult

_ENTRY = msgspec.Raw(b'{"type":"code_interpreter"}')
_EXAMPLE = msgspec.Raw(b'{"type":"code_interpreter","container":{"type":"auto"}}')
_SPARE_SECONDS = 4.0
"""Reserved from a call's time, so that the sandbox stops the code before the gateway abandons the call."""
_LIST_BYTES = 4096
"""Reserved from the model's text for the list of files."""
_EXPIRED = "[The sandbox used before has expired: its variables and files are gone. This is a new one.]\n"
_IMAGES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg")
_FENCE = re.compile(r"\s*```(?:python|py)?[ \t]*\n(.*?)\n?```\s*", re.DOTALL)
_CODE_KEYS = ("code", "input", "source", "python")

_FUNCTION = FunctionTool(
    name="code_interpreter",
    description="Runs Python code in a sandbox.",
    parameters=msgspec.Raw(
        b'{"type":"object","properties":{"code":{"type":"string","description":"The Python code to '
        b'run."}},"required":["code"]}'
    ),
)
_DESCRIPTION = (
    "Runs Python code in a sandbox, as a notebook runs a cell: variables, imports and files stay for the next call, "
    "and the value of a last expression is shown. Installed are {packages}. There is no network, no package can be "
    "installed, and no program but Python started. The working directory is /mnt/data: files of the user are there, "
    "and files for the user have to be saved there; mention such a file in the answer as a link, "
    "[name](sandbox:/mnt/data/name). Print what you need to see. plt.show() saves the figure as a PNG file; Chinese "
    "needs no font settings."
)


def _function(packages: Sequence[str]) -> FunctionTool:
    """For a sandbox with these packages; if unknown, those that every sandbox has."""
    description = _DESCRIPTION.format(packages=", ".join(packages or BASIC_PACKAGES))
    return msgspec.structs.replace(_FUNCTION, description=description)


class _Policy(msgspec.Struct, frozen=True):
    type: str


class _Auto(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: Literal["auto"]
    file_ids: tuple[str, ...] = ()
    memory_limit: str | None = None
    network_policy: _Policy | None = None
    skills: tuple[msgspec.Raw, ...] = ()


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: str
    container: str | _Auto | None = None
    allowed_callers: tuple[Literal["direct"], ...] | None = None


class _Container(msgspec.Struct, frozen=True, kw_only=True):
    """Where the code of a response runs."""

    id: str
    wanted: NewContainer | None
    """How to create it if it does not exist; None: the client has named it."""
    there: bool
    lost: bool = False
    """It replaces one that has expired."""


class _Session:
    announcements: Sequence[HostedItem] = ()

    def __init__(
        self, tool: CodeInterpreter, context: ToolContext, container: _Container, packages: Sequence[str]
    ) -> None:
        self.functions: Sequence[FunctionTool] = (_function(packages),)
        self.note: str | None = None
        self._tool = tool
        self._context = context
        self._container_id = container.id
        self._wanted = container.wanted
        self._there = Once(object() if container.there else None)
        self._used = container.there or container.lost
        self._lost = container.lost
        """An earlier sandbox has expired, and the model has not been told yet."""
        self._in_order = asyncio.Lock()
        """Code runs in the order of the calls; an interpreter runs one piece of code at a time anyway."""

    def item(self, call: HostedCall) -> CodeInterpreterCall:
        return CodeInterpreterCall(
            id="", status="in_progress", container_id=self._container_id, code=_code(call.arguments)
        )

    def may_repeat(self, call: HostedCall) -> bool:
        """The first call in a container that is new: a repetition would get another one. There is no network."""
        del call
        return self._wanted is not None and not self._used

    async def run(self, call: HostedCall) -> ToolOutcome:
        code = _code(call.arguments)
        result = await self._run(code)
        files = [file for file in result.files if file.path.lower().endswith(_IMAGES)]
        outputs = [Logs(result.logs)] if result.logs else []
        images = [PlotImage(f"/v1/containers/{self._container_id}/files/{file.id}/content") for file in files]
        item = CodeInterpreterCall(
            id="", status="completed", container_id=self._container_id, code=code, outputs=(*outputs, *images)
        )
        return ToolOutcome(text=self._text(result), item=item, note=self._container_id)

    async def aclose(self) -> None:
        """The container outlives the response."""

    async def _run(self, code: str) -> RunResult:
        try:
            return await self._run_somewhere(code)
        except NotThere as error:
            raise ToolFailure("The container has expired; its variables and files are gone.") from error
        except SandboxRefused as error:
            raise ToolFailure(f"The code cannot be run: {error}.") from error
        except (SandboxUnavailable, Unavailable) as error:
            raise ToolFailure(f"Code cannot be run now. {error}") from error
        except ApiError as error:
            raise ToolFailure(error.message) from error

    async def _run_somewhere(self, code: str) -> RunResult:
        container = await self._open()
        async with self._in_order:
            try:
                return await self._run_inside(code)
            except NotThere:
                if self._wanted is None:
                    raise
                self._there.forget(container)
                await self._open()
                return await self._run_inside(code)

    async def _open(self) -> object:
        """The container, created if there is none; represented by a new object each time it is created."""
        async with self._there.turn() as container:
            if container is not None or self._wanted is None:
                return container
            self._lost = self._lost or self._used
            await self._tool.containers.open(
                self._context.project_id, self._container_id, self._wanted, "tools.container."
            )
            self._used = True
            return self._there.settle(object())

    async def _run_inside(self, code: str) -> RunResult:
        result = await self._tool.sandbox.run(self._context.project_id, self._container_id, code, self._tool.seconds)
        if self._lost:
            self._lost = False
            return msgspec.structs.replace(result, logs=_EXPIRED + result.logs)
        return result

    def _text(self, result: RunResult) -> str:
        """What the model reads."""
        logs = without_middle(result.logs, self._tool.text_bytes - _LIST_BYTES) or "(The code printed nothing.)\n"
        lines = [self._mention(file) for file in result.files]
        files = "\n".join(["", "Files made or changed:", *lines]) if lines else ""
        return f"{logs.rstrip()}\n{files}"[: self._tool.text_bytes]

    def _mention(self, file: FileInfo) -> str:
        name = PurePosixPath(file.path).name
        number = self._context.cite(ContainerFile(self._container_id, file.id, name, file.path))
        return f"[{number}] {name} ({file.bytes} bytes): [{name}](sandbox:{file.path})"


class CodeInterpreter:
    """The tool; `containers` is what `/v1/containers` serves."""

    def __init__(self, services: ToolServices, sandbox: Sandbox) -> None:
        limits = services.settings.limits
        self.sandbox = sandbox
        self.seconds = max(1.0, limits.tool_seconds - _SPARE_SECONDS)
        self.text_bytes = limits.tool_output_bytes
        self.containers = SandboxContainers(sandbox, services.files, limits.container_file_bytes)

    def configure(self, raw: msgspec.Raw, place: str) -> ToolRequest:
        """Check the entry and its `container`. Raises InvalidRequest naming the parameter."""
        entry = parse_entry(raw, _Entry, place)
        container = entry.container if entry.container is not None else _Auto("auto")
        if isinstance(container, _Auto):
            _check(container, f"{place}.container")
        plain = container == _Auto("auto")

        async def begin(context: ToolContext) -> ToolSession:
            return await self._open(context, container, f"{place}.container")

        echo: dict[str, Any] = {"type": "code_interpreter", "container": _shown(container)}
        echo_raw = msgspec.Raw(msgspec.json.encode(echo))
        return ToolRequest(open=begin, echo=echo_raw, names=(_FUNCTION.name,), native=_ENTRY if plain else None)

    async def aclose(self) -> None:
        """Close the connection; a sandbox service started by this gateway is stopped."""
        await self.sandbox.aclose()

    async def _open(self, context: ToolContext, container: str | _Auto, place: str) -> ToolSession:
        installed = await self.sandbox.packages()
        if isinstance(container, str):
            try:
                await self.containers.get(context.project_id, container)
            except NotFound as error:
                raise InvalidRequest(error.message, code="container_not_found", param=place) from error
            return _Session(self, context, _Container(id=container, wanted=None, there=True), installed)
        wanted = NewContainer(name="auto", file_ids=container.file_ids, memory_limit=container.memory_limit)
        note = context.note
        there = note is not None and await self._lives(context.project_id, note)
        container_id = note if there and note is not None else new_container_id()
        if container.file_ids:  # a missing file is the client's error, to be reported before the model answers
            await self.containers.open(context.project_id, container_id, wanted, f"{place}.")
        begun = _Container(
            id=container_id, wanted=wanted, there=there or bool(container.file_ids), lost=note is not None and not there
        )
        return _Session(self, context, begun, installed)

    async def _lives(self, project_id: str, container_id: str) -> bool:
        try:
            await self.containers.get(project_id, container_id)
        except NotFound:
            return False
        except Unavailable:  # the call will report it, if there is one
            return True
        return True


def _build(services: ToolServices) -> Tool | Missing:
    sandbox = sandbox_of(services.settings)
    return sandbox if isinstance(sandbox, Missing) else CodeInterpreter(services, sandbox)


async def _details(tool: Tool) -> Mapping[str, object]:
    found = await confinement_in(tool.sandbox) if isinstance(tool, CodeInterpreter) else ""
    return {"sandbox": found if isinstance(found, Confinement) else {"backend": None, "summary": found}}


def containers_of(tools: Iterable[Tool | Missing]) -> Containers | None:
    """The implementation of `/v1/containers`, if this tool is among them."""
    return next((tool.containers for tool in tools if isinstance(tool, CodeInterpreter)), None)


def _check(container: _Auto, place: str) -> None:
    if container.memory_limit is not None and container.memory_limit not in MEMORY_LIMITS:
        allowed = " and ".join(f"'{name}'" for name in MEMORY_LIMITS)
        param = f"{place}.memory_limit"
        raise InvalidRequest(f"Invalid '{param}': containers here have {allowed}.", code="invalid_value", param=param)
    if container.network_policy is not None and container.network_policy.type != "disabled":
        param = f"{place}.network_policy"
        raise InvalidRequest(f"Invalid '{param}': containers here have no network.", code="invalid_value", param=param)
    if container.skills:
        param = f"{place}.skills"
        raise InvalidRequest(f"'{param}' is not served by this gateway.", code="unsupported_parameter", param=param)


def _shown(container: str | _Auto) -> object:
    if isinstance(container, str):
        return container
    limit = {"memory_limit": container.memory_limit} if container.memory_limit is not None else {}
    return {"type": "auto", "file_ids": container.file_ids, **limit}


def _code(arguments: str) -> str:
    """The code, even if the model sent it without JSON, in a fence, or under another key."""
    try:
        given: Any = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        # nearly JSON, perhaps with raw line breaks: shown as it is; or not JSON at all
        given = StringMember("code").feed(arguments) or arguments
    if isinstance(given, dict):
        values = cast("dict[str, Any]", given)
        given = next((values[key] for key in _CODE_KEYS if isinstance(values.get(key), str)), "")
    text = given if isinstance(given, str) else arguments
    fenced = _FENCE.fullmatch(text)
    return fenced.group(1) if fenced is not None else text


TOOL = ToolSpec(
    type="code_interpreter",
    build=_build,
    example=_EXAMPLE,
    details=_details,
    description="Runs Python, with packages for data and charts, in a sandbox without network; files and plots it "
    "makes can be downloaded.",
    price=Price(0.0, note="runs on your own machine"),
)
