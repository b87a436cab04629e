"""Where the sources are, and how the architecture tests read them."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    path.relative_to(ROOT).as_posix() for package in ("app", "sandbox") for path in (ROOT / package).rglob("*.py")
)


def parse(module: str) -> ast.Module:
    """The syntax tree of a module, named by its path from the root."""
    return ast.parse((ROOT / module).read_text(encoding="utf-8"), filename=module)
