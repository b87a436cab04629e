"""Resolves function names that a model did not write as they were offered. Pure.

Functions of a namespace are offered as `namespace__name`, those of an MCP server as `mcp__label__tool`, reserved names
with a prefix. Models shorten and respell them: `name`, `namespace.name`, `label:tool`, `functions.name`, other case,
`-` for `_`, the name twice. Such a name is resolved if it can mean only one function; otherwise it is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from app.protocol.recovery.client_tools import CallTarget

_SEPARATORS = re.compile(r"[^a-z0-9]+")
_WRAPPERS = ("function", "functions", "tool", "tools", "default_api", "multi_tool_use", "namespace")
"""Prefixes that models invent."""
_JOINT = re.compile(r"[.:/]|__")
_WRAPPED = re.compile(rf"(?:{'|'.join(_WRAPPERS)})(?:{_JOINT.pattern})(?P<name>.+)", re.IGNORECASE | re.DOTALL)
_NUMBERED = re.compile(r"(?P<name>.+):\d+", re.DOTALL)
"""A name followed by the number of the call."""
_TWICE = re.compile(r"(?P<name>.+?)[._:/]{0,2}(?P=name)", re.DOTALL)
_UNSENDABLE = re.compile(r"[^A-Za-z0-9_-]")
_MCP = "mcp__"
_MOST_READINGS = 16
_LONGEST = 128
"""Maximum length of a name."""
_SENDABLE_LENGTH = 64


class _Function(msgspec.Struct, frozen=True):
    """An offered function, in the spellings that are compared."""

    upstream: str
    name: str
    """The client's or the tool's name for it."""
    namespace: str
    """The normalised namespace; "" for none."""
    own: str
    """The normalised name."""
    whole: str
    """Both, normalised."""
    offered: str
    """The upstream's name, normalised."""


def resolve(written: str, offered: Collection[str], targets: Mapping[str, CallTarget]) -> str | None:
    """The offered function that is meant; None: unclear or none. `targets` maps offered names to the client's tools."""
    if written in offered:
        return written
    if len(written) > _LONGEST:
        return None
    functions = [_read(name, targets.get(name)) for name in offered]
    for reading in _readings(written):
        folded = _fold(reading)
        for means in _RULES:
            found = [function.upstream for function in functions if means(reading, folded, function)]
            if found:
                return found[0] if len(found) == 1 else None
    return None


def may_become(begun: str, offered: Collection[str]) -> bool:
    """Whether a name with this beginning may be one that `resolve` finds. Fast; false positives are possible."""
    if not offered or len(begun) > _LONGEST:
        return False
    last = _squeezed(_JOINT.split(begun)[-1])
    return any(last in _squeezed(name) for name in offered) or any(
        wrapper.startswith(begun.lower()) for wrapper in _WRAPPERS
    )


def sendable_name(written: str) -> str:
    """The name in a form that every upstream accepts in a history: unknown functions may have any name."""
    return _UNSENDABLE.sub("_", written)[:_SENDABLE_LENGTH] or "_"


def _read(upstream: str, target: CallTarget | None) -> _Function:
    namespace, name = ("", upstream) if target is None else (target.namespace or "", target.name)
    if target is None and upstream.startswith(_MCP):
        label, _, tool = upstream.removeprefix(_MCP).partition("__")
        namespace, name = _MCP + label, tool
    return _Function(upstream, name, _fold(namespace), _fold(name), _fold(f"{namespace}_{name}"), _fold(upstream))


def _readings(written: str) -> Sequence[str]:
    """The name, and the name without what models add; the most literal first."""
    readings = [written]
    for reading in readings:  # the list grows meanwhile
        for addition in (_NUMBERED, _WRAPPED, _TWICE):
            match = addition.fullmatch(reading)
            if match and match["name"] not in readings and len(readings) < _MOST_READINGS:
                readings.append(match["name"])
    return readings


def _fold(name: str) -> str:
    return _SEPARATORS.sub("_", name.lower()).strip("_")


def _squeezed(name: str) -> str:
    """Without any separators."""
    return _fold(name).replace("_", "")


def _shortens_namespace(folded: str, function: _Function) -> bool:
    """Whether only part of the namespace is written:

    `agent.wait` for `multi_agent_v1__wait`, `label.tool` for `mcp__label__tool`.
    """
    head = folded.removesuffix(f"_{function.own}")
    if not function.namespace or head == folded:
        return False
    return f"_{head}_" in f"_{function.namespace}_"


_RULES: tuple[Callable[[str, str, _Function], bool], ...] = (
    lambda written, _, function: not function.namespace and written == function.name,
    lambda _, folded, function: folded in (function.whole, function.offered),
    lambda _, folded, function: folded.replace("_", "") == function.whole.replace("_", "") != "",
    lambda written, _, function: written == function.name,
    lambda _, folded, function: folded == function.own != "",
    lambda _, folded, function: _shortens_namespace(folded, function),
)
"""For the name as written and normalised, from the closest match to the loosest.

The first rule that matches any function decides.
"""
