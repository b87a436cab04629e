"""What a built-in tool is called stands in its own module; others read it from there, and names are not repeated."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from app.discovery import constants
from app.tools.ports.tool import ToolSpec
from tests.architecture.sources import MODULES, parse

NAMES = frozenset(
    name for spec in constants("app.tools", "TOOL", ToolSpec).values() for name in (spec.type, *spec.aliases)
)
OWN = ("app/tools/", "app/protocol/wire/")
"""Where names belong: the tools themselves, and the shapes of the API."""
VENDORS = frozenset({"code_interpreter", "image_search", "web_extractor", "web_search", "web_search_image"})
"""The tools that Qwen's vendor runs itself."""
ELSEWHERE: Mapping[str, frozenset[str]] = {
    # Messages for people recommend a tool.
    "app/api/unserved.py": frozenset({"web_search_image"}),
    "app/engine/hosted/sessions.py": frozenset({"mcp"}),
    "app/engine/request/client_entries.py": frozenset({"code_interpreter"}),
    "app/settings.py": frozenset({"code_interpreter", "image_search", "web_search"}),
    # The vendor's tools, and the functions that it mistakes for them.
    "app/settings_sections.py": VENDORS,
    "app/providers/responses/native.py": VENDORS | {"file_search", "mcp"},
    # A client's function of such a name has another one upstream. This must stay as it is, for what is stored; the
    # functions of new tools begin with `tool__`, which is reserved for them.
    "app/engine/conversation/function_names.py": VENDORS | {"file_search", "mcp"},
    # Items that clients send are read even if this gateway does not have the tool.
    "app/engine/conversation/sent_items.py": VENDORS,
}


def test_names_of_tools_are_not_repeated() -> None:
    found: dict[str, set[str]] = defaultdict(set)
    for module in MODULES:
        if module.startswith("app/") and not module.startswith(OWN):
            for text in _texts(parse(module)):
                found[module] |= NAMES & set(re.findall(r"\w+", text))

    assert {module: names for module, names in found.items() if names} == ELSEWHERE


def _texts(tree: ast.Module) -> Iterator[str]:
    """All strings except documentation."""
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value
