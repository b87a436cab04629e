"""The protocol core is a calculation: no I/O, no clock, no randomness, no library but msgspec."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator

import pytest

from tests.architecture.sources import MODULES, parse

CORE = [module for module in MODULES if module.startswith("app/protocol/")]
OUTSIDE_WORLD = {
    "asyncio", "concurrent", "contextvars", "http", "io", "logging", "multiprocessing", "os", "pathlib", "queue",
    "random", "secrets", "select", "selectors", "shutil", "signal", "socket", "sqlite3", "ssl", "subprocess",
    "tempfile", "threading", "time", "urllib", "uuid",
}  # fmt: skip
ALLOWED = (sys.stdlib_module_names - OUTSIDE_WORLD) | {"msgspec", "app.protocol"}
CLOCKS = {"now", "utcnow", "today"}


@pytest.mark.parametrize("module", CORE)
def test_core_imports_only_what_calculates(module: str) -> None:
    foreign = [name for name in _imports(parse(module)) if not _allowed(name)]

    assert not foreign, f"{module} imports {', '.join(foreign)}"


@pytest.mark.parametrize("module", CORE)
def test_core_neither_waits_nor_reads_clocks_or_files(module: str) -> None:
    assert not list(_effects(parse(module)))


@pytest.mark.parametrize("module", MODULES)
def test_sse_is_never_split_by_httpx_lines(module: str) -> None:
    """httpx splits lines on U+2028 too, which JSON may hold unescaped; app/protocol/wire/sse.py splits as the SSE
    standard says.
    """
    names = {node.attr for node in ast.walk(parse(module)) if isinstance(node, ast.Attribute)}

    assert not names & {"aiter_lines", "iter_lines"}


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "."


def _allowed(name: str) -> bool:
    return any(name == allowed or name.startswith(f"{allowed}.") for allowed in ALLOWED)


def _effects(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.AsyncFunctionDef() | ast.Await() | ast.AsyncFor() | ast.AsyncWith():
                yield f"line {node.lineno}: waits"
            case ast.Call(func=ast.Name(id="open" | "print" | "input" as name)):
                yield f"line {node.lineno}: {name}()"
            case ast.Call(func=ast.Attribute(attr=name)) if name in CLOCKS:
                yield f"line {node.lineno}: .{name}()"
            case _:
                pass
