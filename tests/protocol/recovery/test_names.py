"""A function's name as models write it: taken for the one that is meant, or for none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.protocol.recovery.client_tools import CallTarget
from app.protocol.recovery.names import resolve, sendable_name

TARGETS = {
    "ns__status": CallTarget("status", "ns"),
    "ns__list-files": CallTarget("list-files", "ns"),
    "multi_agent_v1__wait": CallTarget("wait", "multi_agent_v1"),
    "fn_search": CallTarget("search"),
    "exec_command": CallTarget("exec_command"),
    "deploy_1a2b3c4d": CallTarget("deploy_to_the_test_system", "operations"),
}
OFFERED = [*TARGETS, "mcp__Memory__read_graph", "code_interpreter"]
LETTERS = st.text(alphabet="abAB_-.:/ 1中", max_size=12)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        *((name, name) for name in OFFERED),
        ("status", "ns__status"),
        ("ns.status", "ns__status"),
        ("ns/status", "ns__status"),
        ("ns:status", "ns__status"),
        ("ns_status", "ns__status"),
        ("NS__Status", "ns__status"),
        ("functions.status", "ns__status"),
        ("functions.ns.status", "ns__status"),
        ("functions.ns__status:0", "ns__status"),
        ("list_files", "ns__list-files"),
        ("ns.listFiles", "ns__list-files"),
        ("search", "fn_search"),
        ("tools.search", "fn_search"),
        ("functions.exec_command", "exec_command"),
        ("exec-command", "exec_command"),
        ("ExecCommand", "exec_command"),
        ("exec_commandexec_command", "exec_command"),
        ("exec_command.exec_command", "exec_command"),
        ("agent.wait", "multi_agent_v1__wait"),
        ("multi_agent.wait", "multi_agent_v1__wait"),
        ("operations__deploy_to_the_test_system", "deploy_1a2b3c4d"),
        ("deploy_to_the_test_system", "deploy_1a2b3c4d"),
        ("memory:read_graph", "mcp__Memory__read_graph"),
        ("mcp__memory.read_graph", "mcp__Memory__read_graph"),
        ("read_graph", "mcp__Memory__read_graph"),
        ("code-interpreter", "code_interpreter"),
    ],
)
def test_the_function_that_is_meant_is_found(written: str, meant: str) -> None:
    assert resolve(written, OFFERED, TARGETS) == meant


@pytest.mark.parametrize(
    "written",
    [
        "",
        "stat",
        "other.status",
        "ns.other",
        "functions.",
        "statuses",
        "exec_command2",
        "中文",
        "x" * 10_000,
        "functions." * 40 + "x" + ":1" * 40,
    ],
)
def test_what_can_be_no_function_is_none(written: str) -> None:
    assert resolve(written, OFFERED, TARGETS) is None


def test_without_functions_there_is_none() -> None:
    assert resolve("f", [], {}) is None


@pytest.mark.parametrize(
    ("written", "offered", "meant"),
    [
        ("status", {"a__status": CallTarget("status", "a"), "b__status": CallTarget("status", "b")}, None),
        ("b.status", {"a__status": CallTarget("status", "a"), "b__status": CallTarget("status", "b")}, "b__status"),
        ("status", {"status": CallTarget("status"), "b__status": CallTarget("status", "b")}, "status"),
        ("functions.status", {"status": CallTarget("status"), "b__status": CallTarget("status", "b")}, "status"),
        ("search", {"fn_search": CallTarget("search"), "b__search": CallTarget("search", "b")}, "fn_search"),
        ("STATUS", {"status": CallTarget("status"), "Status": CallTarget("Status")}, None),
        ("Status", {"status": CallTarget("status"), "Status": CallTarget("Status")}, "Status"),
        ("tools.f", {"tools__f": CallTarget("f", "tools"), "f": CallTarget("f")}, "tools__f"),
    ],
)
def test_the_exact_name_wins_and_an_ambiguous_one_is_none(
    written: str, offered: dict[str, CallTarget], meant: str | None
) -> None:
    assert resolve(written, offered, offered) == meant


@given(written=LETTERS, offered=st.sets(LETTERS.filter(bool), max_size=4))
def test_whatever_is_written_only_offered_functions_are_found(written: str, offered: set[str]) -> None:
    found = resolve(written, offered, {})
    assert found is None or found in offered
    assert found == written or written not in offered


@given(st.text())
def test_any_name_can_be_made_one_that_every_upstream_takes(written: str) -> None:
    name = sendable_name(written)
    assert 0 < len(name) <= 64
    assert name.isascii()
    assert name.replace("_", "").replace("-", "").isalnum() or not name.strip("_-")
