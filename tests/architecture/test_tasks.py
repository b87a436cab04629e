"""Tasks have an owner: the supervisor of runs, or a task group that ends before the function that opened it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.architecture.sources import MODULES, parse

OWNERS = {
    "app/engine/runs/supervisor.py",
    "app/db/writer.py",  # docs/adr/0004: a group of writes belongs to many callers
}
STARTERS = {"create_task", "ensure_future", "run_coroutine_threadsafe"}


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("app/")])
def test_only_owners_start_tasks(module: str) -> None:
    assert module in OWNERS or not list(_started(parse(module)))


def test_the_owners_start_tasks() -> None:
    assert all(list(_started(parse(module))) for module in OWNERS)


def _started(tree: ast.Module) -> Iterator[int]:
    """Lines that start a task in no task group."""
    groups = {
        item.optional_vars.id
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncWith)
        for item in node.items
        if isinstance(item.optional_vars, ast.Name) and "TaskGroup" in ast.unparse(item.context_expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in STARTERS:
            owner = node.func.value
            if not (isinstance(owner, ast.Name) and owner.id in groups):
                yield node.lineno
