"""Small files, small and light functions, few parameters."""

from __future__ import annotations

import ast

import pytest

from tests.architecture.sources import MODULES, ROOT, parse

FILE_LINES = 400
FUNCTION_LINES = 40
PARAMETERS = 6
FUNCTION_NODES, USUAL_NODES = 300, 150
"""Nodes of the syntax tree: what a function weighs, however its lines are broken."""


@pytest.mark.parametrize("module", MODULES)
def test_file_is_small(module: str) -> None:
    lines = len((ROOT / module).read_text(encoding="utf-8").splitlines())

    assert lines <= FILE_LINES, f"{module}: {lines} lines, at most {FILE_LINES}"


@pytest.mark.parametrize("module", MODULES)
def test_functions_are_small(module: str) -> None:
    functions = [node for node in ast.walk(parse(module)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]

    too_large = [complaint for function in functions for complaint in _complaints(module, function)]

    assert not too_large, "\n".join(too_large)


def _complaints(module: str, function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    where = f"{module}:{function.lineno} {function.name}"
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    named = [
        a.arg
        for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
        if a.arg not in {"self", "cls"}
    ]
    sizes = (
        (lines, "lines", FUNCTION_LINES),
        (len(named), "parameters", PARAMETERS),
        (_weight(function), "nodes", FUNCTION_NODES),
    )
    return [f"{where}: {size} {what}, at most {limit}" for size, what, limit in sizes if size > limit]


def test_most_functions_are_light() -> None:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    weights = sorted(
        _weight(node) for module in MODULES for node in ast.walk(parse(module)) if isinstance(node, functions)
    )

    assert weights[len(weights) * 9 // 10] <= USUAL_NODES


def _weight(function: ast.AST) -> int:
    return sum(1 for _ in ast.walk(function))


@pytest.mark.parametrize("module", MODULES)
def test_conditional_expressions_are_not_nested(module: str) -> None:
    conditions = [node for node in ast.walk(parse(module)) if isinstance(node, ast.IfExp)]

    assert not [
        f"line {one.lineno}"
        for one in conditions
        if any(isinstance(part, ast.IfExp) for part in ast.walk(one) if part is not one)
    ]
