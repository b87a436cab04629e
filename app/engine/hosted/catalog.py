"""The built-in tools of this installation: which exist, who runs each for which model, and what a call costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import msgspec

from app.protocol.wire.errors import InvalidRequest
from app.settings import ToolMode, ToolSettings
from app.tools.ports.tool import Missing, Price, Tool, ToolRequest, ToolSpec

_USUAL = ToolSettings()


class Entry(msgspec.Struct, frozen=True):
    """One entry of a request's `tools` that asks for a built-in tool."""

    type: str
    alias: str
    """The type as the client wrote it."""
    mode: ToolMode
    place: str
    raw: msgspec.Raw
    request: ToolRequest | None = None
    """None: it cannot run here, for the reason in `missing`; the upstream may have it."""
    missing: Missing | None = None

    @property
    def key(self) -> str:
        """Identifies it among the request's entries."""
        return f"{self.type}:{self.request.label}" if self.request is not None and self.request.label else self.type

    @property
    def echo(self) -> msgspec.Raw:
        """The entry as the response shows it."""
        return self.request.echo if self.request is not None else self.raw


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A tool as `GET /v1/tools` shows it."""

    type: str
    object: str = "tool"
    description: str
    mode: ToolMode
    available: bool
    """The tool runs here. Otherwise it may still run natively, at an upstream that has it."""
    setting: str | None = None
    """The setting to set if it is not available."""
    reason: str | None = None
    price: Price | None = None
    """Of a call that runs here."""
    native_price: Price | None = None
    """Of a call that Qwen's vendor runs."""
    example: msgspec.Raw
    details: Mapping[str, object] | None = None
    """Details of this tool, such as the strength of its sandbox."""


class Catalog:
    """Tools by type."""

    def __init__(
        self,
        specs: Sequence[ToolSpec],
        built: Mapping[str, Tool | Missing],
        settings: Mapping[str, ToolSettings],
        native_prices: Mapping[str, Price] | None = None,
    ) -> None:
        self._specs = {spec.type: spec for spec in specs}
        self._types = {alias: spec.type for spec in specs for alias in (spec.type, *spec.aliases)}
        self._built = built
        self._settings = settings
        self._native_prices = native_prices or {}

    def serves(self, tool_type: str) -> bool:
        """Whether there is such a built-in tool at all."""
        return tool_type in self._types

    def configure(self, tool_type: str, model: str, raw: msgspec.Raw, place: str) -> Entry:
        """The entry, checked. Raises InvalidRequest if it is invalid, disabled or can run nowhere."""
        name = self._types[tool_type]
        mode = self.mode(name, model)
        if mode == "off":
            message = (
                f"The tool '{tool_type}' is disabled for this model by the setting GATEWAY_TOOLS__{name.upper()}__MODE."
            )
            raise InvalidRequest(message, code="unsupported_tool", param=f"{place}.type")
        tool = self._built[name]
        if not isinstance(tool, Missing):
            return Entry(name, tool_type, mode, place, raw, tool.configure(raw, place))
        entry = Entry(name, tool_type, mode, place, raw, missing=tool)
        if mode == "gateway":
            raise unavailable(entry)
        return entry

    def mode(self, tool_type: str, model: str) -> ToolMode:
        """Who runs the tool for this model."""
        settings = self._settings.get(tool_type, _USUAL)
        if model in settings.models:
            return settings.models[model]
        for pattern, mode in settings.models.items():
            if fnmatchcase(model, pattern):
                return mode
        return settings.mode

    def list(self) -> Sequence[Listed]:
        """Every tool, with a working example."""
        return [self._listed(spec) for spec in self._specs.values()]

    async def described(self) -> Sequence[Listed]:
        """Every tool, with a working example and the details that it reports."""
        return [msgspec.structs.replace(listed, details=await self._details(listed)) for listed in self.list()]

    def price(self, tool_type: str) -> Price | None:
        """Of one call that runs here."""
        settings = self._settings.get(tool_type)
        if settings is not None and settings.price is not None:
            return Price(settings.price, settings.currency, "setting")
        return self._specs[tool_type].price

    async def aclose(self) -> None:
        """Release the tools' resources."""
        for tool in self._built.values():
            if not isinstance(tool, Missing):
                await tool.aclose()

    async def _details(self, listed: Listed) -> Mapping[str, object] | None:
        ask, tool = self._specs[listed.type].details, self._built[listed.type]
        return await ask(tool) if ask is not None and listed.available and not isinstance(tool, Missing) else None

    def _listed(self, spec: ToolSpec) -> Listed:
        mode, tool = self._settings.get(spec.type, _USUAL).mode, self._built[spec.type]
        missing = tool if isinstance(tool, Missing) else None
        return Listed(
            type=spec.type,
            description=spec.description,
            mode=mode,
            available=missing is None and mode != "off",
            setting=missing.setting if missing else None,
            reason=missing.reason if missing else None,
            price=self.price(spec.type),
            native_price=self._native_prices.get(spec.type),
            example=spec.example,
        )


def unavailable(entry: Entry) -> InvalidRequest:
    """The error for an entry that can run neither here nor at the upstream; names the setting."""
    missing = entry.missing
    why = "it runs only at the vendor's own service."
    if missing:
        why = f"the setting is {missing.setting}. {missing.reason}"
    message = f"The tool '{entry.alias}' is not available here: {why}"
    return InvalidRequest(message, code="unsupported_tool", param=f"{entry.place}.type")
